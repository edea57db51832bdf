"""Images per second of several contenders, in turns, so that a drift of the device hits all of them alike."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import torch

from gpu_parts.rows import Add, Row, reason
from gpu_parts.settings import Settings

ROUNDS, TINY_ROUNDS = 6, 2  # even: the order A B B A then ends in balance


@dataclass(kw_only=True)
class Contender:
    """A training step that can be repeated, under flags of its own."""

    what: str
    run: Callable[[int], None]  # makes so many steps
    flags: Callable[[], AbstractContextManager[object]]
    note: str = ""
    first_step_s: float = 0.0  # compilation and the choice of kernels included
    images_per_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Length:
    """How much is run: images in a batch, steps before the first round and in each."""

    batch: int
    warm_up_steps: int
    steps: int


def race(contenders: list[Contender], length: Length, settings: Settings, add: Add) -> list[Contender]:
    """Warm each one up, then time rounds in the order A B ... B A; a contender that fails leaves the race."""
    running = [each for each in contenders if _survives(each, partial(_warm_up, each, length), add)]
    rounds = settings.pick(ROUNDS, TINY_ROUNDS)
    for index in range(rounds):
        if settings.is_late and index > 0:
            for each in running:
                each.note += f"; out of time, {rounds} rounds were wanted"
            break
        for each in running if index % 2 == 0 else running[::-1]:
            if not _survives(each, partial(_round, each, length, settings), add):
                running = [other for other in running if other is not each]
    return running


def seconds(run: Callable[[], None], device: str) -> float:
    """The device's time for `run`: between two CUDA events, or by the clock on a CPU."""
    if not device.startswith("cuda"):
        started_s = time.perf_counter()
        run()
        return time.perf_counter() - started_s
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000


def _warm_up(contender: Contender, length: Length) -> None:
    with contender.flags():
        started_s = time.perf_counter()
        contender.run(1)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        contender.first_step_s = time.perf_counter() - started_s
        contender.run(length.warm_up_steps)


def _round(contender: Contender, length: Length, settings: Settings) -> None:
    with contender.flags():
        time_s = seconds(lambda: contender.run(length.steps), settings.device)
    contender.images_per_s.append(length.steps * length.batch / time_s)


def _survives(contender: Contender, work: Callable[[], None], add: Add) -> bool:
    try:
        work()
    except Exception as error:
        traceback.print_exc()
        add(Row(what=contender.what, failed=reason(error), note=contender.note))
        return False
    return True
