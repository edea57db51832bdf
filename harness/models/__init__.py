"""The table of models: every architecture a study may name. Importing it does not import torch.

A name is that of a family ("resnet50"), of a variant, which is a family with some arguments set
("resnet50d"), or of a network of a library ("timm/<name>", "torchvision/<name>", see `harness.models.zoo`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.models.entries.bn_inception import ENTRIES as BN_INCEPTIONS
from harness.models.entries.bn_mlp import ENTRIES as BN_MLPS
from harness.models.entries.googlenet import ENTRIES as GOOGLENETS
from harness.models.entries.inception_resnet import ENTRIES as INCEPTION_RESNETS
from harness.models.entries.inception_v3 import ENTRIES as INCEPTIONS_V3
from harness.models.entries.inception_v4 import ENTRIES as INCEPTIONS_V4
from harness.models.entries.mobilenet import ENTRIES as MOBILENETS
from harness.models.entries.resnet import ENTRIES as RESNETS
from harness.models.entry import Model, unknown
from harness.models.zoo import is_zoo_name, zoo_model

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "MODELS",
    "VARIANTS",
    "Model",
    "build_model",
    "find",
    "resolve",
    "resolve_args",
    "validate_model",
    "zoo_model",
]

DEFAULT_INITIALISATION = "he_fan_out"

MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        *RESNETS,
        *GOOGLENETS,
        *BN_INCEPTIONS,
        *BN_MLPS,
        *INCEPTIONS_V3,
        *INCEPTIONS_V4,
        *INCEPTION_RESNETS,
        *MOBILENETS,
    )
}

VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    **{variant: (model.name, args) for model in MODELS.values() for variant, args in model.variants.items()},
    "googlenet_torchvision": ("torchvision/googlenet", {}),
}
"""Variant -> its family, and the arguments that differ from the family's defaults."""


def find(name: str) -> Model:
    """The model of a family's, a variant's or a library's name; a variant's is its family's.

    Raises:
        ValueError: an unknown name.
    """
    return _find(name)[0]


def resolve(name: str, args: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The family's name and every constructor argument: those given, then the variant's, then the defaults.

    >>> resolve("resnet50b_v1.5", {"width": 0.5}) == resolve("resnet50", {"width": 0.5, "stride_in": "3x3"})
    True

    Raises:
        ValueError: as `validate_model`, or arguments that do not go together.
    """
    model, own = _find(name)
    return model.name, model.resolve({**own, **args})


def resolve_args(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Every constructor argument of `name`, checked, with the defaults filled in.

    Raises:
        ValueError: as `resolve`.
    """
    return resolve(name, args)[1]


def validate_model(name: str, args: Mapping[str, Any]) -> None:
    """Check a model's name and constructor arguments one by one; whether they go together `resolve` asks.

    Raises:
        ValueError: what is wrong, the nearest valid name, the valid ones.
    """
    find(name).validate(args)


def build_model(
    name: str,
    args: Mapping[str, Any],
    *,
    classes: int,
    in_channels: int = 3,
    initialisation: str | None = None,
) -> nn.Module:
    """Build and initialise a network; arguments left out take the table's defaults.

    Every random draw comes from torch's default generator, which the caller seeds. The network maps images
    (B, in_channels, H, W) to logits (B, classes); while it trains, one with auxiliary heads answers with
    `harness.models.outputs.Outputs`. `initialisation` is a scheme of `harness.models.initialise`, None the
    default of a recipe; a network of a library keeps its own weights whatever it says.

    Raises:
        ValueError: an unknown name, argument or scheme, or a value out of range.
    """
    from harness.models.initialise import initialise

    if classes < 1 or in_channels < 1:
        raise ValueError(f"{name}: needs at least 1 class and 1 channel, got {classes} and {in_channels}")
    model, own = _find(name)
    net = model.build(**model.resolve({**own, **args}), classes=classes, in_channels=in_channels)
    initialise(net, "own" if model.own_initialisation else initialisation or DEFAULT_INITIALISATION)
    return net


def _find(name: str) -> tuple[Model, Mapping[str, Any]]:
    """The model, and the arguments that the name itself sets."""
    family, args = VARIANTS.get(name, (name, {}))
    if is_zoo_name(family):
        return zoo_model(family), args
    if family not in MODELS:
        raise ValueError(unknown("model", name, {**MODELS, **VARIANTS}))
    return MODELS[family], args
