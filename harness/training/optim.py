"""Optimizers, clipping, the learning rate of every step, and the numeric format of a step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.errors import unknown
from harness.models.half import EmulatedHalf
from harness.spec import Recipe
from harness.tricks.base import ParameterGroup, Trick

# RMSProp as TensorFlow computes it, which the Inception papers trained with.
#
# Beside the learning rate's place, torch.optim.RMSprop differs in two ways that matter with the papers' eps
# of 1.0 (szegedy2016rethinking, Sec. 8): it adds eps outside the square root, and its mean square starts at
# 0.


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
            _add_quotients(weights, gradients, roots, -group["lr"])
            return
        buffers = self._kept("momentum_buffer", weights, torch.zeros_like)
        torch._foreach_mul_(buffers, group["momentum"])
        _add_quotients(buffers, gradients, roots, group["lr"])
        torch._foreach_sub_(weights, buffers)

    def _kept(self, name: str, weights: list[Tensor], start: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """This state of every weight, made where there is none yet."""
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = start(weight)
        return [self.state[weight][name] for weight in weights]


def _add_quotients(
    sums: list[Tensor], gradients: list[Tensor], roots: tuple[Tensor, ...] | list[Tensor], lr: float | Tensor
) -> None:
    """s <- s + (lr g) / r in place. The kernel that does it at once wants the rate as a number."""
    if isinstance(lr, Tensor):
        torch._foreach_add_(sums, torch._foreach_div(torch._foreach_mul(gradients, lr), roots))
    else:
        torch._foreach_addcdiv_(sums, gradients, roots, value=lr)


# Optimizers by name. The algorithms are torch.optim's, and TensorFlow's RMSProp.


@dataclass(frozen=True, slots=True)
class OptimizerEntry:
    """An optimizer's constructor, and what a recipe leaves to us."""

    make: type[Optimizer]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fused: bool = True  # has one kernel for all parameters on CPU and CUDA


