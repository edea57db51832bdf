"""What `--json` prints is what docs/json.md says: the same keys, each with a value of the documented kind."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cli import build_parser
from harness.commands.workspace import Workspace
from harness.runs.folder import append_line, write_json
from harness.runs.state import LookRecord, write_blocks
from tests.end_to_end.conftest import begin
from tests.end_to_end.identical import make_identical_runs
from tests.end_to_end.under_way import UnderWay
from tests.end_to_end.workplace import ROOT, Workplace

PAGE = ROOT / "docs" / "json.md"


def documented(page: str, command: str) -> dict[str, str]:
    """Key -> kind of value, from the table of a command's section."""
    section = page.split(f"## harness {command} --json\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", section, re.M))


def emitted(value: Any, keys: dict[str, str], path: str = "") -> Iterator[tuple[str, Any]]:
    """(key as the page writes it, value) of all of an output. A map is entered where the page lists its keys.

    A key of a map that the page writes as a placeholder, such as <arm_id>, becomes that placeholder.
    """
    if path:
        yield path, value
    if isinstance(value, list):
        for entry in value:
            if isinstance(entry, dict):
                yield from emitted_map(entry, keys, f"{path}[]")
    elif isinstance(value, dict):
        yield from emitted_map(value, keys, path)


def emitted_map(value: dict[str, Any], keys: dict[str, str], path: str) -> Iterator[tuple[str, Any]]:
    inside = f"{path}." if path else ""
    if inside and not any(key.startswith(inside) for key in keys):
        return  # a map whose keys depend on the study
    names = {key.removeprefix(inside).split(".")[0] for key in keys if key.startswith(inside)}
    placeholder = next((name for name in names if name.startswith("<")), None)
    for name, entry in value.items():
        yield from emitted(entry, keys, f"{inside}{placeholder or name}")


def is_kind(value: Any, kinds: str) -> bool:
    """Whether a value is of one of the kinds, written as in `text or null`."""
    return any(is_one_kind(value, kind) for kind in kinds.replace("true or false", "bool").split(" or "))


