"""What accuracy costs: every trained arm's mean metric and mean training time, and which are worth it.

An arm is dominated where another one of its group is at least as good and at least as cheap, and better in
one of the two (Pareto). Means decide; the intervals are there for the reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.analysis.findings import Level, TableFinding
from harness.analysis.further_findings import BudgetPoint
from harness.analysis.intervals import Estimate, half_width, mean, satterthwaite
from harness.study.spec import Arm

if TYPE_CHECKING:
    from pandas import DataFrame

TIME, ENERGY = "train_time_s", "energy_j"


def budget_of(
    tables: Sequence[TableFinding], arms: Mapping[str, Arm], records: DataFrame
) -> tuple[BudgetPoint, ...]:
    """One point per trained arm of the tables with a mean and a measured time, in the tables' order.

    Arms that only evaluate trained networks have none: what they cost is not training.
    """
    levels: dict[str, Level] = {
        cell.arm_id: cell.level
        for table in tables
        for cell in table.cells
        if cell.arm_id and cell.level and cell.level.mean is not None
    }
    times, energies, devices = (_by_arm(records, name) for name in (TIME, ENERGY, "device"))
    points = []
    for arm_id, level in levels.items():
        arm = arms.get(arm_id)
        chain = [] if arm is None or arm.observes else _chain(arm_id, arms)
        if arm is None or not chain or any(not times.get(each) for each in chain):
            continue
        used = sorted({str(device) for each in chain for device in devices.get(each, [])})
        group = f"{_data(arm)} on {' and '.join(used) or 'an unknown device'}"
        measured = [times[each] for each in chain], [energies.get(each, []) for each in chain]
        points.append(_point(arm_id, level, group, *measured))
    return _with_fronts(points)


def front(costs: Sequence[float], values: Sequence[float]) -> NDArray[np.bool_]:
    """Which points no other one dominates, (N,); equal points are both on the front."""
    cost, value = np.asarray(costs, dtype=float), np.asarray(values, dtype=float)
    no_worse = (cost[None, :] <= cost[:, None]) & (value[None, :] >= value[:, None])
    better = (cost[None, :] < cost[:, None]) | (value[None, :] > value[:, None])
    return np.logical_not((no_worse & better).any(axis=1))


def _with_fronts(points: Sequence[BudgetPoint]) -> tuple[BudgetPoint, ...]:
    out = list(points)
    for group in {point.group for point in points}:
        places = [k for k, point in enumerate(points) if point.group == group]
        best = front([points[k].time_s for k in places], [points[k].value for k in places])
        for k, on_front in zip(places, best, strict=True):
            out[k] = replace(points[k], on_front=bool(on_front))
    return tuple(out)


def _point(
    arm_id: str, level: Level, group: str, times: list[list[float]], energies: list[list[float]]
) -> BudgetPoint:
    assert level.mean is not None
    total = sum(float(np.mean(each)) for each in times)
    width = _width([mean(each) for each in times]) if all(len(each) > 1 for each in times) else None
    measured = all(len(energy) == len(time) for energy, time in zip(energies, times, strict=True))
    return BudgetPoint(
        arm_id=arm_id,
        group=group,
        n=len(times[0]),
        value=level.mean,
        low=level.low,
        high=level.high,
        time_s=total,
        time_low_s=None if width is None else max(total - width, 0.0),
        time_high_s=None if width is None else total + width,
        energy_j=sum(float(np.mean(each)) for each in energies) if measured else None,
        on_front=False,
    )


def _width(parts: Sequence[Estimate]) -> float:
    """Half the 95 % interval of a sum of independent means."""
    variances = np.asarray([float(part.se) ** 2 for part in parts])
    df = satterthwaite(variances, np.asarray([float(part.df) for part in parts]))
    whole = Estimate(value=np.asarray(0.0), se=np.sqrt(variances.sum()), df=df)
    return float(half_width(whole, 0.05))


def _chain(arm_id: str, arms: Mapping[str, Arm]) -> list[str]:
    """The arm and every arm that must be trained for it: teachers, and what trainings start from."""
    arm = arms.get(arm_id)
    before = [] if arm is None else [other for other in (arm.teacher, arm.source) if other]
    return list(dict.fromkeys([arm_id, *(each for other in before for each in _chain(other, arms))]))


def _by_arm(records: DataFrame, name: str) -> dict[str, list[float]]:
    """Arm -> the values of a column over its finished runs; numbers that are absent are left out."""
    if name not in records:
        return {}
    done = records[(records["status"] == "finished") & records[name].notna()].sort_values("seed")
    return {str(arm): frame.tolist() for arm, frame in done.groupby("arm_id")[name]}


def _data(arm: Arm) -> str:
    data = arm.recipe.data
    part = data.args.get("part", "all")
    return data.name if part == "all" else f"{data.name} (part {part})"
