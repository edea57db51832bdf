"""Recipes of the Inception papers and of MobileNet: exponential decay, momentum or RMSProp.

Marks are those of docs/reference/papers.yaml: verified, memory. "Code" is the code that the authors of
Rethinking released (verified there), "chosen" is ours, where a paper is silent. Evaluation is a centre crop
of 0.875 of the shorter side (224 of 256 pixels, the first of GoogLeNet's four scales).
Differs, in all: training was asynchronous, with as many stale updates of 32 images as there were replicas;
here one update is made from all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.study.recipe_book.whole import whole
from harness.study.spec import AugmentSpec

MOMENTUM: Mapping[str, Any] = {"momentum": 0.9, "nesterov": False}
RMSPROP: Mapping[str, Any] = {"alpha": 0.9, "eps": 1.0, "momentum": 0.9}  # 0.9, 1.0: verified; momentum: code

# Szegedy et al. 2015: areas and ratios verified, colours "as Howard" verified without numbers. Chosen: the
# strengths of He et al. 2019. Differs: no random interpolation.
DISTORTED = AugmentSpec(crop_area=(0.08, 1.0), crop_ratio=(3 / 4, 4 / 3), flip=0.5, jitter=0.4, pca_noise=0.1)

# Szegedy et al. 2015, arXiv:1409.4842 (verified where marked so). Averaging of the weights is the trick ema.
GOOGLENET: Mapping[str, Any] = whole(
    augment=DISTORTED,
    epochs=90.0,  # chosen; at the printed decay the rate falls to 0.64 of its start
    batch_size=256,  # chosen
    optimizer="sgd",
    optimizer_args=MOMENTUM,  # verified: 0.9
    lr=0.01,  # chosen
    weight_decay=1e-4,  # chosen
    schedule="exponential",
    milestones=(),
    decay=0.96,  # verified: 4 % every 8 epochs
    decay_every=8.0,
    initialisation="he_fan_in",  # chosen: without batch norm, he_fan_out starts with logits of 31, not 4
    auxiliary_weight=0.3,  # verified
    eval_crop=0.875,
)

# Ioffe & Szegedy 2015, arXiv:1502.03167, Sec. 4.2: "Inception", the row without batch normalisation (verified
# where marked so). It reaches 72.2 % after 31.0 million steps: 31.0e6 * 32 / 1,281,167 = 774.3 epochs.
BATCH_NORM_INCEPTION: Mapping[str, Any] = whole(
    augment=DISTORTED,
    epochs=774.3,  # verified, as computed above
    batch_size=32,  # verified
    optimizer="sgd",
    optimizer_args=MOMENTUM,  # verified without the value; 0.9 chosen
    lr=0.0015,  # verified
    weight_decay=1e-5,  # chosen; the text divides it by 5 without naming it
    schedule="exponential",  # verified without the rate
    milestones=(),
    decay=0.96,  # chosen: GoogLeNet's 4 % every 8 epochs
    decay_every=8.0,
    initialisation="he_fan_in",  # chosen, as for GoogLeNet
    shuffle="shards",  # verified: shuffling within shards came with BN-x5
    eval_crop=0.875,
)

# Ioffe & Szegedy 2015, Sec. 4.1 and Fig. 1: 50,000 steps of 60 images (memory), so 50,000 * 60 / 60,000 = 50
# epochs of MNIST.
BN_MLP: Mapping[str, Any] = whole(
    augment=AugmentSpec(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, jitter=0.0, pca_noise=0.0),
    epochs=50.0,
    batch_size=60,
    optimizer="sgd",
    optimizer_args={"momentum": 0.0, "nesterov": False},  # chosen
    lr=0.05,  # chosen: without batch norm the network still learns, slowly
    weight_decay=0.0,  # chosen
    schedule="constant",  # chosen
    milestones=(),
    initialisation="gaussian",  # "small random Gaussian values" (memory)
    eval_crop=1.0,
)

# Szegedy et al. 2016, arXiv:1512.00567, Sec. 8 (verified unless said otherwise): the row before RMSProp, with
# the momentum of the paper's earlier runs. Averaging of the weights is the trick ema.
RETHINKING_INCEPTION: Mapping[str, Any] = whole(
    augment=DISTORTED,  # chosen: GoogLeNet's
    epochs=100.0,
    batch_size=1600,  # 50 replicas of 32 images
    optimizer="sgd",
    optimizer_args=MOMENTUM,
    lr=0.045,
    weight_decay=4e-5,  # code
    clip_norm=2.0,  # by norm: chosen, the paper names the threshold alone
    schedule="exponential",
    milestones=(),
    decay=0.94,
    decay_every=2.0,
    initialisation="truncated_normal",  # code; a network without batch norm explodes with it
    auxiliary_weight=0.4,  # code
    eval_crop=0.875,  # chosen
)

# Szegedy et al. 2017, arXiv:1602.07261, Sec. 4 (verified where marked so). Values that the paper does not
# give are those of the paper before.
INCEPTION_V4: Mapping[str, Any] = whole(
    augment=DISTORTED,  # chosen: GoogLeNet's
    epochs=100.0,  # chosen
    batch_size=640,  # 20 replicas: verified; of 32 images each: chosen
    optimizer="rmsprop_tf",  # verified
    optimizer_args=RMSPROP,
    lr=0.045,  # verified
    weight_decay=4e-5,  # chosen
    clip_norm=2.0,  # chosen; that gradients are clipped: verified, in the AAAI text
    schedule="exponential",
    milestones=(),
    decay=0.94,  # verified
    decay_every=2.0,  # verified
    initialisation="truncated_normal",  # chosen
    auxiliary_weight=0.4,  # chosen
    eval_crop=0.875,  # chosen
)

# Howard et al. 2017, arXiv:1704.04861, Sec. 3.2 (memory): asynchronous RMSProp as for Inception-v3, no label
# smoothing, no auxiliary head, weaker distortion and crops, little or no weight decay on depthwise filters
# (verified, all without numbers). Every number is chosen, most of them Inception-v3's.
# Differs: the little weight decay is on all weights.
MOBILENET: Mapping[str, Any] = whole(
    augment=AugmentSpec(
        crop_area=(0.25, 1.0), crop_ratio=(3 / 4, 4 / 3), flip=0.5, jitter=0.2, pca_noise=0.05
    ),
    epochs=100.0,
    batch_size=256,
    optimizer="rmsprop_tf",
    optimizer_args=RMSPROP,
    lr=0.045,
    weight_decay=4e-5,
    schedule="exponential",
    milestones=(),
    decay=0.94,
    decay_every=2.0,
    initialisation="truncated_normal",
    eval_crop=0.875,
)
