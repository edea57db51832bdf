"""What this machine is, read from the system; None where it does not tell. Does not import torch."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path
from typing import Any

DRIVER = Path("/sys/module/nvidia/version")


def describe_hardware() -> dict[str, Any]:
    """Keys: cpu (product name), cores (that this process may use), cores_of_machine, memory_gb (10^9 bytes),
    os, driver (of NVIDIA GPUs)."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cores_of_machine": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "os": _os_name(),
        "driver": _first_line(DRIVER),
    }


@functools.cache
def cpu_name() -> str:
    """The processor's product name, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (ValueError, OSError):
        return None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
