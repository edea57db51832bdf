"""What users rely on does not change with the code's rooms: run ids, plans as JSON, and records of runs.

`tests/golden/promises.json` was written before the first file moved. After a change that is meant:
`python -m tests.test_promises`, and a decision note.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from harness.commands.workspace import build_catalogue, load_plugins
from harness.reporting.frames import unpacked
from harness.study.expand import ExpandOptions, expand, load_study

REPOSITORY = Path(__file__).parents[1]
GOLDEN = REPOSITORY / "tests" / "golden" / "promises.json"
STUDIES = sorted(path.stem for path in (REPOSITORY / "studies").glob("*.yaml"))


def digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def promises_of(study: str) -> dict[str, Any]:
    """Size -> how many runs, and a digest of their ids."""
    file = REPOSITORY / "studies" / f"{study}.yaml"
    catalogue = build_catalogue(REPOSITORY / "no-data", load_plugins(file))
    loaded = load_study(file, catalogue)
    found = {}
    for size in loaded.file.sizes:
        plan = expand(loaded, catalogue, ExpandOptions(size=size))
        ids = [run.run_id for run in plan.runs]
        found[size] = {"runs": len(ids), "ids": digest(sorted(ids)), "order": digest(ids)}
    return found


@cache
def layout_of(report: str) -> dict[str, Any]:
    """The columns of a report's records, and the keys of its report.json."""
    folder = REPOSITORY / "reports" / report
    _, files = unpacked(folder)
    first = json.loads(files["runs.jsonl"].decode().splitlines()[0])
    return {"record": sorted(first), "report": sorted(json.loads((folder / "report.json").read_bytes()))}


def promises() -> dict[str, Any]:
    return {"studies": {study: promises_of(study) for study in STUDIES}, "layout": layout_of("mixup")}


@pytest.mark.parametrize("study", STUDIES)
def test_every_run_has_the_id_it_had(study: str):
    assert promises_of(study) == json.loads(GOLDEN.read_text())["studies"][study]


def test_records_and_reports_have_the_keys_they_had():
    assert layout_of("mixup") == json.loads(GOLDEN.read_text())["layout"]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(promises(), indent=1) + "\n")
