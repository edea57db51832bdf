"""A run folder read once: everything that one update of its MLflow run needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.study.checked import read_map
from harness.study.records import RunFolder, read_json
from harness.tracking.intact import check_predictions, checked_spec
from harness.tracking.runs import (
    Marker,
    Point,
    Tail,
    curve_points,
    describing_tags,
    ended_tags,
    final_points,
    read_tail,
    state_of,
)

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
    def points(self) -> list[Point]:
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


def _read_spec(folder: RunFolder) -> Any:
    try:
        return read_json(folder.spec)
    except (ValueError, RecursionError, OSError):
        return "nothing that can be read"


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
