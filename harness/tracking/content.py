"""What of a run folder goes into MLflow, read once and checked. Plain data, no MLflow."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.runs.folder import RunFolder, read_json, run_state
from harness.runs.records import event_of, is_number, read_map, read_quickly, reason
from harness.spec import ENDED, FAILED, AnyRun, spec_from_json

# Whether the files of a run folder say what they should, before any of it goes into MLflow.
#
# Run folders stand on disks that fill up, and are written by processes that are killed. A folder that
# cannot be read is named, with the mend, and the others are mirrored.


NAME = re.compile(r"[A-Za-z0-9_./ -]{1,250}")  # of a metric, as MLflow takes it


class Damaged(ValueError):
    """A file of a run folder is not what a run writes. The message names it and the mend."""

    def __init__(self, path: Path, what: str, mend: str) -> None:
        super().__init__(f"{path} {what}; {mend}")


def checked_spec(folder: RunFolder, data: Any) -> AnyRun:
    """The spec of the folder.

    Raises:
        Damaged: it cannot be read, or is another run's.
    """
    mend = "`harness run` of a study that wants the run writes it again"
    try:
        spec = spec_from_json(data)
        run_id = spec.run_id
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(folder.spec, f"is not the spec of a run ({reason(error)})", mend) from None
    if run_id != folder.run_id:
        raise Damaged(folder.spec, f"is the spec of another run, {run_id}", mend)
    return spec


def check_predictions(folder: RunFolder, summary: Mapping[str, Any]) -> None:
    """Raises:
    Damaged: the predictions are not those of the summary.
    """
    wanted = summary.get("predictions_sha256")
    if wanted is None:
        return
    mend = f"move {folder.summary.name} away and `harness run` does the run again"
    try:
        found = hashlib.sha256(read_quickly(folder.predictions)).hexdigest()
    except OSError as error:
        raise Damaged(folder.predictions, f"cannot be read ({reason(error)})", mend) from None
    if found != wanted:
        raise Damaged(folder.predictions, "has changed since the run ended", mend)


def is_metric(name: str) -> bool:
    """Whether MLflow takes it as the name of a curve."""
    return NAME.fullmatch(name) is not None


def clean(text: str) -> str:
    """The text without what a database cannot keep: NUL, and halves of characters."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


# What of a run folder goes into MLflow: parameters, curve points, tags, status. Plain data, no MLflow.


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
class CurvePoint:
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


def curve_points(events: Iterable[Mapping[str, Any]]) -> list[CurvePoint]:
    """Every number of every epoch line, with the line's own step and time.

    A repeated mirror gives the same points, which MLflow stores once: their step and time are in its key.
    """
    return [
        CurvePoint(name, int(event["step"]), round(event["time_s"] * 1000), float(value))
        for event in events
        if event["kind"] == "epoch"
        for name, value in event.items()
        if name not in NOT_METRICS and is_number(value) and is_metric(name)
    ]


def final_points(summary: Mapping[str, Any]) -> list[CurvePoint]:
    """The results of an ended run, at its last step."""
    values = {**summary["metrics"], **{name: summary.get(name) for name in FINAL_METRICS}}
    when = round(summary["ended_s"] * 1000)
    return [
        CurvePoint(name, int(summary["steps"]), when, float(value))
        for name, value in values.items()
        if is_number(value) and is_metric(name)
    ]


def parameters(spec: Mapping[str, Any]) -> dict[str, str]:
    """The recipe, flattened: `lr`, `model`, `model.width`, `augment.flip`, ..., `tricks`, `mixup.alpha`.

    `teacher`, `source` and `observes` name other arms; `observes` is the number of runs of each.
    """
    arm = spec["arm"]
    if "command" in arm:
        of_script = {
            "command": shlex.join(arm["command"]),
            "repository": arm["repository"],
            "seed": spec["seed"],
        }
        of_script |= {**_flatten("results", arm["results"]), **_flatten("files", _as_names(arm["files"]))}
        return {key: _shortened(clean(_text(value))) for key, value in of_script.items()}
    flat: dict[str, Any] = {"seed": spec["seed"], "teacher": arm["teacher"], "source": arm["source"]}
    flat["observes"] = ", ".join(f"{each['runs']} x {each['arm']}" for each in arm["observes"]) or "none"
    flat |= _flatten("plugins", arm["plugins"])
    for key, value in arm["recipe"].items():
        if key == "lr_scale":  # names of parts may have * and ?, which MLflow does not take
            value = ", ".join(f"{part} x {scale:g}" for part, scale in sorted(value.items()))
        flat |= _named(key, value) if key in ("model", "data") else _flatten(key, value)
    flat["tricks"] = ", ".join(trick["name"] for trick in arm["tricks"]) or "none"
    for trick in arm["tricks"]:
        flat |= _flatten(trick["name"], trick["options"])
    return {key: _shortened(clean(_text(value))) for key, value in flat.items()}


