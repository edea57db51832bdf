"""Gradient clipping: what happens to the gradients between the backward pass and the update."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from harness.study.spec import Recipe

Clip = Callable[[Optimizer], None]  # changes the gradients of an optimizer's parameters in place


def make_clip(recipe: Recipe) -> Clip | None:
    """What the recipe's `clip_value`, and then its `clip_norm`, do to the gradients; None where both are 0.

    Szegedy et al. 2016, Sec. 8, give a threshold of 2.0 and do not say whether of the norm or of each value.
    """
    if recipe.clip_value == 0 and recipe.clip_norm == 0:
        return None

    def clip(optimizer: Optimizer) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if recipe.clip_value > 0:
            clip_values(gradients, recipe.clip_value)
        if recipe.clip_norm > 0:
            clip_norm(gradients, recipe.clip_norm)

    return clip


def clip_values(gradients: list[Tensor], most: float) -> None:
    """Bring every element into [-most, most], in place."""
    torch._foreach_clamp_min_(gradients, -most)
    torch._foreach_clamp_max_(gradients, most)


def clip_norm(gradients: list[Tensor], most: float) -> None:
    """g <- g most / max(|g|, most) in place, with |g| the L2 norm over all elements of all tensors.

    The form of TensorFlow's clip_by_global_norm (torch's adds 1e-6 to the norm). Below the threshold the
    factor is exactly 1; a norm that is not finite makes the gradients NaN, which ends the run as diverged.
    """
    norm = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, most / norm.clamp(min=most))
