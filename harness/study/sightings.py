"""Whether the holder of a claim lives, as far as one process can see by looking at it again and again.

No clocks of two machines are compared. A claim that has not been touched for `stale_s` by the clock of the
file system is watched for a few beats before its holder is called dead, because on some file systems a beat
carries the holder's own clock, which may be wrong; and one that is not touched while it is watched for
`stale_s` is dead whatever its time says.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path

from harness.study.holders import Holder

CONFIRM_BEATS = 2.5  # a claim that looks stale is watched for so many beats


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen of a claim. Time counts only as far as it was looked at: a machine that slept has seen
    nobody die."""

    number: int
    beat_ns: int
    looked_s: float
    watched_s: float = 0.0  # how long it was seen without a new beat
    beats: bool = False  # it was touched while it was watched


class Sightings:
    """What this process has seen of the claims of others."""

    def __init__(self, folder: Path, *, beat_s: float, stale_s: float) -> None:
        self._stale_s = stale_s
        self._confirm_s = min(stale_s, CONFIRM_BEATS * beat_s)
        self._seen: dict[str, Sighting] = {}
        self._time = FileSystemTime(folder)

    def is_dead(self, run_id: str, claim: Holder) -> bool:
        """Look once more at the newest claim of a run, which has not been released."""
        if claim.is_gone():
            return True
        watched_s = self._look(run_id, claim).watched_s
        if watched_s < self._confirm_s:
            return False
        now_s = self._time.now_s()
        return watched_s > self._stale_s or (now_s is not None and now_s - claim.beat_s > self._stale_s)

    def beats(self, run_id: str) -> bool:
        """Whether the claim was touched under this process's eyes, and not long ago."""
        seen = self._seen.get(run_id)
        return seen is not None and seen.beats and seen.watched_s < self._confirm_s

    def forget(self, run_id: str) -> None:
        self._seen.pop(run_id, None)

    def _look(self, run_id: str, claim: Holder) -> Sighting:
        now_s = time.monotonic()
        seen = self._seen.get(run_id)
        if seen is None or seen.number != claim.number:
            seen = Sighting(claim.number, claim.beat_ns, now_s)
        elif seen.beat_ns != claim.beat_ns:
            seen = Sighting(claim.number, claim.beat_ns, now_s, beats=True)
        else:
            passed_s = min(now_s - seen.looked_s, self._confirm_s / 2)
            seen = replace(seen, looked_s=now_s, watched_s=seen.watched_s + passed_s)
        self._seen[run_id] = seen
        return seen


class FileSystemTime:
    """The clock that stamps files in a folder, asked once and then carried on by this process's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ahead_s: float | None = None  # of time.monotonic

    def now_s(self) -> float | None:
        """Seconds since 1970; None where the folder cannot be written."""
        if self._ahead_s is None:
            try:
                self._ahead_s = file_system_time_s(self._folder) - time.monotonic()
            except OSError:
                return None
        return time.monotonic() + self._ahead_s


def file_system_time_s(folder: Path) -> float:
    """Seconds since 1970 by the clock that stamps files in this folder, found with a file of a moment.

    Raises:
        OSError: the folder cannot be written.
    """
    probe = folder / f".clock.{secrets.token_hex(8)}"
    handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.utime(probe)  # "now" by the server's clock; a time of one's own would be this machine's
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        probe.unlink(missing_ok=True)
