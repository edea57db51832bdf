"""The event lines of one attempt at a run, appended to events.jsonl."""

from __future__ import annotations

from typing import Any

from harness.data.base import DataSet
from harness.study.machine import Machine
from harness.study.other_data import set_aside
from harness.study.records import FolderGone, RunFolder
from harness.training.lock import identity_of

UNREADABLE = "evaluation_failed"


class Journal:
    """Writes events; knows from earlier attempts what has been said already.

    Kinds of event: attempt, epoch, checkpoint, checkpoint_refused, evaluated, evaluation_failed, stop,
    diverged, end.
    """

    def __init__(self, folder: RunFolder) -> None:
        """Open the journal of a run whose lock is held; removes what a killed attempt left half-written."""
        self._folder, self._lock = folder, identity_of(folder.lock)
        self._read()

    def _read(self) -> None:
        folder = self._folder
        _drop_cut_line(folder)
        _drop_drafts(folder)
        events = folder.read_events()
        self.attempt = 1 + sum(event["kind"] == "attempt" for event in events)
        self._epoch_step = max((event["step"] for event in events if event["kind"] == "epoch"), default=0)
        self.started_s = min((event["time_s"] for event in events), default=None)
        attempts = [event for event in events if event["kind"] == "attempt"]
        last = attempts[-1] if attempts else {}
        self.data, self.train_data = last.get("data"), last.get("train_data")  # fingerprints; None: not said
        kinds = [event["kind"] for event in events]
        self._could_not_evaluate = (
            UNREADABLE in kinds[-1 - kinds[::-1].index("attempt") :] if attempts else False
        )

    def see(self, data: DataSet) -> bool:
        """This attempt has these data. What an earlier one left behind on others is set aside, and the run
        begins anew. Only where that one could not evaluate, and the training images are the same, the run
        goes on: its test images were mended.

        Returns:
            whether test images were mended.
        """
        changed = self.data not in (None, data.fingerprint)
        mended = changed and self._could_not_evaluate and self.train_data == data.part_fingerprints[0]
        if changed and not mended:
            self.require_folder()
            set_aside(self._folder, str(self.data))
            self._read()
        self.data, self.train_data = data.fingerprint, data.part_fingerprints[0]
        return mended

    def require_folder(self) -> None:
        """To be called before anything is written: a folder that was deleted is never made anew, and nothing
        ends in one that another process made.

        Raises:
            FolderGone: this is not the folder any more in which the attempt began.
        """
        if identity_of(self._folder.lock) != self._lock:
            raise FolderGone(self._folder.path)

    def start(self, machine: Machine, *, device_name: str, step: int) -> None:
        """This attempt trains from `step` on."""
        self.require_folder()
        self._folder.append_event(
            "attempt",
            attempt=self.attempt,
            device=machine.device,
            device_name=device_name,
            threads=machine.threads,
            processes=machine.processes,
            data=self.data,
            train_data=self.train_data,
            resumed_from_step=step,
        )

    def epoch(self, step: int, **values: Any) -> None:
        """One line of the learning curve, after so many steps. A line that an earlier attempt wrote before it
        was killed is not written again, so that a curve has one line per point."""
        if step > self._epoch_step:
            self.require_folder()
            self._folder.append_event("epoch", step=step, **values)

    def note(self, kind: str, **values: Any) -> None:
        """Any other event of this attempt."""
        self.require_folder()
        self._folder.append_event(kind, attempt=self.attempt, **values)


class Unwritten(Journal):
    """Of a process that trains a run together with others and is not the one that writes."""

    def __init__(self, folder: RunFolder) -> None:
        self.attempt, self.started_s = 0, None

    def see(self, data: DataSet) -> bool:
        return False

    def require_folder(self) -> None:
        pass

    def start(self, machine: Machine, *, device_name: str, step: int) -> None:
        pass

    def epoch(self, step: int, **values: Any) -> None:
        pass

    def note(self, kind: str, **values: Any) -> None:
        pass


def _drop_cut_line(folder: RunFolder) -> None:
    """Remove a last line without its end, or the next event would be appended to it."""
    if not folder.events.exists():
        return
    with folder.events.open("r+b") as file:
        text = file.read()
        file.truncate(text.rfind(b"\n") + 1)


def _drop_drafts(folder: RunFolder) -> None:
    """Remove files that were being written when an attempt was killed."""
    for draft in folder.path.glob(".*.draft"):
        draft.unlink(missing_ok=True)
