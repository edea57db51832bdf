"""Recipes of He et al. 2019, He et al. 2016, Goyal et al. 2017 and Zhang et al. 2018: step schedules, SGD.

Marks are those of docs/reference/papers.yaml: verified, memory. "Chosen" is ours, where a paper is silent.
Evaluation is a centre crop of 224 pixels where the shorter side has 256, so 224 / 256 = 0.875 of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.study.recipe_book.whole import whole
from harness.study.spec import AugmentSpec

NO_COLOUR = AugmentSpec(crop_area=(0.08, 1.0), crop_ratio=(3 / 4, 4 / 3), flip=0.5, jitter=0.0, pca_noise=0.0)

# He et al. 2019, arXiv:1812.01187, Sec. 2.1 "Training procedure" (verified unless said otherwise).
# Differs: the paper's text says Xavier initialisation, the authors' code uses He's (MSRAPrelu); the code is
# followed here. The text says hue, saturation and brightness, as here; the code changes contrast instead of
# hue.
BAG_OF_TRICKS_BASELINE: Mapping[str, Any] = whole(
    augment=AugmentSpec(
        crop_area=(0.08, 1.0),
        crop_ratio=(3 / 4, 4 / 3),
        flip=0.5,
        jitter=0.4,
        pca_noise=0.1,
    ),
    epochs=120.0,
    batch_size=256,
    optimizer="sgd",
    optimizer_args={"momentum": 0.9, "nesterov": True},  # 0.9: memory (authors' code and logs)
    lr=0.1,
    weight_decay=1e-4,  # memory (authors' code and logs)
    schedule="step",
    milestones=(30.0, 60.0, 90.0),
    decay=0.1,
    initialisation="he_fan_out",
    eval_crop=0.875,
    read_out="last_epoch",
)

# Goyal et al. 2017, arXiv:1706.02677 (verified unless said otherwise): the small-batch baseline of Table 1.
# Differs: the paper decays everything but batch normalisation's parameters; a recipe has one weight decay for
# all, and the trick no_bias_decay leaves out biases (here only the classifier's) as well. Zero gamma is an
# argument of the model. The measure is the median of the last five epochs' error.
GOYAL: Mapping[str, Any] = whole(
    augment=NO_COLOUR,  # scale, aspect ratio, flip; the ranges: memory
    epochs=90.0,
    batch_size=256,
    optimizer="sgd",
    optimizer_args={"momentum": 0.9, "nesterov": True},
    lr=0.1,  # 0.1 * kn / 256
    weight_decay=1e-4,
    schedule="step",
    milestones=(30.0, 60.0, 80.0),
    decay=0.1,
    initialisation="he_fan_out",  # He's; the classifier N(0, 0.01^2)
    norm_images=32,  # each worker normalises its own 32 images
    eval_crop=0.875,  # memory
    read_out="median_of_last_5",
)

# Zhang et al. 2018, arXiv:1710.09412, Sec. 3.1 (verified where marked so): the row without mixup, 90 epochs.
# The rows of 200 epochs divide at 60, 120 and 180 (120 and 180: memory).
MIXUP: Mapping[str, Any] = whole(
    augment=NO_COLOUR,  # memory: scale and aspect ratio, random crops, flips
    epochs=90.0,
    batch_size=1024,  # verified
    optimizer="sgd",
    optimizer_args={"momentum": 0.9, "nesterov": True},  # chosen: as in Goyal et al.
    lr=0.4,  # verified, with the next line
    warmup_epochs=5.0,
    warmup_lr=0.1,
    warmup_shape="linear",
    weight_decay=1e-4,  # memory
    schedule="step",
    milestones=(30.0, 60.0, 80.0),  # verified
    decay=0.1,  # verified
    initialisation="he_fan_out",  # chosen
    eval_crop=0.875,  # memory
)

# He et al. 2016, arXiv:1512.03385, Sec. 3.4 (memory throughout).
# Differs: the paper divides the rate when the error plateaus, here at a quarter and at half of training. It
# resizes the shorter side to 256-480 pixels and cuts out 224: here the crop's area is uniform between the two
# ends of that range for a square image, (224 / 480)^2 and (224 / 256)^2. 60e4 iterations of 256 images are
# 119.9 epochs.
RESNET: Mapping[str, Any] = whole(
    augment=AugmentSpec(
        crop_area=((224 / 480) ** 2, (224 / 256) ** 2),
        crop_ratio=(1.0, 1.0),  # crops are square
        flip=0.5,
        jitter=0.0,
        pca_noise=0.1,  # the colour augmentation of Krizhevsky et al. 2012
    ),
    epochs=120.0,
    batch_size=256,
    optimizer="sgd",
    optimizer_args={"momentum": 0.9, "nesterov": False},
    lr=0.1,
    weight_decay=1e-4,
    schedule="step",
    milestones=(30.0, 60.0),
    decay=0.1,
    initialisation="he_fan_in",  # He et al. 2015; which of its two cases is not said
    eval_crop=0.875,
)
