"""A small catalogue and a small study, so that these tests depend on no trick, model or data set."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import StudyError
from harness.spec import Arm, DataSpec, ModelSpec, Recipe
from harness.study.catalogue import Catalogue, Cost, DataEntry, ModelEntry, TrickEntry
from harness.study.expand import ExpandOptions, expand, load_study
from harness.study.plan import Cell, Plan

Edit = Callable[[Recipe, Mapping[str, Any]], Recipe]


def _same(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    return recipe


def _model(**args: Any) -> Edit:
    return lambda recipe, options: dataclasses.replace(recipe, model=recipe.model.with_args(**args))


def _fields(**fields: Any) -> Edit:
    return lambda recipe, options: dataclasses.replace(recipe, **fields)


def _linear_lr(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    lr = recipe.lr * recipe.batch_size / options["reference_batch"]
    return dataclasses.replace(recipe, lr=lr)


def _warmup(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    return dataclasses.replace(recipe, warmup_epochs=options["epochs"])


def _pixels(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    data = dataclasses.replace(recipe.data, resolution=options["pixels"])
    return dataclasses.replace(recipe, data=data)


def _crops(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    return dataclasses.replace(recipe, eval_crops=options["crops"])


def _initialisation(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    return dataclasses.replace(recipe, initialisation=options["scheme"])


def _deep_stem(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    if recipe.model.args["width"] < 0.125:
        raise ValueError("resnet_c needs a width of at least 0.125")
    return dataclasses.replace(recipe, model=recipe.model.with_args(stem="deep"))


def _between(name: str, low: float, high: float) -> Callable[[Mapping[str, Any]], None]:
    def validate(options: Mapping[str, Any]) -> None:
        if not low <= options[name] <= high:
            raise ValueError(f"{name} must be from {low:g} to {high:g}, got {options[name]}")

    return validate


def trick(
    name: str,
    edit: Edit | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    validate: Callable[[Mapping[str, Any]], None] = lambda options: None,
    conflicts: tuple[str, ...] = (),
    arms: tuple[str, ...] = (),
    observes: bool = False,
    members: Callable[[Mapping[str, Any]], tuple[int, ...]] = lambda options: (1,),
    plugin: str | None = None,
) -> TrickEntry:
    return TrickEntry(
        name=name,
        options=options or {},
        conflicts=frozenset(conflicts),
        acts_in_training=edit is None and not observes and arms != ("source",),
        validate=validate,
        edit_recipe=edit or _same,
        edits_recipe=edit is not None,
        arms=arms,
        observes=observes,
        members=members,
        plugin=plugin,
    )


_width = _between("width", 0.01, 4)
_TRICKS = [
    trick("linear_lr_scaling", _linear_lr, options={"reference_batch": 256}),
    trick("warmup", _warmup, options={"epochs": 5.0}),
    trick("zero_gamma", _model(zero_gamma=True)),
    trick("no_bias_decay"),
    trick("fp16", _fields(precision="fp16"), conflicts=("bf16",)),
    trick("bf16", _fields(precision="bf16")),
    trick("resnet_b", _model(stride_in="3x3")),
    trick("resnet_c", _deep_stem),
    trick("resnet_d", _model(shortcut="avgpool")),
    trick("cosine", _fields(schedule="cosine", milestones=())),
    trick("label_smoothing", options={"eps": 0.1}, validate=_between("eps", 0, 1)),
    trick("mixup", options={"alpha": 0.2}, validate=_between("alpha", 0, 8)),
    trick("distillation", options={"temperature": 20.0}, arms=("teacher",)),
    trick("fine_tuning", arms=("source",)),
    trick("receptive_field", _pixels, options={"pixels": 299}),
    trick("initialisation", _initialisation, options={"scheme": "xavier"}),
    trick("multi_crop", _crops, options={"crops": 10}, observes=True),
    trick("raw_weights", _fields(eval_weights="raw"), observes=True),
    trick("ensemble", options={"members": 7}, observes=True, members=lambda options: (options["members"],)),
    trick(
        "mixed_ensemble",
        options={"members": 1, "partner_members": 3},
        arms=("partner",),
        observes=True,
        members=lambda options: (options["members"], options["partner_members"]),
    ),
    trick("lab_loss", plugin="lab.py"),
    trick("lab_recipe", _fields(lr=3), plugin="lab.py"),
]
_ARGS = {
    "width": 1.0,
    "depth": (3, 4, 6, 3),
    "zero_gamma": False,
    "stem": "7x7",
    "stride_in": "1x1",
    "shortcut": "conv",
}


def _cost(model: ModelSpec, data: DataSpec) -> Cost:
    """1,000 multiply-adds per block; of a network without blocks, one per pixel."""
    blocks = model.args.get("depth")
    return Cost(params=10, macs=1000 * sum(blocks) if blocks else data.resolution**2)


def _data(name: str, train: int | None, classes: int | None = 10, **more: Any) -> DataEntry:
    return DataEntry(
        name=name,
        args=more.pop("args", {}),
        classes=classes,
        train_images=train,
        test_images=train and train // 6,
        missing=lambda args: None,
        **more,
    )


def _parts(args: Mapping[str, Any]) -> tuple[int, int, int]:
    return (10, 60_000, 10_000) if args["part"] == "all" else (5, 30_000, 5_000)


def _known_part(args: Mapping[str, Any]) -> None:
    if args["part"] not in ("all", "first5", "last5"):
        raise ValueError(f"part must be all, first5 or last5, got {args['part']!r}")


def _small_images(args: Mapping[str, Any]) -> int:
    return 75 if args["stem"] == "large" else 20


CATALOGUE = Catalogue(
    tricks={entry.name: entry for entry in _TRICKS},
    models={
        entry.name: entry
        for entry in (
            ModelEntry(name="resnet50", family="resnet50", args=_ARGS, validate=_width),
            ModelEntry(name="resnet152", family="resnet152", args=_ARGS, validate=_width),
            ModelEntry(
                name="resnet50d",
                family="resnet50",
                preset={"stem": "deep", "stride_in": "3x3", "shortcut": "avgpool"},
                args=_ARGS,
                validate=_width,
            ),
            ModelEntry(
                name="inception",
                family="inception",
                args={"width": 1.0, "stem": "large"},
                validate=_width,
                minimum_input=_small_images,
            ),
            ModelEntry(
                name="timm/x", family="timm/x", args={}, validate=lambda args: None, own_initialisation=True
            ),
            ModelEntry(
                name="lab_net", family="lab_net", args={"width": 1.0}, validate=_width, plugin="lab.py"
            ),
        )
    },
    data={
        entry.name: entry
        for entry in (
            _data("fashion_mnist", 60_000, args={"part": "all"}, counts=_parts, validate=_known_part),
            _data("cifar10", 50_000),
            _data("imagenet", 1_281_167, 1000),
            _data("places", 1_803_460, 365),
            _data("few", 300, 1000),
            _data("folder", None, None),
            _data("generated", 1_000, for_reports=False),
            _data("lab_data", 500, plugin="more.py"),
        )
    },
    cost=_cost,
    trainers={"harness": None, "lab_trainer": "more.py"},
    metrics={"lab_score": "lab.py"},
    plugin_hashes={"lab.py": "1234abcd" * 8, "more.py": "5678ef01" * 8},
)

HEAD = """\
study: small
question: Does it work?
seeds: {start: 2, at_most: 2}
baseline: {model: resnet50, recipe: bag_of_tricks_baseline}
sizes:
  mini: {data: fashion_mnist, resolution: 32, epochs: 4, batch_scale: 1/8}
  gpu: {data: cifar10, resolution: 64, epochs: 30, batch_scale: 1/2}
  paper: {data: imagenet, resolution: 224, epochs: 120}
