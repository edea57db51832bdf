"""What one run is: every number that changes the meaning of its result, and nothing else.

Machine settings (device, workers, threads, paths) are not here; they go into the record of a run.
A spec is plain frozen data, so that its canonical JSON can be hashed into the identity of the run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA_VERSION = 2
ID_HEX_DIGITS = 32  # 128 bits of sha256
MEMBER_STRIDE = 1000  # member k of the ensemble with seed s is the run with seed s + k * MEMBER_STRIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """An architecture by name, with every constructor argument filled in."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)

    def with_args(self, **changes: Any) -> ModelSpec:
        """The same architecture with some constructor arguments changed."""
        return ModelSpec(name=self.name, args={**self.args, **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """A data set by name, the side of the square input in pixels, and how much of the set is used."""

    name: str
    resolution: int
    train_images: int | None = None  # None: all of them; else a class-balanced, fixed subset
    test_images: int | None = None
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentSpec:
    """Training-time augmentation, in the order in which it is applied (He et al. 2019, Sec. 2.1)."""

    crop_area: tuple[float, float] = (0.08, 1.0)  # fraction of the image's area
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width : height
    flip: float = 0.5  # probability
    jitter: float = 0.4  # brightness, saturation, hue coefficients ~ U[1 - jitter, 1 + jitter]
    pca_noise: float = 0.1  # standard deviation of the PCA coefficients


@dataclass(frozen=True, slots=True, kw_only=True)
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
    decay_every: float = (
        2.0  # `exponential` multiplies by `decay` every so many epochs, in steps of a staircase
    )
    warmup_epochs: float = 0.0
    warmup_lr: float = 0.0  # where the warm-up starts
    warmup_shape: str = "linear"  # linear: per step from warmup_lr to lr | constant: at warmup_lr
    precision: str = "fp32"  # fp32 | fp16 | bf16
    initialisation: str = "he_fan_out"  # harness/models/initialise.py; own: what the constructor does
    auxiliary_weight: float = 0.3  # of the loss of each auxiliary head, where the network has some
    norm_images: int = (
        0  # batch norm's statistics are over groups of so many images (a worker's share); 0: all
    )
    shuffle: str = "images"  # images | within_shards | shards: what is put in a new order every epoch
    eval_crop: float = 0.875  # centre crop: this fraction of the shorter side, resized to the resolution
    eval_crops: int = 1  # 1, 10, 12 or 144 views of each test image, their probabilities averaged
    eval_weights: str = "own"  # own: what the tricks evaluate (e.g. their average); raw: the trained weights
    curve_points: int = 1  # how often in an epoch the learning curve is measured
    read_out: str = "last_epoch"  # last_epoch | median_of_last_5: declared before the first run
    metrics: tuple[str, ...] = ()  # of plugins, beside top1, top5 and loss
    trainer: str = "harness"  # or a training function of a plugin


@dataclass(frozen=True, slots=True, kw_only=True)
class TrickSpec:
    """A trick that acts while training, with every option filled in."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Trained networks that an evaluation-only arm observes: `runs` runs of one arm."""

    arm: str  # arm_id
    runs: int = 1  # seeds s, s + MEMBER_STRIDE, s + 2 MEMBER_STRIDE, ... for the observer with seed s


@dataclass(frozen=True, slots=True, kw_only=True)
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
        return digest(canonical_json(dataclasses.asdict(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
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
        return {"schema": SCHEMA_VERSION, "seed": self.seed, "arm": dataclasses.asdict(self.arm)}

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


def run_id(arm_id: str, seed: int) -> str:
    """The identity of a run: a hash over its arm's hash, its seed and the schema version."""
    return digest(f'{{"arm":"{arm_id}","schema":{SCHEMA_VERSION},"seed":{seed}}}')


def canonical_json(data: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN. Tuples and lists are the same."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str) -> str:
    """The first 128 bits of sha256, as 32 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:ID_HEX_DIGITS]


def _tuples(data: Any) -> Any:
    """JSON has no tuples; specs have no lists."""
    if isinstance(data, Mapping):
        return {key: _tuples(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return tuple(_tuples(value) for value in data)
    return data
