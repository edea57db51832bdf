"""The benchmark of `harness table`, in small."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_table

from tests.benchmarks.test_reliability import rows_of


@pytest.mark.campaign
def test_every_shape_is_timed_and_weighed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(bench_table, ["--shapes", "2x3", "--repeats", "1"], tmp_path, monkeypatch)
    assert list(rows) == [f"6 lines, 2 rows: {what}" for what in ("CPU", "wall", "memory")]
    cpu, wall, memory = (row["median"] for row in rows.values())
    assert 0.1 < cpu < 60
    assert wall > 0.1
    assert 50 < memory < 1024


def test_reports_of_other_bytes_are_named(tmp_path: Path) -> None:
    for name, text in (("one", "a"), ("other", "b")):
        (tmp_path / name / "tables").mkdir(parents=True)
        (tmp_path / name / "tables" / "t.csv").write_text(text)
        (tmp_path / name / "same.md").write_text("as it was")
    (tmp_path / "other" / "more.md").write_text("")
    found = bench_table.differences(tmp_path / "one", tmp_path / "other")
    assert sorted(found) == ["more.md", "tables/t.csv"]
    assert bench_table.write_results(tmp_path / "r.csv", 2, 3).read_text().count("\n") == 7
