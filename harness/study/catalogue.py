"""What the plan must know about tricks, models and data sets, without importing torch; and looking it up."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from harness.errors import Location, ProblemList, frozen, unknown
from harness.spec import AugmentSpec, DataSpec, ModelSpec, Recipe

# What the plan must know about tricks, models and data sets, without importing torch.
#
# `study` imports nothing from the rest of the harness: the command line fills a `Catalogue` and hands
# it in.


Facts = tuple[int | None, int | None, int | None]  # classes, training images, test images; None: not known


@frozen
class TrickEntry:
    """One paper trick: its options with their defaults, and how it edits a recipe."""

    name: str
    options: Mapping[str, Any]  # option name -> default
    conflicts: frozenset[str]  # names of tricks that may not be on beside this one
    acts_in_training: bool  # False: everything it does is in the edited recipe
    validate: Callable[[Mapping[str, Any]], object]  # raises ValueError on a bad option value
    edit_recipe: Callable[[Recipe, Mapping[str, Any]], Recipe]  # raises ValueError where it cannot apply
    edits_recipe: bool = True  # False: `edit_recipe` returns what it was given, and planning need not call it
    arms: tuple[str, ...] = ()  # options beside `options` in which a study must name an arm
    observes: bool = False  # changes only how trained networks are evaluated
    members: Callable[[Mapping[str, Any]], tuple[int, ...]] = lambda options: (
        1,
    )  # own runs, then of each arm
    said_if_set: frozenset[str] = frozenset()  # options that a spec holds where they are not the default
    plugin: str | None = None  # file name of the plugin it comes from; None: of this harness


@frozen
class ModelEntry:
    """One architecture, or one variant of it: its constructor arguments with their defaults."""

    name: str
    family: str  # the name in a spec; of a variant: the architecture it is a setting of
    args: Mapping[str, Any]  # of the family
    validate: Callable[[Mapping[str, Any]], None]  # raises ValueError on a bad argument value
    preset: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # a variant's arguments
    minimum_input: Callable[[Mapping[str, Any]], int] = lambda args: (
        1
    )  # smallest side in pixels, of all arguments
    rule: Callable[[Mapping[str, Any]], None] = lambda args: (
        None
    )  # raises ValueError: they do not go together
    own_initialisation: bool = False  # keeps its constructor's weights, whatever a recipe says
    plugin: str | None = None


@frozen
class DataEntry:
    """One data set: its arguments with their defaults, sizes and what is missing on this machine."""

    name: str
    args: Mapping[str, Any]
    classes: int | None  # None: known only once the files are read
    train_images: int | None
    test_images: int | None
    missing: Callable[[Mapping[str, Any]], str | None]  # None: ready; else what to put where
    validate: Callable[[Mapping[str, Any]], None] = lambda args: (
        None
    )  # raises ValueError on a bad argument value
    for_reports: bool = True  # False: generated pixels, for benchmarks only
    counts: Callable[[Mapping[str, Any]], Facts] | None = None  # where the arguments change the three numbers
    plugin: str | None = None
    said_if_set: frozenset[str] = frozenset()  # arguments that a spec holds where they are not the default
    of_a_row: frozenset[str] = frozenset()  # arguments that what stands for it at a size takes over
    # Training and test images of the files that are here, for what a plan foretells: no part of any identity.
    here: Callable[[Mapping[str, Any]], tuple[int | None, int | None]] = lambda args: (None, None)

    def facts(self, args: Mapping[str, Any]) -> Facts:
        """Classes, training images and test images with all arguments given."""
        if self.counts is None:
            return self.classes, self.train_images, self.test_images
        return self.counts(args)


class Cost(NamedTuple):
    """The cost of one forward pass of one image: parameters, and multiply-adds of conv and linear layers."""

    params: int
    macs: int


class Catalogue(NamedTuple):
    """Every name a study may use."""

    tricks: Mapping[str, TrickEntry]
    models: Mapping[str, ModelEntry]
    data: Mapping[str, DataEntry]
    cost: Callable[[ModelSpec, DataSpec], Cost]
    trainers: Mapping[str, str | None] = MappingProxyType({})  # name -> its plugin's file
    metrics: Mapping[str, str | None] = MappingProxyType({})  # beside top1, top5 and loss; name -> file
    plugin_hashes: Mapping[str, str] = MappingProxyType({})  # file name -> sha256 of its bytes
    # (model, file of weights; None: the library's own) -> `ModelSpec.weights`; ValueError: it is not there
    weights: Callable[[str, str | None], str] = lambda model, file: ""


# A thing that a study names, with the options it gives: `mixup`, or `{mixup: {alpha: 0.4}}`.


MOST_USES = 100  # in one list


class Use(NamedTuple):
    """A trick, model or data set by name, and the options that differ from its defaults. Hashable."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name} ({', '.join(f'{key}={value}' for key, value in self.options)})"


