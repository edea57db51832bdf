"""What the table of models says about one architecture, without importing torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from harness.errors import frozen, unknown

if TYPE_CHECKING:
    from torch import nn


@frozen
class Argument:
    """One constructor argument: its default (a JSON value, or a tuple of them) and what it accepts."""

    default: Any
    words: str  # what a valid value is, as it follows "must be"
    accepts: Callable[[Any], bool]
    changes_cost: bool = True  # False: parameters and multiply-adds are the same for every value


@frozen
class Model:
    """One architecture. `build` takes every argument by name, and `classes` and `in_channels`."""

    name: str
    arguments: Mapping[str, Argument]
    build: Callable[..., nn.Module]  # imports torch when it is called, not before
    paper: str  # key in docs/references.bib
    note: str
    variants: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict
    )  # name -> arguments; usable as models
    input_size: int = 224  # the paper's, in pixels
    minimum_input: Callable[[Mapping[str, Any]], int] = lambda args: 1  # smallest side, of resolved arguments
    # Whether `forward` is the same operators at every step of a training, which a GPU can record and replay.
    capturable: bool = False
    own_initialisation: bool = False  # keeps its constructor's weights, whatever the recipe's scheme
    rule: Callable[[Mapping[str, Any]], None] = lambda args: None  # ValueError: resolved arguments do not fit

    @property
    def args(self) -> dict[str, Any]:
        """Every constructor argument with its default."""
        return {name: argument.default for name, argument in self.arguments.items()}

    def validate(self, args: Mapping[str, Any]) -> None:
        """Check the given arguments; those left out take their defaults.

        Whether they go together is asked once all are known, by `resolve`.

        Raises:
            ValueError: an unknown argument, or a value of the wrong type or out of range.
        """
        for name, value in args.items():
            argument = self.arguments.get(name)
            if argument is None:
                raise ValueError(f"{self.name}: {unknown('argument', name, self.arguments)}")
            if not argument.accepts(value):
                raise ValueError(f"{self.name}: {name} must be {argument.words}, got {value!r}")

    def resolve(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Every argument, checked, in the type of its default (JSON has no tuples, and may say 1 for 1.0).

        Raises:
            ValueError: as `validate`, or values that do not go together.
        """
        self.validate(args)
        full = {name: type(default)(args.get(name, default)) for name, default in self.args.items()}
        try:
            self.rule(full)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        return full

    def check_input(self, args: Mapping[str, Any], resolution: int) -> None:
        """Refuse images that are too small for the network; `args` are resolved, `resolution` is in pixels.

        Raises:
            ValueError: how many pixels it needs.
        """
        least = self.minimum_input(args)
        if resolution < least:
            raise ValueError(f"{self.name}: images need at least {least} pixels a side, got {resolution}")


def counts(default: tuple[int, ...], *, at_most: int) -> Argument:
    """One to as many positive integers as the default has.

    >>> counts((3, 4, 6, 3), at_most=100).accepts([1, 1, 1])
    True
    """
    words = f"1 to {len(default)} positive integers, none above {at_most}"

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, list | tuple)
            and 1 <= len(value) <= len(default)
            and all(type(count) is int and 1 <= count <= at_most for count in value)
        )

    return Argument(default=default, words=words, accepts=accepts)


def number(default: float, *, low: float, high: float) -> Argument:
    """A finite number from `low` to `high`, both included."""

    def accepts(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and low <= value <= high

    return Argument(default=default, words=f"a number from {low:g} to {high:g}", accepts=accepts)


def whole(default: int, *, low: int, high: int) -> Argument:
    """A whole number from `low` to `high`, both included."""
    return Argument(
        default=default,
        words=f"a whole number from {low} to {high}",
        accepts=lambda value: type(value) is int and low <= value <= high,
    )


def choice(*values: str) -> Argument:
    """One of a few words; the first is the default."""
    words = " or ".join(f"'{value}'" for value in values)
    return Argument(
        default=values[0], words=words, accepts=lambda value: isinstance(value, str) and value in values
    )


def switch(default: bool, *, changes_cost: bool) -> Argument:
    """True or false."""
    return Argument(
        default=default,
        words="true or false",
        accepts=lambda value: isinstance(value, bool),
        changes_cost=changes_cost,
    )


def blocks_kept(full: tuple[int, ...]) -> Argument:
    """How many blocks of each stage stay: for every stage from 1 to as many as the paper has.

    >>> blocks_kept((2, 5, 2)).accepts([1, 5, 2]), blocks_kept((2, 5, 2)).accepts([3, 5, 2])
    (True, False)
    """
    words = (
        f"{len(full)} whole numbers, the blocks kept of each stage ({', '.join(f'1 to {n}' for n in full)})"
    )

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(full)
            and all(type(kept) is int and 1 <= kept <= most for kept, most in zip(value, full, strict=True))
        )

    return Argument(default=full, words=words, accepts=accepts)


def dropout(default: float) -> Argument:
    """The share of units that are dropped; costs nothing."""
    return replace(number(default, low=0, high=0.99), changes_cost=False)


def free(argument: Argument) -> Argument:
    """The same argument, declared to change neither parameters nor multiply-adds."""
    return replace(argument, changes_cost=False)


def scaled_channels(count: int, width: float) -> int:
    """A channel count of the paper times `width`, to the nearest integer, halves upwards.

    >>> [scaled_channels(count, 0.0390625) for count in (32, 64, 96, 128)]  # 1.25, 2.5, 3.75, 5
    [1, 3, 4, 5]

    Raises:
        ValueError: nothing is left.
    """
    scaled = math.floor(count * width + 0.5)
    if scaled < 1:
        raise ValueError(f"width {width:g} leaves no channel of {count}")
    return scaled


# What must hold between the arguments of a ResNet or a MobileNet: asked when planning, and when building.


RESNET_CHANNELS = (64, 128, 256, 512)  # of each stage's 3x3 convolutions, He et al. 2016, Table 1
CIFAR_CHANNELS = (16, 32, 64)  # the same of its networks for CIFAR, Sec. 4.2
MOBILENET_DEPTH = (1, 2, 2, 6, 2)  # separable convolutions at 112 to 7 pixels, Howard et al. 2017, Table 1
SHALLOW_STAGE = 3  # index of the stage whose blocks of stride 1 the shallow MobileNet has not


def groups_divide_channels(args: Mapping[str, Any]) -> None:
    """The 3x3 convolutions of every stage must split into equal groups, whatever the width.

    Raises:
        ValueError: they do not, or no channel is left.
    """
    for stage, _ in enumerate(args["depth"], start=1):
        inner = args["groups"] * args["group_width"] * RESNET_CHANNELS[stage - 1] // RESNET_CHANNELS[0]
        channels = scaled_channels(inner, args["width"])
        if channels % args["groups"]:
            raise ValueError(
                f"width {args['width']:g} leaves {channels} of {inner} channels in the 3x3 convolutions of "
                f"stage {stage}, which do not split into {args['groups']} groups: choose a width that makes "
                f"them a multiple of {args['groups']}, or fewer groups"
            )


def shallow_removes_something(args: Mapping[str, Any]) -> None:
    """A shallow network must differ from the whole one.

    Raises:
        ValueError: it does not.
    """
    depth = args["depth"]
    if args["shallow"] and (len(depth) <= SHALLOW_STAGE or depth[SHALLOW_STAGE] == 1):
        raise ValueError(
            f"shallow removes the blocks of stride 1 of stage {SHALLOW_STAGE + 1}, and depth {list(depth)} "
            "leaves none there: give that stage 2 or more"
        )
