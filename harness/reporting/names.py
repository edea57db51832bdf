"""Words for things that findings and plans hold as keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.analysis.findings import ACCURACIES, GLYPHS, CellFinding, Effect, Settings, TableFinding
from harness.reporting.numbers import count
from harness.study.plan import PaperValue, Plan, PlannedRun
from harness.study.spec import MEMBER_STRIDE

MEMORY_MARK = "†"
MEMORY_NOTE = f"{MEMORY_MARK} The paper's value from memory, not verified against the printed table."


def percent_suffix(metric: str) -> str:
    """The unit of a metric in a column title."""
    return ", %" if metric in ACCURACIES else ""


def effect_suffix(settings: Settings) -> str:
    """The unit of an effect in a column title."""
    return ", pp" if settings.in_percent else ""


def verdict_text(effect: Effect) -> str:
    """Glyph and word."""
    return f"{GLYPHS.get(effect.verdict, '')} {effect.verdict}".strip()


def short_name(key: str) -> str:
    """How a table is called in running text.

    >>> short_name("table5"), short_name("figure_3a"), short_name("ladder"), short_name("tablet")
    ('Table 5', 'Figure 3a', 'ladder', 'tablet')
    """
    found = re.fullmatch(r"(table|figure)_?(\d\w*)", key)
    return f"{found.group(1).capitalize()} {found.group(2)}" if found else key


def seeds_planned(plan: Plan) -> str:
    """How many seeds the recipes have: "3 seeds", or "3 to 8 seeds" where some were stopped early."""
    fewest, most = min(plan.arm_seeds.values(), default=len(plan.seeds)), len(plan.seeds)
    return count(most, "seed") if fewest == most else f"{fewest} to {count(most, 'seed')}"


def table_name(table: TableFinding) -> str:
    """The table's short name and its title, as a heading."""
    name = short_name(table.key)
    return f"{name[:1].upper()}{name[1:]}: {table.title}"


def cell_name(cell: CellFinding) -> str:
    """The row, and the column where the table has columns."""
    return cell.row if cell.column is None else f"{cell.row} ({cell.column})"


def ordered(table: TableFinding) -> list[CellFinding]:
    """The cells column by column, in reading order inside a column."""
    place = {column: index for index, column in enumerate(table.columns)}
    return sorted(table.cells, key=lambda cell: place.get(cell.column, len(place)))


def mark(status: str | None) -> str:
    """The footnote sign of a paper value that nobody has looked up."""
    return MEMORY_MARK if status is not None and status != "verified" else ""


def paper_text(value: PaperValue | None) -> str:
    """A printed value as printed (two decimals), marked if it is from memory."""
    return "" if value is None else f"{value.value:.2f}{mark(value.status)}"


def arm_name(plan: Plan, arm_id: str) -> str:
    """The label of an arm ("table / row / column"), or the first digits of its identity."""
    table, slash, rest = plan.arm_labels.get(arm_id, arm_id[:12]).partition(" / ")
    return f"{short_name(table)}{slash}{rest}"


def run_name(plan: Plan, run: PlannedRun) -> str:
    """The label of a run's arm, and which member of an ensemble it is where it is no row's own run."""
    member = run.seed // MEMBER_STRIDE
    return arm_name(plan, run.arm_id) + (f", member {member + 1}" if member else "")


def as_sentences(value: Any) -> tuple[str, ...]:
    """Free text of a study file (a text, a list or a mapping) as a list of sentences."""
    if value is None or value == "":
        return ()
    if isinstance(value, Mapping):
        return tuple(f"{key}: {text}" for key, text in value.items())
    if isinstance(value, list | tuple):
        return tuple(str(item) for item in value)
    return (str(value),)


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `a.b` -> text.

    >>> flatten({"model": {"name": "resnet50", "args": {}}, "milestones": (1, 2.5)})
    {'model.name': 'resnet50', 'milestones': '1, 2.5'}
    """
    flat: dict[str, str] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = setting_text(value)
    return flat


def setting_text(value: Any) -> str:
    """A value of a setting as a reader would write it."""
    if isinstance(value, list | tuple):
        return ", ".join(setting_text(item) for item in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not set"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def as_slug(text: str) -> str:
    """A text as an anchor.

    >>> as_slug("Table 5: Model tweaks")
    'table-5-model-tweaks'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
