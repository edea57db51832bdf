"""Hide a square of every training image.

Paper: own
Equation: x'[i, j] = 0 for i, j in a random square of side round(share * S), else x[i, j]
Acts on: batch (images)
Defaults: share = 0.25 (own)
Differs: nothing
"""

from dataclasses import dataclass
from typing import ClassVar

from harness.tricks.base import Batch, Trick, require


@dataclass(frozen=True, kw_only=True)
class HiddenSquare(Trick):
    """One square per image, its place drawn uniformly; 0 is the mean colour of normalised images."""

    name: ClassVar[str] = "hidden_square"
    share: float = 0.25

    def __post_init__(self):
        require(0 < self.share < 1, f"hidden_square: share must be between 0 and 1, got {self.share!r}")

    def edit_batch(self, batch, rng, context):
        import torch

        count, side = len(batch.images), batch.images.shape[-1]
        hidden = max(1, round(self.share * side))
        corners = torch.randint(0, side - hidden + 1, (count, 2, 1), generator=rng)  # every draw from rng
        at = torch.arange(side)
        inside = (at >= corners) & (at < corners + hidden)  # (B, 2, S): rows, columns
        keep = ~(inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
        return Batch(batch.images * keep.to(batch.images), batch.targets)


TRICKS = (HiddenSquare,)
