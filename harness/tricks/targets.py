"""What a network learns from: smoothed and mixed targets, a teacher's predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.tricks.base import Batch, Context, Loss, Trick, require, trick

if TYPE_CHECKING:
    from torch import Generator, Tensor


@trick
class LabelSmoothing(Trick):
    """Label smoothing: a share eps of each target is spread over the classes.

    Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 7; he2019bag, arXiv:1812.01187, Sec. 5.2
    Equation: uniform: y' = (1 - eps) * y + eps / K;
        off_target: y' = (1 - eps) * y + eps * (1 - y) / (K - 1)
    Acts on: batch (targets)
    Defaults: eps = 0.1 (both papers); form = uniform (szegedy2016rethinking, the authors' code of he2019bag
        and torch.nn.CrossEntropyLoss)
    Differs: he2019bag prints 1 - eps on the true class and eps / (K - 1) on the others, its authors' code has
        the uniform form; form = off_target is the printed one. Both are affine in y and keep the sum of a
        row, so that smoothing before mixup and smoothing after it give the same targets up to rounding. The
        training loss contains the smoothed targets' entropy and cannot be compared with that of a run without
        the trick.
    """

    name: ClassVar[str] = "label_smoothing"
    per_image: ClassVar[bool] = True
    eps: float = 0.1
    form: Literal["uniform", "off_target"] = "uniform"

    def __post_init__(self) -> None:
        require(0 <= self.eps < 1, f"label_smoothing: eps must be a number in [0, 1), got {self.eps!r}")

    def edit_batch(self, batch: Batch, rng: Generator, context: Context) -> Batch:
        smooth = smooth_uniform if self.form == "uniform" else smooth_off_target
        return batch._replace(targets=smooth(batch.targets, self.eps, context.classes))


def smooth_uniform(y: Any, eps: float, classes: int) -> Any:
    """Mix targets y (B, K), or one entry of them, with the uniform distribution.

    >>> [round(smooth_uniform(y, eps=0.1, classes=5), 4) for y in (0.0, 1.0)]
    [0.02, 0.92]
    """
    return (1 - eps) * y + eps / classes


def smooth_off_target(y: Any, eps: float, classes: int) -> Any:
    """Mix targets y (B, K), or one entry of them, with the uniform distribution over the other classes.

    >>> [round(smooth_off_target(y, eps=0.1, classes=5), 4) for y in (0.0, 1.0)]
    [0.025, 0.9]
    """
    return (1 - eps) * y + eps * (1 - y) / (classes - 1)


@trick
class Mixup(Trick):
    """Mixup: train on convex combinations of pairs of images and of their labels.

    Paper: zhang2018mixup, arXiv:1710.09412, Sec. 2 (the formula has no number in v1); he2019bag,
        arXiv:1812.01187, Sec. 5.4
    Equation: x' = lam * x_i + (1 - lam) * x_j,   y' = lam * y_i + (1 - lam) * y_j,   lam ~ Beta(alpha, alpha)
    Acts on: batch (images, targets)
    Defaults: alpha = 0.2 (he2019bag, and the ResNet-50 rows of zhang2018mixup)
    Differs: one lam per batch, as in both papers' code. The partner of image i is image B - 1 - i of the same
        batch, as in the authors' code of he2019bag (per GPU there, per batch here); zhang2018mixup draws a
        permutation (memory). The middle image of an odd batch is its own partner. he2019bag trains 200 epochs
        with mixup instead of 120: that is the study's to say, and the reason for its control row. Smoothed
        labels are mixed as they come: label_smoothing and mixup commute. The training loss is that of the
        mixed targets, and training accuracy would mean nothing: only accuracy on test images is reported.
    """

    name: ClassVar[str] = "mixup"
    alpha: float = 0.2

    def __post_init__(self) -> None:
        require(self.alpha > 0, f"mixup: alpha must be a number > 0, got {self.alpha!r}")

    def edit_batch(self, batch: Batch, rng: Generator, context: Context) -> Batch:
        lam = draw_lam(self.alpha, rng)
        return Batch(
            images=mix(batch.images, batch.images.flip(0), lam),
            targets=mix(batch.targets, batch.targets.flip(0), lam),
        )


def mix(a: Any, b: Any, lam: float) -> Any:
    """The convex combination of two tensors of one shape, or of two numbers.

    >>> mix(0.0, 10.0, lam=0.25)
    7.5
    """
    return lam * a + (1 - lam) * b


def draw_lam(alpha: float, rng: Generator) -> float:
    """One draw of Beta(alpha, alpha).

    torch draws Beta only from its global generator, so `rng` gives a seed and numpy's Generator the draw.
    """
    import numpy as np
    import torch

    seed = int(torch.randint(2**63 - 1, (), generator=rng))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


@trick
class Distillation(Trick):
    """Knowledge distillation: the student also learns from the softened predictions of a trained teacher.

    Paper: hinton2015distilling, arXiv:1503.02531, Sec. 2 (memory); he2019bag, arXiv:1812.01187, Sec. 5.3
    Equation: paper: L = l(p, softmax(z)) + T^2 * l(softmax(r / T), softmax(z / T)) with z the student's and r
        the teacher's logits; gluoncv: the two terms weighted 0.5 and 0.5
    Acts on: loss
    Defaults: temperature = 20.0 (he2019bag, and its authors' code); form = paper (the printed sum);
        teacher, an arm of the study, is required
    Differs: the soft term is the Kullback-Leibler divergence KL(teacher || student), not the cross-entropy.
        The two differ by the teacher's entropy, which does not depend on the student, so the gradient is the
        same; without that constant (up to T^2 * ln K = 2763 nats for K = 1000) the loss keeps its float32
        digits and is 0 where the student agrees. The authors' code weights both terms by one half: form =
        gluoncv, which halves the gradient. The hard term has the batch's own targets: smoothed and mixed ones
        where those tricks are on. Auxiliary heads have no soft loss.
    """

    name: ClassVar[str] = "distillation"
    arms: ClassVar[tuple[str, ...]] = ("teacher",)
    capturable: ClassVar[bool] = True
    temperature: float = 20.0
    form: Literal["paper", "gluoncv"] = "paper"

    def __post_init__(self) -> None:
        require(
            self.temperature > 0, f"distillation: temperature must be a number > 0, got {self.temperature!r}"
        )

    def edit_loss(self, loss: Loss, context: Context) -> Loss:
        teacher = context.teacher
        if teacher is None:
            raise ValueError("distillation needs a teacher: name an arm of the study in its option 'teacher'")
        weight = 1.0 if self.form == "paper" else 0.5

        def distilled(output: Any, batch: Batch) -> Tensor:
            soft = soft_loss(output, teacher(batch.images), self.temperature)
            return weight * loss(output, batch) + weight * soft

        return distilled


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over the batch, in float32.

    Args:
        student: logits (B, K).
        teacher: logits (B, K), without gradient.
        temperature: T; its square keeps the size of the gradient when T changes.

    >>> import torch
    >>> soft_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]), temperature=20.0).item()
    0.0
    """
    from torch.nn.functional import kl_div, log_softmax

    log_q = log_softmax(student.float() / temperature, dim=1)
    log_p = log_softmax(teacher.float() / temperature, dim=1)
    return temperature**2 * kl_div(log_q, log_p, reduction="batchmean", log_target=True)
