"""Ensemble: several trainings of one arm, which differ in their seeds, answer together.

Paper: szegedy2015going, arXiv:1409.4842, Sec. 7 and Table 3: 7 networks; ioffe2015batch,
    arXiv:1502.03167, Sec. 4.2.3: 6; szegedy2016rethinking, arXiv:1512.00567, Table 5: 4
Equation: p = 1 / M * sum over the M networks of softmax(z_m)
Acts on: none (which runs are evaluated)
Defaults: members = 7 (szegedy2015going)
Differs: the members differ in their seed: initial weights, order and augmentation of the images. Those of
    szegedy2015going have the same initial weights and differ in sampling and order, and one is wider; those
    of ioffe2015batch differ in initial weights, dropout and where they normalise. It trains nothing itself,
    and needs its members' runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.tricks.base import Trick, require


@dataclass(frozen=True, kw_only=True)
class Ensemble(Trick):
    """Evaluate `members` runs of the row's arm together."""

    name: ClassVar[str] = "ensemble"
    conflicts: ClassVar[tuple[str, ...]] = ("mixed_ensemble",)
    observes: ClassVar[bool] = True
    members: int = 7

    def __post_init__(self) -> None:
        require(self.members >= 2, f"ensemble: members must be an integer >= 2, got {self.members!r}")

    def member_counts(self) -> tuple[int, ...]:
        return (self.members,)
