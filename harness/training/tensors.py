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


class TensorFileError(ValueError):
    """A file of tensors is damaged, or would execute code when read."""


def read_torch_file(file: Path | IO[bytes]) -> Any:
    """Plain data and tensors, on the CPU.

    Raises:
        OSError: there is no file that can be read.
        TensorFileError: it is damaged, or would execute code. torch's own words are left out: they advise to
            read it all the same.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception:  # what a damaged zip or pickle raises depends on where the damage is
        raise TensorFileError("it is damaged, or holds something other than tensors and plain data") from None