def short_names(uses: Iterable[Use]) -> dict[Use, str]:
    """Each use by its name alone, with its options where another one has the same name.

    >>> list(short_names([Use("cosine"), Use("mixup", (("alpha", 0.2),))]).values())
    ['cosine', 'mixup']
    """
    listed = list(uses)
    count = Counter(use.name for use in listed)
    return {use: use.name if count[use.name] == 1 else str(use) for use in listed}


def parse_use(value: Any) -> Use:
    """A name, or a map of one name to its options.

    Raises:
        ValueError: anything else.

    >>> parse_use({"mixup": {"alpha": 0.4}})
    Use(name='mixup', options=(('alpha', 0.4),))
    """
    if isinstance(value, Use):
        return value
    if isinstance(value, str):
        return Use(value)
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, options),) = value.items()
        if isinstance(name, str) and isinstance(options, Mapping):
            return Use(name, tuple((str(key), plain(option)) for key, option in options.items()))
    raise ValueError(f"expected a name or {{name: {{option: value}}}}, got {value!r}")


def parse_uses(value: Any) -> tuple[Use, ...]:
    """One use, or a list of them, in order.

    >>> parse_uses("cosine"), parse_uses(["cosine", "mixup"])
    ((Use(name='cosine', options=()),), (Use(name='cosine', options=()), Use(name='mixup', options=())))
    """
    items = value if isinstance(value, list | tuple) and not isinstance(value, Use) else [value]
    if len(items) > MOST_USES:
        raise ValueError(f"expected at most {MOST_USES} of them, got {len(items)}")
    return tuple(parse_use(item) for item in items)


