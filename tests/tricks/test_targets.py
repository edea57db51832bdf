"""Smoothed and mixed targets, and a teacher's, by hand and against torch's own losses."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.tricks.base import Batch, Context
from harness.tricks.targets import Distillation, LabelSmoothing, Mixup, draw_lam, mix, soft_loss
from tests.tricks import tiny

# The worked example: the true class is the fourth of five and is given probability 0.36.
ONE_HOT = torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0]])
LOGITS = torch.tensor([[0.1, 0.1, 0.1, 0.36, 0.34]]).log()


def smoothed(trick: LabelSmoothing, targets: Tensor) -> Tensor:
    context = Context(classes=targets.shape[1], steps_per_epoch=1, total_steps=1)
    batch = Batch(torch.zeros(len(targets), 3, 2, 2), targets)
    return trick.edit_batch(batch, torch.Generator(), context).targets


def test_five_classes_eps_one_tenth() -> None:
    expected = torch.tensor([[0.02, 0.02, 0.02, 0.92, 0.02]])
    torch.testing.assert_close(smoothed(LabelSmoothing(), ONE_HOT), expected)


def test_the_printed_form_puts_eps_on_the_other_classes_only() -> None:
    expected = torch.tensor([[0.025, 0.025, 0.025, 0.9, 0.025]])
    torch.testing.assert_close(smoothed(LabelSmoothing(form="off_target"), ONE_HOT), expected)


@pytest.mark.parametrize(
    ("trick", "loss"),
    [
        (LabelSmoothing(eps=0.0), 1.0217),  # -ln 0.36
        (LabelSmoothing(), 1.0997),  # 0.92 * 1.0217 + 0.02 * (3 * 2.3026 + 1.0788)
        (LabelSmoothing(form="off_target"), 1.1192),  # 0.9 * 1.0217 + 0.025 * (3 * 2.3026 + 1.0788)
    ],
)
def test_cross_entropy_of_the_worked_example_in_nats(trick: LabelSmoothing, loss: float) -> None:
    batch = Batch(torch.zeros(1, 3, 2, 2), smoothed(trick, ONE_HOT))
    assert tiny.cross_entropy(LOGITS, batch).item() == pytest.approx(loss, abs=6e-5)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4])
def test_the_uniform_form_is_torchs_loss_and_its_gradient(eps: float) -> None:
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(8, 5, generator=rng, requires_grad=True)
    labels = torch.randint(5, (8,), generator=rng)
    targets = smoothed(LabelSmoothing(eps=eps), torch.eye(5)[labels])
    ours = tiny.cross_entropy(logits, Batch(torch.zeros(8, 3, 2, 2), targets))
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=eps)(logits, labels)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)))


@pytest.mark.parametrize("form", ["uniform", "off_target"])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_targets_of_an_image_sum_to_one(form: str, classes: int) -> None:
    """Smoothing with u = 1 for every class, as in a circulating note, would give 1 + eps (K - 1) here."""
    soft = torch.softmax(torch.randn(4, classes, generator=torch.Generator().manual_seed(0)), dim=1)
    out = smoothed(LabelSmoothing(form=form), soft)  # type: ignore[arg-type]
    torch.testing.assert_close(out.sum(dim=1), torch.ones(4))


def test_the_best_gap_between_logits_is_finite() -> None:
    """The loss is least where softmax gives the smoothed targets, at a finite gap between the logits:
    ln((1 - eps + eps / K) / (eps / K)) = ln(K (1 - eps) / eps + 1)."""
    targets = smoothed(LabelSmoothing(), ONE_HOT)
    gap = (targets[0, 3] / targets[0, 0]).log().item()
    assert gap == pytest.approx(math.log(5 * (1 - 0.1) / 0.1 + 1))


@pytest.mark.parametrize("form", ["uniform", "off_target"])
def test_smoothing_before_mixup_and_after_it_give_the_same_targets(form: str) -> None:
    """Both are affine in the targets and keep the sum of a row."""
    smoothing, mixup = LabelSmoothing(form=form), Mixup(alpha=1.0)  # type: ignore[arg-type]

    def both(first: LabelSmoothing | Mixup, second: LabelSmoothing | Mixup) -> Batch:
        batch = tiny.batch()
        for trick in (first, second):
            batch = trick.edit_batch(batch, torch.Generator().manual_seed(5), tiny.context())
        return batch

    before, after = both(smoothing, mixup), both(mixup, smoothing)
    torch.testing.assert_close(before.targets, after.targets, rtol=0, atol=1e-6)
    assert torch.equal(before.images, after.images)
    assert not torch.allclose(before.targets, tiny.batch().targets)


# Mixed images and targets by hand, and the distribution of lam.


def test_images_and_targets_are_mixed_with_the_reversed_batch_by_one_lam() -> None:
    """x_i' = lam x_i + (1 - lam) x_{B-1-i}, entry by entry; the same for the targets."""
    given = tiny.batch(size=5)
    out = Mixup().edit_batch(given, torch.Generator().manual_seed(7), tiny.context())
    lam = draw_lam(0.2, torch.Generator().manual_seed(7))
    assert 0 < lam < 1
    for i in range(5):
        torch.testing.assert_close(out.images[i], lam * given.images[i] + (1 - lam) * given.images[4 - i])
        torch.testing.assert_close(out.targets[i], lam * given.targets[i] + (1 - lam) * given.targets[4 - i])
    torch.testing.assert_close(out.images[2], given.images[2])  # the middle one is its own partner


def test_two_images_three_to_one() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert mix(a, b, lam=0.75).tolist() == [0.75, 0.25]
    assert mix(b, a, lam=0.75).tolist() == [0.25, 0.75]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_lam_is_beta_alpha_alpha(alpha: float) -> None:
    """Kolmogorov-Smirnov distance of 800 draws, one per step's own generator, from the distribution."""
    from scipy.stats import beta, kstest

    draws = [draw_lam(alpha, torch.Generator().manual_seed(seed)) for seed in range(800)]
    assert kstest(draws, beta(alpha, alpha).cdf).pvalue > 0.01
    assert kstest(draws, beta(2 * alpha, 2 * alpha).cdf).pvalue < 1e-4


def test_successive_draws_of_one_generator_differ() -> None:
    rng = torch.Generator().manual_seed(0)
    assert len({draw_lam(0.2, rng) for _ in range(50)}) == 50


def test_cross_entropy_of_mixed_targets_is_the_mixture_of_the_cross_entropies() -> None:
    """lam * CE(y_i) + (1 - lam) * CE(y_j): the form in which mixup is often written for hard labels."""
    given = tiny.batch(size=4)
    out = Mixup().edit_batch(given, torch.Generator().manual_seed(3), tiny.context())
    lam = draw_lam(0.2, torch.Generator().manual_seed(3))
    logits = tiny.net().eval()(out.images)
    reversed_targets = Batch(given.images, given.targets.flip(0))
    expected = lam * tiny.cross_entropy(logits, given) + (1 - lam) * tiny.cross_entropy(
        logits, reversed_targets
    )
    torch.testing.assert_close(tiny.cross_entropy(logits, out), expected)


# The distillation loss and its gradient, numerically, in both forms.


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
def test_the_gradient_of_distillation_is_that_of_the_printed_cross_entropy(temperature: float) -> None:
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


def test_without_a_teacher_distillation_says_what_is_missing() -> None:
    context = Context(classes=5, steps_per_epoch=1, total_steps=1)
    with pytest.raises(ValueError, match="distillation needs a teacher: name an arm of the study"):
        Distillation().edit_loss(tiny.cross_entropy, context)