"""
HEAD_LINES = HEAD.count("\n")


def write(folder: Path, text: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def plan_of(folder: Path, text: str, **options: Any) -> Plan:
    """The plan of a study file's text."""
    return expand(load_study(write(folder, text), CATALOGUE), CATALOGUE, ExpandOptions(**options))


def mistakes(folder: Path, text: str, options: ExpandOptions | None = None) -> list[str]:
    """What the user is told about a study file, `small.yaml:LINE: ...`; empty where it is fine.

    options: as a command says them, which then plans it.

    Versions of PyYAML, with and without libyaml, say in different words why something is no YAML.
    """
    path = write(folder, text)
    try:
        study = load_study(path, CATALOGUE, options)
        if options:
            expand(study, CATALOGUE, options)
    except StudyError as error:
        said = (str(problem).replace(str(path), "small.yaml") for problem in error.problems)
        return [re.sub("(?<=not valid YAML: ).+", "...", text) for text in said]
    return []


def arm_of(plan: Plan, row: str, table: str = "t", column: str | None = None) -> Arm:
    """The arm that answers a row."""
    return plan.arms[cells(plan, table)[row, column].arm_id or ""]


def cells(plan: Plan, table: str) -> dict[tuple[str, str | None], Cell]:
    """(row, column) -> cell."""
    (found,) = (entry for entry in plan.tables if entry.key == table)
    return {(cell.row, cell.column): cell for cell in found.cells}
