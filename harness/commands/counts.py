"""How many images the runs of a plan really have: in subsets of their data, and in what batch norm sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.commands.data_now import parts_of, reads_files, source_of
from harness.data import DATASETS, missing_data
from harness.study.norm_images import TOO_FEW, fewest_normalised, in_words
from harness.study.other_data import data_key, data_name
from harness.study.plan import Plan
from harness.study.spec import DataSpec


@dataclass(frozen=True, slots=True)
class Counts:
    """What a plan says of its numbers."""

    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()  # rows that cannot be trained


def counts_of(plan: Plan, data_dir: Path) -> Counts:
    """Subsets with another number of images than was asked for, and rows whose batch norm has only one."""
    images: dict[str, int | None] = {}
    notes: list[str] = []
    specs = {data_key(arm.recipe.data): arm.recipe.data for arm in plan.arms.values()}
    for key, spec in specs.items():
        groups = any(arm.recipe.norm_images for arm in plan.arms.values() if data_key(arm.recipe.data) == key)
        images[key] = spec.train_images or _images(spec, data_dir, look=groups)
        if (spec.train_images or spec.test_images) and spec.name in DATASETS:
            notes += subset_notes(spec, data_dir)
    few = list(_of_one_image(plan, images))
    return Counts(tuple(dict.fromkeys(notes)), tuple(few))


def _images(spec: DataSpec, data_dir: Path, *, look: bool) -> int | None:
    """Of the whole training part; None: not known without a look at the user's files, or not there."""
    if spec.name not in DATASETS:
        return None
    known = DATASETS[spec.name].facts(spec.args)[1]
    if known or not look:
        return known
    try:
        return len(parts_of(spec, data_dir)[0].labels)
    except Exception:  # of files, or of the code of a plug-in: whoever reads the data tells it
        return None


def subset_notes(spec: DataSpec, data_dir: Path) -> Iterator[str]:
    """Where a subset cannot have the images that were asked for: how many it has."""
    entry, found = DATASETS[spec.name], None
    classes = entry.facts(spec.args)[0]
    if reads_files(spec) and missing_data(spec.name, spec.args, data_dir) is None:
        try:
            args = {**entry.args, **spec.args}
            found = source_of(entry, args, data_dir)
        except Exception:  # of files, or of the code of a plug-in: whoever reads the data tells it
            return
        classes = found.classes
    for kind, wanted in (("training", spec.train_images), ("test", spec.test_images)):
        if wanted is None or classes is None:
            continue
        what = f"{data_name(spec)}: {wanted:,} {kind} images were asked for"
        if found is None:
            if wanted < classes:
                yield f"{what}, fewer than its {classes:,} classes: one image of each is used"
            continue
        import numpy as np

        from harness.data.subsets import class_shares

        labels = (found.train if kind == "training" else found.test).labels
        there = np.bincount(labels, minlength=classes)
        shares = class_shares(there, wanted)
        if wanted > len(labels):
            yield f"{what}, it has {len(labels):,}: all are used"
        elif wanted < classes:
            yield f"{what}, fewer than its {classes:,} classes: one of each, {int(shares.sum()):,}, is used"
        elif (there < wanted // classes).any():
            fewest = int(shares.min())
            yield (
                f"{what}, not every class has {wanted // classes:,}: {int((shares == there).sum())} of its "
                f"{classes:,} classes give all they have (the least {fewest:,}), the others up to "
                f"{int(shares.max()):,} each"
            )


def _of_one_image(plan: Plan, images: dict[str, int | None]) -> Iterator[str]:
    for arm_id, arm in plan.arms.items():
        recipe = arm.recipe
        few = fewest_normalised(recipe, images[data_key(recipe.data)])
        if few == 1 and not arm.observes and recipe.trainer == "harness" and _has_single_values(plan, arm_id):
            yield f"row '{plan.arm_labels[arm_id]}' cannot be trained: {in_words(recipe)}"


def _has_single_values(plan: Plan, arm_id: str) -> bool:
    """Whether a training step with one image fails in a batch norm: asked of the network, without storage."""
    import torch

    from harness.study.spec import RunSpec
    from harness.training.network import build_network, make_tricks

    spec = RunSpec(arm=plan.arms[arm_id], seed=0)
    side = spec.arm.recipe.data.resolution
    try:
        with torch.device("meta"):
            model = build_network(spec, make_tricks(spec), classes=2)
            model.train()(torch.empty(1, 3, side, side))
    except ValueError as error:
        return TOO_FEW in str(error)
    except Exception:  # a network that cannot be built so is told of by its run
        return False
    return False
