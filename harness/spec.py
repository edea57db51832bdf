"""What one run is: every number that changes the meaning of its result, nothing else; and its identity."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from importlib import import_module
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

from harness.errors import frozen

# What one run is: every number that changes the meaning of its result, and nothing else.
#
# Machine settings (device, workers, threads, paths) are not here; they go into the record of a run. A spec
# is plain frozen data, so that its canonical JSON can be hashed into the identity of the run.


SCHEMA_VERSION = 2
# Fields of this file's classes that came later: a spec holds them where they are not the default, which is
# frozen, so that runs from before keep their ids (docs/decisions/0022, 0030 and 0041).
CAME_LATER: Mapping[str, Any] = {"crop_pad": 0, "weights": "", "freeze": (), "lr_scale": {}}
BACKBONE, CLASSIFIER = "backbone", "classifier"  # parts that every network has
FINISHED, DIVERGED, FAILED = "finished", "diverged", "failed"  # what became of a run
ENDED = frozenset({FINISHED, DIVERGED})  # outcomes; `failed` is retried by the next `harness run`
ACCURACIES = ("top1", "top5")  # results in percent; more is better
PER_CLASS = ("balanced_accuracy", "f1", "auroc")  # in percent, too, where a study asks for them
ID_HEX_DIGITS = 32  # 128 bits of sha256
MEMBER_STRIDE = 1000  # member k of the ensemble with seed s is the run with seed s + k * MEMBER_STRIDE


@frozen
class ModelSpec:
    """An architecture by name, with every constructor argument filled in."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    # sha256 of the file of weights that a training starts from, with :entry where it has several networks.
    weights: str = ""

    def with_args(self, **changes: Any) -> ModelSpec:
        """The same architecture with some constructor arguments changed."""
        return dataclasses.replace(self, args={**self.args, **changes})


@frozen
class DataSpec:
    """A data set by name, the side of the square input in pixels, and how much of the set is used."""

    name: str
    resolution: int
    train_images: int | None = None  # None: all of them; else a class-balanced, fixed subset
    test_images: int | None = None
    args: Mapping[str, Any] = field(default_factory=dict)


@frozen
class AugmentSpec:
    """Training-time augmentation, in the order in which it is applied (He et al. 2019, Sec. 2.1)."""

    crop_area: tuple[float, float] = (0.08, 1.0)  # fraction of the image's area
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width : height
    flip: float = 0.5  # probability
    jitter: float = 0.4  # brightness, saturation, hue coefficients ~ U[1 - jitter, 1 + jitter]
    pca_noise: float = 0.1  # standard deviation of the PCA coefficients
    # Pixels put around the network's input, of which a window of its size is then cut at random.
    crop_pad: int = 0


@frozen
class Recipe:
    """Everything numeric about one training. Epochs, batches and milestones are the real ones of a size.

    While tricks edit it, it is in the paper's units (ImageNet epochs and batches); `study.resolve` then
    scales it to the size by the rules stated there.
    """

    model: ModelSpec
    data: DataSpec
    augment: AugmentSpec = AugmentSpec()
    epochs: float = 120
    batch_size: int = 256
    optimizer: str = "sgd"
    optimizer_args: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 0.1  # peak learning rate
    weight_decay: float = 1e-4
    clip_norm: float = 0.0  # the gradient is scaled down to at most this global L2 norm; 0: off
    clip_value: float = 0.0  # every element of the gradient is clipped to +- this value; 0: off
    schedule: str = "step"  # constant | step | cosine | exponential
    milestones: tuple[float, ...] = (30, 60, 90)  # epochs at which `step` multiplies by `decay`
    decay: float = 0.1
    # `exponential` multiplies by `decay` every so many epochs, in steps of a staircase.
    decay_every: float = 2.0
    warmup_epochs: float = 0.0
    warmup_lr: float = 0.0  # where the warm-up starts
    # proportional: i lr / m at batch i of m | linear: from warmup_lr to lr | constant: at warmup_lr
    warmup_shape: str = "linear"
    precision: str = "fp32"  # fp32 | fp16 | bf16
    initialisation: str = "he_fan_out"  # harness/models/blocks.py; own: what the constructor does
    auxiliary_weight: float = 0.3  # of the loss of each auxiliary head, where the network has some
    # Parts of the network (`training.weights.Parts`) that do not learn; part -> factor on the learning rate.
    freeze: tuple[str, ...] = ()
    lr_scale: Mapping[str, float] = field(default_factory=dict)
    # Batch norm's statistics are over groups of so many images (a worker's share); 0: all. While tricks edit
    # the recipe, it may be a Fraction of the batch.
    norm_images: int = 0
    shuffle: str = "images"  # images | within_shards | shards: what is put in a new order every epoch
    eval_crop: float = 0.875  # centre crop: this fraction of the shorter side, resized to the resolution
    eval_crops: int = 1  # 1, 10, 12 or 144 views of each test image, their probabilities averaged
    eval_weights: str = "own"  # own: what the tricks evaluate (e.g. their average); raw: the trained weights
    curve_points: int = 1  # how often in an epoch the learning curve is measured
    read_out: str = "last_epoch"  # last_epoch | median_of_last_5: declared before the first run
    metrics: tuple[str, ...] = ()  # asked for beside top1, top5 and loss
    trainer: str = "harness"  # or a training function of a plugin

    def but(self, **changes: Any) -> Recipe:
        """The recipe with some fields changed: `dataclasses.replace`, several times faster.

        Raises:
            TypeError: a recipe has no such field.
        """
        fields = {**fields_of(self), **changes}
        if len(fields) > len(NAMES):
            raise TypeError(f"not a field of a recipe: {', '.join(sorted(fields.keys() - set(NAMES)))}")
        return recipe_of(fields)


