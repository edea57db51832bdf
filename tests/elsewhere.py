"""A pytest plug-in (`-p tests.elsewhere`): while tests are collected, this machine looks like another one.

Another day, another number of cores, and folders that list their files in the opposite order.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Iterator
from typing import Any

LATER_S = 100_001
CORES = 7

_time, _time_ns, _listdir, _scandir = time.time, time.time_ns, os.listdir, os.scandir


class _Backwards:
    """What os.scandir gives, last entry first."""

    def __init__(self, path: Any) -> None:
        with _scandir(path) as entries:
            self._entries = iter(list(entries)[::-1])

    def __enter__(self) -> _Backwards:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[os.DirEntry[Any]]:
        return self._entries

    def __next__(self) -> os.DirEntry[Any]:
        return next(self._entries)

    def close(self) -> None:
        """Nothing is open any more."""


def pytest_configure() -> None:
    """Before the first test file is imported."""
    time.time = lambda: _time() + LATER_S
    time.time_ns = lambda: _time_ns() + LATER_S * 10**9
    os.listdir = lambda path=".": _listdir(path)[::-1]
    os.scandir = lambda path=".": _Backwards(path)
    os.cpu_count = lambda: CORES
    os.sched_getaffinity = lambda _: set(range(CORES))
    socket.gethostname = platform.node = lambda: "elsewhere"
