"""The tables of the study: what leads, what else is known of each row, values beside those of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from types import MappingProxyType

from harness.analysis.findings import Amount, CellFinding, Effect, Level, Settings, TableFinding
from harness.analysis.verdicts import metric_name, size_text
from harness.reporting import document as doc
from harness.reporting import numbers as num
from harness.reporting.report_input import GPU_HOURS, RunCost
from harness.spec import ACCURACIES, MEMBER_STRIDE, Arm, Member
from harness.study.plan import OF_A_FILE, PaperValue, Plan

# What the paper printed beside a row: accuracies, and further numbers that are shown, never analysed.


STD = "top1_std"
STD_NOTE = "sd beside a value of the paper: its own standard deviation over trainings, as printed."

# name in a study file -> how it is written; what is not named here is shown with its own name
_FORMS = {
    "params_m": "{} M parameters",
    "gflops": "{} G multiply-adds",
    "cost": "cost {}×",
    "cost_bn_ops": "{} Bn operations",
    "epoch_minutes": "{} min per epoch",
    "steps_to_target_m": "{} M steps",
}


def other_metric(metric: str) -> str:
    """The accuracy that is shown beside the primary metric."""
    return "top5" if metric == "top1" else "top1"


def paper_cell(cell: CellFinding, settings: Settings) -> doc.TextCell:
    """The printed value of the metric; its sd and the other accuracy on the second line."""
    value = doc.paper_text(cell.paper.get(settings.metric))
    std = cell.paper.get(STD) if settings.metric == "top1" else None
    other = doc.paper_text(cell.paper.get(other_metric(settings.metric)))
    details = [f"(sd {std.value:g}{doc.mark(std.status)})"] if std else []
    details += [f"({other})"] if other else []
    if not value and not details:
        return doc.TextCell(num.DASH, "(none)")
    return doc.TextCell(value or num.DASH, " ".join(details))


def extras_column(cells: list[CellFinding]) -> doc.TextColumn | None:
    """A column for the further printed numbers, where any row has one."""
    return doc.TextColumn(title="Also printed", kind=doc.TEXT) if any(map(_extras, cells)) else None


def extras_cell(cell: CellFinding) -> doc.TextCell:
    """For example "4.2 G multiply-adds, 25.6 M parameters"."""
    texts = [_extra(name, value) for name, value in _extras(cell).items()]
    return doc.TextCell(", ".join(texts)) if texts else doc.TextCell(num.DASH, "(nothing)")


def paper_column_kind(cells: list[CellFinding], settings: Settings) -> str:
    """Numbers, unless the paper has none of the metric at all (a plugin's)."""
    return doc.NUMBER if any(settings.metric in cell.paper for cell in cells) else doc.TEXT


def _extras(cell: CellFinding) -> dict[str, PaperValue]:
    shown = {name: value for name, value in cell.paper.items() if name not in (*ACCURACIES, STD)}
    places = {name: place for place, name in enumerate(_FORMS)}
    return dict(sorted(shown.items(), key=lambda item: (places.get(item[0], len(places)), item[0])))


def _extra(name: str, value: PaperValue) -> str:
    number = f"{value.value:,.6g}" if value.value >= 1e6 else f"{value.value:g}"
    form = _FORMS.get(name, f"{name.replace('_', ' ')} {{}}")
    return form.format(number) + doc.mark(value.status)


# The values of a table beside those that the paper printed, and how a level and its n are written.


_OURS_AND_THEIRS = "Values, ours and the paper's"


def values_table(
    table: TableFinding, settings: Settings, places: Mapping[str, str] = MappingProxyType({})
) -> doc.TextTable:
    """Means with their spread and interval, the other accuracy, and everything that the paper printed.

    It stands below the table of effects, or in its place where nothing is compared.
    """
    cells = doc.ordered(table)
    leads = not any(cell.effect for cell in cells)
    columns = _value_columns(settings, paper_column_kind(cells, settings))
    rows = [_value_cells(cell, settings, places if leads else {}) for cell in cells]
    if table.design == OF_A_FILE:
        columns, rows = _of_file(cells, settings, (columns, rows))
    if extras := extras_column(cells):
        columns.append(extras)
        rows = [[*row, extras_cell(cell)] for row, cell in zip(rows, cells, strict=True)]
    caption = "n: seeds with a value. sd: over these seeds; the 95 % CI is that of the mean."
    return doc.TextTable(
        key=f"{table.key}_values",
        title=table.title if leads else doc.short_name(table.key),
        caption=caption if leads else f"{_OURS_AND_THEIRS}. {caption}",
        columns=tuple(columns),
        rows=tuple(doc.TextRow(tuple(row), cell.column or "") for row, cell in zip(rows, cells, strict=True)),
        notes=_value_notes(table, leads),
    )


def _of_file(
    cells: list[CellFinding],
    settings: Settings,
    shown: tuple[list[doc.TextColumn], list[list[doc.TextCell]]],
) -> tuple[list[doc.TextColumn], list[list[doc.TextCell]]]:
    """The columns of results from a file: its own further metrics in place of the other accuracy."""
    columns, rows = shown
    names = list(dict.fromkeys(name for cell in cells if cell.level for name in cell.level.secondary))
    more = [doc.TextColumn(title=metric_name(name), kind=doc.NUMBER) for name in names]
    return [*columns[:3], *more, columns[-1]], [
        [*row[:3], *(_secondary_cell(cell.level, settings, name) for name in names), row[-1]]
        for cell, row in zip(cells, rows, strict=True)
    ]


def of_plan(table: doc.TextTable, plan: Plan) -> doc.TextTable:
    """A table as it is; of a study without a paper without empty columns for printed values."""
    return table if plan.header.get("paper") else without_paper(table)


def without_paper(table: doc.TextTable) -> doc.TextTable:
    """Without the columns of the paper's in which no row has a number: of a study without a paper."""
    kept = [
        place
        for place, column in enumerate(table.columns)
        if "paper" not in column.title.lower() or any(row.cells[place].text != num.DASH for row in table.rows)
    ]
    if len(kept) == len(table.columns):
        return table
    return replace(
        table,
        caption=table.caption.replace(_OURS_AND_THEIRS, "Values"),
        columns=tuple(table.columns[place] for place in kept),
        rows=tuple(doc.TextRow(tuple(row.cells[place] for place in kept), row.group) for row in table.rows),
    )


def level_digits(level: Level, settings: Settings) -> num.Digits:
    """Decimals of a mean, from its standard error sd / sqrt(n)."""
    if not settings.in_percent:
        return None
    return num.digits_for(None if level.sd is None or level.n == 0 else level.sd / math.sqrt(level.n))


def effect_digits(effect: Effect | Amount, settings: Settings) -> num.Digits:
    """Decimals of an effect: a quarter of the 95 % interval's width stands for its standard error."""
    if not settings.in_percent:
        return None
    if effect.low is None or effect.high is None:
        return num.digits_for(None)
    return num.digits_for((effect.high - effect.low) / 4)


def n_cell(level: Level | None, effect: Effect | None = None) -> doc.TextCell:
    """Seeds with a value; below it runs that have none, and whether an adaptive study ended the row."""
    if level is None:
        return doc.TextCell("0", "(quoted)")
    said = [f"{level.diverged} diverged"] * bool(level.diverged)
    said += [f"{level.without_value} without a finite value"] * bool(level.without_value)
    absent = level.missing - level.without_value
    said += [f"{absent} missing"] * bool(absent)
    if effect is not None and effect.settled_at is not None:
        said.append("settled" if effect.settled_at >= level.n else f"settled at {effect.settled_at}")
    return doc.TextCell(str(level.n), ", ".join(said))


def spread_cell(level: Level | None, settings: Settings, *, with_interval: bool = False) -> doc.TextCell:
    """Mean and sd, and on demand the interval of the mean; or why there is none."""
    if level is None:
        return doc.TextCell(num.DASH, "(quoted)")
    if level.mean is None:
        return doc.TextCell(num.DASH, f"({level.missing_reason or 'no run has ended with a value'})")
    digits = level_digits(level, settings)
    mean = num.number(level.mean, digits)
    if level.sd is None:
        return doc.TextCell(mean, "(1 seed: no sd)")
    said = num.interval(level.low, level.high, digits) if with_interval else ""
    return doc.TextCell(f"{mean} ± {num.number(level.sd, digits)}", said)


def row_notes(table: TableFinding) -> list[str]:
    """What the study says of single rows, and why runs of a row with a value are missing."""
    notes = []
    for cell in table.cells:
        reason = cell.level.missing_reason if cell.level and cell.level.mean is not None else None
        notes += [f"{doc.cell_name(cell)}: {text}" for text in (cell.note, reason) if text]
    return notes


def _value_columns(settings: Settings, paper_kind: str) -> list[doc.TextColumn]:
    metric, other = settings.metric, other_metric(settings.metric)
    return [
        doc.TextColumn(title="Row"),
        doc.TextColumn(title="n", kind=doc.NUMBER, detail_title="remarks"),
        doc.TextColumn(
            title=f"{metric_name(metric)}{doc.level_suffix(settings)}: mean ± sd",
            kind=doc.SPREAD,
            detail_title="95 % CI of the mean",
        ),
        doc.TextColumn(title=f"{metric_name(other)}{doc.percent_suffix(other)}", kind=doc.NUMBER),
        doc.TextColumn(
            title=f"Paper {metric_name(metric)}", kind=paper_kind, detail_title=f"paper {metric_name(other)}"
        ),
    ]


def _value_cells(cell: CellFinding, settings: Settings, places: Mapping[str, str]) -> list[doc.TextCell]:
    return [
        doc.TextCell(cell.row, places.get(cell.arm_id or "", "")),
        n_cell(cell.level),
        spread_cell(cell.level, settings, with_interval=True),
        _secondary_cell(cell.level, settings, other_metric(settings.metric)),
        paper_cell(cell, settings),
    ]


def _secondary_cell(level: Level | None, settings: Settings, metric: str) -> doc.TextCell:
    if level is None:
        return doc.TextCell(num.DASH, "(quoted)")
    if metric not in level.secondary:
        return doc.TextCell(num.DASH, "(no value)" if level.mean is None else "(not measured)")
    digits = level_digits(level, settings) if settings.in_percent else num.MOST_DIGITS
    return doc.TextCell(num.number(level.secondary[metric], digits))


def _value_notes(table: TableFinding, leads: bool) -> tuple[str, ...]:
    notes = [table.note] if table.note and leads else []
    if {value.status for cell in table.cells for value in cell.paper.values()} - {"verified"}:
        notes.append(doc.MEMORY_NOTE)
    if any(STD in cell.paper for cell in table.cells):
        notes.append(STD_NOTE)
    return tuple(dict.fromkeys([*notes, *(row_notes(table) if leads else [])]))


# The leading table of each table of the study: what was measured, and what it means.


ABOVE = "the row above"


def main_table(
    table: TableFinding, settings: Settings, places: Mapping[str, str] = MappingProxyType({})
) -> doc.TextTable:
    """Every effect in numbers: one row per cell, stacked by column group; narrow enough for a printed page.

    What the paper printed, and what else is known of a row, is in the tables of `values.py` and `details.py`;
    where nothing is compared, this is the table of values. `places`: arm_id -> what to say of rows on other
    data, or at another resolution, than most.
    """
    cells = doc.ordered(table)
    if not any(cell.effect for cell in cells):
        return values_table(table, settings, places)
    versus = _versus_rule(cells)
    columns = [
        doc.TextColumn(title="Row", detail_title="" if versus else "compared with"),
        doc.TextColumn(title="n", kind=doc.NUMBER, detail_title="remarks"),
        doc.TextColumn(
            title=f"{metric_name(settings.metric)}{doc.level_suffix(settings)}: mean ± sd",
            kind=doc.SPREAD,
        ),
        *_effect_columns(settings),
    ]
    rows = tuple(_row(cell, settings, places, versus) for cell in cells)
    return doc.TextTable(
        key=f"{table.key}_effects",
        title=table.title,
        caption=_caption(settings, versus),
        columns=tuple(columns),
        rows=rows,
        notes=_leading_notes(table),
    )


def _row(cell: CellFinding, settings: Settings, places: Mapping[str, str], versus: str | None) -> doc.TextRow:
    effect = cell.effect
    said = [places.get(cell.arm_id or "", "")]
    said += [f"minus {effect.versus}"] if effect and versus is None else []
    cells = [
        doc.TextCell(cell.row, "; ".join(filter(None, said))),
        n_cell(cell.level, effect),
        spread_cell(cell.level, settings),
        effect_cell(effect, settings) if cell.level is not None else doc.TextCell(num.DASH, "(quoted)"),
        _verdict_cell(cell),
        _paper_effect_cell(cell),
    ]
    if settings.comparable_to_paper:
        cells.append(_gap_cell(effect, settings))
    return doc.TextRow(tuple(cells), cell.column or "")


def effect_cell(effect: Effect | None, settings: Settings) -> doc.TextCell:
    """The estimate with its 95 % interval, or why there is none."""
    if effect is None:
        return doc.TextCell(num.DASH, "(reference)")
    if effect.estimate is None:
        return doc.TextCell(num.DASH, f"({effect.qualifier or effect.verdict})")
    digits = effect_digits(effect, settings)
    return doc.TextCell(num.signed(effect.estimate, digits), num.interval(effect.low, effect.high, digits))


def _versus_rule(cells: list[CellFinding]) -> str | None:
    """What every effect is measured from, if one phrase says it for all rows."""
    pairs = [
        (above, cell)
        for above, cell in zip([None, *cells[:-1]], cells, strict=True)
        if cell.effect is not None
    ]
    if all(
        above and cell.effect and above.row == cell.effect.versus and above.column == cell.column
        for above, cell in pairs
    ):
        return ABOVE
    references = {cell.effect.versus for _, cell in pairs if cell.effect}
    return references.pop() if len(references) == 1 else None


def _effect_columns(settings: Settings) -> list[doc.TextColumn]:
    columns = [
        doc.TextColumn(title=f"Effect{doc.effect_suffix(settings)}", kind=doc.SPREAD, detail_title="95 % CI"),
        doc.TextColumn(title="Verdict", kind=doc.TEXT, detail_title="qualifier"),
        doc.TextColumn(title="Paper effect", kind=doc.NUMBER),
    ]
    if settings.comparable_to_paper:
        columns.append(
            doc.TextColumn(title="Effect minus paper's, pp", kind=doc.SPREAD, detail_title="95 % CI")
        )
    return columns


def _verdict_cell(cell: CellFinding) -> doc.TextCell:
    effect = cell.effect
    if effect is None:
        return doc.TextCell(num.DASH, "(quoted)" if cell.level is None else "(reference)")
    details = [effect.qualifier] * bool(effect.qualifier) + ["fragile"] * effect.fragile
    details += ["exploratory"] * effect.exploratory
    return doc.TextCell(doc.verdict_text(effect), "; ".join(details), effect.verdict)


def _paper_effect_cell(cell: CellFinding) -> doc.TextCell:
    effect = cell.effect
    if effect is None:
        return doc.TextCell(num.DASH, "(quoted)" if cell.level is None else "(reference)")
    if effect.paper is None:
        return doc.TextCell(num.DASH, "(none)")
    return doc.TextCell(num.signed(effect.paper) + doc.mark(effect.paper_status))


def _gap_cell(effect: Effect | None, settings: Settings) -> doc.TextCell:
    if effect is None or effect.gap is None:
        return doc.TextCell(num.DASH, "(reference)" if effect is None else "(none)")
    digits = effect_digits(effect, settings)
    details = [num.interval(effect.gap_low, effect.gap_high, digits), effect.agreement or ""]
    return doc.TextCell(num.signed(effect.gap, digits), " ".join(filter(None, details)))


def _caption(settings: Settings, versus: str | None) -> str:
    unit = "percentage points (pp) of" if settings.in_percent else "units of"
    less = " (less is better)" if settings.lower_is_better else ""
    of = f"this row minus {versus}" if versus else "this row minus the row named under its label"
    return (
        f"n: seeds with a value. sd: over these seeds. Effect: {of}, in {unit} "
        f"{metric_name(settings.metric)}{less}; its 95 % CI is over re-training. "
        f"Smallest effect of interest: {size_text(settings.smallest_effect_pp, settings)}."
    )


def _leading_notes(table: TableFinding) -> tuple[str, ...]:
    notes = [table.note] if table.note else []
    if any(doc.mark(cell.effect.paper_status) for cell in table.cells if cell.effect):
        notes.append(doc.MEMORY_NOTE)
    return tuple(dict.fromkeys([*notes, *row_notes(table)]))


# What else is known of each row: would it hold on other images, in a single run, and at what cost.


UNITS_S = {"hour": 3600.0, "minute": 60.0, "second": 1.0}  # of device time, the longest first
NO_BITS = "(no answers per image)"


@dataclass(frozen=True, slots=True)
class _DeviceTime:
    """In which unit a table counts device time: the longest that its runs fill."""

    device: str
    unit: str

    def of_a_run(self, cost: RunCost | None) -> float | None:
        if cost is None or cost.device_hours is None or not cost.runs:
            return None
        return cost.device_hours * 3600 / cost.runs / UNITS_S[self.unit]


def details_table(
    table: TableFinding, settings: Settings, costs: Mapping[str, RunCost]
) -> doc.TextTable | None:
    """One row per trained cell: intervals on new images, P(better), time, energy; None without effects.

    costs: by arm, of the whole study.
    Energy and device time have columns where a run of the table has them measured, and a note where not.
    """
    cells = [cell for cell in doc.ordered(table) if cell.level is not None]
    if not any(cell.effect for cell in cells):
        return None
    arms = {cell.arm_id for cell in cells}
    costs = {arm: cost for arm, cost in costs.items() if arm in arms}
    unit = _device_time(costs)
    columns, notes = _detail_columns(settings), list[str]()
    rows = [_detail_cells(cell, settings, costs) for cell in cells]
    if any(cost.energy_kj is not None for cost in costs.values()):
        columns.append(doc.TextColumn(title="Energy per run, kJ", kind=doc.NUMBER))
        rows = [[*row, _energy_cell(costs.get(c.arm_id or ""))] for row, c in zip(rows, cells, strict=True)]
    else:
        notes.append("Energy: not measured.")
    if unit is not None:
        per = f"Effect per {unit.device}-{unit.unit}"
        columns.append(doc.TextColumn(title=per + doc.effect_suffix(settings), kind=doc.NUMBER))
        rows = [[*row, _yield_cell(c, costs, unit)] for row, c in zip(rows, cells, strict=True)]
        notes.append(
            f"{per}: the effect over the device time of one run of the row; "
            "given where the 95 % CI of the effect excludes 0."
        )
    else:
        notes.append("Device time: not measured.")
    return doc.TextTable(
        key=f"{table.key}_details",
        title=doc.short_name(table.key),
        caption="Does it hold on other images and in a single run, and at what cost? n: seeds with a value. "
        "P(better): the chance that one run of the row beats one run of the row it is compared with.",
        columns=tuple(columns),
        rows=tuple(doc.TextRow(tuple(row), cell.column or "") for row, cell in zip(rows, cells, strict=True)),
        notes=tuple(notes),
    )


def _device_time(costs: Mapping[str, RunCost]) -> _DeviceTime | None:
    """The longest unit that half of the arms fill; None where no device time is known, or of two kinds."""
    known = [cost for cost in costs.values() if cost.device_hours is not None and cost.runs]
    devices = {cost.unit for cost in known}
    if len(devices) != 1:
        return None
    typical_s = median(3600 * (cost.device_hours or 0.0) / cost.runs for cost in known)
    unit = next((name for name, seconds in UNITS_S.items() if typical_s >= seconds), "second")
    return _DeviceTime("GPU" if devices == {GPU_HOURS} else "core", unit)


def _detail_columns(settings: Settings) -> list[doc.TextColumn]:
    unit = doc.effect_suffix(settings)
    return [
        doc.TextColumn(title="Row"),
        doc.TextColumn(title="n", kind=doc.NUMBER),
        doc.TextColumn(title=f"On new images too{unit}: 95 % CI", kind=doc.SPREAD),
        doc.TextColumn(title="P(better)", kind=doc.SPREAD, detail_title="95 % CI"),
        doc.TextColumn(title="Time per run", kind=doc.NUMBER),
    ]


def _detail_cells(cell: CellFinding, settings: Settings, costs: Mapping[str, RunCost]) -> list[doc.TextCell]:
    return [
        doc.TextCell(cell.row),
        doc.TextCell(n_cell(cell.level).text),
        _new_images_cell(cell.effect, settings),
        _better_cell(cell.effect),
        _time_cell(costs.get(cell.arm_id or "")),
    ]


def _new_images_cell(effect: Effect | None, settings: Settings) -> doc.TextCell:
    if effect is None:
        return doc.TextCell(num.DASH, "(reference)")
    text = num.interval(effect.new_images_low, effect.new_images_high, effect_digits(effect, settings))
    if text:
        return doc.TextCell(text, value=effect.estimate)
    if effect.estimate is None or effect.low is None:
        return doc.TextCell(num.DASH, "(no effect)")
    return doc.TextCell(num.DASH, "(same run)" if effect.df is None else NO_BITS)


def _better_cell(effect: Effect | None) -> doc.TextCell:
    if effect is None:
        return doc.TextCell(num.DASH, "(reference)")
    if effect.prob_better is None:
        return doc.TextCell(num.DASH, "(no effect)" if effect.estimate is None else "(same run)")
    return doc.TextCell(
        num.number(effect.prob_better), num.interval(effect.prob_better_low, effect.prob_better_high)
    )


def _time_cell(cost: RunCost | None) -> doc.TextCell:
    if cost is None or cost.time_s is None:
        return doc.TextCell(num.DASH, "(not measured)")
    if cost.time_s == 0:
        return doc.TextCell(num.DASH, "(trains nothing)")
    return doc.TextCell(num.duration(cost.time_s), value=cost.time_s)


def _energy_cell(cost: RunCost | None) -> doc.TextCell:
    if cost is None or cost.energy_kj is None:
        return doc.TextCell(num.DASH, "(not measured)")
    return doc.TextCell(f"{cost.energy_kj / cost.runs:.3g}")


def _yield_cell(cell: CellFinding, costs: Mapping[str, RunCost], unit: _DeviceTime) -> doc.TextCell:
    effect, time = cell.effect, unit.of_a_run(costs.get(cell.arm_id or ""))
    if effect is None:
        return doc.TextCell(num.DASH, "(reference)")
    if effect.estimate is None or effect.low is None or effect.high is None:
        return doc.TextCell(num.DASH, "(no effect)")
    if effect.low <= 0.0 <= effect.high:
        return doc.TextCell(num.DASH, "(0 in CI)")
    if not time:
        return doc.TextCell(num.DASH, "(not measured)")
    value = effect.estimate / time
    return doc.TextCell(num.signed(value, None), value=value)


# Rows that train nothing: what they evaluate, in words.


_TEXT = (
    "Rows that evaluate networks of other rows cost no training. Their answer to an image is the mean of "
    "the softmax probabilities over all networks and all crops. Such a row and the row whose networks it "
    "evaluates share weights, and their values rise and fall together from seed to seed: two such rows are "
    "compared by their paired differences (paired t interval), and in every other comparison only one of "
    "the rows that share a network counts towards the noise between seeds."
)
_MEMBERS = (
    " The further trainings that ensembles need are used by the ensembles alone; no other row counts them."
)


def observer_blocks(plan: Plan) -> list[doc.Block]:
    """One sentence per evaluation-only recipe; nothing where the plan has none."""
    observing = {arm_id: arm for arm_id, arm in plan.arms.items() if arm.observes}
    if not observing:
        return []
    has_members = any(member.runs > 1 for arm in observing.values() for member in arm.observes)
    items = tuple(
        f"{doc.arm_name(plan, arm_id)}: {observed(plan, arm)}{_how(arm)}" for arm_id, arm in observing.items()
    )
    return [doc.Paragraph(_TEXT + (_MEMBERS if has_members else "")), doc.Bullets(items)]


def observed(plan: Plan, arm: Arm) -> str:
    """The networks of an evaluation-only recipe, for example "7 runs of “Table 3 / one network” (...)"."""
    return " and ".join(_member(plan, member) for member in arm.observes)


def _member(plan: Plan, member: Member) -> str:
    name = f"“{doc.arm_name(plan, member.arm)}”"
    if member.runs == 1:
        return f"the run of {name} with the same seed"
    last = (member.runs - 1) * MEMBER_STRIDE
    between = "" if member.runs == 2 else f", s + {MEMBER_STRIDE}" + (", ..." if member.runs > 3 else "")
    return f"{num.count(member.runs, 'run')} of {name} (seeds s{between}, s + {last} for seed s)"


def _how(arm: Arm) -> str:
    crops = arm.recipe.eval_crops
    parts = [f"{crops} crops of every image"] if crops > 1 else []
    if arm.recipe.eval_weights == "raw":
        parts.append("the trained weights, not their average")
    return "".join(f"; {part}" for part in parts)
