"""What a network with auxiliary heads answers while it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Outputs(NamedTuple):
    """Logits of the main head (B, K), and of each auxiliary head, each (B, K). At evaluation a network
    answers with the main head's logits alone."""

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
