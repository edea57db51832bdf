"""What a trick may do: a closed set of hooks, each value in, value out, named for what it edits.

A trick is a frozen dataclass; its fields are its options, checked in `__post_init__`. Hooks it does not
define leave everything as it is, bit for bit. Tricks act in the order in which a study lists them.
No trick module imports torch when it is imported, so that planning stays fast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar, dataclass_transform

from harness.errors import frozen

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn
    from torch.optim import Optimizer

HOOKS = (
    "edit_recipe",
    "edit_model",
    "edit_parameter_groups",
    "edit_optimizer",
    "edit_batch",
    "edit_loss",
    "edit_eval_model",
    "edit_prediction",
)


IN_STEPS = frozenset({"edit_model", "edit_optimizer", "edit_loss"})  # what they make is called at every step


class Batch(NamedTuple):
    """What one step trains on. Targets are always soft, so mixing and smoothing need no special case."""

    images: Tensor  # (B, C, H, W) float, normalised
    targets: Tensor  # (B, K) float, rows sum to 1


@frozen
class Context:
    """What a trick may know about the run it acts in."""

    classes: int
    steps_per_epoch: int
    total_steps: int
    teacher: Callable[[Tensor], Tensor] | None = None  # images (B, C, H, W) -> logits (B, K), no gradient


class State(Protocol):
    """What a stateful trick carries from step to step; saved in every checkpoint."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


Loss = Callable[[Any, Batch], "Tensor"]  # (the model's output, batch) -> scalar
Predict = Callable[["Tensor"], "Tensor"]  # images (B, C, H, W) -> logits (B, K)
ParameterGroup = dict[str, Any]  # {"params": [(name, parameter), ...], "weight_decay": float, ...}


_Class = TypeVar("_Class")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def trick(cls: type[_Class]) -> type[_Class]:
    """What stands above the class of every trick here; a plug-in's may have, as is documented,
    `@dataclass(frozen=True, kw_only=True)`, which takes longer."""
    return frozen(cls, slots=False)


class Trick:
    """The identity: every hook returns what it was given."""

    # No data class itself, so that one of either maker may be built on it; all that are used are some.
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    name: ClassVar[str]
    conflicts: ClassVar[tuple[str, ...]] = ()  # names of tricks that may not be on beside this one
    arms: ClassVar[
        tuple[str, ...]
    ] = ()  # options in which the study must name an arm: teacher, source, partner
    per_image: ClassVar[bool] = (
        False  # `edit_batch` treats each image alone: a part of a batch is edited alike
    )
    # Options that came later: a run's spec holds them where they are not the default, which is frozen.
    said_if_set: ClassVar[tuple[str, ...]] = ()
    # Of hooks that act inside a step (`IN_STEPS`): whether they are the same operators on the same tensors at
    # every step, which a GPU can record and replay. Not so: a number counted in Python, a value read back.
    capturable: ClassVar[bool] = False
    observes: ClassVar[bool] = False  # changes only how a trained network is evaluated: costs no training

    def edit_recipe(self, recipe: Any) -> Any:
        """Numbers and switches, before anything is built (harness.spec.Recipe, in the paper's units).

        Raises:
            ValueError: the trick cannot exist on this recipe, in words for the user.
        """
        return recipe

    def edit_model(self, model: nn.Module) -> nn.Module:
        """The network, once built and initialised."""
        return model

    def edit_parameter_groups(self, groups: list[ParameterGroup], model: nn.Module) -> list[ParameterGroup]:
        """Which parameters the optimizer treats alike."""
        return groups

    def edit_optimizer(self, optimizer: Optimizer, state: State | None) -> Optimizer:
        """The optimizer, once built."""
        return optimizer

    def edit_batch(self, batch: Batch, rng: Generator, context: Context) -> Batch:
        """The augmented batch, on its device. Every random draw comes from `rng` (a CPU generator of its own
        for this trick and this step)."""
        return batch

    def edit_loss(self, loss: Loss, context: Context) -> Loss:
        """The loss function, once per run."""
        return loss

    def edit_eval_model(self, model: nn.Module, state: State | None) -> nn.Module:
        """The network that is evaluated."""
        return model

    def edit_prediction(self, predict: Predict) -> Predict:
        """How logits are made from images at evaluation."""
        return predict

    def new_state(self, model: nn.Module) -> State | None:
        """What this trick remembers between steps; None for almost every trick."""
        return None

    def member_counts(self) -> tuple[int, ...]:
        """How many trained networks an observing trick evaluates together: of the row's own arm, then of the
        arm in each option of `arms`."""
        return (1,)

    def options(self) -> dict[str, Any]:
        """Every option with its value."""
        return dataclasses.asdict(self)


def hooks_of(trick: Trick | type[Trick]) -> tuple[str, ...]:
    """The hooks that a trick defines itself, in the order of `HOOKS`."""
    cls = trick if isinstance(trick, type) else type(trick)
    return tuple(hook for hook in HOOKS if getattr(cls, hook) is not getattr(Trick, hook))


def acts_in_steps(trick: Trick | type[Trick]) -> bool:
    """Whether something of the trick is executed in every step of a training, after its batch was made."""
    return not IN_STEPS.isdisjoint(hooks_of(trick))


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition holds; for options in `__post_init__`."""
    if not condition:
        raise ValueError(message)


def with_model_args(recipe: Any, purpose: str, **values: Any) -> Any:
    """The recipe with some arguments of its model set.

    Raises:
        ValueError: the model lacks one: `purpose`, as in "zero_gamma needs residual blocks", then which.
    """
    model = recipe.model
    for argument in values:
        require(argument in model.args, f"{purpose}: {model.name} has no argument '{argument}'")
    return recipe.but(model=model.with_args(**values))
