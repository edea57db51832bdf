"""Figures drawn by two processes at a time: matplotlib uses one core, and most of a report's time is its."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence

from harness.reporting.figures.picture import Picture

Draw = Callable[[], list[Picture]]
PROCESSES = 2  # each further one would bring less, and holds another copy of the runs
WORTH_IT = 4  # parts from which on two processes are sooner done than one

_parts: Sequence[Draw] = ()  # what forked processes draw: they share it without a copy


def draw_side_by_side(parts: Sequence[Draw]) -> list[Picture]:
    """The pictures of all parts, in order. One process draws alone where forking would not be safe."""
    global _parts
    if len(parts) < WORTH_IT or not _may_fork():
        return [picture for part in parts for picture in part()]
    _parts = parts
    try:
        with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
            drawn = pool.map(_draw, range(len(parts)), chunksize=1)
    finally:
        _parts = ()
    return [picture for pictures in drawn for picture in pictures]


def _draw(place: int) -> list[Picture]:
    return _parts[place]()


def _may_fork() -> bool:
    """A fork has only the thread that called it: locks that others hold would stay locked in it."""
    return hasattr(os, "fork") and (os.cpu_count() or 1) > 1 and threading.active_count() == 1
