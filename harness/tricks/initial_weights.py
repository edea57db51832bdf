"""The weights that training starts from: drawn, or those of another training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from harness.tricks.base import Trick


@dataclass(frozen=True, kw_only=True)
class Initialisation(Trick):
    """Initialisation: how the weights are drawn before training.

    Paper: he2019bag, arXiv:1812.01187, Sec. 2.1: Xavier; he2015delving, arXiv:1502.01852, Eq. (10) and Eq.
        (14) (memory): he_fan_in, he_fan_out; szegedy2016rethinking, arXiv:1512.00567, whose released code has
        truncated_normal
    Equation: xavier: U(-a, a) with a = sqrt(6 / (fan_in + fan_out));   he: N(0, 2 / fan);   he_average:
        N(0, 2 / (1 + 0.25^2) / mean(fan_in, fan_out));   truncated_normal and
        gaussian: N(0, s^2), the former cut at 2 s
    Acts on: recipe (initialisation)
    Defaults: scheme = xavier (the text of he2019bag; its authors' code has he_average, as the study)
    Differs: he2019bag writes a = sqrt(6 / (d_in + d_out)), d_in and d_out being channels; the fans of xavier
        count the kernel's area too (glorot2010understanding), so that its 3x3 convolutions start three times
        smaller. harness/models/blocks.py says what each scheme does to linear layers. A network of a library
        keeps its own weights' rule whatever the scheme.
    """

    name: ClassVar[str] = "initialisation"
    scheme: Literal[
        "he_fan_out", "he_fan_in", "he_average", "xavier", "truncated_normal", "gaussian", "own"
    ] = "xavier"

    def edit_recipe(self, recipe: Any) -> Any:
        return dataclasses.replace(recipe, initialisation=self.scheme)


@dataclass(frozen=True, kw_only=True)
class FineTuning(Trick):
    """Fine-tuning: training starts from the weights of another, finished training.

    Paper: he2019bag, arXiv:1812.01187, Sec. 6: networks of ImageNet, trained on for detection and
        segmentation
    Equation: w_0 = the weights that the run of `source` with the same seed was evaluated with
    Acts on: none (initial weights)
    Defaults: no options; source, an arm of the study, is required
    Differs: the paper trains on for other tasks, here it is for other classes; its Table 7 (Places365) is not
        fine-tuning. Where the data sets have different numbers of classes, the classifiers are initialised as
        in any training; any other difference between the two networks is an error.
    """

    name: ClassVar[str] = "fine_tuning"
    arms: ClassVar[tuple[str, ...]] = ("source",)
