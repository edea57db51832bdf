"""Mixed ensemble: trainings of two arms answer together.

Paper: szegedy2017inception, arXiv:1602.07261, Table 5: one Inception-v4 and three Inception-ResNet-v2
Equation: p = 1 / (M + N) * (sum over the M networks of the row's arm + sum over the N of its partner) of
    softmax(z)
Acts on: none (which runs are evaluated)
Defaults: members = 1 and partner_members = 3 (the paper); partner, an arm of the study, is required
Differs: nothing known. It trains nothing itself, and needs its members' runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.tricks.base import Trick, require


@dataclass(frozen=True, kw_only=True)
class MixedEnsemble(Trick):
    """Evaluate `members` runs of the row's arm and `partner_members` of another arm together."""

    name: ClassVar[str] = "mixed_ensemble"
    conflicts: ClassVar[tuple[str, ...]] = ("ensemble",)
    arms: ClassVar[tuple[str, ...]] = ("partner",)
    observes: ClassVar[bool] = True
    members: int = 1
    partner_members: int = 3

    def __post_init__(self) -> None:
        for option in ("members", "partner_members"):
            count = getattr(self, option)
            require(count >= 1, f"mixed_ensemble: {option} must be an integer >= 1, got {count!r}")

    def member_counts(self) -> tuple[int, ...]:
        return (self.members, self.partner_members)
