"""How a size scales a recipe: one rule for each thing that must scale, stated here and in every plan.

- Time: epochs, milestones, the steps of an exponential decay and warm-up are multiplied by (epochs of the
  size) / (epochs of the baseline), so that 200 epochs beside 120 stay 5 : 3. Epochs may become fractional.
- Batches: every batch size is multiplied by `batch_scale`. Learning rates stay: the linear rule's reference
  batch scales along. So are the images over which batch norm takes its statistics, rounded up.
- Models: each model takes its constructor arguments of this size; those of a variant's name win over those of
  its family's.
- Data: `data`, `resolution` and the image counts stand for the baseline's. Other pixels or another data set
  that a row asks for, in the paper's words, are mapped by `resolutions` and `datasets`
  (harness/study/inputs.py).
- `set` changes the baseline; what a row sets wins over it.
- `smallest_effect`, where given, is declared for this size in place of the study's.
- Smoke (`harness run --smoke`): 256 training and 256 test images, at most 2 seeds, and time is scaled once
  more so that the longest arm trains for at most 1 epoch. It shows that everything runs; its numbers mean
  nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from harness.study.recipe_values import recipe_of
from harness.study.schema import Size
from harness.study.spec import DataSpec, ModelSpec, Recipe

_FLOATS = tuple(
    field.name
    for field in dataclasses.fields(Recipe)
    if field.type == "float" and field.name not in ("epochs", "decay_every", "warmup_epochs")
)
SMOKE_IMAGES, SMOKE_SEEDS, SMOKE_EPOCHS = 256, 2, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Time x `epochs` / `baseline_epochs`, batches x `batch`."""

    epochs: float
    baseline_epochs: float
    batch: Fraction
    _seen: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def time(self, epochs: float) -> float:
        """Epochs at this size.

        >>> Scale(epochs=4.0, baseline_epochs=120.0, batch=Fraction(1, 8)).time(30)
        1.0
        """
        if self.epochs == self.baseline_epochs:
            return float(epochs)
        return float(epochs) * self.epochs / self.baseline_epochs  # in this order whole numbers stay whole

    def times(self, epochs: tuple[float, ...]) -> tuple[float, ...]:
        """Several epochs at this size; equal ones are one object."""
        if epochs not in self._seen:
            self._seen[epochs] = tuple(self.time(epoch) for epoch in epochs)
        scaled: tuple[float, ...] = self._seen[epochs]
        return scaled

    def batch_size(self, images: int) -> int:
        """The batch at this size.

        Raises:
            ValueError: it would not be a whole number of images.
        """
        scaled = self._seen.get(images)
        if scaled is None:
            product = images * self.batch
            if product.denominator != 1:
                raise ValueError(
                    f"batch_size {images} x batch_scale {self.batch} = {float(product):g}"
                    " is not a whole number of images"
                )
            scaled = self._seen[images] = int(product)
        return scaled

    def norm_images(self, images: int) -> int:
        """Over how many images batch norm takes its statistics at this size; 0 stays 0, others stay above it.

        >>> scale = Scale(epochs=1.0, baseline_epochs=1.0, batch=Fraction(1, 25))
        >>> scale.norm_images(0), scale.norm_images(1), scale.norm_images(32)
        (0, 1, 2)
        """
        return math.ceil(images * self.batch) if images else 0


def smoke(size: Size, longest_epochs: float) -> Size:
    """The same size, cut down by the smoke rule. `longest_epochs` is the longest training at the size."""
    return size.model_copy(
        update={
            "epochs": size.epochs * min(1.0, SMOKE_EPOCHS / longest_epochs),
            "train_images": min(SMOKE_IMAGES, size.train_images or SMOKE_IMAGES),
            "test_images": min(SMOKE_IMAGES, size.test_images or SMOKE_IMAGES),
        }
    )


def describe(size: Size, baseline: Recipe, baseline_epochs: float) -> list[str]:
    """The rules with this size's numbers, for the plan. `baseline` is the baseline at this size."""
    data = baseline.data
    counts = [
        f"{count} {kind} images"
        for kind, count in (("training", data.train_images), ("test", data.test_images))
        if count is not None
    ]
    notes = [", ".join([f"data: {data.name} at {data.resolution} x {data.resolution} pixels", *counts])]
    if size.epochs != baseline_epochs:
        factor = Fraction(size.epochs / baseline_epochs).limit_denominator(100_000)
        notes.append(
            f"time: epochs, milestones and warm-up x {factor}"
            f" (baseline {baseline_epochs:g} -> {baseline.epochs:g} epochs)"
        )
    if size.batch_scale != 1:
        notes.append(
            f"batches: x {size.batch_scale} (baseline {int(baseline.batch_size / size.batch_scale)} -> "
            f"{baseline.batch_size}); learning rates unchanged,"
            " the linear rule's reference batch scales along"
        )
    if size.resolutions:
        pairs = ", ".join(f"{asked} -> {used}" for asked, used in size.resolutions.items())
        notes.append(f"pixels that rows ask for: {pairs}")
    if size.datasets:
        pairs = ", ".join(f"{asked} -> {used}" for asked, used in size.datasets.items())
        notes.append(f"data sets that rows ask for: {pairs}")
    if baseline.norm_images and size.batch_scale != 1:
        notes.append(f"batch norm: statistics over {baseline.norm_images} images, rounded up")
    for name, args in size.models.items():
        notes.append(f"model {name}: " + ", ".join(f"{key} = {value}" for key, value in args.items()))
    for key, value in size.set.values().items():
        notes.append(f"baseline at this size: {key} = {value}")
    return notes


def scaled_recipe(fields: Mapping[str, Any], model: ModelSpec, data: DataSpec, scale: Scale) -> Recipe:
    """A recipe at a size, from its fields in the paper's units; every number in the type of its field.

    `model` and `data` are those of the size, in place of the fields'.

    Raises:
        ValueError: warm-up is not shorter than training, or a batch is not whole.
    """
    if not fields["warmup_epochs"] < fields["epochs"]:
        raise ValueError(
            f"warm-up of {fields['warmup_epochs']:g} epochs is not shorter than training"
            f" ({fields['epochs']:g} epochs)"
        )
    scaled = {
        **fields,
        "model": model,
        "data": data,
        "epochs": scale.time(fields["epochs"]),
        "batch_size": scale.batch_size(fields["batch_size"]),
        "milestones": scale.times(fields["milestones"]),
        "decay_every": scale.times((fields["decay_every"],))[0],
        "warmup_epochs": scale.time(fields["warmup_epochs"]),
        "norm_images": scale.norm_images(fields["norm_images"]),
    }
    for name in _FLOATS:
        if type(scaled[name]) is not float:
            scaled[name] = float(scaled[name])
    return recipe_of(scaled)
