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

SCHEMA_VERSION = 1
ID_HEX_DIGITS = 32  # 128 bits of sha256


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
    schedule: str = "step"  # constant | step | cosine
    milestones: tuple[float, ...] = (30, 60, 90)  # epochs at which `step` multiplies by `decay`
    decay: float = 0.1
    warmup_epochs: float = 0.0  # linear from 0 to lr, per step
    precision: str = "fp32"  # fp32 | fp16 | bf16
    initialisation: str = "he_fan_out"
    eval_crop: float = 0.875  # centre crop: this fraction of the shorter side, resized to the resolution
    read_out: str = "last_epoch"  # where the metric is read, declared before the first run


@dataclass(frozen=True, slots=True, kw_only=True)
class TrickSpec:
    """A trick that acts while training, with every option filled in."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A fully resolved recipe without its seed.

    Tricks that only edit the recipe are already in its numbers and do not appear in `tricks`: two rows
    that come to the same numbers are the same arm and are trained once.
    """

    recipe: Recipe
    tricks: tuple[TrickSpec, ...] = ()
    teacher: str | None = None  # arm_id of the teacher; the teacher run has the student's seed

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
        tricks = tuple(TrickSpec(**_tuples(trick)) for trick in arm["tricks"])
        return RunSpec(
            arm=Arm(recipe=Recipe(**_tuples(recipe)), tricks=tricks, teacher=arm["teacher"]),
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
