"""The arms of the Bag of Tricks study at size `gpu`, on generated data, and the file that carries them.

Table 7 is left out: its arms fine-tune on another data set, whose shape the generated one does not have.
Planning needs PyYAML; a machine without it reads the file that `gpu.py --write-plan`
wrote on one that has them. One arm a line: {"arm_id", "spec"}; spec is `RunSpec.to_json` of seed 0.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.runs.folder import write_bytes
from harness.spec import Arm, DataSpec, Recipe, RunSpec

ROOT = Path(__file__).resolve().parents[2]
STUDY, SIZE = ROOT / "studies" / "bag_of_tricks.yaml", "gpu"
CIFAR10_SHAPE = {"classes": 10, "size": 32, "channels": 3, "train": 50_000, "test": 10_000}
PLAN_SCHEMA = 1


class PlanError(ValueError):
    """There is no plan, or one that this harness cannot read."""


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """Every arm of the study, teachers among them, and how often each is trained."""

    study: str
    size: str
    seeds: int
    arms: dict[str, Arm]  # arm_id -> arm


def find_plan(path: Path) -> tuple[StudyPlan, str]:
    """The plan, from the study where it can be planned here, else from the file; and in words, which.

    Raises:
        PlanError: neither is possible.
    """
    try:
        return plan_study(), "planned here"
    except ImportError as error:
        if path.exists():
            return read_plan(path), f"from {path.name}"
        raise PlanError(
            f"no plan: {error.name} is not installed here and there is no {path.name}; "
            "where the harness is installed, run: benchmarks/gpu.py --write-plan"
        ) from error


def plan_study() -> StudyPlan:
    """Expand the study file.

    Raises:
        ImportError: what planning needs is not installed.
        PlanError: the baseline's data is no longer CIFAR-10, whose shape the generated set has.
    """
    from harness.commands.workspace import build_catalogue
    from harness.study.expand import ExpandOptions, expand, load_study

    catalogue = build_catalogue(ROOT / "data")
    plan = expand(load_study(STUDY, catalogue), catalogue, ExpandOptions(size=SIZE))
    used = {arm_id: arm for arm_id, arm in plan.arms.items() if arm.recipe.data.name == "cifar10"}
    used = {arm_id: arm for arm_id, arm in used.items() if arm.source is None}
    if plan.tables[0].cells[0].arm_id not in used:
        raise PlanError(f"size {SIZE} is not on cifar10, whose shape the generated set has")
    arms, _ = rewrite(used, on_generated)
    return StudyPlan(study=plan.study, size=plan.size, seeds=len(plan.seeds), arms=arms)


def on_generated(recipe: Recipe) -> Recipe:
    """The recipe on a generated set of CIFAR-10's shape."""
    data = DataSpec(name="generated", resolution=recipe.data.resolution, args=CIFAR10_SHAPE)
    return dataclasses.replace(recipe, data=data)


def in_time(recipe: Recipe, share: float) -> Recipe:
    """The recipe with epochs, milestones and warm-up in proportion."""
    return dataclasses.replace(
        recipe,
        epochs=recipe.epochs * share,
        milestones=tuple(epoch * share for epoch in recipe.milestones),
        warmup_epochs=recipe.warmup_epochs * share,
    )


def rewrite(
    arms: Mapping[str, Arm], edit: Callable[[Recipe], Recipe]
) -> tuple[dict[str, Arm], dict[str, str]]:
    """Edit the recipe of every arm. Ids change with it, so students are told the new ids of their teachers.

    Returns:
        The new arms by id, and old id -> new id.
    """
    new: dict[str, Arm] = {}
    ids: dict[str, str] = {}

    def visit(arm_id: str) -> str:
        if arm_id not in ids:
            arm = arms[arm_id]
            teacher = None if arm.teacher is None else visit(arm.teacher)
            edited = dataclasses.replace(arm, recipe=edit(arm.recipe), teacher=teacher)
            ids[arm_id] = edited.arm_id
            new[edited.arm_id] = edited
        return ids[arm_id]

    for arm_id in arms:
        visit(arm_id)
    return new, ids


def with_teachers(plan: StudyPlan, arm_ids: Iterable[str]) -> dict[str, Arm]:
    """These arms and the teachers they need."""
    chosen: dict[str, Arm] = {}
    for arm_id in arm_ids:
        wanted: str | None = arm_id
        while wanted is not None:
            chosen[wanted] = plan.arms[wanted]
            wanted = plan.arms[wanted].teacher
    return chosen


def plan_text(plan: StudyPlan) -> str:
    """The content of the plan file."""
    lines = [
        json.dumps({"arm_id": arm_id, "spec": RunSpec(arm=arm, seed=0).to_json()})
        for arm_id, arm in plan.arms.items()
    ]
    head = {"schema": PLAN_SCHEMA, "study": plan.study, "size": plan.size, "seeds": plan.seeds}
    return json.dumps(head)[:-1] + ', "arms": [\n' + ",\n".join(lines) + "\n]}\n"


def write_plan(path: Path) -> StudyPlan:
    """Plan the study and write the file. Raises as `plan_study`."""
    plan = plan_study()
    write_bytes(path, plan_text(plan).encode())
    return plan


def read_plan(path: Path) -> StudyPlan:
    """Read what `write_plan` wrote.

    Raises:
        PlanError: the file is of another version of the harness.
    """
    try:
        data = json.loads(path.read_text())
        if data["schema"] != PLAN_SCHEMA:
            raise ValueError(f"schema {data['schema']}")
        arms = {each["arm_id"]: RunSpec.from_json(each["spec"]).arm for each in data["arms"]}
        changed = [arm_id for arm_id, arm in arms.items() if arm.arm_id != arm_id]
        if changed:
            raise ValueError(f"the id of arm {changed[0]} does not fit its recipe")
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(f"{path.name} cannot be used ({error}); write it again with --write-plan") from error
    return StudyPlan(study=data["study"], size=data["size"], seeds=data["seeds"], arms=arms)
