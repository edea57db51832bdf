"""Files of tensors: written atomically, read without executing anything."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any

import torch

from harness.study.records import write_bytes


def write_torch_file(path: Path, state: Any) -> None:
    """Write plain data and tensors for `read_torch_file`; a reader sees the old file or the new one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def read_torch_file(file: Path | IO[bytes]) -> Any:
    """Plain data and tensors, on the CPU; refuses files that would execute code when read."""
    return torch.load(file, map_location="cpu", weights_only=True)
