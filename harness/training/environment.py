"""What this process computes with: settings that make results repeatable, and a record of the machine."""

from __future__ import annotations

import functools
import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import deterministic

from harness.study.machine import Machine
from harness.study.provenance import changes_digest, code_version
from harness.training.hardware import cpu_name, describe_hardware


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
        "torchvision": _version("torchvision"),
        "numpy": np.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if machine.device != "cpu" else None,
        "platform": platform.platform(),
        "hostname": socket.gethostname(),
        **describe_hardware(),
        "device": machine.device,
        "processes": machine.processes,
        "device_name": device_name(machine.device),
        "shared": machine.shared,
        "device_memory_gb": _device_memory_gb(machine.device),
        "exact": machine.exact,
        "compile": machine.compile,
        "half_precision": "emulated" if machine.device == "cpu" else "native",
        **_flags(),
        **source_version(),
    }


def device_name(device: str) -> str:
    """The product name of the processor that trains."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_name()


def _device_memory_gb(device: str) -> float | None:
    """Of a GPU, in 10^9 bytes."""
    if not device.startswith("cuda"):
        return None
    return round(torch.cuda.get_device_properties(device).total_memory / 1e9, 1)


def _version(package: str) -> str | None:
    """Without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def source_version() -> dict[str, Any]:
    """The commit this harness runs from, whether files differ from it, and the sha256 of the difference as a
    patch; None outside a checkout.

    Queued runs use a snapshot, which says what it was taken from.
    """
    root = Path(__file__).resolve().parents[2]
    found = code_version(root)
    return {**found, "changes": changes_digest(root) if found["dirty"] else None}


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
