"""Orders from the first node of a job to its other nodes: files in the private folder of the submission.

    <orders>/<life>/beat           touched by the first node's agent while it lives
                    <n>.json       the n-th group of ranks: its run, and where all ranks meet
                    <n>.over       that group has ended, however it ended
                    done/<n>.<node>.json   what a node says about its ranks of that group
                    end            nothing more will come

`life` is SLURM_RESTART_COUNT: a requeued job keeps its number, and must not follow orders of its former life.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.study.records import read_json, write_json

FOLDER = "HARNESS_ORDERS"  # names it in the environment of the first node's workers
BEAT_S = 10.0


class Orders:
    """The files of one life of a job. Folders are listed rather than asked for one name: NFS remembers for a
    while that a file was not there."""

    def __init__(self, orders_dir: Path) -> None:
        self.path = orders_dir / os.environ.get("SLURM_RESTART_COUNT", "0")
        self.done = self.path / "done"

    def give(self, order: dict[str, Any]) -> int:
        """Write the next order. Returns its number."""
        numbers = [int(name.removesuffix(".json")) for name in _names(self.path) if name.endswith(".json")]
        number = max(numbers, default=0) + 1
        write_json(self.path / f"{number}.json", order)
        return number

    def read(self, number: int) -> dict[str, Any] | None:
        """The order of that number, once it has been given."""
        name = f"{number}.json"
        return read_json(self.path / name) if name in _names(self.path) else None

    def end_group(self, number: int) -> None:
        """The first node has no more use for the ranks of this order."""
        _touch(self.path / f"{number}.over")

    def is_over(self, number: int) -> bool:
        """Whether the first node has done with the ranks of this order."""
        return f"{number}.over" in _names(self.path)

    def report(self, number: int, node: int, report: dict[str, Any]) -> None:
        """Say how the ranks of this node ended."""
        write_json(self.done / f"{number}.{node}.json", report)

    def reports(self, number: int) -> dict[int, dict[str, Any]]:
        """Node -> what it said about the ranks of this order."""
        names = [name for name in _names(self.done) if name.startswith(f"{number}.") and name[-5:] == ".json"]
        found = {int(name.split(".")[1]): read_json(self.done / name) for name in names}
        return {node: report for node, report in found.items() if report is not None}

    @property
    def at_end(self) -> bool:
        """Whether nothing more will come."""
        return "end" in _names(self.path)

    def beat(self) -> float | None:
        """A number that changes while the first node's agent lives; None where it never beat."""
        try:
            return (self.path / "beat").stat().st_mtime
        except OSError:
            return None


@contextlib.contextmanager
def leading(orders_dir: Path) -> Iterator[None]:
    """Around all work of the first node's agent: the other nodes see it alive, and leave when it ends."""
    orders = Orders(orders_dir)
    orders.done.mkdir(parents=True, exist_ok=True)
    stopped = threading.Event()

    def beat() -> None:
        while True:
            with contextlib.suppress(OSError):  # the next one may succeed
                _touch(orders.path / "beat")
            if stopped.wait(BEAT_S):
                return

    thread = threading.Thread(target=beat, name="orders' beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(1.0)
        with contextlib.suppress(OSError):
            _touch(orders.path / "end")


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