@frozen
class TrickSpec:
    """A trick that acts while training, with every option filled in."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@frozen
class Member:
    """Trained networks that an evaluation-only arm observes: `runs` runs of one arm."""

    arm: str  # arm_id
    runs: int = 1  # seeds s, s + MEMBER_STRIDE, s + 2 MEMBER_STRIDE, ... for the observer with seed s


@frozen
class Arm:
    """A fully resolved recipe without its seed.

    Tricks that only edit the recipe are already in its numbers and do not appear in `tricks`: two rows
    that come to the same numbers are the same arm and are trained once.
    """

    recipe: Recipe
    tricks: tuple[TrickSpec, ...] = ()
    teacher: str | None = None  # arm_id of the teacher; the teacher run has the student's seed
    source: str | None = None  # arm_id of the run whose weights the training starts from; the same seed
    observes: tuple[Member, ...] = ()  # not empty: nothing is trained, these networks are evaluated together
    plugins: Mapping[str, str] = field(default_factory=dict)  # file name -> sha256 of each plugin it uses

    @property
    def arm_id(self) -> str:
        """128 bits of sha256 over the canonical JSON of every field."""
        return digest(canonical_json(as_plain(self)))


@frozen
class RunSpec:
    """An arm and a seed: the unit that is trained, stored and found again."""

    arm: Arm
    seed: int

    @property
    def run_id(self) -> str:
        return run_id(self.arm.arm_id, self.seed)

    @property
    def teacher_run_id(self) -> str | None:
        return None if self.arm.teacher is None else run_id(self.arm.teacher, self.seed)

    @property
    def source_run_id(self) -> str | None:
        return None if self.arm.source is None else run_id(self.arm.source, self.seed)

    @property
    def member_run_ids(self) -> tuple[str, ...]:
        """The runs that an evaluation-only run observes, in the order of `arm.observes`."""
        return tuple(
            run_id(member.arm, self.seed + index * MEMBER_STRIDE)
            for member in self.arm.observes
            for index in range(member.runs)
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Every run that must have finished before this one: teacher, source, members."""
        named = (self.teacher_run_id, self.source_run_id)
        return (*(each for each in named if each is not None), *self.member_run_ids)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` gives an equal spec back."""
        return {"schema": SCHEMA_VERSION, "seed": self.seed, "arm": as_plain(self.arm)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> RunSpec:
        """Rebuild a spec from `to_json`'s data, also after a round trip through a JSON file.

        Raises:
            ValueError: the data was written by another schema version.
        """
        if data["schema"] != SCHEMA_VERSION:
            raise ValueError(f"spec has schema {data['schema']}, this harness reads {SCHEMA_VERSION}")
        arm = data["arm"]
        recipe = dict(arm["recipe"])
        recipe["model"] = ModelSpec(**_tuples(recipe["model"]))
        recipe["data"] = DataSpec(**_tuples(recipe["data"]))
        recipe["augment"] = AugmentSpec(**_tuples(recipe["augment"]))
        return RunSpec(
            arm=Arm(
                recipe=Recipe(**_tuples(recipe)),
                tricks=tuple(TrickSpec(**_tuples(trick)) for trick in arm["tricks"]),
                teacher=arm["teacher"],
                source=arm["source"],
                observes=tuple(Member(**member) for member in arm["observes"]),
                plugins=dict(arm["plugins"]),
            ),
            seed=data["seed"],
        )


# A run that a command of the user's own makes: what decides its result, and nothing of this machine.


@frozen
class ScriptArm:
    """A command without its seed. {seed}, {data} and {folder} in it stand for what differs from run to run
    or from machine to machine, and the name of a file in braces for a file whose place does.
    """

    command: tuple[str, ...]  # one entry per argument; no shell reads them
    results: Mapping[str, str]  # metric -> where the command writes it (`scripts.study_file.read_as`)
    files: Mapping[str, str] = field(default_factory=dict)  # files that the command names -> sha256
    repository: str | None = None  # sha256 of what the script's repository tracks; None: it is in none

    @property
    def arm_id(self) -> str:
        """128 bits of sha256 over the canonical JSON of every field."""
        return digest(canonical_json(as_plain(self)))

    @property
    def command_id(self) -> str:
        """The same over all but `results`: arms that share it execute the same, and read it differently."""
        return dataclasses.replace(self, results={}).arm_id

    @property
    def line(self) -> str:
        """As one would type it; what stands in braces is not quoted."""
        import shlex

        return re.sub(r"'(\S*\{[^\s']+\}\S*)'", r"\1", shlex.join(self.command))


@frozen
class ScriptRun:
    """A command and a seed: what `RunSpec` is for a training of the harness's own. It needs no other run."""

    arm: ScriptArm
    seed: int

    @property
    def run_id(self) -> str:
        return run_id(self.arm.arm_id, self.seed)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `spec_from_json` gives an equal spec back."""
        return {"schema": SCHEMA_VERSION, "seed": self.seed, "arm": as_plain(self.arm)}


AnyRun = RunSpec | ScriptRun
AnyArm = Arm | ScriptArm


def spec_from_json(data: Mapping[str, Any]) -> AnyRun:
    """Rebuild a spec of either kind, also after a round trip through a JSON file.

    Raises:
        ValueError: the data were written by another schema version.
    """
    arm = data["arm"]
    if "command" not in arm or data["schema"] != SCHEMA_VERSION:
        return RunSpec.from_json(data)
    own = {name: dict(arm[name]) for name in ("results", "files")}
    made = ScriptArm(command=tuple(arm["command"]), repository=arm["repository"], **own)
    return ScriptRun(arm=made, seed=data["seed"])


def run_of(arm: AnyArm, seed: int) -> AnyRun:
    """The run of an arm with this seed."""
    return ScriptRun(arm=arm, seed=seed) if isinstance(arm, ScriptArm) else RunSpec(arm=arm, seed=seed)


def run_id(arm_id: str, seed: int) -> str:
    """The identity of a run: a hash over its arm's hash, its seed and the schema version."""
    return digest(f'{{"arm":"{arm_id}","schema":{SCHEMA_VERSION},"seed":{seed}}}')


def as_plain(part: Any) -> dict[str, Any]:
    """A spec or a part of one, down to plain data, as it is hashed and written to files."""
    values = ((each.name, getattr(part, each.name)) for each in dataclasses.fields(part))
    return {
        name: value if type(value) in _ATOMS else _down(value)
        for name, value in values
        if name not in CAME_LATER or value != CAME_LATER[name]
    }


_ATOMS = frozenset((str, int, float, bool, type(None)))


def _down(value: Any) -> Any:
    """As `dataclasses.asdict` has it, several times faster: the containers are new."""
    if type(value) in _ATOMS:
        return value
    if dataclasses.is_dataclass(value):
        return as_plain(value)
    if isinstance(value, Mapping):
        return {name: _down(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_down, value))
    return copy.deepcopy(value)


def canonical_json(data: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN. Tuples and lists are the same."""
    return _canonical(data)


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _quick_sha256() -> Any:
    """For short texts: the interpreter's own spares every command the 3 ms in which hashlib loads OpenSSL,
    which is several times faster on whole files."""
    try:
        return import_module("_sha2" if sys.version_info >= (3, 12) else "_sha256").sha256
    except ImportError:  # an interpreter built without
        from hashlib import sha256

        return sha256


_sha256 = _quick_sha256()


def digest(text: str) -> str:
    """The first 128 bits of sha256, as 32 hexadecimal digits."""
    found: str = _sha256(text.encode()).hexdigest()
    return found[:ID_HEX_DIGITS]


def sha256_of(content: bytes) -> str:
    """sha256 of a short content, as 64 hexadecimal digits."""
    found: str = _sha256(content).hexdigest()
    return found


def _tuples(data: Any) -> Any:
    """JSON has no tuples; specs have no lists."""
    if isinstance(data, Mapping):
        return {key: _tuples(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return tuple(_tuples(value) for value in data)
    return data


# Where and how a run is executed here. Nothing in this file is part of a run's identity.


Stop = Callable[[], bool]  # asked at every step boundary: True means checkpoint now and return


@frozen
class Machine:
    """The settings of the process that executes a run."""

    runs_dir: Path  # holds one folder per run
    data_dir: Path  # the user's own data sets
    device: str = "cpu"  # cpu | cuda:0 ...
    listed_as: str = ""  # the device's name among all of the machine's, where this process sees it alone
    devices: tuple[str, ...] = ()  # of the processes on this machine; empty: all on `device`
    processes: int = 1  # that train one run together; each takes its share of every batch
    threads: int = 1
    shared: bool = False  # other runs use the device at the same time
    exact: bool = True  # bit-identical repeats and resumes; False lets cuDNN pick the fastest kernels
    compile: bool = False  # torch.compile, on a GPU
    checkpoint_every_s: float = 30.0  # at step boundaries; less often where saving takes long (recorder.py)

    @property
    def shown_device(self) -> str:
        """The device as the user knows it."""
        return self.listed_as or self.device


@frozen
class ScriptPlace:
    """Where and how a command is executed here; kept beside the runs, by arm (`runs.provenance`)."""

    folder: str  # of the study: where the command is started
    data: str | None = None  # the folder that {data} stands for
    paths: Mapping[str, str] = field(default_factory=dict)  # name in braces -> the file it stands for
    resume: tuple[str, ...] = ()  # further arguments, where the files they name are there
    progress: str | None = None  # regular expression of what the command prints
    grace_s: float = 60.0  # from SIGTERM to SIGKILL
    repository: str | None = None  # the top of the script's repository
    study: str = ""  # the study file, which is no part of the repository's digest
    command_id: str = ""  # of its arm: see `ScriptArm.command_id`


# The canonical text of an arm, as `spec.canonical_json` writes it, for 100,000 arms in a few seconds.
#
# Most arms of a study share their model, data, augmentation and tricks, and differ in a few numbers. So the
# text around those numbers is made once per combination of the other parts. A test compares with
# `canonical_json`.


_FIELDS = sorted(field.name for field in dataclasses.fields(Recipe))
# The numbers in which the arms of one grid usually differ. Others, too, may be any number: they are parts.
_NUMBERS = ["batch_size", "decay", "epochs", "eval_crop", "lr", "warmup_epochs", "weight_decay"]
_SHARED = [name for name in _FIELDS if name not in _NUMBERS]
_numbers = attrgetter(*_NUMBERS)
_shared = attrgetter(*_SHARED)
_all = attrgetter(*_FIELDS)


class CanonicalText:
    """Texts of arms, remembering the text of every part that several arms hold as one object."""

    def __init__(self) -> None:
        # By the ids of the parts; the parts are kept beside, so that an id stays theirs.
        self._frames: dict[tuple[int, ...], tuple[Any, str]] = {}
        self._parts: dict[int, tuple[Any, str]] = {}
        self._around: dict[tuple[Any, ...], tuple[Any, str, str]] = {}

    def arm_id(self, arm: Arm) -> str:
        """Equal to `arm.arm_id`, faster.

        Raises:
            ValueError: a number is not finite.
        """
        return digest(self.arm(arm))

    def arm(self, arm: Arm) -> str:
        """Equal to `canonical_json(as_plain(arm))`."""
        key = (id(arm.observes), id(arm.plugins), id(arm.tricks), arm.source, arm.teacher)
        found = self._around.get(key)
        if found is None:
            found = self._around[key] = self._of_arm(arm)
        return found[1] + self.recipe(arm.recipe) + found[2]

    def recipe(self, recipe: Recipe) -> str:
        """The recipe's part of the text."""
        shared = _shared(recipe)
        key = tuple(map(id, shared))
        found = self._frames.get(key)
        if found is None:
            found = self._frames[key] = (shared, self._frame(recipe))
        numbers = _numbers(recipe)
        if not math.isfinite(sum(numbers)):  # also where finite numbers have a sum that is too large
            check_finite(recipe, _NUMBERS, _numbers)
        return found[1] % numbers  # JSON writes numbers as repr does

    def _of_arm(self, arm: Arm) -> tuple[Any, str, str]:
        """What must stay alive, and the text before and after the recipe's."""
        before = f'{{"observes":{self._part(arm.observes)},"plugins":{self._part(arm.plugins)},"recipe":'
        source, teacher = json.dumps(arm.source), json.dumps(arm.teacher)
        after = f',"source":{source},"teacher":{teacher},"tricks":{self._part(arm.tricks)}}}'
        return (arm.observes, arm.plugins, arm.tricks), before, after

    def _frame(self, recipe: Recipe) -> str:
        """The text with %r in place of every number of `_NUMBERS`."""
        check_finite(recipe)
        parts = []
        for name, value in zip(_FIELDS, _all(recipe), strict=True):
            if name in CAME_LATER and value == CAME_LATER[name]:
                continue
            if name in _NUMBERS:
                text = "%r"
            elif type(value) in _WRITTEN_AS_SHOWN:
                text = repr(value)
            else:
                text = self._part(value).replace("%", "%%")
            parts.append(f'"{name}":{text}')
        return "{" + ",".join(parts) + "}"

    def _part(self, value: Any) -> str:
        known = self._parts.get(id(value))
        if known is None:
            known = self._parts[id(value)] = (value, canonical_json(_plain(value)))
        return known[1]


def check_finite(recipe: Recipe, names: Sequence[str] = _FIELDS, of: Callable[[Any], Any] = _all) -> None:
    """
    Raises:
        ValueError: a number of these fields is infinite, or not a number.
    """
    wrong = [
        name
        for name, value in zip(names, of(recipe), strict=True)
        if type(value) not in _NO_NUMBERS and not _is_finite(value)
    ]
    if wrong:
        raise ValueError(f"{' and '.join(wrong)} must be a finite number")


_NO_NUMBERS = frozenset({str, int, bool, type(None), dict, ModelSpec, DataSpec, AugmentSpec})
_WRITTEN_AS_SHOWN = frozenset({int, float})  # finite ones: JSON writes them as repr does


def _is_finite(value: Any) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is tuple:
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_plain(value)
    if isinstance(value, tuple) and value and isinstance(value[0], TrickSpec | Member):
        return [as_plain(each) for each in value]
    if isinstance(value, Mapping):
        return dict(value)
    return value


# Recipes from and to plain fields, several times faster than keyword arguments of a frozen dataclass are.
#
# A study of 100,000 arms makes a quarter of a million recipes of thirty fields. A test compares with
# `Recipe(**fields)`.


NAMES = tuple(field.name for field in dataclasses.fields(Recipe))
_get_items = itemgetter(*NAMES)
_get_attributes = attrgetter(*NAMES)
_setters = tuple(Recipe.__dict__[name].__set__ for name in NAMES)  # of its slots


def recipe_of(fields: Mapping[str, Any]) -> Recipe:
    """`Recipe(**fields)` for a mapping that has every field.

    Raises:
        KeyError: one is missing.
    """
    recipe = object.__new__(Recipe)
    for set_slot, value in zip(_setters, _get_items(fields), strict=True):
        set_slot(recipe, value)
    return recipe


def fields_of(recipe: Recipe) -> dict[str, Any]:
    """Every field and its value, of which the parts stay the same objects."""
    return dict(zip(NAMES, _get_attributes(recipe), strict=True))


# Over how many images batch norm takes its statistics in a training step, and what to say where it is 1.


TOO_FEW_NORM_IMAGES = "more than 1 value per channel"  # in torch's own error


def fewest_normalised(recipe: Recipe, images: int | None) -> int:
    """The fewest images over which batch norm takes its statistics in a training step; `images`: of the
    training part, where that is known."""
    batch = min(recipe.batch_size, images) if images else recipe.batch_size
    groups = recipe.norm_images
    return batch % groups or groups if 0 < groups < batch else batch


def norm_images_in_words(recipe: Recipe) -> str:
    """Why batch norm has one image, and what to do."""
    side = f"{recipe.data.resolution} x {recipe.data.resolution} pixels"
    if 0 < recipe.norm_images < recipe.batch_size:
        groups = f"groups of {recipe.norm_images} (norm_images)"
        why = f"its batches of at most {recipe.batch_size} images, in {groups}, have a group"
    else:
        why = f"with batch_size {recipe.batch_size} a step is one"
    return (
        f"{why} of 1 image, and at {side} a batch norm of {recipe.model.name} then has one value per "
        "channel, from which no variance can be had; use 2 images or more, or more pixels"
    )