def is_one_kind(value: Any, kind: str) -> bool:
    if kind.startswith("list of "):
        inner = kind.removeprefix("list of ").removesuffix("s")
        return isinstance(value, list) and all(is_one_kind(entry, inner) for entry in value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        "text": isinstance(value, str),
        "whole number": number and isinstance(value, int),
        "number": number,
        "bool": isinstance(value, bool),
        "null": value is None,
        "map": isinstance(value, dict),
        "list": isinstance(value, list),
    }[kind]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Command -> outputs that together have every key; one study in the folder is faulty."""
    fresh = begin_with_a_faulty_study(tmp_path_factory.mktemp("json") / "fresh")
    bag_of_tricks = str(ROOT / "studies" / "bag_of_tricks.yaml")
    return {
        "plan": [fresh.json("plan", "tiny.yaml"), fresh.json("plan", bag_of_tricks, "--size", "paper")],
        **under_way(tmp_path_factory.mktemp("json") / "under_way"),
        "doctor": [json.loads(fresh.call("doctor", "--json").stdout)],
        "audit": [fresh.json("audit", str(ROOT / "docs" / "audits" / "bag_of_tricks_table6.yaml"))],
        "calibrate": [calibration(fresh)],
        "tricks": [fresh.json("tricks")],
        "models": [fresh.json("models")],
        "data": [fresh.json("data")],
        "studies": [fresh.json("studies", ".")],
    }


def begin_with_a_faulty_study(folder: Path) -> Workplace:
    place = begin(folder)
    (place.path / "faulty.yaml").write_text("study: faulty\n")
    return place


def calibration(fresh: Workplace) -> Any:
    """What is said of runs of the shipped calibration study."""
    runs_dir = fresh.path / "identical"
    make_identical_runs(Workspace(runs_dir=runs_dir, data_dir=fresh.path / "data", tracking_uri=None), 12)
    small = ("--trainings", "12", "--arms", "3", "--tables", "50", "--runs", str(runs_dir))
    return fresh.json("calibrate", *small)


def under_way(folder: Path) -> dict[str, list[Any]]:
    """What is said of a study with a run that failed, one that was submitted and an agent that had it."""
    study = UnderWay.begin(folder)
    place = Workplace(folder)
    failed = study.attempt("Baseline", 0)
    write_json(failed.spec, study.plan.spec(study.run("Baseline", 0)).to_json())
    submission = study.submit("0123456789ab", jobs={"g1.0": "11", "g2.0": "12", "g3.0": "13"})
    failed.append_event("failed", message="x", traceback="y")
    event = {"kind": "started", "time_s": 1.0, "array_job_id": "12", "array_task_id": "0"}
    append_line(submission.folder / "agents" / "907.jsonl", event)
    append_line(submission.folder / "agents" / "907.jsonl", {"kind": "run_started", "run_id": failed.run_id})
    (submission.folder / "logs" / "12_0_0.out").write_text("hello\n")
    return {
        "status": [place.json("status", "tiny.yaml"), adaptive_status(study, place)],
        "logs": [place.json("logs", failed.run_id)],
        "list": [place.json("list")],
        "cancel": [json.loads(place.call("cancel", "tiny.yaml", "--row", "Baseline", "--json").stdout)],
    }


def adaptive_status(study: UnderWay, place: Workplace) -> Any:
    """What is said of the study with looks, of which one was taken."""
    look = LookRecord(seeds=2, settled=1, comparisons=2, says="look 1 of 2")
    write_blocks(study.runs_dir, study.plan_with(seeds=(2, 3)), [look])
    return place.json("status", "tiny.yaml", "--seeds", "2..3")


@pytest.mark.campaign
def test_every_emitted_key_is_documented_with_its_kind_and_every_documented_key_is_emitted(outputs):
    page = PAGE.read_text()
    assert set(re.findall(r"^## harness (\w+) --json$", page, re.M)) == set(outputs) == commands_with_json()
    for command, values in outputs.items():
        keys = documented(page, command)
        found = [pair for value in values for pair in emitted(value, keys)]
        names = {name for name, _ in found if name != "[]"}
        assert names == set(keys), command
        wrong = [(name, value) for name, value in found if name in keys and not is_kind(value, keys[name])]
        assert wrong == [], command


def test_a_study_with_mistakes_is_listed_with_them_and_the_others_without(tmp_path: Path):
    faulty, tiny = begin_with_a_faulty_study(tmp_path / "fresh").json("studies", ".")
    assert set(faulty) == {"file", "error"}
    assert "faulty.yaml:1: " in faulty["error"]
    assert "error" not in tiny
    assert (tiny["tables"], tiny["arms"], tiny["runs"]) == (1, 3, 6)


def test_status_counts_the_states_of_the_runs(copy: Workplace):
    (copy.runs_dir / next(iter(copy.runs())) / "summary.json").unlink()
    status = copy.json("status", "tiny.yaml")
    assert status["counts"] == {"finished": 5, "stopped": 1}
    assert sorted(run["state"] for run in status["runs"]) == ["finished"] * 5 + ["stopped"]


def commands_with_json() -> set[str]:
    parser = build_parser()
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {name for name, sub in commands.choices.items() if "--json" in sub.format_help()}


@pytest.mark.parametrize(
    ("value", "kinds", "right"),
    [
        ("a", "text", True),
        (None, "text", False),
        (None, "text or null", True),
        (1, "number", True),
        (1.5, "whole number", False),
        (True, "whole number", False),
        (True, "true or false", True),
        (["a", 1], "list of text", False),
        ([1, 2], "list of whole numbers", True),
        ({}, "text or map", True),
        ({}, "list", False),
    ],
)
def test_kinds_are_told_apart(value, kinds, right):
    assert is_kind(value, kinds) is right


def test_an_undocumented_key_and_one_that_is_never_emitted_would_be_seen():
    page = "## harness x --json\n\n| `a[].b` | text | |\n| `a` | list | |\n| `m.<id>.c` | text | |\n"
    keys = documented(page, "x")
    found = dict(emitted({"a": [{"new": 1}], "m": {"1": {"c": "text"}, "2": {"c": "text"}}}, keys))
    assert set(found) == {"a", "a[].new", "m", "m.<id>", "m.<id>.c"}
