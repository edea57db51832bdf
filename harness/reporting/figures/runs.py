"""Figures of all runs: the run matrix, the seed strip, and the trace of an adaptive study."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D, IdentityTransform

from harness.analysis.findings import GLYPHS, Effect, Findings, Level, LookResult, Settings, TableFinding
from harness.analysis.verdicts import metric_name, plain_text, size_text
from harness.reporting.credit import credit_pictures
from harness.reporting.document import arm_name, ordered, run_name, short_name
from harness.reporting.figures.curves import (
    STEP,
    curves_alt,
    curves_caption,
    draw_curves,
    gain_sketches,
    panels_of,
    steps_caption,
)
from harness.reporting.figures.planning import budget_sketches, flip_sketches, resolvable_sketch
from harness.reporting.figures.style import (
    BLUE,
    FAINT,
    GREY,
    INK,
    WIDTH_IN,
    Picture,
    Sketch,
    draw_side_by_side,
    finish,
    house_style,
    new_figure,
    text_of,
    twin,
    verdict_colour,
)
from harness.reporting.figures.style import finish as _picture
from harness.reporting.figures.tables import (
    MOST_VALUES,
    VALUES_CAPTION,
    Panel,
    RowLine,
    draw_board,
    draw_rows,
    draw_values,
    row_pages,
    valued_cells,
    values_alt,
    with_headings,
)
from harness.reporting.numbers import DASH, count, number
from harness.reporting.report_input import ReportInput, from_file
from harness.reporting.sections.opening import NOT_RUN, statuses
from harness.reporting.sections.paper import KEY as SCOREBOARD
from harness.reporting.sections.paper import alt as scoreboard_alt
from harness.reporting.sections.paper import boards
from harness.reporting.sections.paper import caption as scoreboard_caption
from harness.spec import DIVERGED, FAILED, FINISHED, MEMBER_STRIDE
from harness.study.plan import Plan, PlannedRun

# Run matrix: every recipe and seed of the plan, and what became of it.


ROW_IN, MATRIX_FRAME_IN = 0.235, 0.85
MOST_ROWS = 36  # of one figure: what fits on a page
LABEL_CHARS, COLUMN_CHARS = 56, 16
GLYPH_PT = 8

# status -> (fill, ink, glyph); dark enough apart in grey, and the glyph says it without colour
LOOKS = {
    FINISHED: ("#CFE3F1", "#0B3C5D", "✓"),
    DIVERGED: ("#D55E00", "#000000", "✗"),
    FAILED: ("#3A3A3A", "#FFFFFF", "!"),
    NOT_RUN: ("#FFFFFF", "#5F5F5F", "·"),
}
OTHER = ("#F5E6A8", "#000000", "…")
STOPPED = "stopped: settled"  # a seed that a recipe did not get, because the results needed no more of it
LOOKS[STOPPED] = ("#EDEDED", "#4A4A4A", "–")

MOST_DRAWN = 2_000  # runs of a file: beyond it, no figure shows each of them

MatrixLine = tuple[str, int]  # an arm, and which member of an ensemble (0: the row's own runs)


def matrix_pages(report: ReportInput) -> list[list[MatrixLine]]:
    """The lines of every figure: recipes in the plan's order, further members below their recipe."""
    order = {arm: place for place, arm in enumerate(report.plan.all_arms)}
    lines = sorted(
        {_matrix_line(run) for run in report.plan.runs}, key=lambda line: (order[line[0]], line[1])
    )
    return [lines[start : start + MOST_ROWS] for start in range(0, len(lines), MOST_ROWS)]


def draw_matrix(report: ReportInput, lines: list[MatrixLine]) -> Figure:
    """Recipes down, seeds across. Further members of an ensemble stand in a line of their own."""
    status = statuses(report)
    seeds = sorted({run.seed % MEMBER_STRIDE for run in report.plan.runs})
    row, column = {line: i for i, line in enumerate(lines)}, {seed: i for i, seed in enumerate(seeds)}
    figure = new_figure(MATRIX_FRAME_IN + ROW_IN * len(lines))
    ax = figure.add_subplot()
    cells = [(_matrix_line(run), run.seed % MEMBER_STRIDE, status[run.run_id]) for run in report.plan.runs]
    places: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for line, seed, state in [*cells, *_stopped(report.plan)]:
        if line not in row:
            continue
        places.setdefault(LOOKS.get(state, OTHER), []).append((column[seed], row[line]))
    for look, at in places.items():
        _draw_cells(ax, look, at)
    ax.set_yticks(range(len(lines)), [_label(report, line) for line in lines], fontsize=8)
    ax.set_xticks(range(len(seeds)), [str(seed) for seed in seeds])
    ax.set_xlim(-0.6, max(len(seeds), 8) - 0.4)
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_xlabel("Seed", loc="left")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure


