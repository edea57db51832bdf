"""The audited tables are the reference's, the page is what the command prints, and bad tables are refused."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import main
from harness.commands.table import read_printed_table
from harness.errors import StudyError

ROOT = Path(__file__).resolve().parents[1]
AUDITS = sorted((ROOT / "docs" / "audits").glob("*.yaml"))


def test_at_least_ten_famous_tables_are_audited():
    assert len(AUDITS) >= 10


def test_the_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]):
    main(["audit", *map(str, AUDITS)])
    printed = capsys.readouterr().out
    assert (ROOT / "docs" / "audits.md").read_text().endswith("\n" + printed)


@cache
def reference() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docs" / "reference" / "papers.yaml").read_text())


@pytest.mark.parametrize("path", AUDITS, ids=lambda path: path.stem)
def test_every_value_and_mark_is_the_references(path: Path):
    paper, table = re.search(r"papers\.yaml \((\w[\w.]*), (\w+)\)", path.read_text()).groups()  # type: ignore[union-attr]
    rows = {row["label"]: row for row in reference()["papers"][paper]["tables"][table]["rows"]}
    audited = read_printed_table(path)
    metric = "top5" if audited.metric.startswith("top-5") else "top1"
    for row in audited.rows:
        printed = rows[row.label]
        assert row.value == printed[metric], row.label
        assert row.plus_minus == printed.get("std"), row.label
        assert row.status == printed.get("status_fields", {}).get(metric, printed["status"]), row.label


def test_csv_and_yaml_of_one_table_give_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "t.csv").write_text(
        "label,value,plus_minus,runs,spread,versus\nbase,76,0.2,5,sd,none\ntrick,76.5,0.3,4,sd,base\n"
    )
    (tmp_path / "t.yaml").write_text(
        "title: t\nrows:\n  - {label: base, value: 76, plus_minus: 0.2, runs: 5, spread: sd}\n"
        "  - {label: trick, value: 76.5, plus_minus: 0.3, runs: 4, spread: sd}\n"
    )
    main(["audit", "--json", str(tmp_path / "t.csv"), str(tmp_path / "t.yaml")])
    one, other = json.loads(capsys.readouterr().out)
    assert one["rows"] == other["rows"]
    assert one["rows"][0]["improvement"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rows: []\n", "t.yaml:1: a table for the audit needs `rows`"),
        ("rows:\n  - {label: a, valu: 3}\n", "t.yaml:2: a row needs `label` and `value`"),
        ("rows:\n  - {label: a, value: x}\n", "t.yaml:2: value must be a number, got 'x'"),
        ("rows:\n  - {label: a, value: .nan}\n", "t.yaml:2: value must be a number, got nan"),
        ("rows:\n  - {label: a, value: 1, spread: sdd}\n", "unknown spread 'sdd'; did you mean 'sd'?"),
        ("rows:\n  - {label: a, value: 1, runs: 0}\n", "t.yaml:2: runs must be at least 1, got 0"),
        ("rows:\n  - {label: a, value: 1, plus_minus: -1}\n", "plus_minus must be at least 0"),
        ("rows:\n  - {label: a, value: 1}\n  - {label: a, value: 2}\n", ":3: two rows are labelled 'a'"),
        ("rows:\n  - {label: a, value: 1}\n  - {label: b, value: 2, versus: A}\n", ":3: unknown row 'A'"),
        ("rowz:\n  - {label: a, value: 1}\n", "a table for the audit needs `rows`"),
        ("rows:\n  - {label: a, value: 1}\nsmallest_efect: 1\n", "did you mean 'smallest_effect'?"),
        ("rows:\n  - {label: a, value: 1}\nassume_sd: 0.1\n", "t.yaml:3: assume_sd needs"),
        ("rows:\n  - {label: a, value: 1}\nbetter: more\n", "t.yaml:3: unknown better 'more'"),
    ],
)  # fmt: skip
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, text: str, says: str):
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(StudyError, match=re.escape(says)):
        read_printed_table(path)


def test_a_csv_with_a_ragged_line_or_a_word_for_a_number_is_refused(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("label,value\na,1,2\n")
    with pytest.raises(StudyError, match=r"t\.csv:1: a line has more cells than the header"):
        read_printed_table(path)
    path.write_text("label,value\na,1\nb,high\n")
    with pytest.raises(StudyError, match=r"t\.csv:3: value must be a number, got 'high'"):
        read_printed_table(path)
