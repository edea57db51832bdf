"""The loss that tricks start from."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from harness.tricks.base import Batch


def soft_cross_entropy(output: Any, batch: Batch) -> Tensor:
    """Mean over the batch of - sum_k t_k log softmax(z)_k, in FP32 whatever the precision of the network.

    Args:
        output: logits z, (B, K).
        batch: its targets t are (B, K); on one-hot targets this is the ordinary cross entropy.

    Returns:
        A scalar tensor, in nats.
    """
    return functional.cross_entropy(output.float(), batch.targets)
