"""RMSProp as TensorFlow computes it, which the Inception papers trained with.

Beside the learning rate's place, torch.optim.RMSprop differs in two ways that matter with the papers' eps of
1.0 (szegedy2016rethinking, Sec. 8): it adds eps outside the square root, and its mean square starts at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class RMSpropTF(Optimizer):
    """For each parameter w with gradient g, starting from s = 1 and m = 0:

        g <- g + weight_decay w
        s <- alpha s + (1 - alpha) g^2
        m <- momentum m + lr g / sqrt(s + eps)
        w <- w - m

    The learning rate is inside the momentum m, so that a lower rate acts on later gradients only.

    Differs: nothing known; TensorFlow's own L2 term is part of its loss and so of g, as here.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        *,
        alpha: float = 0.9,
        eps: float = 1e-10,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        """
        Raises:
            ValueError: alpha outside [0, 1), eps not above 0, or a negative momentum or weight decay.
        """
        if not (0 <= alpha < 1 and eps > 0 and momentum >= 0 and weight_decay >= 0):
            raise ValueError(
                "rmsprop_tf needs 0 <= alpha < 1, eps > 0, momentum >= 0 and weight decay >= 0, got "
                f"alpha {alpha}, eps {eps}, momentum {momentum}, weight decay {weight_decay}"
            )
        numbers = {"alpha": alpha, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {"lr": lr, **numbers})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update; many small tensors at a time, which on an accelerator is a few kernels in all."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._update(weights, group)
        return loss

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if group["weight_decay"] != 0:
            gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        squares = self._kept("square_avg", weights, torch.ones_like)
        # s + (1 - alpha) (g^2 - s), TensorFlow's order of operations.
        changes = torch._foreach_mul(gradients, gradients)
        torch._foreach_sub_(changes, squares)
        torch._foreach_add_(squares, changes, alpha=1 - group["alpha"])
        roots = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(roots)
        if group["momentum"] == 0:
            torch._foreach_addcdiv_(weights, gradients, roots, value=-group["lr"])
            return
        buffers = self._kept("momentum_buffer", weights, torch.zeros_like)
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_addcdiv_(buffers, gradients, roots, value=group["lr"])
        torch._foreach_sub_(weights, buffers)

    def _kept(self, name: str, weights: list[Tensor], start: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """This state of every weight, made where there is none yet."""
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = start(weight)
        return [self.state[weight][name] for weight in weights]
