"""Where an adaptive study stands: runs/.studies/<study>-<size>/blocks.json.

`harness run` writes it after each look at the results; plan, status, report and the others read it, so that
they show the same runs without computing anything. It holds nothing that the run folders do not imply: where
it is missing, damaged, or of a study that was edited since, the plan is that of the first look, and the next
`harness run` looks again.

    plan_hash   of the declaration for which it was written
    looks       [{seeds, settled, comparisons, says}], in the order in which they were taken
    arm_seeds   {arm_id: seeds planned by now}, of every arm
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.study.checked import is_count
from harness.study.declaration import declaration_of, plan_hash
from harness.study.declared import study_folder
from harness.study.grow import grow
from harness.study.plan import Plan
from harness.study.records import read_json, write_json

FILE = "blocks.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen at one look, for people."""

    seeds: int  # per arm that was still open
    settled: int  # comparisons
    comparisons: int
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """What the file says of a plan."""

    arm_seeds: Mapping[str, int]
    looks: tuple[Look, ...]


def read_blocks(runs_dir: Path, plan: Plan) -> Blocks | None:
    """What was decided for this plan; None where nothing was, or for another study of that name."""
    try:
        data = read_json(_path(runs_dir, plan))
        if data is None or data["plan_hash"] != _hash(plan):
            return None
        arm_seeds = {str(arm_id): int(seeds) for arm_id, seeds in data["arm_seeds"].items()}
        looks = tuple(Look(**look) for look in data["looks"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not all(_is_right(look) for look in looks):
        return None
    fits = arm_seeds.keys() == plan.arms.keys() and set(arm_seeds.values()) <= set(plan.looks)
    return Blocks(arm_seeds=arm_seeds, looks=looks) if fits else None


def _is_right(look: Look) -> bool:
    return all(map(is_count, (look.seeds, look.settled, look.comparisons))) and isinstance(look.says, str)


def as_it_stands(plan: Plan, runs_dir: Path) -> Plan:
    """The plan of the first look, grown to where `harness run` has come by now. Writes nothing."""
    blocks = read_blocks(runs_dir, plan) if plan.is_adaptive else None
    return grow(plan, blocks.arm_seeds) if blocks else plan


def write_blocks(runs_dir: Path, plan: Plan, looks: Sequence[Look]) -> None:
    """Keep where the plan stands. What another `harness run` of the study decided meanwhile is kept too.

    looks: those that were taken; one with the same seeds takes the place of the one before.
    """
    known = read_blocks(runs_dir, plan)
    arm_seeds = {arm_id: len(plan.seeds_of(arm_id)) for arm_id in plan.arms}
    if known is not None:
        arm_seeds = {arm_id: max(seeds, known.arm_seeds[arm_id]) for arm_id, seeds in arm_seeds.items()}
    taken = {look.seeds: look for look in (*(known.looks if known else ()), *looks)}
    data = {
        "plan_hash": _hash(plan),
        "looks": [_look(taken[seeds]) for seeds in sorted(taken)],
        "arm_seeds": arm_seeds,
    }
    path = _path(runs_dir, plan)
    try:
        unchanged = read_json(path) == data
    except (OSError, ValueError):
        unchanged = False
    if not unchanged:
        write_json(path, data)


def _path(runs_dir: Path, plan: Plan) -> Path:
    return study_folder(runs_dir, plan) / FILE


def _hash(plan: Plan) -> str:
    return plan_hash(declaration_of(plan))


def _look(look: Look) -> dict[str, Any]:
    return {name: getattr(look, name) for name in ("seeds", "settled", "comparisons", "says")}
