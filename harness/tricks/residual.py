"""Residual networks: stems, shortcuts and how a block starts."""

from __future__ import annotations

from typing import Any, ClassVar

from harness.tricks.base import Trick, require, trick, with_model_args


@trick
class ResNetB(Trick):
    """ResNet-B: the down-sampling block halves the resolution in its 3x3 convolution.

    Paper: he2019bag, arXiv:1812.01187, Sec. 4.2 and Table 5
    Equation: path A of a down-sampling block: strides (2, 1, 1) of its 1x1, 3x3, 1x1 convolutions become (1,
        2, 1)
    Acts on: recipe (model argument stride_in)
    Defaults: no options
    Differs: nothing known. torchvision's resnet50 is already this network; the baseline here is He's
        original.
    """

    name: ClassVar[str] = "resnet_b"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "resnet_b moves the stride of a bottleneck block", stride_in="3x3")


@trick
class ResNetC(Trick):
    """ResNet-C: the 7x7 convolution of the stem becomes three 3x3 convolutions.

    Paper: he2019bag, arXiv:1812.01187, Sec. 4.2 and Table 5; idea from szegedy2016rethinking,
        arXiv:1512.00567, Sec. 6
    Equation: 7x7/2:64 -> 3x3/2:32, 3x3/1:32, 3x3/1:64, then the 3x3/2 max-pool as before
    Acts on: recipe (model argument stem)
    Defaults: no options
    Differs: the paper's ResNet-C contains ResNet-B; this trick is the stem alone, so a row that means the
        paper's ResNet-C has resnet_b too. The text may be read as two strided convolutions; Fig. 2b and the
        authors' code have one, the first, as here.
    """

    name: ClassVar[str] = "resnet_c"

    def edit_recipe(self, recipe: Any) -> Any:
        purpose = "resnet_c replaces the 7x7 stem of a ResNet"
        stem = recipe.model.args.get("stem", "7x7")
        require(stem in ("7x7", "deep"), f"{purpose}: the stem of {recipe.model.name} is '{stem}'")
        return with_model_args(recipe, purpose, stem="deep")


@trick
class ResNetD(Trick):
    """ResNet-D: the shortcut of a down-sampling block averages before its 1x1 convolution.

    Paper: he2019bag, arXiv:1812.01187, Sec. 4.2 and Table 5
    Equation: shortcut 1x1/2 convolution -> 2x2/2 average pool, 1x1/1 convolution
    Acts on: recipe (model argument shortcut)
    Defaults: no options
    Differs: the paper's ResNet-D contains ResNet-B and ResNet-C; this trick is the shortcut alone, so a row
        that means the paper's ResNet-D has resnet_b and resnet_c too. Pooling rounds up and does not count
        padding, as in the authors' code.
    """

    name: ClassVar[str] = "resnet_d"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(
            recipe, "resnet_d changes the shortcut of a residual block", shortcut="avgpool"
        )


@trick
class ZeroGamma(Trick):
    """Zero gamma: every residual block starts as the identity.

    Paper: he2019bag, arXiv:1812.01187, Sec. 3.1; goyal2017accurate, arXiv:1706.02677, Sec. 5.1
    Equation: gamma = 0 in the last batch normalisation of each residual block, so that x + block(x) = x at
        step 0
    Acts on: recipe (model argument zero_gamma)
    Defaults: no options
    Differs: nothing known. It exists for residual networks only: the authors' Inception-V3 and MobileNet logs
        have it switched off, and here it refuses a model without the argument.
    """

    name: ClassVar[str] = "zero_gamma"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "zero_gamma needs residual blocks", zero_gamma=True)


@trick
class ResidualScaling(Trick):
    """Residual scaling: the residuals are made smaller before they are added.

    Paper: szegedy2017inception, arXiv:1602.07261, Sec. 3.3: factors of 0.1 to 0.3 where a network has more
        than 1,000 filters
    Equation: y = relu(x + scale * F(x)) in place of y = relu(x + F(x))
    Acts on: recipe (model arguments scale_a, scale_b, scale_c)
    Defaults: scale = 0.1, the lower end of the paper's range
    Differs: the released code scales by 0.17, 0.10 and 0.20 at the three grid sizes, and those are the
        defaults of the networks here; this trick gives all three one factor, so scale = 1 is a network
        without scaling.
    """

    name: ClassVar[str] = "residual_scaling"
    conflicts: ClassVar[tuple[str, ...]] = ("no_residual",)
    scale: float = 0.1

    def __post_init__(self) -> None:
        require(
            0 < self.scale <= 1, f"residual_scaling: scale must be a number in (0, 1], got {self.scale!r}"
        )

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(
            recipe,
            "residual_scaling needs residual blocks",
            scale_a=self.scale,
            scale_b=self.scale,
            scale_c=self.scale,
        )


@trick
class NoResidual(Trick):
    """No residual connections: the blocks of an Inception-ResNet lose their shortcuts.

    Paper: szegedy2017inception, arXiv:1602.07261, Secs. 2 and 5: training with residual connections is
        faster; networks without them reach a similar accuracy
    Equation: y = relu(F(x)) in place of y = relu(x + scale * F(x))
    Acts on: recipe (model argument residual)
    Defaults: no options
    Differs: the paper compares Inception-ResNets with Inception-v3 and -v4 of similar cost; taking the
        shortcuts out of the same network changes nothing else, parameters and multiply-adds included.
    """

    name: ClassVar[str] = "no_residual"
    conflicts: ClassVar[tuple[str, ...]] = ("residual_scaling",)

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(
            recipe, "no_residual needs residual blocks of an Inception-ResNet", residual=False
        )
