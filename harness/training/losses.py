"""The loss that tricks start from, and what auxiliary heads add to it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from harness.models.outputs import Outputs
from harness.tricks.base import Batch, Loss


def soft_cross_entropy(output: Any, batch: Batch) -> Tensor:
    """Mean over the batch of - sum_k t_k log softmax(z)_k, in FP32 whatever the precision of the network.

    Args:
        output: logits z, (B, K).
        batch: its targets t are (B, K); on one-hot targets this is the ordinary cross entropy.

    Returns:
        A scalar tensor, in nats.
    """
    return functional.cross_entropy(output.float(), batch.targets)


def with_auxiliary(loss: Loss, weight: float) -> Loss:
    """`loss` of the main head + weight * the sum over auxiliary heads of their `soft_cross_entropy`.

    Every head has the batch's own targets, smoothed and mixed where tricks did that (as in the code that
    Szegedy et al. 2016 released). What tricks make of the loss (distillation, ...) acts on the main head, and
    sees its logits alone. A network without auxiliary heads has `loss`, bit for bit.
    """

    def total(output: Any, batch: Batch) -> Tensor:
        if not isinstance(output, Outputs):
            return loss(output, batch)
        result = loss(output.logits, batch)
        for logits in output.auxiliary:
            result = result + weight * soft_cross_entropy(logits, batch)
        return result

    return total