def _as_names(files: Mapping[str, str]) -> dict[str, str]:
    """Paths as MLflow takes them in the name of a parameter."""
    return {re.sub(r"[^A-Za-z0-9_./ -]", "_", name): digest for name, digest in files.items()}


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


# A run folder read once: everything that one update of its MLflow run needs.


DIGEST = 16  # hexadecimal digits of the summary's sha256 that a marker keeps
ROWS_LENGTH = 7500  # characters of a tag; MLflow's limit for a tag is 8,000

Cells = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a run folder holds beyond `Tail.offset` of the last update."""

    folder: RunFolder
    spec: Mapping[str, Any]
    arm_id: str
    summary: Mapping[str, Any] | None
    tail: Tail
    marker: Marker
    digest: str  # sha256 of the summary, "" without one
    rows: str  # the cells that the run answers, as JSON
    env: str = ""  # what it was made with, as JSON; "": not recorded (yet)

    @property
    def points(self) -> list[CurvePoint]:
        """The new part of the curves, and the results of an ended run."""
        final = final_points(self.summary) if self.summary is not None else []
        return curve_points(self.tail.events) + final

    @property
    def started_ms(self) -> int:
        """When the run began, from its record."""
        return round((self.summary["started_s"] if self.summary else min(self._times())) * 1000)

    @property
    def ended_ms(self) -> int:
        """When the run ended, or was last heard of."""
        return round((self.summary["ended_s"] if self.summary else max(self._times())) * 1000)

    def identity(self, study: str, size: str) -> dict[str, str]:
        """Tags that never change: by these the MLflow run is found again."""
        return {
            "study": study,
            "size": size,
            "run_id": self.folder.run_id,
            "arm_id": self.arm_id,
            "seed": str(self.spec["seed"]),
        }

    def description(self) -> dict[str, str]:
        """Tags of this moment, in any order."""
        ended = ended_tags(self.summary, self.digest) if self.summary is not None else {}
        env = {"env": self.env} if self.env else {}
        return {**describing_tags(self.tail.events), **ended, **env, "rows": self.rows}

    def conclusion(self) -> dict[str, str]:
        """Tags that may be written only when everything else is: how far the mirror has come."""
        return {"status": self.marker.state, "mirrored": self.marker.to_text()}

    def title(self) -> str:
        """The name of the MLflow run: the first cell it answers, and its seed."""
        cells = json.loads(self.rows)
        where = " / ".join(str(value) for value in cells[0].values() if value) if cells else self.arm_id[:8]
        return f"{where} / seed {self.spec['seed']}"

    def _times(self) -> list[float]:
        return _times(self.folder)


def read_change(folder: RunFolder, since: Marker | None, cells: Cells) -> Change | None:
    """What is new in the folder; None where there is no spec or no event yet.

    Raises:
        Damaged: a file of it is not what a run writes; the message says what to do.
    """
    if not folder.has_spec():
        return None
    data = read_json(folder.spec)
    summary, digest = folder.read_end()
    if summary is None and not _times(folder):
        return None  # a worker that has just begun holds the lock before it writes its first event
    if summary is not None:
        check_predictions(folder, summary)
    state = state_of(folder, summary)
    tail = read_tail(folder, since.offset if since else 0)
    arm_id = checked_spec(folder, data).arm.arm_id
    return Change(
        folder=folder,
        spec=data,
        arm_id=arm_id,
        summary=summary,
        tail=tail,
        digest=digest,
        marker=Marker(offset=tail.offset, state=state, summary=digest[:DIGEST]),
        rows=rows_text(cells.get(arm_id, ())),
        env=env_text(folder) if summary is not None else "",
    )


def _times(folder: RunFolder) -> list[float]:
    return [event["time_s"] for event in folder.read_events()]


def was_replaced(folder: RunFolder, since: Marker) -> bool:
    """Whether the folder is not the one that was mirrored: other results after the end, or fewer events."""
    length = folder.events.stat().st_size if folder.events.exists() else 0
    return length < since.offset or (since.has_ended and folder.read_end()[1][:DIGEST] != since.summary)


def env_text(folder: RunFolder) -> str:
    """env.json on one line; "" where there is none, or none that a tag can hold."""
    data = read_map(folder.env)
    text = json.dumps(data, sort_keys=True, separators=(",", ":")) if data else ""
    return text if len(text) <= ROWS_LENGTH else ""


def rows_text(cells: Sequence[Mapping[str, Any]]) -> str:
    """The cells as JSON; the last ones of a list too long for a tag are left out."""
    kept = [dict(cell) for cell in cells]
    while len(text := json.dumps(kept)) > ROWS_LENGTH:
        kept = kept[: len(kept) // 2]
    return text
