"""What else is known of each row: would it hold on other images, in a single run, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from harness.analysis.findings import CellFinding, Effect, Settings, TableFinding
from harness.reporting.cells import NUMBER, SPREAD, Cell, Column, Row, Table
from harness.reporting.costs import GPU_HOURS, Cost
from harness.reporting.names import effect_suffix, ordered, short_name
from harness.reporting.numbers import DASH, duration, interval, number, signed
from harness.reporting.sections.values import effect_digits, n_cell

UNITS_S = {"hour": 3600.0, "minute": 60.0, "second": 1.0}  # of device time, the longest first
NO_BITS = "(no answers per image)"


@dataclass(frozen=True, slots=True)
class _DeviceTime:
    """In which unit a table counts device time: the longest that its runs fill."""

    device: str
    unit: str

    def of_a_run(self, cost: Cost | None) -> float | None:
        if cost is None or cost.device_hours is None or not cost.runs:
            return None
        return cost.device_hours * 3600 / cost.runs / UNITS_S[self.unit]


def details_table(table: TableFinding, settings: Settings, costs: Mapping[str, Cost]) -> Table | None:
    """One row per trained cell: intervals on new images, P(better), time, energy; None without effects.

    costs: by arm, of the whole study.
    Energy and device time have columns where a run of the table has them measured, and a note where not.
    """
    cells = [cell for cell in ordered(table) if cell.level is not None]
    if not any(cell.effect for cell in cells):
        return None
    costs = {arm: cost for arm, cost in costs.items() if arm in {cell.arm_id for cell in cells}}
    unit = _device_time(costs)
    columns, notes = _columns(settings), list[str]()
    rows = [_cells(cell, settings, costs) for cell in cells]
    if any(cost.energy_kj is not None for cost in costs.values()):
        columns.append(Column(title="Energy per run, kJ", kind=NUMBER))
        rows = [[*row, _energy_cell(costs.get(c.arm_id or ""))] for row, c in zip(rows, cells, strict=True)]
    else:
        notes.append("Energy: not measured.")
    if unit is not None:
        columns.append(
            Column(title=f"Effect per {unit.device}-{unit.unit}{effect_suffix(settings)}", kind=NUMBER)
        )
        rows = [[*row, _yield_cell(c, costs, unit)] for row, c in zip(rows, cells, strict=True)]
        notes.append(
            f"Effect per {unit.device}-{unit.unit}: the effect over the device time of one run of the row; "
            "given where the 95 % CI of the effect excludes 0."
        )
    else:
        notes.append("Device time: not measured.")
    return Table(
        key=f"{table.key}_details",
        title=short_name(table.key),
        caption="Does it hold on other images and in a single run, and at what cost? n: seeds with a value. "
        "P(better): the chance that one run of the row beats one run of the row it is compared with.",
        columns=tuple(columns),
        rows=tuple(Row(tuple(row), cell.column or "") for row, cell in zip(rows, cells, strict=True)),
        notes=tuple(notes),
    )


def _device_time(costs: Mapping[str, Cost]) -> _DeviceTime | None:
    """The longest unit that half of the arms fill; None where no device time is known, or of two kinds."""
    known = [cost for cost in costs.values() if cost.device_hours is not None and cost.runs]
    devices = {cost.unit for cost in known}
    if len(devices) != 1:
        return None
    typical_s = median(3600 * (cost.device_hours or 0.0) / cost.runs for cost in known)
    unit = next((name for name, seconds in UNITS_S.items() if typical_s >= seconds), "second")
    return _DeviceTime("GPU" if devices == {GPU_HOURS} else "core", unit)


def _columns(settings: Settings) -> list[Column]:
    unit = effect_suffix(settings)
    return [
        Column(title="Row"),
        Column(title="n", kind=NUMBER),
        Column(title=f"On new images too{unit}: 95 % CI", kind=SPREAD),
        Column(title="P(better)", kind=SPREAD, detail_title="95 % CI"),
        Column(title="Time per run", kind=NUMBER),
    ]


def _cells(cell: CellFinding, settings: Settings, costs: Mapping[str, Cost]) -> list[Cell]:
    return [
        Cell(cell.row),
        Cell(n_cell(cell.level).text),
        _new_images_cell(cell.effect, settings),
        _better_cell(cell.effect),
        _time_cell(costs.get(cell.arm_id or "")),
    ]


def _new_images_cell(effect: Effect | None, settings: Settings) -> Cell:
    if effect is None:
        return Cell(DASH, "(reference)")
    text = interval(effect.new_images_low, effect.new_images_high, effect_digits(effect, settings))
    if text:
        return Cell(text, value=effect.estimate)
    if effect.estimate is None or effect.low is None:
        return Cell(DASH, "(no effect)")
    return Cell(DASH, "(same run)" if effect.df is None else NO_BITS)


def _better_cell(effect: Effect | None) -> Cell:
    if effect is None:
        return Cell(DASH, "(reference)")
    if effect.prob_better is None:
        return Cell(DASH, "(no effect)" if effect.estimate is None else "(same run)")
    return Cell(number(effect.prob_better), interval(effect.prob_better_low, effect.prob_better_high))


def _time_cell(cost: Cost | None) -> Cell:
    if cost is None or cost.time_s is None:
        return Cell(DASH, "(not measured)")
    if cost.time_s == 0:
        return Cell(DASH, "(trains nothing)")
    return Cell(duration(cost.time_s), value=cost.time_s)


def _energy_cell(cost: Cost | None) -> Cell:
    if cost is None or cost.energy_kj is None:
        return Cell(DASH, "(not measured)")
    return Cell(f"{cost.energy_kj / cost.runs:.3g}")


def _yield_cell(cell: CellFinding, costs: Mapping[str, Cost], unit: _DeviceTime) -> Cell:
    effect, time = cell.effect, unit.of_a_run(costs.get(cell.arm_id or ""))
    if effect is None:
        return Cell(DASH, "(reference)")
    if effect.estimate is None or effect.low is None or effect.high is None:
        return Cell(DASH, "(no effect)")
    if effect.low <= 0.0 <= effect.high:
        return Cell(DASH, "(0 in CI)")
    if not time:
        return Cell(DASH, "(not measured)")
    value = effect.estimate / time
    return Cell(signed(value, None), value=value)
