"""A report before it has a format: sections, tables and cells, and how names are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any

from harness.analysis.findings import GLYPHS, CellFinding, Effect, Settings, TableFinding
from harness.reporting.numbers import count
from harness.spec import ACCURACIES, MEMBER_STRIDE
from harness.study.plan import PaperValue, Plan, PlannedRun

# A table as every format sees it: columns with a kind, rows of text cells, notes below.


TEXT, NUMBER, SPREAD = "text", "number", "spread"  # SPREAD: a number with its sd, or otherwise composed


@dataclass(frozen=True, slots=True, kw_only=True)
class TextColumn:
    """`detail_title` names the second line of the column's cells, where they have one."""

    title: str
    kind: str = TEXT
    detail_title: str = ""


@dataclass(frozen=True, slots=True)
class TextCell:
    """What is shown: a main text, a smaller second line, and a tone (a verdict word) for colour.

    `value` is what a sortable table sorts by, where that is not the number that the text starts with.
    `target` is the anchor of what lies behind the cell, such as its runs; formats without links show none.
    """

    text: str
    detail: str = ""
    tone: str = ""
    value: float | None = None
    target: str = ""

    @property
    def joined(self) -> str:
        """Both lines as one."""
        return f"{self.text} {self.detail}".strip()


@dataclass(frozen=True, slots=True)
class TextRow:
    """The first cell is the row's header. Rows with the same `group` follow each other."""

    cells: tuple[TextCell, ...]
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """`title` says what the table is where no heading does; the caption says what the numbers are.

    `notes` are footnotes. `spans`: titles above those of the columns, and over how many columns each goes.
    """

    key: str
    title: str = ""
    caption: str
    columns: tuple[TextColumn, ...]
    rows: tuple[TextRow, ...]
    notes: tuple[str, ...] = ()
    spans: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"table {self.key}: {len(row.cells)} cells for {len(self.columns)} columns")

    def span_titles(self) -> tuple[str, ...]:
        """For every column the title above its own; "" where there is none."""
        return tuple(title for title, columns in self.spans for _ in range(columns)) or ("",) * len(
            self.columns
        )

    def groups(self) -> list[tuple[str, list[TextRow]]]:
        """The rows in order, split where the group changes."""
        parts: list[tuple[str, list[TextRow]]] = []
        for row in self.rows:
            if not parts or parts[-1][0] != row.group:
                parts.append((row.group, []))
            parts[-1][1].append(row)
        return parts

    def has_detail(self, index: int) -> bool:
        """Whether any cell of this column has a second line."""
        return any(row.cells[index].detail for row in self.rows)


def plain_table(key: str, caption: str, titles: dict[str, str], rows: list[list[str]]) -> TextTable:
    """A table of single-line cells. `titles` maps each column's title to its kind."""
    return TextTable(
        key=key,
        caption=caption,
        columns=tuple(TextColumn(title=title, kind=kind) for title, kind in titles.items()),
        rows=tuple(TextRow(tuple(TextCell(text) for text in row)) for row in rows),
    )


