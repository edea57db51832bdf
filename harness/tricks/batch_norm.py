"""Batch normalisation: each channel is normalised over the batch, then scaled and shifted.

Paper: ioffe2015batch, arXiv:1502.03167, Alg. 1 and Sec. 3.2
Equation: y = gamma * (x - mean_B) / sqrt(var_B + eps) + beta, with mean and variance over the batch and the
    pixels, before the nonlinearity; running averages of both at evaluation
Acts on: recipe (model argument norm)
Defaults: no options
Differs: gamma starts at 1 and beta at 0. The bias of a normalised layer is left out, as in the paper: beta
    takes its place. The statistics at evaluation are running averages, which the paper uses to follow a
    training; its Alg. 2 takes means over many batches at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from harness.tricks.base import Trick, with_model_args


@dataclass(frozen=True, kw_only=True)
class BatchNorm(Trick):
    """Set the model argument `norm` to "batch"."""

    name: ClassVar[str] = "batch_norm"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "batch_norm needs a network that can be without it", norm="batch")
