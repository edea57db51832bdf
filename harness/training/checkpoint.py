"""The complete state of an unfinished run in one file, replaced atomically."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any

from harness.training.progress import Progress
from harness.training.setup import Setup
from harness.training.tensors import TensorFileError, read_torch_file, write_torch_file

CHECKPOINT_SCHEMA = 2


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the run starts again from step 0."""


def save_checkpoint(path: Path, setup: Setup, progress: Progress) -> None:
    """Write everything that a resumed run needs to make the same bits as one that was never stopped.

    Random generators are not in it: each is a function of the seed and the step.
    """
    write_torch_file(
        path,
        {
            "schema": CHECKPOINT_SCHEMA,
            "run_id": setup.spec.run_id,
            "model": setup.model.state_dict(),
            "optimizer": setup.optimizer.state_dict(),
            "precision": setup.precision.state_dict(),
            "tricks": {name: state.state_dict() for name, state in setup.states.items()},
            "progress": progress.state_dict(),
        },
    )


def load_checkpoint(path: Path, setup: Setup, progress: Progress) -> bool:
    """Continue where the file stopped. False: there is no file and nothing was changed.

    Several processes continue with what the first one reads: a file system may show another an older file.

    Raises:
        CheckpointError: the file is damaged or of another run. The setup may be half changed: build it anew.
    """
    file: Path | IO[bytes] = path
    if setup.world.size > 1:
        data = setup.world.tell_bytes(path.read_bytes() if setup.world.is_main and path.exists() else None)
        if data is None:
            return False
        file = io.BytesIO(data)
    elif not path.exists():
        return False
    state = _read(file, setup.spec.run_id)
    try:
        setup.model.load_state_dict(state["model"])
        setup.optimizer.load_state_dict(state["optimizer"])
        setup.precision.load_state_dict(state["precision"])
        for name, trick_state in setup.states.items():
            trick_state.load_state_dict(state["tricks"][name])
        progress.load_state_dict(state["progress"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint does not fit this run: {error}") from error
    return True


def _read(file: Path | IO[bytes], run_id: str) -> dict[str, Any]:
    try:
        state = read_torch_file(file)
    except (OSError, TensorFileError) as error:
        raise CheckpointError(f"the checkpoint cannot be read: {error}") from error
    if not isinstance(state, dict) or state.get("schema") != CHECKPOINT_SCHEMA:
        raise CheckpointError(f"the checkpoint is not of schema {CHECKPOINT_SCHEMA}")
    if state.get("run_id") != run_id:
        raise CheckpointError(f"the checkpoint is of run {state.get('run_id')}, this is run {run_id}")
    return state