# A report before it has a format: sections of paragraphs, lists, claims, tables and figures.
#
# Every text is plain and is escaped by the format that prints it. Only the banner may hold `code` in
# backticks.


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Definitions:
    """Pairs of a term and what it says."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ClaimLine:
    """One sentence of the answer, marked with the glyph (and the word, unless the sentence has it)."""

    mark: str
    text: str
    tone: str  # the verdict word, or "" for a row without a verdict


@dataclass(frozen=True, slots=True)
class ClaimList:
    """The claims of one table."""

    title: str
    items: tuple[ClaimLine, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """What may be read last: smaller than a paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """One effect of the scoreboard. `effect`: estimate and interval as text; `says`: glyph and word.

    `low` and `high`: the 95 % interval; `adjusted`: the one after Holm's correction, which decides.
    """

    label: str
    effect: str
    says: str
    verdict: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    target: str = ""
    adjusted: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class ScorePanel:
    """The effects of one table, or of one column of it."""

    title: str
    lines: tuple[ScoreLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Effects on one axis from `low` to `high`; the smallest effect of interest is `band`."""

    panels: tuple[ScorePanel, ...]
    low: float
    high: float
    band: float
    unit: str

    def lines(self) -> list[ScoreLine]:
        """All of them, in order."""
        return [line for panel in self.panels for line in panel.lines]

    def share(self, value: float) -> float:
        """Where a value lies on the axis, from 0 to 1; what lies beyond is at the end."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def is_beyond(self, value: float | None) -> bool:
        """Whether the axis ends before the value."""
        return value is not None and not self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class FigureBlock:
    """A picture under figures/<key>.svg. `alt` says what a reader who cannot see it must know.

    `board`: what the picture shows, where a format can show it better than as a picture.
    """

    key: str
    caption: str
    alt: str
    board: Board | None = None


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run of a recipe. `curve`: its values over training; `log`: when, where, in how many attempts."""

    run_id: str
    seed: int
    value: str
    log: str
    curve: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RecipeRuns:
    """What lies behind a cell: what was found of it, its recipe and its runs. `target`: its anchor.

    `brief`: the settings that are asked for most often, where there is no room for all.
    """

    target: str
    name: str
    says: tuple[tuple[str, str], ...]
    settings: str
    brief: str
    runs: tuple[RunLine, ...]


@dataclass(frozen=True, slots=True)
class RunsBlock:
    """Every recipe with its runs."""

    recipes: tuple[RecipeRuns, ...]


Block = Paragraph | Note | Bullets | Definitions | ClaimList | TextTable | FigureBlock | RunsBlock


MOST_ROWS = 500  # of a table or a list on a page: nobody reads more


def first_rows(table: TextTable) -> TextTable:
    """What a page has room for: of a longer table its first rows, and a sentence that says so."""
    if len(table.rows) <= MOST_ROWS:
        return table
    notes = (_of_all(len(table.rows)), *table.notes[:MOST_ROWS])
    return replace(table, rows=table.rows[:MOST_ROWS], notes=notes)


def readable(block: Block) -> Block:
    """The same of any block of a report."""
    if isinstance(block, TextTable):
        return first_rows(block)
    return first_claims(block) if isinstance(block, ClaimList) else block


def first_claims(block: ClaimList) -> ClaimList:
    """As many of its lines as a reader reads, and a line that says how many there are."""
    if len(block.items) <= MOST_ROWS:
        return block
    last = ClaimLine("·", _of_all(len(block.items)), "")
    return replace(block, items=(*block.items[:MOST_ROWS], last))


def _of_all(rows: int) -> str:
    return f"The first {MOST_ROWS} of {rows:,} rows; report.json has all of them."


@dataclass(frozen=True, slots=True)
class Section:
    """`more`: titles of the details that say more of the same."""

    title: str
    blocks: tuple[Block, ...]
    level: int = 2
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """`banner` is the first line of every format, where there is one.

    `details`: what only some readers look for. Folded in HTML, an appendix in PDF, details.md in Markdown.
    under_way: it is written again while runs are trained; a page in a browser loads itself again.
    """

    banner: str
    title: str
    question: str
    scope: str
    sections: tuple[Section, ...]
    details: tuple[Section, ...] = ()
    under_way: bool = False


def code_spans(text: str) -> list[tuple[str, bool]]:
    """Split at backticks into (text, is code).

    >>> code_spans("a `mini` run")
    [('a ', False), ('mini', True), (' run', False)]
    """
    return [(part, index % 2 == 1) for index, part in enumerate(text.split("`")) if part]


# Words for things that findings and plans hold as keys.


MEMORY_MARK = "†"
MEMORY_NOTE = f"{MEMORY_MARK} The paper's value from memory, not verified against the printed table."


def percent_suffix(metric: str) -> str:
    """The unit of a metric in a column title."""
    return ", %" if metric in ACCURACIES else ""


def level_suffix(settings: Settings) -> str:
    """The unit of the study's metric in a column title."""
    return ", %" if settings.in_percent else ""


def effect_suffix(settings: Settings) -> str:
    """The unit of an effect in a column title."""
    return ", pp" if settings.in_percent else ""


def verdict_text(effect: Effect) -> str:
    """Glyph and word."""
    return f"{GLYPHS.get(effect.verdict, '')} {effect.verdict}".strip()


_NAMES = ("ResNet", "ResNeXt", "GoogLeNet", "MobileNet", "ImageNet", "CIFAR", "MNIST", "LR", "EMA")
_SPELT = {name.lower(): name for name in _NAMES}


def heading(study: str) -> str:
    """The name of a study as the heading of its report, networks and data sets as their authors spell them.

    >>> [heading(name) for name in ("bag_of_tricks", "resnet_cifar", "inception_v3", "my_lr_sweep")]
    ['Bag of tricks', 'ResNet CIFAR', 'Inception v3', 'My LR sweep']
    """
    text = " ".join(_SPELT.get(word, word) for word in study.replace("_", " ").split(" "))
    return text[:1].upper() + text[1:]


_NUMBERED = re.compile(r"(table|figure)_?(\d+[a-z]?)(?:_\w+)?")


def short_name(key: str) -> str:
    """How a table is called in running text.

    >>> [short_name(key) for key in ("table5", "figure_3a", "table1_imagenet", "fine_tuning")]
    ['Table 5', 'Figure 3a', 'Table 1', 'fine tuning']
    """
    found = _NUMBERED.fullmatch(key)
    return f"{found.group(1).capitalize()} {found.group(2)}" if found else key.replace("_", " ")


def seeds_planned(plan: Plan) -> str:
    """How many seeds the recipes have: "3 seeds", or "3 to 8 seeds" where some were stopped early."""
    counts = plan.arm_seeds.values() or [len(seeds) for seeds in plan.own_seeds.values()]
    fewest, most = min(counts, default=len(plan.seeds)), len(plan.seeds)
    most = max(map(len, plan.own_seeds.values()), default=most)
    return count(most, "seed") if fewest == most else f"{fewest} to {count(most, 'seed')}"


def table_name(table: TableFinding) -> str:
    """The table's number and its title, as a heading; the title alone where its key has no number."""
    numbered = _NUMBERED.fullmatch(table.key)
    return f"{short_name(table.key)}: {table.title}" if numbered else table.title


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
    member = run.seed // MEMBER_STRIDE if plan.arms else 0
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


def arm_target(arm_id: str | None) -> str:
    """The anchor of a recipe and its runs; "" for a row that has none."""
    return f"recipe-{arm_id[:12]}" if arm_id else ""


def as_slug(text: str) -> str:
    """A text as an anchor.

    >>> as_slug("Table 5: Model tweaks")
    'table-5-model-tweaks'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


# Every text of a report, as fonts are chosen by them.


NO_TEXT = frozenset((int, float, bool, bytes, type(None)))


def all_text(*values: object) -> list[str]:
    """Every text in plain data and in data classes, in any order."""
    found: list[str] = []
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if type(value) in NO_TEXT:
            continue
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list | tuple):
            waiting += value
        elif is_dataclass(value) and not isinstance(value, type):
            waiting += [getattr(value, name) for name in _fields_of(type(value))]
        elif isinstance(value, Mapping):
            waiting += value.keys()
            waiting += value.values()
    return found


@cache
def _fields_of(kind: type) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))
