"""What this process computes with: settings that make results repeatable, and a record of the machine."""

from __future__ import annotations

import functools
import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import deterministic

from harness.study.machine import Machine
from harness.study.provenance import code_version


@contextmanager
def configured(machine: Machine) -> Iterator[None]:
    """Apply the machine's threads and exactness to torch for the block, and restore what was set before.

    With `exact`, operations without a repeatable implementation are refused by torch with an error that
    names them. TF32 is off either way: `fp32` in a recipe means FP32.
    """
    # Read by cuBLAS when it starts; without it torch refuses matrix products in exact mode.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = _flags()
    _apply(
        {
            "threads": machine.threads,
            "deterministic": machine.exact,
            "fill_uninitialized_memory": not machine.exact and before["fill_uninitialized_memory"],
            "cudnn_deterministic": machine.exact,
            "cudnn_benchmark": not machine.exact,
            "tf32": False,
        }
    )
    try:
        yield
    finally:
        _apply(before)


def describe(machine: Machine) -> dict[str, Any]:
    """The content of env.json: plain data about software, hardware and settings."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if machine.device != "cpu" else None,
        "platform": platform.platform(),
        "hostname": socket.gethostname(),
        "cpu": cpu_name(),
        "device": machine.device,
        "processes": machine.processes,
        "device_name": device_name(machine.device),
        "exact": machine.exact,
        "compile": machine.compile,
        **_flags(),
        **source_version(),
    }


def device_name(device: str) -> str:
    """The product name of the processor that trains."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_name()


@functools.cache
def cpu_name() -> str:
    """The processor's product name, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


@functools.cache
def source_version() -> dict[str, Any]:
    """The commit this harness runs from and whether files differ from it; None outside a checkout.

    Queued runs use a snapshot, which says what it was taken from.
    """
    return code_version(Path(__file__).resolve().parents[2])


def _flags() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "fill_uninitialized_memory": deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": torch.backends.cudnn.allow_tf32,
    }


def _apply(flags: dict[str, Any]) -> None:
    if flags["threads"] != torch.get_num_threads():
        torch.set_num_threads(flags["threads"])
    torch.use_deterministic_algorithms(flags["deterministic"])
    deterministic.fill_uninitialized_memory = flags["fill_uninitialized_memory"]  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = flags["cudnn_deterministic"]
    torch.backends.cudnn.benchmark = flags["cudnn_benchmark"]
    torch.backends.cudnn.allow_tf32 = flags["tf32"]
