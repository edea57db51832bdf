"""Which weights, views and networks a test image is judged by."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.tricks.base import State, Trick, require, trick

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


@trick
class Ema(Trick):
    """Weight averaging: evaluate an exponential moving average of the weights.

    Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 8: evaluation with a running average of the
        parameters
    Equation: a_0 = w_0;   a_n = d_n * a_{n-1} + (1 - d_n) * w_n after optimizer step n;
        d_n = min(decay, n / (n + 9)) with ramp, decay without
    Acts on: optimizer, eval_model
    Defaults: decay = 0.9999 and ramp = True, the values of the paper's released code; the paper gives no
        number
    Differs: szegedy2015going, arXiv:1409.4842, Sec. 6, names "Polyak averaging", in the work that it cites an
        arithmetic mean of all w_n; its studies have this average too. The buffers of batch normalisation are
        those of the trained network, where the released code averages them as well. Without the ramp a run of
        a few thousand steps is evaluated near its initial weights.
    """

    name: ClassVar[str] = "ema"
    capturable: ClassVar[bool] = True
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
        self.decay, self.ramp = decay, ramp
        self.weights = dict(model.named_parameters())  # the live ones
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.steps: int | Tensor = 0
        if any(weight.is_cuda for weight in self.average.values()):
            self.count_on_device()

    def count_on_device(self) -> None:
        """Then an update is the same operators every time, which a GPU can record."""
        import torch

        device = next(iter(self.average.values())).device
        self.steps = torch.full((), float(self.steps), dtype=torch.float64, device=device)

    def update(self, *_: Any) -> None:
        """Take in the weights of one more optimizer step (the signature of an optimizer's hook)."""
        import torch
        from torch.optim.swa_utils import get_ema_multi_avg_fn

        self.steps += 1
        averages: list[Tensor] = list(self.average.values())
        weights: list[Tensor] = list(self.weights.values())
        if isinstance(self.steps, int):
            average = get_ema_multi_avg_fn(decay_at(self.steps, decay=self.decay, ramp=self.ramp))
            average(averages, weights, self.steps)
            return
        ramp = self.steps / (self.steps + 9) if self.ramp else torch.ones_like(self.steps)
        with torch.no_grad():
            changes = torch._foreach_sub(weights, averages)
            torch._foreach_mul_(changes, (1 - ramp.clamp(max=self.decay)).float())
            torch._foreach_add_(averages, changes)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and one number: loads with `torch.load(weights_only=True)`."""
        return {"steps": int(self.steps), "average": dict(self.average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`'s state, keeping the device."""
        if isinstance(self.steps, int):
            self.steps = state["steps"]
        else:
            self.steps.fill_(state["steps"])
        for name, average in self.average.items():
            average.copy_(state["average"][name])


@trick
class RawWeights(Trick):
    """Raw weights: the network is evaluated with the weights it ends with, not with their average.

    Paper: szegedy2015going, arXiv:1409.4842, Sec. 6 and szegedy2016rethinking, arXiv:1512.00567, Sec. 8,
        which both evaluate an average of the weights; this is the row without it
    Equation: evaluate w_N in place of a_N (see ema)
    Acts on: recipe (eval_weights)
    Defaults: no options
    Differs: nothing known. It changes only how a trained network is evaluated, and costs no training: the row
        with the average and this one are the same run. Where no trick averages, both are the same number.
    """

    name: ClassVar[str] = "raw_weights"
    observes: ClassVar[bool] = True

    def edit_recipe(self, recipe: Any) -> Any:
        return recipe.but(eval_weights="raw")


@trick
class MultiCrop(Trick):
    """Multi-crop evaluation: a test image's probabilities are the mean over several views of it.

    Paper: szegedy2015going, arXiv:1409.4842, Sec. 7 and Table 3: 144 crops; krizhevsky2012imagenet,
        Sec. 4.1 (memory): 10 crops; szegedy2016rethinking, arXiv:1512.00567, Table 4: 12 crops
    Equation: p = 1 / C * sum over the C views of softmax(z(view)); 144 = 4 scales x 3 squares x 6 crops x 2
        mirrors
    Acts on: recipe (eval_crops)
    Defaults: crops = 10 (four corners and the centre, and their mirror images)
    Differs: szegedy2017inception, arXiv:1602.07261, Sec. 5, says of its 12 crops "as described in"
        szegedy2015going: 6 crops and their mirrors; the scale (256) and the square (the centre) are our
        choice. harness/data has the views of each number. It changes only how a trained network is evaluated,
        and costs no training.
    """

    name: ClassVar[str] = "multi_crop"
    observes: ClassVar[bool] = True
    crops: Literal[10, 12, 144] = 10

    def edit_recipe(self, recipe: Any) -> Any:
        return recipe.but(eval_crops=self.crops)


@trick
class Ensemble(Trick):
    """Ensemble: several trainings of one arm, which differ in their seeds, answer together.

    Paper: szegedy2015going, arXiv:1409.4842, Sec. 7 and Table 3: 7 networks; ioffe2015batch,
        arXiv:1502.03167, Sec. 4.2.3: 6; szegedy2016rethinking, arXiv:1512.00567, Table 5: 4
    Equation: p = 1 / M * sum over the M networks of softmax(z_m)
    Acts on: none (which runs are evaluated)
    Defaults: members = 7 (szegedy2015going)
    Differs: the members differ in their seed: initial weights, order and augmentation of the images. Those of
        szegedy2015going have the same initial weights and differ in sampling and order, and one is wider;
        those of ioffe2015batch differ in initial weights, dropout and where they normalise. It trains nothing
        itself, and needs its members' runs.
    """

    name: ClassVar[str] = "ensemble"
    conflicts: ClassVar[tuple[str, ...]] = ("mixed_ensemble",)
    observes: ClassVar[bool] = True
    members: int = 7

    def __post_init__(self) -> None:
        require(self.members >= 2, f"ensemble: members must be an integer >= 2, got {self.members!r}")

    def member_counts(self) -> tuple[int, ...]:
        return (self.members,)


@trick
class MixedEnsemble(Trick):
    """Mixed ensemble: trainings of two arms answer together.

    Paper: szegedy2017inception, arXiv:1602.07261, Table 5: one Inception-v4 and three Inception-ResNet-v2
    Equation: p = 1 / (M + N) * (sum over the M networks of the row's arm + sum over the N of its partner) of
        softmax(z)
    Acts on: none (which runs are evaluated)
    Defaults: members = 1 and partner_members = 3 (the paper); partner, an arm of the study, is required
    Differs: nothing known. It trains nothing itself, and needs its members' runs.
    """

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
