"""The table of models: every architecture a study may name. Importing it does not import torch.

A name is that of a family ("resnet50"), of a variant, which is a family with some arguments set
("resnet50d"), or of a network of a library ("timm/<name>", "torchvision/<name>", see `harness.models.zoo`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.errors import unknown
from harness.models.entry import (
    MOBILENET_DEPTH,
    Argument,
    Model,
    blocks_kept,
    choice,
    counts,
    dropout,
    free,
    groups_divide_channels,
    number,
    shallow_removes_something,
    switch,
    whole,
)
from harness.models.zoo import is_zoo_name, zoo_model

if TYPE_CHECKING:
    from torch import nn


# GoogLeNet and BN-GoogLeNet: what a study may name, and with which arguments.


SMALLEST_GOOGLENET = {"large": 31, "small": 15}  # pixels; one less, and a max-pool has no pixel left


def _build_googlenet(**args: Any) -> nn.Module:
    from harness.models.googlenet import GoogLeNet, GoogLeNetConfig

    return GoogLeNet(GoogLeNetConfig(**args))


def _smallest_googlenet(args: Mapping[str, Any]) -> int:
    return SMALLEST_GOOGLENET[args["stem"]]


GOOGLENETS: tuple[Model, ...] = (
    Model(
        name="googlenet",
        arguments={
            "depth": blocks_kept((2, 5, 2)),
            "width": number(1.0, low=1 / 32, high=16),
            "stem": choice("large", "small"),
            "norm": choice("none", "batch"),
            "lrn": switch(True, changes_cost=False),
            "auxiliary": free(choice("plain", "none")),
            "dropout": dropout(0.4),
            "five": choice("5x5", "3x3"),
        },
        build=_build_googlenet,
        paper="szegedy2015going",
        note=(
            "real 5x5, biases, two auxiliary heads; a full 7x7 first convolution (9.4 K weights; the printed "
            "2.7 K fit only a separable one); response normalisation where Caffe's model has it"
        ),
        variants={"googlenet_paper": {}, "googlenet_bn": {"norm": "batch", "lrn": False}},
        minimum_input=_smallest_googlenet,
    ),
)


# BN-Inception: what a study may name, and with which arguments.


SMALLEST_BN_INCEPTION = {
    "large": 7,
    "small": 3,
}  # pixels; one less, and a max-pool of the stem has no pixel left


def _build_bn_inception(**args: Any) -> nn.Module:
    from harness.models.googlenet import BNInception, BNInceptionConfig

    return BNInception(BNInceptionConfig(**args))


def _smallest_bn_inception(args: Mapping[str, Any]) -> int:
    return SMALLEST_BN_INCEPTION[args["stem"]]


BN_INCEPTIONS: tuple[Model, ...] = (
    Model(
        name="bn_inception",
        arguments={
            "depth": blocks_kept((3, 5, 2)),
            "width": number(1.0, low=1 / 64, high=16),
            "stem": choice("large", "small"),
            "layout": choice("slim", "fig5"),
            "norm": choice("batch", "none"),
            "activation": free(choice("relu", "sigmoid")),
            "lrn": switch(False, changes_cost=False),
            "dropout": dropout(0.0),
        },
        build=_build_bn_inception,
        paper="ioffe2015batch",
        note=(
            "Fig. 5 as TF-slim reads it (96-channel projections in 4c and 4d, separable first convolution) "
            "or literally (fig5); 11.2 or 11.3 M parameters, the paper's text says 13.6 M; no auxiliary head"
        ),
        variants={"bn_inception_slim_sepconv": {}, "bn_inception_fig5_pool128": {"layout": "fig5"}},
        minimum_input=_smallest_bn_inception,
    ),
)


# The fully connected network of the batch norm paper's Fig. 1: what a study may set.


SIDE = 28  # pixels, as in the paper


def _build_bn_mlp(**args: Any) -> nn.Module:
    from harness.models.googlenet import BNMLP, BNMLPConfig

    return BNMLP(BNMLPConfig(**args))


BN_MLPS: tuple[Model, ...] = (
    Model(
        name="bn_mlp",
        arguments={
            "hidden": counts((100, 100, 100), at_most=10_000),
            "norm": choice("none", "batch"),
            "activation": free(choice("sigmoid", "relu")),
        },
        build=_build_bn_mlp,
        paper="ioffe2015batch",
        note=(
            "three layers of 100 sigmoid units on 28x28 grey pixels; colours averaged, larger images pooled; "
            "weights N(0, 0.1^2) for the Gaussian scheme (the paper: a small Gaussian)"
        ),
        input_size=SIDE,
        minimum_input=lambda args: SIDE,
    ),
)


# Inception-v2 and -v3: what a study may name, and with which arguments.


MOST_BLOCKS = 24  # at one grid; the names of Inception-v3's blocks end at z
SMALLEST = {"stride2_pool": 75, "stride1_pool": 39, "stride1": 21}  # pixels; at 8 pixels' grid one is left


def sizes(depth: tuple[int, int, int]) -> dict[str, Argument]:
    """The arguments that every Inception of these papers has."""
    return {
        "depth": counts(depth, at_most=MOST_BLOCKS),
        "width": number(1.0, low=1 / 64, high=16),
        "stem": choice("large", "small"),
        "dropout": replace(number(0.2, low=0, high=0.95), changes_cost=False),
    }


def three_stages(args: Mapping[str, Any]) -> None:
    """The blocks at all three grids are needed.

    Raises:
        ValueError: `depth` does not name three stages.
    """
    depth = args["depth"]
    if len(depth) != 3:
        raise ValueError(f"depth must be 3 positive integers, one for each grid, got {list(depth)}")


def smallest_image(args: Mapping[str, Any]) -> int:
    """Smallest side in pixels of the images: one that leaves a pixel of the last grid, none with padding."""
    return 1 if args["stem"] == "small" else SMALLEST[args.get("first_layer", "stride2_pool")]


def _build_inception_v3(**args: Any) -> nn.Module:
    from harness.models.inception import InceptionV3, InceptionV3Config

    return InceptionV3(InceptionV3Config(**args))


INCEPTIONS_V3: tuple[Model, ...] = (
    Model(
        name="inception_v3",
        arguments={
            **sizes((3, 4, 2)),
            "layout": choice("code", "table1"),
            "five": choice("5x5", "two_3x3", "two_3x3_linear"),
            "asymmetric": switch(True, changes_cost=True),
            "factorized_7x7": switch(True, changes_cost=True),
            "auxiliary": replace(choice("bn", "plain", "none"), changes_cost=False),
            "grid": choice("paper", "naive", "expensive"),
            "first_layer": choice("stride2_pool", "stride1_pool", "stride1"),
        },
        build=_build_inception_v3,
        paper="szegedy2016rethinking",
        note="the released code (torchvision's): 23.8 M parameters, 5.7 G multiply-adds at 299 pixels; the "
        "paper says under 25 M and 5 G",
        variants={
            "inception_v3_code": {},
            "inception_v3_table1_literal": {"layout": "table1", "depth": (3, 5, 2)},
            "inception_v2": {"factorized_7x7": False, "auxiliary": "plain"},
        },
        input_size=299,
        minimum_input=smallest_image,
        rule=three_stages,
    ),
)


# Inception-ResNet-v1 and -v2: what a study may name, and with which arguments.


def _build_inception_resnet(version: str, **args: Any) -> nn.Module:
    from harness.models.inception_resnet import InceptionResNet, InceptionResNetConfig

    return InceptionResNet(InceptionResNetConfig(version=version, **args))


def _inception_resnet_arguments(depth: tuple[int, int, int]) -> dict[str, Argument]:
    def scale(default: float) -> Argument:
        return replace(number(default, low=0, high=10), changes_cost=False)

    return {
        **sizes(depth),
        "residual": switch(True, changes_cost=False),
        "scale_a": scale(0.17),
        "scale_b": scale(0.10),
        "scale_c": scale(0.20),
    }


def _model(
    version: str, arguments: dict[str, Argument], *, note: str, variants: Mapping[str, Mapping[str, Any]]
) -> Model:
    return Model(
        name=f"inception_resnet_{version}",
        arguments=arguments,
        build=partial(_build_inception_resnet, version),
        paper="szegedy2017inception",
        note=note,
        variants=variants,
        input_size=299,
        minimum_input=smallest_image,
        rule=three_stages,
    )


INCEPTION_RESNETS: tuple[Model, ...] = (
    _model(
        "v1",
        _inception_resnet_arguments((5, 10, 5)),
        note="the figures' 5-10-5 blocks: 22.8 M parameters, 6.2 G multiply-adds at 299 pixels",
        variants={"inception_resnet_v1_figs": {}},
    ),
    _model(
        "v2",
        {**_inception_resnet_arguments((10, 20, 10)), "layout": choice("released", "figures")},
        note="the released code (timm's): 55.8 M parameters, 13.2 G multiply-adds at 299 pixels; the figures "
        "differ, layout 'figures' follows them",
        variants={
            "inception_resnet_v2_slim_timm": {},
            "inception_resnet_v2_figs_5_10_5": {"layout": "figures", "depth": (5, 10, 5)},
            "inception_resnet_v2_figs_10_20_10": {"layout": "figures"},
        },
    ),
)


# Inception-v4: what a study may name, and with which arguments.


def _build_inception_v4(**args: Any) -> nn.Module:
    from harness.models.inception import InceptionV4, InceptionV4Config

    return InceptionV4(InceptionV4Config(**args))


INCEPTIONS_V4: tuple[Model, ...] = (
    Model(
        name="inception_v4",
        arguments=sizes((4, 7, 3)),
        build=_build_inception_v4,
        paper="szegedy2017inception",
        note="the released code (timm's): 42.7 M parameters, 12.3 G multiply-adds at 299 pixels",
        input_size=299,
        minimum_input=smallest_image,
        rule=three_stages,
    ),
)


# MobileNet v1: what a study may name, and with which arguments.


def _build_mobilenet(**args: Any) -> nn.Module:
    from harness.models.mobilenet import MobileNet, MobileNetConfig

    return MobileNet(MobileNetConfig(**args))


MOBILENETS: tuple[Model, ...] = (
    Model(
        name="mobilenet_v1",
        arguments={
            "width": number(1.0, low=1 / 32, high=16),
            "base_width": number(1.0, low=1 / 32, high=16),
            "depth": counts(MOBILENET_DEPTH, at_most=100),
            "shallow": switch(False, changes_cost=True),
            "full_conv": switch(False, changes_cost=True),
            "activation": choice("relu", "relu6"),
            "stem": choice("large", "small"),
        },
        build=_build_mobilenet,
        paper="howard2017mobilenets",
        note=(
            "Table 1 prints stride 2 for the last depthwise convolution, 7x7 to 7x7: it is 1 here. "
            "The released networks use ReLU6, the paper ReLU"
        ),
        variants={
            "mobilenet_v1_1.0": {},
            "mobilenet_v1_0.75": {"width": 0.75},
            "mobilenet_v1_0.5": {"width": 0.5},
            "mobilenet_v1_0.25": {"width": 0.25},
            "mobilenet_v1_shallow": {"shallow": True},
            "mobilenet_v1_full_conv": {"full_conv": True},
        },
        rule=shallow_removes_something,
    ),
)


# ResNet, its refinements B, C and D, and ResNeXt: what a study may name, and with which arguments.


Depth = tuple[int, int, int, int]

B = {"stride_in": "3x3"}
C = {**B, "stem": "deep"}
D = {**C, "shortcut": "avgpool"}


def _build_resnet(block: str, **args: Any) -> nn.Module:
    from harness.models.resnet import ResNet, ResNetConfig

    return ResNet(ResNetConfig(block=block, **args))


def _resnet_arguments(depth: Depth) -> dict[str, Argument]:
    return {
        "depth": counts(depth, at_most=100),
        "width": number(1.0, low=1 / 64, high=16),
        "stem": choice("7x7", "deep"),
        "shortcut": choice("conv", "avgpool"),
        "zero_gamma": switch(False, changes_cost=False),
    }


def _basic(name: str, depth: Depth) -> Model:
    """He et al. 2016, Table 1; its blocks have no 1x1 convolution, so neither B nor groups exist for it."""
    return Model(
        name=name,
        arguments=_resnet_arguments(depth),
        build=partial(_build_resnet, "basic"),
        paper="he2016deep",
        note=f"basic blocks {_written(depth)}; stem and shortcut of He et al. 2016",
    )


def _bottleneck(
    name: str, depth: Depth, *, groups: tuple[int, int] = (1, 64), variants: Mapping[str, Any] | None = None
) -> Model:
    """He et al. 2016, Table 1; with `groups` (how many, how wide) Xie et al. 2017, Table 1."""
    arguments = _resnet_arguments(depth)
    plain = groups[0] == 1
    arguments["stride_in"] = choice("1x1", "3x3") if plain else choice("3x3", "1x1")
    arguments["groups"] = whole(groups[0], low=1, high=1024)
    arguments["group_width"] = whole(groups[1], low=1, high=1024)
    blocks = f"bottleneck blocks {_written(depth)}"
    if plain:
        note = f"{blocks}; stride placement, stem and shortcut of He et al. 2016"
    else:
        note = f"{blocks}, 3x3 convolutions in {groups[0]} groups of {groups[1]} channels; stride in the 3x3"
    return Model(
        name=name,
        arguments=arguments,
        build=partial(_build_resnet, "bottleneck"),
        paper="he2016deep" if plain else "xie2017aggregated",
        note=note,
        variants=variants or {},
        rule=groups_divide_channels,
    )


def _written(depth: Depth) -> str:
    return "-".join(map(str, depth))


RESNETS: tuple[Model, ...] = (
    _basic("resnet18", (2, 2, 2, 2)),
    _basic("resnet34", (3, 4, 6, 3)),
    _bottleneck(
        "resnet50",
        (3, 4, 6, 3),
        variants={"resnet50_stride1x1": {}, "resnet50b_v1.5": B, "resnet50c": C, "resnet50d": D},
    ),
    _bottleneck("resnet101", (3, 4, 23, 3), variants={"resnet101d": D}),
    _bottleneck("resnet152", (3, 8, 36, 3), variants={"resnet152_stride1x1": {}, "resnet152d": D}),
    _bottleneck("resnext50_32x4d", (3, 4, 6, 3), groups=(32, 4)),
    _bottleneck("resnext101_32x4d", (3, 4, 23, 3), groups=(32, 4)),
    _bottleneck("resnext101_64x4d", (3, 4, 23, 3), groups=(64, 4)),
)

# Residual networks for images of 32 pixels: those of He et al. 2016, Sec. 4.2, and pre-activation ResNet-18.


CIFAR_SIDE = 32  # pixels


def _build_cifar_resnet(**args: Any) -> nn.Module:
    from harness.models.resnet import CifarResNet, CifarResNetConfig

    return CifarResNet(CifarResNetConfig(**args))


def _build_preact(**args: Any) -> nn.Module:
    from harness.models.resnet import PreActConfig, PreActResNet

    return PreActResNet(PreActConfig(**args))


def _layers(count: int) -> dict[str, Any]:
    """The depth of a network of 6n + 2 layers."""
    return {"depth": ((count - 2) // 6,) * 3}


CIFAR_RESNETS: tuple[Model, ...] = (
    Model(
        name="cifar_resnet",
        arguments={
            "depth": counts((3, 3, 3), at_most=200),
            "width": number(1.0, low=1 / 16, high=16),
            "shortcut": choice("pad", "conv", "none"),
            "zero_gamma": switch(False, changes_cost=False),
        },
        build=_build_cifar_resnet,
        paper="he2016deep",
        note=(
            "6n + 2 layers for images of 32 pixels; identity shortcuts, padded with zeros after the channels "
            "(option A; which side is not said)"
        ),
        variants={
            "cifar_resnet20": {},
            **{f"cifar_resnet{count}": _layers(count) for count in (32, 44, 56, 110, 1202)},
        },
        input_size=CIFAR_SIDE,
    ),
    Model(
        name="preact_resnet18",
        arguments={
            "depth": counts((2, 2, 2, 2), at_most=100),
            "width": number(1.0, low=1 / 64, high=16),
            "dropout": dropout(0.0),
            "final_norm": switch(False, changes_cost=True),
        },
        build=_build_preact,
        paper="zhang2018mixup",
        note=(
            "for images of 32 pixels, as in kuangliu's pytorch-cifar, which the paper names: no batch norm "
            "after the last block"
        ),
        input_size=CIFAR_SIDE,
    ),
)

DEFAULT_INITIALISATION = "he_fan_out"

MODELS: Mapping[str, Model] = {
    model.name: replace(model, capturable=True)
    for model in (
        *RESNETS,
        *GOOGLENETS,
        *BN_INCEPTIONS,
        *BN_MLPS,
        *INCEPTIONS_V3,
        *INCEPTIONS_V4,
        *INCEPTION_RESNETS,
        *MOBILENETS,
        *CIFAR_RESNETS,
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
    `harness.models.blocks.Outputs`. `initialisation` is a scheme of `harness.models.blocks`, None the
    default of a recipe; a network of a library keeps its own weights whatever it says.

    Raises:
        ValueError: an unknown name, argument or scheme, or a value out of range.
    """
    from harness.models.blocks import initialise

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
