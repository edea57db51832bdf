"""Weight averaging: evaluate an exponential moving average of the weights.

Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 8: evaluation with a running average of the
    parameters
Equation: a_0 = w_0;   a_n = d_n * a_{n-1} + (1 - d_n) * w_n after optimizer step n;
    d_n = min(decay, n / (n + 9)) with ramp, decay without
Acts on: optimizer, eval_model
Defaults: decay = 0.9999 and ramp = True, the values of the paper's released code; the paper gives no number
Differs: szegedy2015going, arXiv:1409.4842, Sec. 6, names "Polyak averaging", in the work that it cites an
    arithmetic mean of all w_n; its studies have this average too. The buffers of batch normalisation are
    those of the trained network, where the released code averages them as well. Without the ramp a run of a
    few thousand steps is evaluated near its initial weights.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.tricks.base import State, Trick, require

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


_NO_STATE = "ema needs the state that its new_state made"


def decay_at(step: int, *, decay: float, ramp: bool) -> float:
    """The weight of the old average at optimizer step `step` (1-based).

    >>> [round(decay_at(step, decay=0.9999, ramp=True), 4) for step in (1, 9, 91, 10**6)]
    [0.1, 0.5, 0.91, 0.9999]
    >>> decay_at(1, decay=0.9999, ramp=False)
    0.9999
    """
    return min(decay, step / (step + 9)) if ramp else decay


class Average:
    """The averaged weights and how many steps are in them. Make it once the model is on its device."""

    def __init__(self, model: nn.Module, *, decay: float, ramp: bool) -> None:
        self.decay, self.ramp, self.steps = decay, ramp, 0
        self.weights = dict(model.named_parameters())  # the live ones
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def update(self, *_: Any) -> None:
        """Take in the weights of one more optimizer step (the signature of an optimizer's hook)."""
        from torch.optim.swa_utils import get_ema_multi_avg_fn

        self.steps += 1
        average = get_ema_multi_avg_fn(decay_at(self.steps, decay=self.decay, ramp=self.ramp))
        average(list(self.average.values()), list(self.weights.values()), self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and one number: loads with `torch.load(weights_only=True)`."""
        return {"steps": self.steps, "average": dict(self.average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`'s state, keeping the device."""
        self.steps = state["steps"]
        for name, average in self.average.items():
            average.copy_(state["average"][name])


@dataclass(frozen=True, kw_only=True)
class Ema(Trick):
    """Average the weights after every optimizer step and evaluate the average."""

    name: ClassVar[str] = "ema"
    decay: float = 0.9999
    ramp: bool = True

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, f"ema: decay must be a number in [0, 1), got {self.decay!r}")

    def new_state(self, model: nn.Module) -> Average:
        return Average(model, decay=self.decay, ramp=self.ramp)

    def edit_optimizer(self, optimizer: Optimizer, state: State | None) -> Optimizer:
        if not isinstance(state, Average):
            raise TypeError(_NO_STATE)
        optimizer.register_step_post_hook(state.update)
        return optimizer

    def edit_eval_model(self, model: nn.Module, state: State | None) -> nn.Module:
        if not isinstance(state, Average):
            raise TypeError(_NO_STATE)
        averaged = copy.deepcopy(model)  # buffers included
        for name, weight in averaged.named_parameters():
            weight.data.copy_(state.average[name])
        return averaged