def _draw_cells(ax: Axes, look: tuple[str, str, str], at: list[tuple[int, int]]) -> None:
    """All cells of one status: one path of rectangles, one glyph repeated. A thousand texts take seconds."""
    fill, ink, glyph = look
    box = Affine2D().scale(0.96, 0.92)
    boxes = [Path.unit_rectangle().transformed(box.frozen().translate(x - 0.48, y - 0.46)) for x, y in at]
    cells = Path.make_compound_path(*boxes)
    ax.add_patch(PathPatch(cells, facecolor=fill, edgecolor="#8A8A8A", linewidth=0.4))
    outline = TextPath((0, 0), glyph, size=GLYPH_PT)
    extent = outline.get_extents()
    middle = Affine2D().translate(-(extent.x0 + extent.x1) / 2, -(extent.y0 + extent.y1) / 2)
    marks = PathCollection(
        [outline.transformed(middle)], sizes=(1.0,), offsets=at, offset_transform=ax.transData, linewidths=0
    )
    marks.set_facecolor(ink)
    marks.set_transform(IdentityTransform())  # the glyph is in points, only its place is in data units
    ax.add_collection(marks)


def matrix_caption(report: ReportInput) -> str:
    """The counts and the meaning of the glyphs that occur."""
    found = Counter([*statuses(report).values(), *(state for *_, state in _stopped(report.plan))])
    legend = ", ".join(
        f"{LOOKS.get(status, OTHER)[2]} {status} ({n})"
        for status, n in sorted(found.items(), key=lambda x: -x[1])
    )
    members = any(run.seed >= MEMBER_STRIDE for run in report.plan.runs)
    text = f" “Member k”: a further training for an ensemble, with seed s + (k - 1) × {MEMBER_STRIDE}."
    return f"Runs of the plan by recipe and seed: {legend}.{text * members}"


def matrix_alt(report: ReportInput) -> str:
    """The counts in words, and which runs did not finish."""
    status = statuses(report)
    bad = [
        f"{run_name(report.plan, run)} seed {run.seed} {status[run.run_id]}"
        for run in report.plan.runs
        if status[run.run_id] != FINISHED
    ]
    text = f"Matrix of {count(len(status), 'run')}: {len(status) - len(bad)} finished."
    stopped = len(_stopped(report.plan))
    text += f" {count(stopped, 'further seed')} not needed ({STOPPED})." if stopped else ""
    return text + (f" Others: {'; '.join(bad)}." if bad else "")


def _stopped(plan: Plan) -> list[tuple[MatrixLine, int, str]]:
    """The seeds that recipes did not get and others did: (line, seed, state)."""
    return [
        ((arm_id, 0), seed, STOPPED)
        for arm_id, planned in plan.arm_seeds.items()
        for seed in plan.seeds[planned:]
    ]


def _matrix_line(run: PlannedRun) -> MatrixLine:
    return run.arm_id, run.seed // MEMBER_STRIDE


def _label(report: ReportInput, line: MatrixLine) -> str:
    arm, member = line
    suffix = f", member {member + 1}" if member else ""
    table, *row, column = arm_name(report.plan, arm).split(" / ")
    room = LABEL_CHARS - len(suffix)
    if len(row) != 1:  # no column: the row is what is left
        text = " / ".join((table, *row, column))
        return textwrap.shorten(text, room, placeholder=" ...") + suffix
    column = textwrap.shorten(column, COLUMN_CHARS, placeholder=" ...")
    text = textwrap.shorten(f"{table} / {row[0]}", room - len(column) - 3, placeholder=" ...")
    return f"{text} / {column}{suffix}"


# Seed strip: how far every run lies from the mean of its recipe, and whether pairing by seed works.


MARKERS = "os^Dv*P"  # a seed keeps its mark in all rows; with more seeds than marks all are dots


@dataclass(frozen=True, slots=True)
class Strip:
    """The runs of one recipe: seed -> distance from their mean, in the metric's units."""

    offsets: dict[int, float]
    pooled_sd: float | None


