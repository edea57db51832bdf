"""Inception networks: factorised convolutions, grids, the first layers, auxiliary heads."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

from harness.tricks.base import Trick, require, trick, with_model_args


@trick
class Two3x3(Trick):
    """Two 3x3 in place of a 5x5: the same receptive field with 28 % fewer weights.

    Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 3.1 and Fig. 2: a ReLU between the two is better than
        none, 77.2 % against 76.2 % top-1
    Equation: conv 5x5 -> conv 3x3, f, conv 3x3, with f = relu, or the identity where linear; (9 + 9) / 25 =
        0.72
    Acts on: recipe (model argument five)
    Defaults: linear = False (the better one in the paper)
    Differs: the paper's experiment replaces the convolutions of a network of its own; here those of
        Inception-v3's first blocks, where the released code kept its 5x5. Batch normalisation stays between
        the two.
    """

    name: ClassVar[str] = "two_3x3"
    linear: bool = False

    def edit_recipe(self, recipe: Any) -> Any:
        five = "two_3x3_linear" if self.linear else "two_3x3"
        return with_model_args(recipe, "two_3x3 replaces 5x5 convolutions", five=five)


@trick
class AsymmetricConvolutions(Trick):
    """Asymmetric convolutions: an n x n convolution becomes a 1 x n and an n x 1.

    Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 3.2 and Fig. 3: not on early layers, good on grids of
        12 to 20 pixels
    Equation: conv n x n -> conv 1 x n, conv n x 1: 2 n weights in place of n^2 per pair of channels
    Acts on: recipe (model argument asymmetric)
    Defaults: no options
    Differs: Inception-v3 has them from the start, so this trick needs a baseline with asymmetric: false.
    """

    name: ClassVar[str] = "asymmetric_convolutions"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "asymmetric_convolutions splits n x n convolutions", asymmetric=True)


@trick
class Factorized7x7(Trick):
    """Factorized 7x7: the first convolution becomes three convolutions of 3x3.

    Paper: szegedy2016rethinking, arXiv:1512.00567, Secs. 6, 10 and Table 3, row "Inception-v2 Factorized 7x7"
    Equation: conv 7x7/2 -> conv 3x3/2, conv 3x3, conv 3x3
    Acts on: recipe (model argument factorized_7x7)
    Defaults: no options
    Differs: the row "includes" the first layer (Sec. 10) and probably more: its printed cost rises from 3.8
        to 4.8 thousand million operations, ours from 5.3 to 5.7. Here it is the first layer only: the 1x7 and
        7x1 convolutions at the middle grid are another switch (asymmetric_convolutions). Inception-v3
        contains this change.
    """

    name: ClassVar[str] = "factorized_7x7"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(
            recipe, "factorized_7x7 splits the 7x7 stem of Inception-v2", factorized_7x7=True
        )


@trick
class GridReduction(Trick):
    """Grid reduction: convolution and pooling, both with stride 2, beside each other.

    Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 5 and Figs. 9, 10
    Equation: paper: [conv/2(x), pool/2(x)], concatenated;   naive: conv(pool/2(x)), cheap, with a bottleneck;
        expensive: pool/2(conv(x)), four times the multiply-adds of the convolution
    Acts on: recipe (model argument grid)
    Defaults: kind = paper (the paper's proposal; the other two are what it argues against)
    Differs: nothing known; the number of channels after the reduction is the same for all three.
    """

    name: ClassVar[str] = "grid_reduction"
    kind: Literal["paper", "naive", "expensive"] = "paper"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(
            recipe, "grid_reduction changes how an Inception network halves its grid", grid=self.kind
        )


@trick
class ReceptiveField(Trick):
    """Receptive field at constant cost: smaller images, and less stride in the first layers.

    Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 9 and Table 2
    Equation: 299 pixels: stride 2, then max-pool;   151 pixels: stride 1, then max-pool;   79 pixels: stride
        1, no pool; the later layers see grids of about the same size
    Acts on: recipe (data resolution, model argument first_layer)
    Defaults: pixels = 299 (the first layer of the baseline)
    Differs: the paper trains each network until convergence, smaller images for longer; how long is the
        recipe's affair here, and the same for all three in its study. Pixels are the paper's, as everywhere
        in a recipe while tricks edit it; a size maps them to its own afterwards (its key `resolutions`).
    """

    name: ClassVar[str] = "receptive_field"
    pixels: Literal[299, 151, 79] = 299

    def edit_recipe(self, recipe: Any) -> Any:
        edited = with_model_args(
            recipe, "receptive_field changes the first layers", first_layer=FIRST_LAYERS[self.pixels]
        )
        return edited.but(data=dataclasses.replace(recipe.data, resolution=self.pixels))


FIRST_LAYERS = {299: "stride2_pool", 151: "stride1_pool", 79: "stride1"}


@trick
class AuxiliaryHead(Trick):
    """Auxiliary head: a small classifier in the middle of the network that is trained along.

    Paper: szegedy2015going, arXiv:1409.4842, Sec. 5; szegedy2016rethinking, arXiv:1512.00567, Sec. 4
    Equation: L = loss(main head) + auxiliary_weight * sum over the auxiliary heads of their cross-entropy
    Acts on: recipe (model argument auxiliary)
    Defaults: kind = plain (no batch normalisation in the head's fully connected layer)
    Differs: nothing known. It gives heads to a network without any, and leaves those that a network has; the
        networks of the papers have them from the start. They are dropped at evaluation, and not part of its
        cost.
    """

    name: ClassVar[str] = "auxiliary_head"
    kind: Literal["plain"] = "plain"

    def edit_recipe(self, recipe: Any) -> Any:
        has = recipe.model.args.get("auxiliary", "none")
        kind = self.kind if has == "none" else has
        return with_model_args(recipe, "auxiliary_head needs a place for a head", auxiliary=kind)


@trick
class AuxiliaryLoss(Trick):
    """Auxiliary loss: how much the loss of each auxiliary head counts.

    Paper: szegedy2015going, arXiv:1409.4842, Sec. 5: 0.3; szegedy2016rethinking, arXiv:1512.00567,
        whose released code has 0.4
    Equation: L = loss(main head) + weight * sum over the auxiliary heads of their cross-entropy
    Acts on: recipe (auxiliary_weight)
    Defaults: weight = 0.4 (the released code of szegedy2016rethinking; its text gives no number)
    Differs: nothing known. The heads learn from the batch's own targets, smoothed and mixed where tricks do
        that; the released code smooths them too. A distilled loss acts on the main head only.
    """

    name: ClassVar[str] = "auxiliary_loss"
    weight: float = 0.4

    def __post_init__(self) -> None:
        require(self.weight >= 0, f"auxiliary_loss: weight must be a number >= 0, got {self.weight!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        require(
            "auxiliary" in recipe.model.args,
            f"auxiliary_loss weighs auxiliary heads: {recipe.model.name} has no argument 'auxiliary'",
        )
        return recipe.but(auxiliary_weight=self.weight)


@trick
class BnAuxiliary(Trick):
    """BN-auxiliary: the fully connected part of the auxiliary head is batch-normalised as well.

    Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 10 and Table 3, row "Inception-v2 BN-auxiliary"
        (this is Inception-v3); batch normalisation from ioffe2015batch, arXiv:1502.03167, Alg. 1
    Equation: y = gamma * (x - mean) / sqrt(var + eps) + beta, on the outputs of the head's last hidden layer
    Acts on: recipe (model argument auxiliary)
    Defaults: no options
    Differs: the paper says that the auxiliary head's fully connected layer is normalised, not just its
        convolutions; its released head has no hidden fully connected layer, so the 5x5 convolution of 768
        channels, which covers its whole input, is taken for it. This reading is ours.
    """

    name: ClassVar[str] = "bn_auxiliary"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "bn_auxiliary normalises an auxiliary head", auxiliary="bn")
