"""Smoothed targets by hand, in both forms, and against torch's own loss."""

import math

import pytest
import torch
from torch import Tensor

from harness.tricks.base import Batch, Context
from harness.tricks.label_smoothing import LabelSmoothing
from harness.tricks.mixup import Mixup
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
