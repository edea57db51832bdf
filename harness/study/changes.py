"""What `set:` may change: the fields of a recipe and of its augmentation, each with its type and range."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, StrictBool, field_validator

from harness.study.problems import unknown
from harness.study.uses import Use, parse_use

LARGEST, SMALLEST = 10**9, 1e-12  # of any number in a study: products of a few of them stay finite
LONGEST_NAME = 200  # characters: names and labels stand in tables, figures and file names


def _not_tiny(value: float) -> float:
    if value < SMALLEST:
        raise ValueError(f"must be at least {SMALLEST:g}, got {value!r}")
    return value


def _one_line(value: str) -> str:
    if "\n" in value or "\t" in value or len(value) > LONGEST_NAME:
        raise ValueError(f"must be one line of at most {LONGEST_NAME} characters")
    return value


Number = Annotated[float, Field(strict=True, ge=-LARGEST, le=LARGEST)]
Whole = Annotated[int, Field(strict=True, ge=-LARGEST, le=LARGEST)]
Positive = Annotated[float, Field(strict=True, gt=0, le=LARGEST), AfterValidator(_not_tiny)]
NotNegative = Annotated[float, Field(strict=True, ge=0, le=LARGEST)]
Fraction1 = Annotated[float, Field(strict=True, gt=0, le=1), AfterValidator(_not_tiny)]
Count = Annotated[int, Field(strict=True, ge=1, le=LARGEST)]
Pixels = Annotated[int, Field(strict=True, ge=1, le=10_000)]  # a side of an image
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
AnyUse = Annotated[Use, PlainValidator(parse_use)]

# The arguments of torch.optim's constructors that a recipe may give; lr and weight_decay are its own fields.
OPTIMIZER_ARGS: Mapping[str, frozenset[str]] = {
    "sgd": frozenset({"momentum", "nesterov", "dampening"}),
    "adam": frozenset({"betas", "eps", "amsgrad"}),
    "adamw": frozenset({"betas", "eps", "amsgrad"}),
    "rmsprop": frozenset({"alpha", "eps", "momentum", "centered"}),
    "rmsprop_tf": frozenset({"alpha", "eps", "momentum"}),  # epsilon inside the square root
}


def _rising(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(later <= earlier for earlier, later in pairwise(values)):
        raise ValueError(f"must rise from left to right, got {list(values)}")
    return values


def _one_of(*valid: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if value not in valid:
            raise ValueError(f"must be one of {', '.join(map(str, valid))}, got {value}")
        return value

    return check


class Closed(BaseModel):
    """Unknown keys are mistakes; values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class Changes(Closed):
    """Values that replace those of the recipe, in the paper's units. What is left out stays as it is."""

    model: AnyUse | None = None
    data: AnyUse | None = None  # the paper's data set; a size maps it
    resolution: Pixels | None = None  # the paper's pixels; a size maps them
    # Recipe
    epochs: Positive | None = None
    batch_size: Count | None = None
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop", "rmsprop_tf"] | None = None
    optimizer_args: dict[str, StrictBool | Number | tuple[Number, ...]] | None = None
    lr: Positive | None = None
    weight_decay: NotNegative | None = None
    clip_norm: NotNegative | None = None
    clip_value: NotNegative | None = None
    schedule: Literal["constant", "step", "cosine", "exponential"] | None = None
    milestones: Annotated[tuple[Positive, ...], AfterValidator(_rising)] | None = None
    decay: Fraction1 | None = None
    decay_every: Positive | None = None
    warmup_epochs: NotNegative | None = None
    warmup_lr: NotNegative | None = None
    warmup_shape: Literal["linear", "constant"] | None = None
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    initialisation: (
        Literal["he_fan_out", "he_fan_in", "xavier", "truncated_normal", "gaussian", "own"] | None
    ) = None
    auxiliary_weight: NotNegative | None = None
    norm_images: Annotated[Whole, Field(ge=0)] | None = None
    shuffle: Literal["images", "within_shards", "shards"] | None = None
    eval_crop: Fraction1 | None = None
    eval_crops: Annotated[Whole, AfterValidator(_one_of(1, 10, 12, 144))] | None = None
    eval_weights: Literal["own", "raw"] | None = None
    curve_points: Count | None = None
    read_out: Literal["last_epoch", "median_of_last_5"] | None = None
    metrics: tuple[Name, ...] | None = None  # of plugins
    trainer: Name | None = None  # harness, or a training function of a plugin
    # AugmentSpec
    crop_area: Annotated[tuple[Fraction1, Fraction1], AfterValidator(_rising)] | None = None
    crop_ratio: Annotated[tuple[Positive, Positive], AfterValidator(_rising)] | None = None
    flip: Annotated[Number, Field(ge=0, le=1)] | None = None
    jitter: Annotated[Number, Field(ge=0, le=1)] | None = None
    pca_noise: NotNegative | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must have a value; leave the key out to keep what is set below it")
        return value

    def values(self) -> dict[str, Any]:
        """The fields that were given, and their values."""
        return {
            name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set
        }


DATA_FIELDS = frozenset({"data", "resolution"})
AUGMENT_FIELDS = frozenset({"crop_area", "crop_ratio", "flip", "jitter", "pca_noise"})
CHANGE_FIELDS = frozenset(Changes.model_fields)


def check_optimizer(optimizer: str, args: Mapping[str, Any]) -> None:
    """Raises:
    ValueError: an optimizer or an argument of it that does not exist.
    """
    if optimizer not in OPTIMIZER_ARGS:
        raise ValueError(unknown("optimizer", optimizer, OPTIMIZER_ARGS))
    for name in args:
        if name not in OPTIMIZER_ARGS[optimizer]:
            raise ValueError(unknown(f"argument of optimizer {optimizer}", name, OPTIMIZER_ARGS[optimizer]))
