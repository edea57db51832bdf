"""What every section is told: the device, how much is run, where files may be written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.spec import Machine

BEFORE_THE_END_S = 15.0  # a section that watches its bound stops this long before it would be killed


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One call of gpu.py."""

    device: str  # cuda:0 | cpu
    tiny: bool  # every section in a form that a CPU runs in seconds: its figures mean nothing
    folder: Path  # for run folders; removed afterwards
    stop_at_s: float  # of time.monotonic: measure no new round after this
    plan: Path  # the plan file of the study
    study_epochs: float  # of the baseline; the other arms in proportion
    study_seeds: int
    study_seconds: float
    study_workers: int

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self.stop_at_s

    @property
    def backend(self) -> str:
        """Of torch.compile. The tiny form only captures graphs: generating code takes minutes."""
        return "eager" if self.tiny else "inductor"

    def machine(self, name: str, **changes: Any) -> Machine:
        """A machine with run folders of its own."""
        runs_dir = self.folder / name
        runs_dir.mkdir(parents=True, exist_ok=True)
        return Machine(runs_dir=runs_dir, data_dir=runs_dir / "data", device=self.device, **changes)

    def pick(self, usual: Any, tiny: Any) -> Any:
        return tiny if self.tiny else usual


@contextmanager
def without_graphs() -> Iterator[None]:
    """Steps are made in the block, not replayed."""
    os.environ["HARNESS_GRAPHS"] = "0"
    try:
        yield
    finally:
        del os.environ["HARNESS_GRAPHS"]


def stop_after(steps: int) -> Callable[[], bool]:
    """A `Stop` that lets a run make so many steps: False that often, then True."""
    left = iter(range(steps))
    return lambda: next(left, None) is None
