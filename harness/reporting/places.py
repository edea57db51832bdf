"""On which data and at which resolution a row is trained, where rows of one report differ in that."""

from __future__ import annotations

from collections import Counter

from harness.reporting.names import setting_text
from harness.study.plan import Plan
from harness.study.spec import DataSpec

MOST_LISTED = 3  # resolutions of one data set in a line of text


def usual_data(plan: Plan) -> DataSpec | None:
    """The data and the resolution of most cells that are trained; the first of equals."""
    specs = [plan.arms[cell.arm_id].recipe.data for t in plan.tables for cell in t.cells if cell.arm_id]
    counted = Counter(map(_key, specs))
    best = max(counted.values(), default=0)
    return next((spec for spec in specs if counted[_key(spec)] == best), None)


def place_labels(plan: Plan) -> dict[str, str]:
    """arm_id -> how its data differ from those of most rows, for example "at 20 × 20 pixels".

    Arms that do not differ are left out.
    """
    usual = usual_data(plan)
    if usual is None:
        return {}
    labels = {arm_id: _label(arm.recipe.data, usual) for arm_id, arm in plan.arms.items()}
    return {arm_id: label for arm_id, label in labels.items() if label}


def _label(data: DataSpec, usual: DataSpec) -> str:
    size = f"{data.resolution} × {data.resolution} pixels"
    if _set(data) != _set(usual):
        extra = [f"{name} {setting_text(value)}" for name, value in sorted(data.args.items())]
        named = f"{data.name} ({', '.join(extra)})" if data.name == usual.name and extra else data.name
        return f"on {named}, {size}" if data.resolution != usual.resolution else f"on {named}"
    return f"at {size}" if data.resolution != usual.resolution else ""


def places(plan: Plan) -> list[str]:
    """Every data set with its resolutions, for example "fashion_mnist (20 to 40 pixels)"."""
    sides: dict[str, set[int]] = {}
    for arm in plan.arms.values():
        sides.setdefault(arm.recipe.data.name, set()).add(arm.recipe.data.resolution)
    return [f"{name} ({_sides(sorted(found))} pixels)" for name, found in sorted(sides.items())]


def _sides(sides: list[int]) -> str:
    if len(sides) > MOST_LISTED:
        return f"{sides[0]} to {sides[-1]}"
    return ", ".join(map(str, sides))


def _set(data: DataSpec) -> str:
    return f"{data.name} {sorted(data.args.items())}"


def _key(data: DataSpec) -> str:
    return f"{_set(data)} {data.resolution}"
