"""What `set:` may change: the fields of a recipe and of its augmentation, each with its type and range."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, StrictBool

from harness.study.problems import unknown
from harness.study.uses import Use, parse_use

Number = Annotated[float, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Positive = Annotated[float, Field(strict=True, gt=0)]
Fraction1 = Annotated[float, Field(strict=True, gt=0, le=1)]
AnyUse = Annotated[Use, PlainValidator(parse_use)]

# The arguments of torch.optim's constructors that a recipe may give; lr and weight_decay are its own fields.
OPTIMIZER_ARGS: Mapping[str, frozenset[str]] = {
    "sgd": frozenset({"momentum", "nesterov", "dampening"}),
    "adam": frozenset({"betas", "eps", "amsgrad"}),
    "adamw": frozenset({"betas", "eps", "amsgrad"}),
    "rmsprop": frozenset({"alpha", "eps", "momentum", "centered"}),
}


def _rising(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(later <= earlier for earlier, later in pairwise(values)):
        raise ValueError(f"must rise from left to right, got {list(values)}")
    return values


class Closed(BaseModel):
    """Unknown keys are mistakes; values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class Changes(Closed):
    """Values that replace those of the recipe, in the paper's units. What is left out stays as it is."""

    model: AnyUse | None = None
    # Recipe
    epochs: Positive | None = None
    batch_size: Annotated[Whole, Field(ge=1)] | None = None
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] | None = None
    optimizer_args: dict[str, StrictBool | Number | tuple[Number, ...]] | None = None
    lr: Positive | None = None
    weight_decay: Annotated[Number, Field(ge=0)] | None = None
    schedule: Literal["constant", "step", "cosine"] | None = None
    milestones: Annotated[tuple[Positive, ...], AfterValidator(_rising)] | None = None
    decay: Fraction1 | None = None
    warmup_epochs: Annotated[Number, Field(ge=0)] | None = None
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    initialisation: Literal["he_fan_out"] | None = None
    eval_crop: Fraction1 | None = None
    read_out: Literal["last_epoch"] | None = None
    # AugmentSpec
    crop_area: Annotated[tuple[Fraction1, Fraction1], AfterValidator(_rising)] | None = None
    crop_ratio: Annotated[tuple[Positive, Positive], AfterValidator(_rising)] | None = None
    flip: Annotated[Number, Field(ge=0, le=1)] | None = None
    jitter: Annotated[Number, Field(ge=0, le=1)] | None = None
    pca_noise: Annotated[Number, Field(ge=0)] | None = None

    def values(self) -> dict[str, Any]:
        """The fields that were given, and their values."""
        return {
            name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set
        }


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