def seed_sketches(findings: Findings) -> list[Sketch]:
    """As many figures as needed; none where no recipe has two runs with a value."""
    panels = [panel for table in findings.tables if (panel := _panel(table, findings.settings))]
    seeds = sorted(
        {seed for table in findings.tables for _, level in _levels(table) for seed in level.values}
    )
    marks = dict(zip(seeds, MARKERS, strict=False)) if len(seeds) <= len(MARKERS) else {}
    unit = ", percentage points" if findings.settings.in_percent else ""
    label = f"{metric_name(findings.settings.metric)} of a run minus the recipe's mean{unit}"

    def draw(ax: Axes, places: Sequence[int], strips: Sequence[Strip]) -> None:
        _draw_seeds(ax, places, strips, marks)

    return [
        Sketch(
            key=f"seeds_{k + 1}" if k else "seeds",
            figure=draw_rows(page, draw, label),
            caption=_seeds_caption(bool(marks), k),
            alt=_seeds_alt(page, findings.settings),
        )
        for k, page in enumerate(row_pages(panels))
    ]


def pairing_text(table: TableFinding) -> str:
    """What runs with the same seed have in common, and what using it cost."""
    if table.seed_correlation is None or table.paired_df_cost is None:
        return "ρ not known"
    rho = number(table.seed_correlation)
    saved = f"{100 * float(rho):.0f} % of the variance" if float(rho) else "nothing"
    return f"ρ = {rho}: pairing saved {saved}, cost {table.paired_df_cost} df"


def _panel(table: TableFinding, settings: Settings) -> Panel | None:
    seen: set[str] = set()
    lines = []
    for cell in ordered(table):
        level = cell.level
        if cell.arm_id in seen or level is None or level.mean is None or level.n < 2:
            continue
        seen.add(str(cell.arm_id))
        strip = Strip({seed: value - level.mean for seed, value in level.values.items()}, table.pooled_sd)
        lines.append((cell.column, RowLine(cell.row, strip, _numbers(level, settings))))
    if not lines:
        return None
    return Panel(f"{short_name(table.key)}: {pairing_text(table)}", with_headings(lines))


def _levels(table: TableFinding) -> list[tuple[str, Level]]:
    return [(cell.row, cell.level) for cell in table.cells if cell.level is not None]


def _numbers(level: Level, settings: Settings) -> str:
    assert level.mean is not None
    assert level.sd is not None
    lost = f", {level.diverged} diverged" * bool(level.diverged)
    lost += f", {level.without_value} without a finite value" * bool(level.without_value)
    return f"{plain_text(level.mean, settings)}, sd {plain_text(level.sd, settings)}, n {level.n}{lost}"


def _draw_seeds(ax: Axes, places: Sequence[int], strips: Sequence[Strip], marks: dict[int, str]) -> None:
    sd = strips[0].pooled_sd
    if sd is not None:
        ax.axvspan(-sd, sd, color="#EDEDED", linewidth=0, zorder=0)
    ax.axvline(0, color=INK, linewidth=1.0, zorder=1)
    if not marks:
        dots = [
            (value, place)
            for place, strip in zip(places, strips, strict=True)
            for value in strip.offsets.values()
        ]
        ax.plot(*zip(*dots, strict=True), "o", color=BLUE, markersize=3, alpha=0.7, linewidth=0)
        return
    for seed, marker in marks.items():
        at = [(s.offsets[seed], place) for place, s in zip(places, strips, strict=True) if seed in s.offsets]
        if at:
            ax.plot(
                *zip(*at, strict=True), marker, markeredgecolor=BLUE, markerfacecolor="none", markersize=4
            )


def _seeds_caption(marked: bool, page: int) -> str:
    if page:
        return "Noise between seeds, continued."
    shape = " One shape: one seed." * marked
    return (
        "Noise between seeds: one mark per run, as its distance from its recipe's mean (mean, sd and n at "
        f"the right). Grey band: ± the table's pooled sd.{shape} ρ: share of the variance that runs with one "
        "seed have in common; pairing by seed saves it, for some degrees of freedom (df). "
        "Values: tables/*.csv."
    )


