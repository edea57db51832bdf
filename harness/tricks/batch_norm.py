"""Batch normalisation, and what a network with it can do without or take more of."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from harness.tricks.base import Trick, require, trick, with_model_args


@trick
class BatchNorm(Trick):
    """Batch normalisation: each channel is normalised over the batch, then scaled and shifted.

    Paper: ioffe2015batch, arXiv:1502.03167, Alg. 1 and Sec. 3.2
    Equation: y = gamma * (x - mean_B) / sqrt(var_B + eps) + beta, with mean and variance over the batch and
        the pixels, before the nonlinearity; running averages of both at evaluation
    Acts on: recipe (model argument norm)
    Defaults: no options
    Differs: gamma starts at 1 and beta at 0. The bias of a normalised layer is left out, as in the paper:
        beta takes its place. The statistics at evaluation are running averages, which the paper uses to
        follow a training; its Alg. 2 takes means over many batches at the end.
    """

    name: ClassVar[str] = "batch_norm"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "batch_norm needs a network that can be without it", norm="batch")


@trick
class Sigmoid(Trick):
    """Sigmoid units: the logistic function in place of ReLU.

    Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.2 and Fig. 3: BN-x5-Sigmoid 69.8 %, Inception with
        sigmoid and without batch normalisation never better than chance
    Equation: f(x) = 1 / (1 + exp(-x)) in place of f(x) = max(0, x)
    Acts on: recipe (model argument activation)
    Defaults: no options
    Differs: nothing known. Initial weights stay those of the recipe.
    """

    name: ClassVar[str] = "sigmoid"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "sigmoid replaces the nonlinearity", activation="sigmoid")


@trick
class HigherLr(Trick):
    """Higher learning rate: the peak rate is multiplied, which batch normalisation allows.

    Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.1 and Fig. 3: BN-x5 and BN-x30
    Equation: lr' = lr * times; from 0.0015: 0.0075 (x 5), 0.045 (x 30)
    Acts on: recipe (lr)
    Defaults: times = 5.0 (BN-x5; BN-x30 has 30)
    Differs: nothing known.
    """

    name: ClassVar[str] = "higher_lr"
    conflicts: ClassVar[tuple[str, ...]] = ("rmsprop",)
    times: float = 5.0

    def __post_init__(self) -> None:
        require(self.times > 0, f"higher_lr: times must be a number > 0, got {self.times!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        return recipe.but(lr=recipe.lr * self.times)


@trick
class NoDropout(Trick):
    """No dropout: the layer before the classifier drops nothing.

    Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.1: batch normalisation makes dropout unnecessary
    Equation: p = 0, so that dropout is the identity
    Acts on: recipe (model argument dropout)
    Defaults: no options
    Differs: nothing known; the paper's Inception drops 40 %.
    """

    name: ClassVar[str] = "no_dropout"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "no_dropout takes dropout away", dropout=0.0)


@trick
class WeakerL2(Trick):
    """Weaker L2: the weight decay is divided.

    Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.1
    Equation: weight_decay' = weight_decay / divide_by
    Acts on: recipe (weight_decay)
    Defaults: divide_by = 5.0 (the paper)
    Differs: nothing known. The paper does not give the weight decay that it divides.
    """

    name: ClassVar[str] = "weaker_l2"
    divide_by: float = 5.0

    def __post_init__(self) -> None:
        require(self.divide_by > 0, f"weaker_l2: divide_by must be a number > 0, got {self.divide_by!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        return recipe.but(weight_decay=recipe.weight_decay / self.divide_by)


@trick
class FasterDecay(Trick):
    """Faster decay: the learning rate falls as many times faster.

    Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.1: 6 times faster, as the network trains faster
    Equation: exponential: decay_every' = decay_every / times;   step: milestone' = milestone / times
    Acts on: recipe (decay_every, milestones)
    Defaults: times = 6.0 (the paper: six times faster, not six drops)
    Differs: nothing known for the exponential schedule, which is the paper's; for the step schedule it is our
        extension. A schedule without stairs is refused. exponential_decay and step_decay say themselves how
        fast they fall, so they exclude it.
    """

    name: ClassVar[str] = "faster_decay"
    conflicts: ClassVar[tuple[str, ...]] = ("cosine", "exponential_decay", "step_decay")
    times: float = 6.0

    def __post_init__(self) -> None:
        require(self.times > 0, f"faster_decay: times must be a number > 0, got {self.times!r}")

    def edit_recipe(self, recipe: Any) -> Any:
        if recipe.schedule == "step":
            sooner = tuple(milestone / self.times for milestone in recipe.milestones)
            return recipe.but(milestones=sooner)
        require(
            recipe.schedule == "exponential",
            f"faster_decay needs the schedule 'exponential' or 'step': the recipe has '{recipe.schedule}'",
        )
        return recipe.but(decay_every=recipe.decay_every / self.times)


@trick
class NoLrn(Trick):
    """No local response normalisation: the layers that divide by their neighbours' activity are left out.

    Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.1: unnecessary with batch normalisation
    Equation: y = x in place of y_c = x_c / (k + alpha / n * sum of x_j^2 over n neighbouring channels)^beta
    Acts on: recipe (model argument lrn)
    Defaults: no options
    Differs: nothing known. Where the layers are in the baseline is not in the paper (here as in Caffe's
        GoogLeNet: around the first convolutions).
    """

    name: ClassVar[str] = "no_lrn"

    def edit_recipe(self, recipe: Any) -> Any:
        return with_model_args(recipe, "no_lrn takes response normalisation away", lrn=False)


@trick
class ShardShuffling(Trick):
    """Within-shard shuffling: the images of a shard are put in a new order every epoch, not only the shards.

    Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.1: about 1 % better on the validation set; the same
        images no longer meet in a batch every time
    Equation: order = concatenation, over a permutation of the shards, of a permutation of each shard's images
    Acts on: recipe (shuffle)
    Defaults: no options
    Differs: the paper does not say how large its shards were. A recipe that shuffles all images already has
        more than this trick gives, and is refused.
    """

    name: ClassVar[str] = "shard_shuffling"

    def edit_recipe(self, recipe: Any) -> Any:
        require(
            recipe.shuffle in ("shards", "within_shards"),
            "shard_shuffling needs a recipe that puts only shards in a new order (shuffle: shards);"
            f" this one has shuffle: {recipe.shuffle}, which mixes more",
        )
        return recipe.but(shuffle="within_shards")


@trick
class WeakerDistortion(Trick):
    """Weaker photometric distortion: fewer examples are seen, so they should look more like real ones.

    Paper: ioffe2015batch, arXiv:1502.03167, Sec. 4.2.1
    Equation: jitter' = factor * jitter,   pca_noise' = factor * pca_noise
    Acts on: recipe (augment: jitter, pca_noise)
    Defaults: factor = 0.5 (our choice: the paper says reduced, and gives no number)
    Differs: by how much the paper reduces which distortion is not known.
    """

    name: ClassVar[str] = "weaker_distortion"
    factor: float = 0.5

    def __post_init__(self) -> None:
        require(
            0 <= self.factor <= 1,
            f"weaker_distortion: factor must be a number in [0, 1], got {self.factor!r}",
        )

    def edit_recipe(self, recipe: Any) -> Any:
        augment = recipe.augment
        weaker = dataclasses.replace(
            augment, jitter=augment.jitter * self.factor, pca_noise=augment.pca_noise * self.factor
        )
        return recipe.but(augment=weaker)
