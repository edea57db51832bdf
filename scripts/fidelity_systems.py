"""The networks of docs/fidelity.md: where each paper prints its size, and which library built it as well."""

from __future__ import annotations

import re
from typing import Any

from fidelity import Printed, Reference, System

BAG, RESNET = "bag_of_tricks_1812.01187", "resnet_1512.03385"
MOBILENET = "mobilenet_1704.04861"


def of_bag_of_tricks(label: str, *, table: str = "table5", **more: Any) -> Printed:
    return Printed(row=(BAG, table, label), **more)


def of_resnet(label: str) -> Printed:
    """The parameters of these rows are computed, their multiply-adds the paper's."""
    return Printed(row=(RESNET, "one_crop", label), fields=("gflops",))


def of_cifar(layers: int) -> Printed:
    return Printed(row=(RESNET, "table6", f"ResNet-{layers}"), fields=("params_m",))


def of_mobilenet(label: str, *, table: str = "table6") -> Printed:
    return Printed(row=(MOBILENET, table, label))


def googlenet_name(theirs: str, _net: Any) -> str:
    """torchvision numbers the convolutions of a branch from 0, and its pooling branch's after the pool."""
    name = re.sub(r"branch4\.1\.", "branch4.", theirs)
    name = re.sub(r"branch([23])\.(\d)", lambda found: f"branch{found[1]}_{int(found[2]) + 1}", name)
    return f"stem.{name}" if name.startswith("conv") else name


def torchvisions_last_pool(net: Any) -> None:
    """2x2, where the paper has 3x3."""
    from torch import nn

    net.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)


def branch_name(timms: str) -> str:
    """Convolutions of a path are numbered from 1 here; number 0 of branch 3 is an average pool there."""
    alone = re.sub(r"^branch3\.1\.", "branch3.", timms)
    return re.sub(r"^branch(\d)[._](\d)", lambda found: f"branch{found[1]}_{int(found[2]) + 1}", alone)


def inception_v4_name(theirs: str, net: Any) -> str:
    """timm numbers the layers; in the stem's Mixed_3a and 5a it has `conv` for the branch that is no pool."""
    found = re.fullmatch(r"features\.(\d+)\.(.*)", theirs)
    if found is None:
        return theirs.replace("last_linear", "fc")
    layer, rest = net.trunk[int(found[1])], branch_name(found[2])
    convolution = {"Mixed_3a": "branch1", "Mixed_5a": "branch0"}.get(layer)
    return f"{layer}.{convolution}.{rest.removeprefix('conv.')}" if convolution else f"{layer}.{rest}"


def inception_resnet_name(theirs: str, _net: Any) -> str:
    """A residual block's branches are one module here."""
    found = re.fullmatch(r"((?:repeat\w*\.\d+|block8)\.)(branch.*)", theirs)
    if found:
        return f"{found[1]}branches.{branch_name(found[2])}"
    block, _, rest = theirs.partition(".")
    return f"{'fc' if block == 'classif' else block}.{branch_name(rest)}"


def torchvision(name: str, **more: Any) -> Reference:
    return Reference(name=f"torchvision/{name}", **more)


def timm(name: str, **more: Any) -> Reference:
    return Reference(name=f"timm/{name}", **more)


SYSTEMS: tuple[System, ...] = (
    System(name="resnet18", references=(torchvision("resnet18"), timm("resnet18"))),
    System(name="resnet34", references=(torchvision("resnet34"), timm("resnet34"))),
    System(name="resnet50_stride1x1", printed=of_bag_of_tricks("ResNet-50")),
    System(
        name="resnet50b_v1.5",
        printed=of_bag_of_tricks("ResNet-50-B"),
        references=(torchvision("resnet50"), timm("resnet50")),
    ),
    System(name="resnet50c", printed=of_bag_of_tricks("ResNet-50-C"), references=(timm("resnet50c"),)),
    System(
        name="resnet50d",
        printed=of_bag_of_tricks("ResNet-50-D"),
        references=(timm("resnet50d"),),
    ),
    System(name="resnet101", printed=of_resnet("ResNet-101")),
    System(name="resnet101d", references=(timm("resnet101d"),)),
    System(name="resnet152_stride1x1", printed=of_resnet("ResNet-152")),
    System(name="resnet152d", references=(timm("resnet152d"),)),
    System(
        name="resnext50_32x4d",
        printed=of_bag_of_tricks("ResNeXt-50", table="table1", fields=("gflops",)),
        references=(torchvision("resnext50_32x4d"), timm("resnext50_32x4d")),
    ),
    System(name="resnext101_32x4d", references=(timm("resnext101_32x4d"),)),
    System(name="resnext101_64x4d", references=(torchvision("resnext101_64x4d"),)),
    *(System(name=f"cifar_resnet{layers}", printed=of_cifar(layers)) for layers in (20, 32, 44, 56, 110)),
    System(name="preact_resnet18"),
    System(name="googlenet_paper", printed=of_mobilenet("GoogleNet", table="table8")),
    System(
        name="googlenet_bn",
        references=(
            torchvision(
                "googlenet",
                args={"five": "3x3"},
                our_name=googlenet_name,
                adjust=torchvisions_last_pool,
                remark="torchvision's has 3x3 in place of 5x5 convolutions and a 2x2 last pool; so has ours "
                "in the check",
            ),
        ),
    ),
    System(name="bn_inception_slim_sepconv"),
    System(name="bn_inception_fig5_pool128"),
    System(
        name="inception_v3_code",
        references=(
            torchvision("inception_v3", side=107),
            timm("inception_v3", side=107, args={"auxiliary": "none"}),
        ),
    ),
    System(name="inception_v3_table1_literal"),
    System(
        name="inception_v4",
        references=(timm("inception_v4", side=107, our_name=inception_v4_name),),
    ),
    System(name="inception_resnet_v1_figs"),
    System(
        name="inception_resnet_v2_slim_timm",
        references=(timm("inception_resnet_v2", side=107, our_name=inception_resnet_name),),
    ),
    System(name="inception_resnet_v2_figs_5_10_5"),
    System(name="inception_resnet_v2_figs_10_20_10"),
    System(
        name="mobilenet_v1_1.0",
        printed=of_mobilenet("1.0 MobileNet-224"),
        references=(
            timm(
                "mobilenetv1_100",
                args={"activation": "relu6"},
                in_order=True,
                remark="timm's has ReLU6; so has ours in the check",
            ),
        ),
    ),
    System(name="mobilenet_v1_0.75", printed=of_mobilenet("0.75 MobileNet-224")),
    System(name="mobilenet_v1_0.5", printed=of_mobilenet("0.5 MobileNet-224")),
    System(name="mobilenet_v1_0.25", printed=of_mobilenet("0.25 MobileNet-224")),
    System(name="mobilenet_v1_shallow", printed=of_mobilenet("Shallow MobileNet", table="table5")),
    System(
        name="mobilenet_v1_full_conv",
        printed=of_mobilenet("Conv MobileNet", table="table4"),
        remark="the printed multiply-adds leave out those of the last layer, 0.001",
    ),
)
