"""The teacher of a distilled run: the network of another run, as it was evaluated."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.data.base import DataSet
from harness.study.machine import Machine
from harness.study.spec import RunSpec
from harness.training.precision import Precision
from harness.training.trained import TeacherError, find_trained
from harness.tricks.base import Predict


def load_teacher(student: RunSpec, machine: Machine, precision: Precision, data: DataSet) -> Predict:
    """Images (B, 3, S, S) -> logits (B, K), without gradients, in the precision of the student's run.

    Raises:
        TeacherError: the teacher has not finished, its files are missing, or it knows other classes
            or saw other data.
    """
    teacher = find_trained(student.teacher_run_id, machine, TeacherError)
    teacher.require_classes(data.classes, data.name)
    teacher.require_same_data(student, data.fingerprint)
    model = teacher.network()

    @torch.no_grad()
    def logits(images: Tensor) -> Tensor:
        with precision.forward():
            return model(images)

    return logits
