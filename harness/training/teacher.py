"""The teacher of a distilled run: the network of another run, as it was evaluated."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.study.machine import Machine
from harness.study.records import FINISHED, RunFolder, read_json
from harness.study.spec import RunSpec
from harness.training.network import build_network, make_tricks
from harness.training.precision import Precision
from harness.training.tensors import read_torch_file
from harness.tricks.base import Predict


class TeacherError(RuntimeError):
    """The teacher of a run is not there or does not fit."""


def load_teacher(student: RunSpec, machine: Machine, precision: Precision, *, classes: int) -> Predict:
    """Images (B, 3, S, S) -> logits (B, K), without gradients, in the precision of the student's run.

    Raises:
        TeacherError: the teacher has not finished, its files are missing, or it knows other classes.
    """
    folder = RunFolder(machine.runs_dir / str(student.teacher_run_id))
    summary = folder.read_summary()
    if summary is None or summary["status"] != FINISHED:
        state = "has not ended" if summary is None else f"ended as '{summary['status']}'"
        raise TeacherError(f"teacher run {folder.run_id} {state}: a student needs a finished teacher")
    if summary["classes"] != classes:
        raise TeacherError(
            f"teacher run {folder.run_id} knows {summary['classes']} classes ({summary['data']}), "
            f"the student has {classes} ({student.arm.recipe.data.name})"
        )
    spec_data = read_json(folder.spec)
    if spec_data is None or not folder.weights.exists():
        raise TeacherError(
            f"teacher run {folder.run_id} has no spec.json or no weights.pt; "
            f"delete {folder.path} and run again"
        )
    spec = RunSpec.from_json(spec_data)
    model = build_network(spec, make_tricks(spec), classes=classes)
    model.load_state_dict(read_torch_file(folder.weights))
    model.to(machine.device).eval().requires_grad_(False)

    @torch.no_grad()
    def logits(images: Tensor) -> Tensor:
        with precision.forward():
            return model(images)

    return logits
