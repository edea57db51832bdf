"""How tests treat time: they wait for events, and compare what code costs with what this machine is worth.

No test says that something takes at most so many seconds: a machine may be slow, busy, or both.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

PATIENCE_S = 600.0  # a limit against hanging, not an expectation
FOREVER_S = 1800.0  # what hangs in a test hangs so long: a test that waits it out fails
LOOK_EVERY_S = 0.01

Answer = TypeVar("Answer")


def wait_until(condition: Callable[[], object], time_s: float = PATIENCE_S) -> bool:
    """Whether the condition came true in time."""
    deadline_s = time.monotonic() + time_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(LOOK_EVERY_S)
    return True


def until(happens: Callable[[], Answer], time_s: float = PATIENCE_S) -> Answer:
    """The first answer that is true; AssertionError where none comes."""
    answers: list[Answer] = []

    def ask() -> Answer:
        answers[:] = [happens()]
        return answers[0]

    assert wait_until(ask, time_s), "it does not happen"
    return answers[0]


@contextmanager
def not_waited_out() -> Iterator[None]:
    """Of a block with something in it that hangs for `FOREVER_S`: it ends without waiting for that."""
    start_s = time.monotonic()
    yield
    assert time.monotonic() - start_s < PATIENCE_S, "it waited for what hangs"


def paces(folder: Path, work: Callable[[], object], times: int = 100) -> float:
    """The CPU time of `work` in units of a fixed piece of work, done in turns with it on this machine.

    The unit takes about a tenth of a millisecond on a core of 2023: twenty small files' worth of JSON, and a
    file in `folder` that is written, renamed and removed. Of each the quick tenth counts.
    """
    works_s, units_s = [], []
    for _ in range(times):
        works_s.append(_cpu_s(work))
        units_s.append(_cpu_s(lambda: _unit(folder)))
    return _quick_tenth(works_s) / _quick_tenth(units_s)


def unit_s(folder: Path) -> float:
    """The CPU time of that unit, for work that is too long to be done in turns with it."""
    return _quick_tenth([_cpu_s(lambda: _unit(folder)) for _ in range(100)])


def _quick_tenth(times_s: list[float]) -> float:
    return statistics.quantiles(times_s, n=10)[0]


def _cpu_s(work: Callable[[], object]) -> float:
    start_s = time.thread_time()
    work()
    return time.thread_time() - start_s


def _unit(folder: Path) -> None:
    for number in range(20):
        json.loads(json.dumps({"number": number, "text": "x" * 30, "more": [1.5, None, True]}))
    draft, file = folder / ".pace.draft", folder / ".pace"
    draft.write_bytes(b"{}")
    os.replace(draft, file)
    file.unlink()
