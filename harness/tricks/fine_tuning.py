"""Fine-tuning: training starts from the weights of another, finished training.

Paper: he2019bag, arXiv:1812.01187, Sec. 6: networks of ImageNet, trained on for detection and segmentation
Equation: w_0 = the weights that the run of `source` with the same seed was evaluated with
Acts on: none (initial weights)
Defaults: no options; source, an arm of the study, is required
Differs: the paper trains on for other tasks, here it is for other classes; its Table 7 (Places365) is not
    fine-tuning. Where the data sets have different numbers of classes, the classifiers are initialised as in
    any training; any other difference between the two networks is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.tricks.base import Trick


@dataclass(frozen=True, kw_only=True)
class FineTuning(Trick):
    """Start from the run of the arm in the option `source`."""

    name: ClassVar[str] = "fine_tuning"
    arms: ClassVar[tuple[str, ...]] = ("source",)
