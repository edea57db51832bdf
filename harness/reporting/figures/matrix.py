"""Run matrix: every recipe and seed of the plan, and what became of it."""

from __future__ import annotations

import textwrap
from collections import Counter

from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D, IdentityTransform

from harness.reporting.figures.style import new_figure
from harness.reporting.inputs import ReportInput
from harness.reporting.names import arm_name, run_name
from harness.reporting.numbers import count
from harness.reporting.sections.shortfalls import NOT_RUN, statuses
from harness.study.plan import Plan, PlannedRun
from harness.study.records import DIVERGED, FAILED, FINISHED
from harness.study.spec import MEMBER_STRIDE

ROW_IN, FRAME_IN = 0.235, 0.85
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

Line = tuple[str, int]  # an arm, and which member of an ensemble (0: the row's own runs)


def matrix_pages(report: ReportInput) -> list[list[Line]]:
    """The lines of every figure: recipes in the plan's order, further members below their recipe."""
    order = {arm: place for place, arm in enumerate(report.plan.arms)}
    lines = sorted({_line(run) for run in report.plan.runs}, key=lambda line: (order[line[0]], line[1]))
    return [lines[start : start + MOST_ROWS] for start in range(0, len(lines), MOST_ROWS)]


def draw_matrix(report: ReportInput, lines: list[Line]) -> Figure:
    """Recipes down, seeds across. Further members of an ensemble stand in a line of their own."""
    status = statuses(report)
    seeds = sorted({run.seed % MEMBER_STRIDE for run in report.plan.runs})
    row, column = {line: i for i, line in enumerate(lines)}, {seed: i for i, seed in enumerate(seeds)}
    figure = new_figure(FRAME_IN + ROW_IN * len(lines))
    ax = figure.add_subplot()
    cells = [(_line(run), run.seed % MEMBER_STRIDE, status[run.run_id]) for run in report.plan.runs]
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


def _stopped(plan: Plan) -> list[tuple[Line, int, str]]:
    """The seeds that recipes did not get and others did: (line, seed, state)."""
    return [
        ((arm_id, 0), seed, STOPPED)
        for arm_id, planned in plan.arm_seeds.items()
        for seed in plan.seeds[planned:]
    ]


def _line(run: PlannedRun) -> Line:
    return run.arm_id, run.seed // MEMBER_STRIDE


def _label(report: ReportInput, line: Line) -> str:
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
