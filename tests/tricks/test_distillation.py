"""The distillation loss and its gradient, numerically, in both forms."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.tricks.base import Batch, Context
from harness.tricks.distillation import Distillation, soft_loss
from harness.tricks.mixup import Mixup
from tests.tricks import tiny


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


RNG = np.random.default_rng(0)
Z, R = RNG.normal(scale=3, size=(4, 5)), RNG.normal(scale=3, size=(4, 5))  # student's, teacher's logits
Y = np.eye(5)[[0, 3, 3, 1]]
HARD = -(Y * np.log(softmax(Z))).sum(axis=1).mean()


def soft(temperature: float) -> float:
    p, q = softmax(R / temperature), softmax(Z / temperature)
    return temperature**2 * (p * (np.log(p) - np.log(q))).sum(axis=1).mean()


def distilled(trick: Distillation, student: Tensor) -> Tensor:
    context = Context(classes=5, steps_per_epoch=1, total_steps=1, teacher=lambda images: torch.from_numpy(R))
    batch = Batch(torch.zeros(4, 3, 2, 2), torch.from_numpy(Y))
    return trick.edit_loss(tiny.cross_entropy, context)(student, batch)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_the_papers_sum_and_the_codes_halves(temperature: float) -> None:
    student = torch.from_numpy(Z)
    paper = distilled(Distillation(temperature=temperature), student).item()
    code = distilled(Distillation(temperature=temperature, form="gluoncv"), student).item()
    assert paper == pytest.approx(HARD + soft(temperature), rel=1e-4)
    assert code == pytest.approx(0.5 * HARD + 0.5 * soft(temperature), rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_the_gradient_is_that_of_the_printed_cross_entropy(temperature: float) -> None:
    """d/dz of T^2 l(softmax(r/T), softmax(z/T)) is T (softmax(z/T) - softmax(r/T)) / B, whether l is the
    cross-entropy of the paper or the divergence: the teacher's entropy does not depend on z."""
    student = torch.from_numpy(Z).float().requires_grad_()
    (ours,) = torch.autograd.grad(soft_loss(student, torch.from_numpy(R), temperature), student)
    by_hand = temperature * (softmax(Z / temperature) - softmax(R / temperature)) / len(Z)
    np.testing.assert_allclose(ours.numpy(), by_hand, atol=2e-5)
    target = torch.from_numpy(softmax(R / temperature)).float()
    printed = temperature**2 * torch.nn.functional.cross_entropy(student / temperature, target)
    torch.testing.assert_close(ours, torch.autograd.grad(printed, student)[0], rtol=1e-3, atol=2e-5)


def test_a_student_that_agrees_with_its_teacher_has_no_soft_loss() -> None:
    logits = torch.from_numpy(R).float()
    assert soft_loss(logits, logits, 20.0).item() == 0.0
    assert soft_loss(logits + 3.0, logits, 20.0).item() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_compared_in_float32(dtype: torch.dtype) -> None:
    student, teacher = torch.from_numpy(Z).to(dtype), torch.from_numpy(R).to(dtype)
    loss = soft_loss(student, teacher, 20.0)
    assert loss.dtype == torch.float32
    assert loss == soft_loss(student.float(), teacher.float(), 20.0)


def test_the_teacher_sees_the_images_that_the_student_sees() -> None:
    """With mixup on, the mixed ones."""
    seen: list[Tensor] = []

    def teacher(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.zeros(len(images), tiny.CLASSES)

    run = tiny.Training([Mixup(alpha=1.0), Distillation()])
    run.context = dataclasses.replace(run.context, teacher=teacher)
    run.loss = Distillation().edit_loss(tiny.cross_entropy, run.context)
    inputs: list[Tensor] = []
    run.model.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    run.step()
    assert len(seen) == len(inputs) == 1
    assert torch.equal(seen[0], inputs[0])
    assert not torch.equal(seen[0], tiny.batch().images)


def test_the_student_learns_from_the_teacher_alone() -> None:
    """With a constant hard loss, gradient steps still bring the student to the teacher's predictions."""
    context = dataclasses.replace(tiny.context(), teacher=lambda images: torch.from_numpy(R).float())
    loss = Distillation().edit_loss(lambda output, batch: output.sum() * 0, context)
    student = torch.zeros(4, 5, requires_grad=True)
    batch = Batch(torch.zeros(4, 3, 2, 2), torch.zeros(4, 5))
    optimizer = torch.optim.SGD([student], lr=8.0)
    for _ in range(60):
        optimizer.zero_grad()
        loss(student, batch).backward()
        optimizer.step()
    np.testing.assert_allclose(softmax(student.detach().numpy() / 20), softmax(R / 20), atol=1e-3)


def test_without_a_teacher_it_says_what_is_missing() -> None:
    context = Context(classes=5, steps_per_epoch=1, total_steps=1)
    with pytest.raises(ValueError, match="distillation needs a teacher: name an arm of the study"):
        Distillation().edit_loss(tiny.cross_entropy, context)
