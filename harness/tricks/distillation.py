"""Knowledge distillation: the student also learns from the softened predictions of a trained teacher.

Paper: hinton2015distilling, arXiv:1503.02531, Sec. 2 (memory); he2019bag, arXiv:1812.01187, Sec. 5.3
Equation: paper: L = l(p, softmax(z)) + T^2 * l(softmax(r / T), softmax(z / T)) with z the student's and r
    the teacher's logits; gluoncv: the two terms weighted 0.5 and 0.5
Acts on: loss
Defaults: temperature = 20.0 (he2019bag, and its authors' code); form = paper (the printed sum);
    teacher, an arm of the study, is required
Differs: the soft term is the Kullback-Leibler divergence KL(teacher || student), not the cross-entropy. The
    two differ by the teacher's entropy, which does not depend on the student, so the gradient is the same;
    without that constant (up to T^2 * ln K = 2763 nats for K = 1000) the loss keeps its float32 digits and
    is 0 where the student agrees. The authors' code weights both terms by one half: form = gluoncv, which
    halves the gradient. The hard term has the batch's own targets: smoothed and mixed ones where those
    tricks are on. Auxiliary heads have no soft loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.tricks.base import Batch, Context, Loss, Trick, require

if TYPE_CHECKING:
    from torch import Tensor


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


@dataclass(frozen=True, kw_only=True)
class Distillation(Trick):
    """Add the soft loss against the teacher's logits on the very images that the student sees."""

    name: ClassVar[str] = "distillation"
    arms: ClassVar[tuple[str, ...]] = ("teacher",)
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
