"""What this machine has, found without importing torch (the CLI must start at once)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_OF_THIS_PROCESS = Path("/proc/self/cgroup")
DEVICE_FILES = Path("/dev")


def detect_devices(
    environment: Mapping[str, str] = os.environ, device_files: Path = DEVICE_FILES
) -> tuple[str, ...]:
    """("cuda:0", "cuda:1", ...) for the NVIDIA GPUs this process may use, or ("cpu",).

    CUDA_VISIBLE_DEVICES is read as the driver reads it: the list ends at the first entry that is no device.
    """
    present = [file for file in device_files.glob("nvidia*") if re.fullmatch(r"nvidia\d+", file.name)]
    count = len(present)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and count:
        count = _leading_valid(visible.split(","), count)
    return tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)


def default_workers(devices: Sequence[str], per_device: int = 1) -> int:
    """One-thread workers: one per core on a CPU; `per_device` per GPU, as far as the cores suffice."""
    gpus = [device for device in devices if device != "cpu"]
    cores = available_cores()
    return max(len(gpus), min(len(gpus) * per_device, cores)) if gpus else cores


def available_cores(root: Path = CGROUP_ROOT, membership: Path = CGROUP_OF_THIS_PROCESS) -> int:
    """Cores this process may use: its affinity mask, cut by its cgroups' CPU quotas (v2). At least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota = _cgroup_quota(root, membership)
    return max(1, cores if quota is None else min(cores, int(quota)))


def _leading_valid(entries: Sequence[str], present: int) -> int:
    """How many entries come before the first that is no device. Names (GPU-..., MIG-...) are believed."""
    for position, entry in enumerate(entry.strip() for entry in entries):
        is_name = entry.startswith(("GPU-", "MIG-"))
        if not is_name and not (entry.isdecimal() and int(entry) < present):
            return position
    return len(entries)


def _cgroup_quota(root: Path, membership: Path) -> float | None:
    """The smallest CPU quota, in cores, of this process's cgroup and of those above it; None: no limit."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if own is None:
        return None
    folder = root / own
    quotas = [_quota(level / "cpu.max") for level in (folder, *folder.parents) if level.is_relative_to(root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(file: Path) -> float | None:
    """`cpu.max` holds "QUOTA PERIOD" in microseconds, or "max PERIOD"."""
    try:
        quota, period = file.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None
