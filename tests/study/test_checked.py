"""Every record is read by one checked reader: what is wrong counts as none, and is named."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from harness.runs import records
from harness.runs.folder import RunFolder, claim_numbers, read_claim, read_json, read_lines
from tests.conftest import of_each
from tests.ended import end
from tests.tracking.folders import run_spec

DEEP = "[" * 100_000
GOOD = {"run_id": "ab", "arm_id": "c", "seed": 0, "status": "finished", "metrics": {"top1": 50.0}}
GOOD |= {
    "steps": 3,
    "started_s": 1.0,
    "ended_s": 2.0,
    "train_loss": 0.5,
    "macs": 4.1e9,
    "energy_j": None,
}
WRONG: dict[str, tuple[Any, ...]] = {  # entry -> values that no run writes
    "run_id": (None, 1, "cd", [], "\ud800"),
    "arm_id": (None, 5, ["c"]),
    "seed": ("0", 1.5, True, 10**400, None),
    "status": (None, 3, [], {}, "failed", "\x1b[2J", "finished ", True),
    "metrics": (None, [], "x", {"top1": "99"}, {"top1": 250.0}, {"top1": -1}, {"loss": [1]}, {"f1": 10**400}),
    "steps": (None, -1, 1.5, 2**63, 10**400, "3", math.inf),
    "started_s": (None, -1.0, math.inf, math.nan, 10**400, "1", []),
    "ended_s": (None, math.inf, 1e16, {}),
    "train_time_s": ("1", -2, math.inf, True),
    "attempts": (-1, 1.5, "1"),
    "macs": (10**400, "4e9", -1),
    "train_loss": ("x", [], 10**400),
    "device": (3, [], {"a": 1}),
    "anything": ([1], {"a": 1}, 10**400, "\udc00", "x" * 1_000_001),
}


@pytest.fixture(autouse=True)
def new_command() -> None:
    records.begin()


def text_of(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def test_a_right_summary_passes_with_any_further_plain_entries(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):  # the second goes the quick way
        assert records.summary_of(text_of(note="x", flag=True), "ab", "p") is not None
    assert records.summary_of(text_of(train_loss=math.nan, energy_j=None), "ab", "p") is not None
    assert caplog.records == []


@of_each((name, index) for name, values in WRONG.items() for index in range(len(values)))
def test_a_wrong_value_in_a_summary_counts_as_none_however_often_its_like_was_right(
    wrong: tuple[str, int],
) -> None:
    name, index = wrong
    assert records.summary_of(text_of(), "ab", "p") is not None
    assert records.summary_of(text_of(**{name: WRONG[name][index]}), "ab", "p") is None
    assert records.summary_of(text_of(), "ab", "p") is not None


@of_each(["run_id", "arm_id", "status", "metrics", "steps", "started_s", "ended_s"])
def test_a_summary_without_an_entry_that_readers_need_counts_as_none(name: str) -> None:
    text = json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()
    assert records.summary_of(text, "ab", "p") is None


@pytest.mark.parametrize(
    "text", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"\x00" * 20, DEEP.encode(), b'{"status": NaN}']
)
def test_what_is_no_summary_at_all_counts_as_none(text: bytes) -> None:
    assert records.summary_of(text, "ab", "p") is None


def test_a_damaged_file_is_named_once_in_a_command_and_at_most_twenty_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(3):
        records.summary_of(b"{", "ab", "runs/ab\x1b[2J/summary.json")
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("runs/ab\\x1b[2J/summary.json is damaged (")
    assert said.endswith("counts as none: `harness run` does the run again")
    for number in range(100):
        records.note(f"file {number}", "why")
    assert len(caplog.records) == records.MOST_NAMED + 1
    assert caplog.records[-1].getMessage() == "more files are damaged; only 20 are named"
    records.begin()
    caplog.clear()
    records.note("file 1", "why")
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "value", [{"a": [10**400]}, ["\ud800"], json.loads("[" * 70 + "]" * 70), {"\udfff": 1}]
)
def test_json_that_no_record_holds_is_refused(value: Any, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"too large|half a character|nested"):
        read_json(tmp_path / "x.json")
    assert records.read_map(tmp_path / "x.json") == {}
    (tmp_path / "x.jsonl").write_text(f'{json.dumps({"kind": value})}\n{{"kind": "good"}}\n{DEEP}\n')
    assert read_lines(tmp_path / "x.jsonl") == [{"kind": "good"}]


@pytest.mark.parametrize("kind", [[], {"a": 1}, 3, None])
def test_an_event_whose_kind_is_no_text_is_left_out(kind: Any, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(f'{json.dumps({"kind": kind, "step": 1})}\n{{"kind": "good"}}\n')
    assert read_lines(tmp_path / "x.jsonl") == [{"kind": "good"}]


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "stop"},
        {"kind": "stop", "time_s": math.inf},
        {"kind": "stop", "time_s": "1"},
        {"kind": 3, "time_s": 1},
        {"kind": "epoch", "time_s": 1.0},
        {"kind": "epoch", "time_s": 1.0, "step": 2**70},
        {"kind": "x", "time_s": 1, "step": -1},
        {"kind": "attempt", "time_s": 1.0},
        {"kind": "failed", "time_s": 1, "message": json.loads("[" * 80 + "]" * 80)},
        {"kind": "x", "time_s": 1, "y": 10**400},
        [],
        None,
        3,
    ],
    ids=lambda line: str(line)[:40],
)
def test_a_line_that_is_no_event_is_left_out(line: Any) -> None:
    assert records.event_of(json.dumps(line)) is None


def test_a_spec_that_does_not_hash_to_the_name_of_its_folder_is_no_spec(tmp_path: Path) -> None:
    specs = records.Specs()
    spec = run_spec()
    folder = RunFolder(tmp_path / spec.run_id)
    end(folder, spec, metrics={"top1": 1.0})
    text = folder.spec.read_bytes()
    for _ in range(2):
        assert specs.wrong(text, spec.run_id) == ""
    other = run_spec(seed=1)
    end(RunFolder(tmp_path / other.run_id), other)
    assert specs.wrong(RunFolder(tmp_path / other.run_id).spec.read_bytes(), other.run_id) == ""
    assert specs.wrong(text, other.run_id) == "it is another run's"
    for edited in (
        text.replace(b'"seed": 0', b'"seed": 7'),
        text.replace(b"0.1", b"0.2"),
        text[:-20],
        b"{}",
        b"",
    ):
        assert specs.wrong(edited, spec.run_id) != ""
        folder.spec.write_bytes(edited)
        assert folder.read_summary() is None
    folder.spec.write_bytes(text)
    assert folder.read_summary() is not None


@pytest.mark.parametrize("kind", ["folder", "pipe", "endless"])
def test_what_is_no_plain_file_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "endless": lambda: path.symlink_to("/dev/zero")}[
        kind
    ]()
    with pytest.raises(OSError, match="it is no plain file"):
        records.read_quickly(path)


def test_a_claim_with_a_number_or_values_that_no_process_writes(tmp_path: Path) -> None:
    for name in ("claim.1", "claim.99999999999999999999999999", "claim.x", "claim.-1", "claim.²"):
        (tmp_path / name).touch()
    assert claim_numbers(tmp_path) == [1]
    said = {"host": "h\x1b[2J" * 200, "pid": 2**31, "process_start": -1, "time_s": math.inf, "job": [1]}
    (tmp_path / "claim.1").write_text(json.dumps(said))
    holder = read_claim(tmp_path, 1)
    assert holder is not None
    assert (holder.pid, holder.process_start, holder.time_s, holder.job) == (None, None, None, None)
    assert "\x1b" not in holder.place
    assert len(holder.place) < 2000
    assert not holder.is_gone()
