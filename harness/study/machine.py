"""Where and how a run is executed here. Nothing in this file is part of a run's identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Stop = Callable[[], bool]  # asked at every step boundary: True means checkpoint now and return


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The settings of the process that executes a run."""

    runs_dir: Path  # holds one folder per run
    data_dir: Path  # the user's own data sets
    device: str = "cpu"  # cpu | cuda:0 ...
    devices: tuple[str, ...] = ()  # of the processes on this machine; empty: all on `device`
    processes: int = 1  # that train one run together; each takes its share of every batch
    threads: int = 1
    shared: bool = False  # other runs use the device at the same time
    exact: bool = True  # bit-identical repeats and resumes; False lets cuDNN pick the fastest kernels
    compile: bool = False
    checkpoint_every_s: float = 30.0  # at step boundaries; less often where saving takes long (recorder.py)
