"""What of a run folder goes into MLflow: parameters, curve points, tags, status. Plain data, no MLflow."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.study.checked import event_of, is_number, read_quickly
from harness.study.records import ENDED, FAILED, RunFolder, run_state
from harness.tracking.intact import clean, is_metric

FRESH_S = 90.0  # a run without a lock file (another machine's) counts as running this long after an event
NOT_METRICS = frozenset({"kind", "time_s", "step", "attempt"})
FINAL_METRICS = ("train_time_s", "eval_time_s", "wall_time_s")
MLFLOW_STATUS = {  # every outcome: FINISHED
    "running": "RUNNING",
    FAILED: "FAILED",
    "stopped": "KILLED",
    "cancelled": "KILLED",
}
LONGEST_VALUE = 4000  # characters of an error message
LONGEST_PARAMETER = 250  # characters that every server keeps; spec.json, among the artifacts, has all of them
LONGEST_TAG = 4900  # characters that every server keeps
MLFLOW_TAG = 8000  # characters to which MLflow's newer servers cut a tag
CUT = " ... (see spec.json)"
IN_ARTIFACT = (
    "summary.json "  # in place of a summary that no tag holds: the artifact that does, and its sha256
)


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """One value of a curve."""

    name: str
    step: int
    time_ms: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The events that are new since `Marker.offset`, and where they end (bytes)."""

    events: tuple[dict[str, Any], ...]
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """How far a run has been mirrored. Kept as a tag of the MLflow run, written after everything else."""

    offset: int  # bytes of events.jsonl
    state: str
    summary: str  # digest of summary.json, "" without one

    def to_text(self) -> str:
        return f"{self.offset} {self.state} {self.summary}"

    @staticmethod
    def from_text(text: str) -> Marker:
        offset, state, summary = text.split(" ")
        return Marker(offset=int(offset), state=state, summary=summary)

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


def marker_of(tags: Mapping[str, str]) -> Marker | None:
    """How far the run with these tags has been mirrored; None where one is lost, so that it is done again."""
    needed = ["mirrored", "arm_id", "seed"]
    try:
        marker = Marker.from_text(tags.get("mirrored", ""))
    except ValueError:
        return None
    if marker.has_ended:
        needed += ["status", "summary"]
    if not all(name in tags for name in needed) or was_cut(tags.get("summary", "")):
        return None
    return marker


def was_cut(summary: str) -> bool:
    """Whether a store keeps a part of a summary only: an earlier version wrote one that was too long."""
    return len(summary) >= MLFLOW_TAG or (
        bool(summary) and not summary.endswith("}") and not summary.startswith(IN_ARTIFACT)
    )


def read_tail(folder: RunFolder, offset: int) -> Tail:
    """The complete event lines after `offset` bytes; what a crash cut off is left for later, or left out."""
    try:
        data = read_quickly(folder.events)[offset:]
    except (FileNotFoundError, NotADirectoryError):
        return Tail(events=(), offset=offset)
    complete = data[: data.rfind(b"\n") + 1]
    lines = (event_of(line) for line in complete.split(b"\n"))
    return Tail(events=tuple(event for event in lines if event is not None), offset=offset + len(complete))


def state_of(folder: RunFolder, summary: Mapping[str, Any] | None) -> str:
    """`run_state`, and `running` also where another machine's run has written an event just now."""
    if summary is not None:
        return str(summary["status"])
    state = run_state(folder)
    if state != "stopped" or folder.lock.exists():
        return state
    last = folder.read_events()[-1]
    is_fresh = last["kind"] != "stop" and time.time() - last["time_s"] < FRESH_S
    return "running" if is_fresh else state


def mlflow_status(state: str) -> str:
    """MLflow's word. A diverged run has ended as it should: FINISHED; the tag `status` says diverged."""
    return MLFLOW_STATUS.get(state, "FINISHED")


def curve_points(events: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Every number of every epoch line, with the line's own step and time.

    A repeated mirror gives the same points, which MLflow stores once: their step and time are in its key.
    """
    return [
        Point(name, int(event["step"]), round(event["time_s"] * 1000), float(value))
        for event in events
        if event["kind"] == "epoch"
        for name, value in event.items()
        if name not in NOT_METRICS and is_number(value) and is_metric(name)
    ]


def final_points(summary: Mapping[str, Any]) -> list[Point]:
    """The results of an ended run, at its last step."""
    values = {**summary["metrics"], **{name: summary.get(name) for name in FINAL_METRICS}}
    when = round(summary["ended_s"] * 1000)
    return [
        Point(name, int(summary["steps"]), when, float(value))
        for name, value in values.items()
        if is_number(value) and is_metric(name)
    ]


def parameters(spec: Mapping[str, Any]) -> dict[str, str]:
    """The recipe, flattened: `lr`, `model`, `model.width`, `augment.flip`, ..., `tricks`, `mixup.alpha`.

    `teacher`, `source` and `observes` name other arms; `observes` is the number of runs of each.
    """
    arm = spec["arm"]
    flat: dict[str, Any] = {"seed": spec["seed"], "teacher": arm["teacher"], "source": arm["source"]}
    flat["observes"] = ", ".join(f"{each['runs']} x {each['arm']}" for each in arm["observes"]) or "none"
    flat |= _flatten("plugins", arm["plugins"])
    for key, value in arm["recipe"].items():
        flat |= _named(key, value) if key in ("model", "data") else _flatten(key, value)
    flat["tricks"] = ", ".join(trick["name"] for trick in arm["tricks"]) or "none"
    for trick in arm["tricks"]:
        flat |= _flatten(trick["name"], trick["options"])
    return {key: _shortened(clean(_text(value))) for key, value in flat.items()}


def describing_tags(events: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Tags that are known before a run ends; `events` are the newest ones."""
    tags = {}
    for event in events:
        if event["kind"] == "attempt":
            tags["attempts"] = str(event["attempt"])
            tags["device"] = clean(str(event.get("device_name", event["device"])))[:LONGEST_VALUE]
        if event["kind"] == FAILED:
            tags["error"] = clean(str(event.get("message", "")))[:LONGEST_VALUE]
    return tags


def ended_tags(summary: Mapping[str, Any], digest: str) -> dict[str, str]:
    """Tags of an ended run; `summary` has the whole of it, so that floats come back exactly, or says which
    artifact has. `digest`: the sha256 of the file."""
    names = ("attempts", "data_fingerprint", "device", "torch")
    tags = {name: clean(str(summary[name]))[:LONGEST_VALUE] for name in names if name in summary}
    whole = json.dumps(summary, sort_keys=True, separators=(",", ":"))
    return {**tags, "summary": whole if len(whole) <= LONGEST_TAG else f"{IN_ARTIFACT}{digest}"}


def artifacts(folder: RunFolder) -> list[str]:
    """Paths of the files that travel: what a report needs, and how the run was made."""
    paths = (folder.spec, folder.env, folder.summary, folder.predictions)
    return [str(path) for path in paths if path.is_file()]


def _named(key: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """{"name": "resnet50", "args": {"width": 1}, ...} -> {"model": "resnet50", "model.width": 1, ...}"""
    rest = {name: item for name, item in value.items() if name not in ("name", "args")}
    return {key: value["name"], **_flatten(key, rest), **_flatten(key, value["args"])}


def _flatten(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {key: value}
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flatten(f"{key}.{name}", item)
    return flat


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_PARAMETER:
        return text
    return text[: LONGEST_PARAMETER - len(CUT)] + CUT