OPTIMIZERS: Mapping[str, OptimizerEntry] = {
    # Nesterov momentum 0.9 is the optimizer of He et al. 2019 (GluonCV's NAG) and of Goyal et al. 2017.
    "sgd": OptimizerEntry(torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": OptimizerEntry(torch.optim.Adam),
    "adamw": OptimizerEntry(torch.optim.AdamW),
    "rmsprop": OptimizerEntry(torch.optim.RMSprop, fused=False),
    "rmsprop_tf": OptimizerEntry(RMSpropTF, fused=False),
}


def parameter_groups(
    model: nn.Module, tricks: Sequence[Trick], *, weight_decay: float
) -> list[ParameterGroup]:
    """One group with every trainable parameter, as the tricks then regroup it.

    Raises:
        ValueError: a trick lost a parameter or put one into two groups.
    """
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    groups: list[ParameterGroup] = [{"params": named, "weight_decay": weight_decay}]
    for trick in tricks:
        groups = trick.edit_parameter_groups(groups, model)
    grouped = sorted(name for group in groups for name, _ in group["params"])
    if grouped != sorted(name for name, _ in named):
        twice = sorted({name for name in grouped if grouped.count(name) > 1})
        lost = sorted({name for name, _ in named} - set(grouped))
        raise ValueError(f"parameter groups must hold each parameter once; twice: {twice}, missing: {lost}")
    return groups


def make_optimizer(recipe: Recipe, groups: Sequence[ParameterGroup]) -> Optimizer:
    """The recipe's optimizer over the groups. The learning rate is set anew at every step.

    Raises:
        ValueError: an unknown optimizer, or an argument that its constructor does not take.
    """
    if recipe.optimizer not in OPTIMIZERS:
        raise ValueError(unknown("optimizer", recipe.optimizer, OPTIMIZERS))
    entry = OPTIMIZERS[recipe.optimizer]
    valid = set(inspect.signature(entry.make).parameters) - {"params", "lr", "weight_decay"}
    for name in recipe.optimizer_args:
        if name not in valid:
            raise ValueError(unknown(f"argument of optimizer {recipe.optimizer}", name, valid))
    options = {**entry.defaults, **recipe.optimizer_args}
    if entry.fused:
        # A first momentum of zeros, see below, equals the gradient only where nothing of it is damped.
        options.setdefault("fused", not options.get("dampening"))
    plain = [{**group, "params": [value for _, value in group["params"]]} for group in groups]
    make: Any = entry.make
    optimizer: Optimizer = make(plain, lr=recipe.lr, **options)
    if options.get("fused") and options.get("momentum"):
        _start_momentum(optimizer)
    return optimizer


def _start_momentum(optimizer: Optimizer) -> None:
    """Zeros for the momentum of fused SGD, before the first step.

    Its kernel makes the momentum with uninitialised memory and, where FP16 overflowed, returns before it
    writes it: the second step would take that memory for gradients (torch 2.13). From zeros the first step
    is the same, m * 0 + g.
    """
    for group in optimizer.param_groups:
        for value in group["params"]:
            optimizer.state[value]["momentum_buffer"] = torch.zeros_like(value)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate, times its own factor where it has one."""
    for group in optimizer.param_groups:
        rate = lr * group.get("lr_scale", 1.0)
        if isinstance(held := group.get("lr"), Tensor):
            held.fill_(rate)
        else:
            group["lr"] = rate


# The learning rate in a tensor: then an update is the same operators with the same arguments at every step,
# and a GPU can record it (`harness.training.loop`).


def takes_tensors(optimizer: Optimizer) -> bool:
    """Whether its update reads the rate on the device: torch's fused ones, and ours."""
    fused = all(group.get("fused") for group in optimizer.param_groups)
    return fused or isinstance(optimizer, RMSpropTF)


def skips_by_itself(optimizer: Optimizer) -> bool:
    """Whether its kernel leaves an update out where FP16 overflowed; else the CPU reads that, and waits."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def hold_rates(optimizer: Optimizer, device: torch.device | None) -> None:
    """Where `set_lr` puts the learning rates: tensors of the device, where the update takes them; with None
    numbers. To be called after a checkpoint was loaded, which may hold either."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        if device is not None and takes_tensors(optimizer):
            # Kernels of a CPU compute with the number in a double.
            dtype = torch.float64 if device.type == "cpu" else torch.float32
            group["lr"] = torch.zeros((), dtype=dtype, device=device)


@contextmanager
def capturable(optimizer: Optimizer) -> Iterator[None]:
    """Torch's Adam wants to be told that it is recorded, and warns where it is told and is not."""
    asking = [group for group in optimizer.param_groups if "capturable" in group]
    for group in asking:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in asking:
            group["capturable"] = False


# Gradient clipping: what happens to the gradients between the backward pass and the update.


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


# The learning rate of every step, as a pure function of the step.


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The numbers that the learning rate depends on. Times are in optimizer steps."""

    kind: str  # constant | step | cosine | exponential
    lr_peak: float
    total_steps: int
    warmup_steps: int = 0
    warmup_lr: float = 0.0
    warmup_shape: str = "linear"  # proportional | linear | constant
    milestone_steps: tuple[int, ...] = ()
    decay: float = 0.1
    decay_steps: float = math.inf  # not rounded: of `exponential`, the time from one stair to the next


def make_schedule(recipe: Recipe, *, steps_per_epoch: int) -> Schedule:
    """The recipe's epochs in steps of this data set, each rounded to the nearest step.

    Raises:
        ValueError: the recipe names a schedule or a shape of warm-up that does not exist, or a stair of no
            length.
    """
    if recipe.schedule not in AFTER_WARMUP:
        raise ValueError(unknown("schedule", recipe.schedule, AFTER_WARMUP))
    if recipe.warmup_shape not in WARMUPS:
        raise ValueError(unknown("shape of warm-up", recipe.warmup_shape, WARMUPS))
    if recipe.schedule == "exponential" and recipe.decay_every <= 0:
        raise ValueError(f"decay_every must be a number of epochs above 0, got {recipe.decay_every!r}")
    return Schedule(
        kind=recipe.schedule,
        lr_peak=recipe.lr,
        total_steps=count_steps(recipe.epochs, steps_per_epoch),
        warmup_steps=round(recipe.warmup_epochs * steps_per_epoch),
        warmup_lr=recipe.warmup_lr,
        warmup_shape=recipe.warmup_shape,
        milestone_steps=tuple(round(epoch * steps_per_epoch) for epoch in recipe.milestones),
        decay=recipe.decay,
        decay_steps=recipe.decay_every * steps_per_epoch,
    )


def count_steps(epochs: float, steps_per_epoch: int) -> int:
    """The length of a training in steps. Epochs may be fractional; at least one step is made.

    >>> count_steps(1.5, 10)
    15
    """
    return max(1, round(epochs * steps_per_epoch))


def lr_at(step: int, schedule: Schedule) -> float:
    """The learning rate of a step; the first step is 0.

    >>> goyal = Schedule(kind="constant", lr_peak=3.2, total_steps=100, warmup_steps=50, warmup_lr=0.1)
    >>> [round(lr_at(step, goyal), 3) for step in (0, 10, 25, 50)]
    [0.1, 0.72, 1.65, 3.2]
    """
    if step < schedule.warmup_steps:
        return WARMUPS[schedule.warmup_shape](step, schedule)
    return AFTER_WARMUP[schedule.kind](step, schedule)


def _proportional_warmup(step: int, schedule: Schedule) -> float:
    """i lr_peak / m at batch i = 1, ..., m of m (He et al. 2019, Sec. 3.1): lr_peak at the last one.

    >>> rise = {"warmup_steps": 4, "warmup_shape": "proportional"}
    >>> he = Schedule(kind="constant", lr_peak=0.4, total_steps=9, **rise)
    >>> [round(lr_at(step, he), 3) for step in range(5)]
    [0.1, 0.2, 0.3, 0.4, 0.4]
    """
    return schedule.lr_peak * (step + 1) / schedule.warmup_steps


def _linear_warmup(step: int, schedule: Schedule) -> float:
    """From warmup_lr at step 0 to lr_peak after warm-up, by the same amount at each step (Goyal et al. 2017,
    Sec. 2.2, from the rate of one worker)."""
    rise = schedule.lr_peak - schedule.warmup_lr
    return schedule.warmup_lr + rise * step / schedule.warmup_steps


def _constant_warmup(step: int, schedule: Schedule) -> float:
    """warmup_lr during warm-up, then at once what the schedule says (Goyal et al. 2017, Sec. 2.2)."""
    return schedule.warmup_lr


def _constant(step: int, schedule: Schedule) -> float:
    return schedule.lr_peak


def _step(step: int, schedule: Schedule) -> float:
    """Multiply by `decay` at each milestone, counted from the start of training, warm-up included."""
    passed = sum(step >= milestone for milestone in schedule.milestone_steps)
    return schedule.lr_peak * schedule.decay**passed


def _cosine(step: int, schedule: Schedule) -> float:
    """lr_t = 0.5 (1 + cos(pi t / T)) lr_peak, where t and T leave warm-up out (He et al. 2019, Eq. (1))."""
    t = step - schedule.warmup_steps
    length = max(1, schedule.total_steps - schedule.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * t / length)) * schedule.lr_peak


def _exponential(step: int, schedule: Schedule) -> float:
    """lr_peak decay^floor(t / T): a staircase with a stair every T = decay_steps, counted from the start of
    training, warm-up included (Szegedy et al. 2016, Sec. 8: 0.94 every 2 epochs; Szegedy et al. 2015, Sec. 6:
    0.96 every 8). A stair that ends between two steps ends at the nearer one.

    >>> inception = Schedule(kind="exponential", lr_peak=0.045, total_steps=99, decay=0.94, decay_steps=20)
    >>> [round(lr_at(step, inception), 6) for step in (0, 19, 20, 39, 40)]
    [0.045, 0.045, 0.0423, 0.0423, 0.039762]
    """
    stairs = math.floor((step + 0.5) / schedule.decay_steps)
    return schedule.lr_peak * schedule.decay**stairs


WARMUPS: Mapping[str, Callable[[int, Schedule], float]] = {
    "proportional": _proportional_warmup,
    "linear": _linear_warmup,
    "constant": _constant_warmup,
}
AFTER_WARMUP: Mapping[str, Callable[[int, Schedule], float]] = {
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
    "exponential": _exponential,
}


# Numeric formats of a training step: fp32, bf16 (autocast) and fp16 (autocast and loss scaling).
#
# On a CPU, bf16 and fp16 are emulated (`harness.models.half`), so that they mean the same on every machine.


AUTOCAST_TYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class Precision:
    """How a step computes. Parameters and optimizer state are FP32 in every format (master weights).

    fp16 multiplies the loss by a scale that adapts, so that small gradients do not become zero, and leaves
    out the update of a step whose gradients overflowed (Micikevicius et al. 2018, Sec. 3.2).
    """

    def __init__(self, name: str, device: torch.device) -> None:
        """
        Raises:
            ValueError: there is no format of this name.
        """
        if name not in AUTOCAST_TYPES:
            raise ValueError(unknown("precision", name, AUTOCAST_TYPES))
        self._device_type = device.type
        self._dtype = AUTOCAST_TYPES[name]
        self._scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def forward(self) -> AbstractContextManager[Any]:
        """The context in which the network is called, in training and in evaluation."""
        if self._dtype is None:
            return nullcontext()
        if self._device_type == "cpu":
            return EmulatedHalf(self._dtype)
        return torch.autocast(self._device_type, dtype=self._dtype)

    def backward_and_step(self, loss: Tensor, optimizer: Optimizer, clip: Clip | None = None) -> None:
        """Gradients of a scalar loss, clipped, one update of the parameters, gradients cleared."""
        self._scaler.scale(loss).backward()
        if clip is not None:
            self._scaler.unscale_(optimizer)  # nothing to do in fp32 and bf16
            clip(optimizer)
        self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad(set_to_none=True)

    def forget_step(self) -> None:
        """After a step that was broken off: the next one begins anew, at the same scale."""
        state = self.state_dict()
        self._scaler = torch.amp.GradScaler(self._device_type, enabled=self._scaler.is_enabled())
        self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """The loss scale and its growth counter; empty for fp32 and bf16."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self._scaler.load_state_dict(state)