def _seeds_alt(page: list[Panel], settings: Settings) -> str:
    runs = sum(len(line.item.offsets) for panel in page for line in panel.lines if line.item)
    unit = " pp" if settings.in_percent else ""
    parts = []
    for panel in page:
        strips = [line for line in panel.lines if line.item]
        widest = max(strips, key=lambda line: max(map(abs, line.item.offsets.values())))
        far = max(map(abs, widest.item.offsets.values()))
        parts.append(f"{panel.title}; farthest from its mean: a run of {widest.label}, by "
                     f"{plain_text(far, settings)}{unit}")  # fmt: skip
    return f"Strips of {count(runs, 'run')}. {'. '.join(parts)}."


# Sequential trace: what every look at an adaptive study saw of each row, and why it went on or stopped.


ACROSS, DOWN = 4, 7  # small plots of one figure
CELL_IN, TITLE_IN, TRACE_FRAME_IN = 1.0, 0.42, 0.1
LEFT, GAP = 0.42, 0.16  # inches: room for numbers at the left of a plot, and between plots
TITLE_CHARS, PLACE_CHARS = 24, 26
BOUNDARY = "#8A8A8A"


@dataclass(frozen=True, slots=True)
class Plot:
    """One row of a table with at least one look."""

    place: str
    row: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a small plot lies, in inches, and which effects it shows."""

    x: float
    y: float
    width: float
    limit: float  # effects from -limit to +limit

    def up(self, value: float) -> float:
        """Effects beyond the frame end at its edge."""
        return self.y + CELL_IN * (max(-1.0, min(1.0, value / self.limit)) + 1) / 2

    def across(self, look: int, looks: int) -> float:
        return self.x + self.width * (look + 0.5) / looks


def trace_sketches(findings: Findings) -> list[Sketch]:
    """As many figures as needed; none in a fixed design."""
    if len(findings.settings.looks) < 2:
        return []
    plots = [
        Plot(short_name(table.key) + (f", {cell.column}" if cell.column else ""), cell.row, cell.effect)
        for table in findings.tables
        for cell in ordered(table)
        if cell.effect and any(look.low is not None for look in cell.effect.trace)
    ]
    data = twin(_trace_line(plot, look) for plot in plots for look in plot.effect.trace)
    pages = [plots[start : start + ACROSS * DOWN] for start in range(0, len(plots), ACROSS * DOWN)]
    return [_sketch(page, findings.settings, k, "" if k else data) for k, page in enumerate(pages)]


def _sketch(page: Sequence[Plot], settings: Settings, number: int, data: str) -> Sketch:
    rows = -(-len(page) // ACROSS)
    height = TRACE_FRAME_IN + rows * (TITLE_IN + CELL_IN + 0.2)
    figure = new_figure(height)
    figure.set_layout_engine("none")  # one plane, in inches: a hundred axes would take seconds
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set_xlim(0, WIDTH_IN)
    ax.set_ylim(0, height)
    ax.set_axis_off()
    width = WIDTH_IN / ACROSS - LEFT - GAP
    for k, plot in enumerate(page):
        x = (k % ACROSS) * WIDTH_IN / ACROSS + LEFT
        y = height - (k // ACROSS + 1) * (TITLE_IN + CELL_IN + 0.2) + 0.2
        _draw_trace(ax, Frame(x, y, width, _limit(plot.effect, settings)), plot, settings)
    return Sketch(
        key=f"looks_{number + 1}" if number else "looks",
        figure=figure,
        caption=_trace_caption(settings),
        alt=_trace_alt(page, settings),
        data=data,
    )


def _limit(effect: Effect, settings: Settings) -> float:
    """The last look fills most of its frame; the wider intervals of the first ones may be cut."""
    seen = [look for look in effect.trace if look.low is not None]
    ends = [seen[-1].low, seen[-1].high, seen[-1].boundary_low, seen[-1].boundary_high]
    return 1.15 * max([settings.smallest_effect_pp, *(abs(end) for end in ends if end is not None)])


def _draw_trace(ax: Axes, frame: Frame, plot: Plot, settings: Settings) -> None:
    delta, edge = settings.smallest_effect_pp, frame.x + frame.width
    ax.fill_between([frame.x, edge], frame.up(-delta), frame.up(delta), color="#EDEDED", linewidth=0)
    ax.plot([frame.x, edge], [frame.up(0)] * 2, color=GREY, linewidth=0.8)
    ax.plot([frame.x, frame.x, edge], [frame.y + CELL_IN, frame.y, frame.y], color=FAINT, linewidth=0.8)
    looks = settings.looks
    at = {look.seeds: frame.across(looks.index(look.seeds), len(looks)) for look in plot.effect.trace}
    _boundaries(ax, frame, plot.effect.trace, at)
    colour = verdict_colour(plot.effect.verdict)
    seen = [look for look in plot.effect.trace if look.low is not None and look.high is not None]
    bars = [[(at[k.seeds], frame.up(k.low or 0.0)), (at[k.seeds], frame.up(k.high or 0.0))] for k in seen]
    ax.add_collection(LineCollection(bars, colors=[colour], linewidths=1.8, zorder=3))
    known = [(at[k.seeds], k.estimate) for k in seen if k.estimate is not None]
    dots = [(x, frame.up(value)) for x, value in known if abs(value) <= frame.limit]
    ax.plot(
        [x for x, _ in dots], [y for _, y in dots], "o", color=colour, markersize=3.5, linewidth=0, zorder=4
    )
    for k, seeds in enumerate(looks):
        x = frame.across(k, len(looks))
        ax.text(x, frame.y - 0.03, str(seeds), ha="center", va="top", fontsize=7.5)
    for value in (-frame.limit / 1.15, frame.limit / 1.15):
        ax.text(frame.x - 0.04, frame.up(value), _short(value), ha="right", va="center", fontsize=7.5)
    _title(ax, frame, plot)


def _boundaries(ax: Axes, frame: Frame, trace: Sequence[LookResult], at: dict[int, float]) -> None:
    """Only where they lie inside the frame."""
    for name in ("boundary_low", "boundary_high"):
        ends = [(at[look.seeds], getattr(look, name)) for look in trace]
        inside = [(x, frame.up(end)) for x, end in ends if end is not None and abs(end) <= frame.limit]
        if inside:
            ax.plot(*zip(*inside, strict=True), color=BOUNDARY, linewidth=0.9, linestyle="--", marker="_",
                    markersize=6, zorder=2)  # fmt: skip


def _title(ax: Axes, frame: Frame, plot: Plot) -> None:
    effect = plot.effect
    ended = f" at {effect.settled_at}" if effect.settled_at is not None else ""
    row = textwrap.shorten(plot.row, TITLE_CHARS - len(ended), placeholder=" ...")
    top, left = frame.y + CELL_IN + 0.09, frame.x - LEFT + 0.12
    ax.text(
        left,
        top + 0.14,
        textwrap.shorten(plot.place, PLACE_CHARS, placeholder=" ..."),
        fontsize=7.5,
        color=GREY,
    )
    text = f"{GLYPHS[effect.verdict]} {row}{ended}"
    ax.text(left, top, text, fontsize=8, color=INK)


def _short(value: float) -> str:
    return f"{value:+.2g}".replace("-", "\u2212")


def _trace_caption(settings: Settings) -> str:
    unit = " in pp" if settings.in_percent else ""
    delta = size_text(settings.smallest_effect_pp, settings)
    return (
        f"Why each row stopped where it did: the effect on {metric_name(settings.metric)}{unit} (dot) with "
        "its repeated interval (bar) at every look, by seeds per row; the frame may cut wide ones. Dashed: "
        "the boundaries; a dot beyond one settles the row as helps or hurts. "
        f"Grey band: ±{delta}, the smallest effect of interest. “at 5”: settled with 5 seeds. "
        "Numbers: figures/looks.csv."
    )


def _trace_alt(page: Sequence[Plot], settings: Settings) -> str:
    parts = []
    for plot in page:
        last = [look for look in plot.effect.trace if look.low is not None][-1]
        ended = "open" if plot.effect.settled_at is None else f"settled at {plot.effect.settled_at} seeds"
        value = DASH if last.estimate is None else plain_text(last.estimate, settings)
        parts.append(f"{plot.place}, {plot.row}: {plot.effect.verdict}, {ended}, last estimate {value}")
    return f"Looks at {count(len(page), 'row')}. {'; '.join(parts)}."


def _trace_line(plot: Plot, look: LookResult) -> dict[str, object]:
    return {
        "table": plot.place, "row": plot.row, "versus": plot.effect.versus, "seeds": look.seeds,
        "estimate": look.estimate, "low": look.low, "high": look.high, "boundary_low": look.boundary_low,
        "boundary_high": look.boundary_high, "verdict": look.verdict, "settled_at": plot.effect.settled_at,
    }  # fmt: skip


# The figures of the appendix, each drawn only where its data exist.


def further_parts(report: ReportInput) -> list[Callable[[], list[Picture]]]:
    """What draws them, kind by kind, in the order of the appendix."""
    findings = report.findings
    curves = report.curves[report.curves["seed"].isin(report.plan.seeds)]
    kinds = (
        lambda: budget_sketches(report),
        lambda: filter(None, [resolvable_sketch(findings)]),
        lambda: trace_sketches(findings),
        lambda: seed_sketches(findings),
        lambda: gain_sketches(findings, curves),
        lambda: flip_sketches(findings),
    )
    return [partial(_drawn, kind) for kind in kinds]


def _drawn(sketches: Callable[[], Iterable[Sketch]]) -> list[Picture]:
    return [_finished(sketch) for sketch in sketches()]


def _finished(sketch: Sketch) -> Picture:
    picture = finish(sketch.key, None, sketch.figure, (sketch.caption, sketch.alt))
    return replace(picture, further=True, data=sketch.data)


def draw_all(report: ReportInput) -> list[Picture]:
    """Every figure, in the order of the report."""
    with house_style(text_of(report.plan)):
        if from_file(report.plan) is not None and len(report.plan.runs) > MOST_DRAWN:
            return _scoreboard(report.findings)
        tables = [partial(_of_table, report, table) for table in report.findings.tables]
        study = [partial(_scoreboard, report.findings), *tables, partial(_of_study, report)]
        return draw_side_by_side([*study, *further_parts(report)])


def draw_table(report: ReportInput, table: TableFinding) -> list[Picture]:
    """The figures of one table, its effects first."""
    alone = replace(report.findings, tables=(table,))
    with house_style(text_of(report.plan)):
        effects = [
            replace(each, key=f"{table.key}_effects", table=table.key) for each in _scoreboard(alone)[:1]
        ]
        return [*effects, *_of_table(report, table)]


def _scoreboard(findings: Findings) -> list[Picture]:
    parts = boards(findings)
    caption = scoreboard_caption(findings, parts) if parts else ""
    return [
        _picture(_page_key(SCOREBOARD, page), None, draw_board(part), (caption, scoreboard_alt(part)))
        for page, part in enumerate(parts)
    ]


def _of_table(report: ReportInput, table: TableFinding) -> list[Picture]:
    return [*_curves(report, table), *credit_pictures(table, report.findings.settings)]


def _curves(report: ReportInput, table: TableFinding) -> list[Picture]:
    """Over epochs; over steps where the table has a target. Only runs of the planned seeds."""
    curves = report.curves[report.curves["seed"].isin(report.plan.seeds)]
    speed = next((each for each in report.findings.speed if each.table == table.key), None)
    panels = panels_of(table, curves) if speed is None else panels_of(table, curves, STEP)
    if sum(map(len, panels.values())) < 2:  # one curve alone compares nothing
        return []
    if speed is None:
        text = curves_caption(table, panels), curves_alt(panels)
        return [_picture(f"{table.key}_curves", table.key, draw_curves(panels), text)]
    targets = {panel.column or "": panel.target_top1 for panel in speed.panels}
    known = {title: level for title, level in targets.items() if level is not None}
    text = steps_caption(table, panels), curves_alt(panels)
    return [_picture(steps_key(table.key), None, draw_curves(panels, STEP, known), text)]


def steps_key(table: str) -> str:
    """The key of the figure of accuracy against steps of a table with a target."""
    return f"{table}_steps"


def _page_key(key: str, page: int) -> str:
    return f"{key}_{page + 1}" if page else key


def _of_study(report: ReportInput) -> list[Picture]:
    findings = report.findings
    pictures = []
    cells = valued_cells(findings) if findings.settings.comparable_to_paper else []
    for page, start in enumerate(range(0, len(cells), MOST_VALUES)):
        part = cells[start : start + MOST_VALUES]
        values = draw_values(findings, part)
        if values is not None:
            text = VALUES_CAPTION, values_alt(findings, part)
            pictures.append(_picture(_page_key("paper_values", page), None, values, text))
    if from_file(report.plan) is not None:  # its runs were not planned: each has a line
        return pictures
    text = matrix_caption(report), matrix_alt(report)
    for page, lines in enumerate(matrix_pages(report)):
        pictures.append(_picture(_page_key("runs", page), None, draw_matrix(report, lines), text))
    return pictures