def fill_options(kind: str, use: Use, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a use: the given ones over the defaults, in the types of the defaults.

    Raises:
        ValueError: an option that does not exist.
    """
    filled = {name: plain(value) for name, value in defaults.items()}
    for name, value in use.options:
        if name not in filled:
            raise ValueError(f"{kind} '{use.name}': {unknown('option', name, filled)}")
        filled[name] = like(value, defaults[name])
    return filled


def like(value: Any, default: Any) -> Any:
    """`value` in the type of `default` where both mean the same: 1 and 1.0 are one value, hence one arm."""
    if type(value) is int and type(default) is float:
        return float(value)
    if isinstance(value, list | tuple):
        pattern = default[0] if isinstance(default, list | tuple) and default else None
        return tuple(like(item, pattern) for item in value)
    return value


def plain(value: Any) -> Any:
    """An option's value with lists as tuples, so that uses can be compared and hashed.

    Raises:
        ValueError: a map.
    """
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, Mapping):
        raise ValueError(f"an option is a plain value or a list, not a map: {dict(value)!r}")
    return value


# One name of a study file against the catalogue: a trick, a model, a data set.


class Mode(NamedTuple):
    """What a study is resolved for."""

    names_are_wrong: bool = False  # some were reported as mistakes, so that lookups may fail
    priced: bool = True  # False: only to find mistakes; those in printed values were found with the rows


class Unusable(Exception):
    """A draft uses something that is already reported as a mistake."""


def guarded(what: str, call: Callable[..., Any], *values: Any) -> Any:
    """Call what a plugin may have written.

    Raises:
        ValueError: the call's own, or in words whatever else it raised: a study never ends in a traceback.
    """
    try:
        return call(*values)
    except ValueError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ValueError(f"{what} failed: {type(error).__name__}: {first}") from error


def trick_options(use: Use, catalogue: Catalogue) -> tuple[TrickEntry, dict[str, Any]]:
    """A trick's entry, and every option of it but those that name an arm, in full.

    Raises:
        ValueError: the trick or an option does not exist, or a value is out of its range.
    """
    entry = catalogue.tricks.get(use.name)
    if entry is None:
        raise ValueError(unknown("trick", use.name, catalogue.tricks))
    if entry.arms:
        use = Use(use.name, tuple(pair for pair in use.options if pair[0] not in entry.arms))
    options = fill_options("trick", use, entry.options)
    guarded(f"checking the options of trick '{use.name}'", entry.validate, options)
    return entry, options


def needs_arm(trick: str, option: str) -> str:
    """The mistake of a trick that is not told which arm it needs, in words."""
    return f"trick '{trick}' needs a {option}: {{{trick}: {{{option}: NAME OF AN ARM}}}}"


def check_data(use: Use, catalogue: Catalogue) -> None:
    """Raises:
    ValueError: the data set or an argument does not exist, or a value is out of its range.
    """
    entry = catalogue.data.get(use.name)
    if entry is None:
        raise ValueError(unknown("data set", use.name, catalogue.data))
    args = fill_options("data set", use, entry.args)
    guarded(f"checking the arguments of data set '{use.name}'", entry.validate, args)


def attempt(at: Location, problems: ProblemList, check: Callable[..., Any], *values: Any) -> None:
    """Call a check; a ValueError of it becomes a problem at this place."""
    try:
        check(*values)
    except ValueError as error:
        problems.add(at, str(error))


# Named training recipes of papers, in the paper's own units. A study's `baseline` names one.
#
# Every value's source is written beside it; the marks `verified` and `memory` are those of
# docs/reference/papers.yaml.


# A recipe with every field but `model` and `data`, from the values that a paper gives.


BY_STUDY = ("model", "data")  # what a study adds to a named recipe


def whole(**values: Any) -> Mapping[str, Any]:
    """The values, and `Recipe`'s defaults for the fields that are not among them.

    Raises:
        TypeError: a value for a field that a recipe does not have, or that the study gives.
    """
    fields = {field.name: field for field in dataclasses.fields(Recipe) if field.name not in BY_STUDY}
    wrong = values.keys() - fields.keys()
    if wrong:
        raise TypeError(f"not a field of a named recipe: {', '.join(sorted(wrong))}")
    return {name: values[name] if name in values else _default(field) for name, field in fields.items()}


def _default(field: dataclasses.Field[Any]) -> Any:
    make = field.default_factory
    return field.default if make is dataclasses.MISSING else make()


# Recipes of the Inception papers and of MobileNet: exponential decay, momentum or RMSProp.
#
# Marks are those of docs/reference/papers.yaml: verified, memory. "Code" is the code that the authors of
# Rethinking released (verified there), "chosen" is ours, where a paper is silent. Evaluation is a centre
# crop of 0.875 of the shorter side (224 of 256 pixels, the first of GoogLeNet's four scales). Differs, in
# all: many replicas trained at once, asynchronously in GoogLeNet, elsewhere not said; here one update is made
# from all of them, with batch norm's statistics over the 32 images of each replica.


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

# Ioffe & Szegedy 2015, Sec. 4.1 and Fig. 1: 50,000 steps of 60 images, so 50,000 * 60 / 60,000 = 50 epochs
# of MNIST.
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
    initialisation="gaussian",  # "small random Gaussian values"
    eval_crop=1.0,
)

# Szegedy et al. 2016, arXiv:1512.00567, Sec. 8 (verified unless said otherwise): the row before RMSProp, with
# the momentum of the paper's earlier runs. Averaging of the weights is the trick ema.
RETHINKING_INCEPTION: Mapping[str, Any] = whole(
    augment=DISTORTED,  # chosen: GoogLeNet's
    epochs=100.0,
    batch_size=1600,  # 50 replicas of 32 images; all in one update: TensorFlow's released synchronous trainer
    norm_images=32,  # each replica normalises its own images
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
# give are those of the paper before; its label smoothing and the averaging of the weights are tricks. The
# curves of Figs. 21 to 26 end at epoch 160 for Inception-v4 and Inception-ResNet-v2, and at 200 for
# Inception-v3 and Inception-ResNet-v1, whose arms say so.
INCEPTION_V4: Mapping[str, Any] = whole(
    augment=DISTORTED,  # chosen: GoogLeNet's
    epochs=160.0,  # verified: Figs. 23 to 26
    batch_size=640,  # 20 replicas: verified; of 32 images each: chosen
    norm_images=32,  # each replica normalises its own images
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

# Howard et al. 2017, arXiv:1704.04861, Sec. 3.2: asynchronous RMSProp as for Inception-v3, no label
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


# Recipes of He et al. 2019, He et al. 2016, Goyal et al. 2017 and Zhang et al. 2018: step schedules, SGD.
#
# Marks are those of docs/reference/papers.yaml: verified, memory. "Chosen" is ours, where a paper is
# silent. Evaluation is a centre crop of 224 pixels where the shorter side has 256, so 224 / 256 = 0.875 of
# it.


NO_COLOUR = AugmentSpec(crop_area=(0.08, 1.0), crop_ratio=(3 / 4, 4 / 3), flip=0.5, jitter=0.0, pca_noise=0.0)

# He et al. 2019, arXiv:1812.01187, Sec. 2.1 "Training procedure" (verified unless said otherwise). "Code" is
# the authors' GluonCV, scripts/classification/imagenet/train_imagenet.py.
# Differs: the paper's text says Xavier initialisation (the trick initialisation), the code uses MXNet's
# MSRAPrelu (he_average); here it is He's rule over fan_out. Each of 8 GPUs normalises its own share of the
# batch (code); here, the whole batch. The study sets both as the code has them. The text says hue, saturation
# and brightness, as here; the code changes contrast instead of hue.
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
    optimizer_args={"momentum": 0.9, "nesterov": True},  # NAG: verified; 0.9: code
    lr=0.1,
    weight_decay=1e-4,  # code
    schedule="step",
    milestones=(30.0, 60.0, 90.0),
    decay=0.1,
    initialisation="he_fan_out",
    eval_crop=0.875,
    read_out="last_epoch",
)

# Goyal et al. 2017, arXiv:1706.02677 (verified unless said otherwise): the small-batch baseline of Table 1.
# The paper decays everything but batch normalisation's parameters (Sec. 5.1): a recipe has one weight decay
# for all, and the study adds no_bias_decay with exempt = norms. Zero gamma is an argument of the model. The
# measure is the median of the last five epochs' error.
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
# The rows of 200 epochs divide at 60, 120 and 180 (verified).
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
    weight_decay=1e-4,  # chosen: as in Goyal et al.
    schedule="step",
    milestones=(30.0, 60.0, 80.0),  # verified
    decay=0.1,  # verified
    initialisation="he_fan_out",  # chosen
    eval_crop=0.875,  # memory
)

# He et al. 2016, arXiv:1512.03385, Sec. 3.4 (verified). 60e4 iterations of 256 images are 119.9 epochs.
# Differs: the paper divides the rate when the error plateaus, here at a quarter and at half of training. It
# resizes the shorter side to 256-480 pixels and cuts out 224: here the crop's area is uniform between the two
# ends of that range for a square image, (224 / 480)^2 and (224 / 256)^2. It subtracts a mean per pixel, here
# one per channel.
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
    norm_images=32,  # 8 workers of 32 images, as Goyal et al. 2017, Sec. 5.1, say of it
    eval_crop=0.875,
)

# From trained weights to a data set of one's own: few epochs at a small rate that falls along a cosine, no
# colours changed. Every number is chosen.
FINE_TUNING: Mapping[str, Any] = whole(
    augment=AugmentSpec(
        crop_area=(0.25, 1.0), crop_ratio=(3 / 4, 4 / 3), flip=0.5, jitter=0.0, pca_noise=0.0
    ),
    epochs=30.0,
    batch_size=64,
    optimizer="sgd",
    optimizer_args={"momentum": 0.9, "nesterov": True},
    lr=0.01,
    weight_decay=1e-4,
    schedule="cosine",
    milestones=(),
    initialisation="he_fan_out",
    eval_crop=0.875,
)

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "bag_of_tricks_baseline": BAG_OF_TRICKS_BASELINE,
    "goyal": GOYAL,
    "mixup": MIXUP,
    "resnet": RESNET,
    "googlenet": GOOGLENET,
    "batch_norm_inception": BATCH_NORM_INCEPTION,
    "bn_mlp": BN_MLP,
    "rethinking_inception": RETHINKING_INCEPTION,
    "inception_v4": INCEPTION_V4,
    "mobilenet": MOBILENET,
    "fine_tuning": FINE_TUNING,
}
"""Name -> every field of `Recipe` but `model` and `data`."""
