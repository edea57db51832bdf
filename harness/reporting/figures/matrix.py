"""Run matrix: every recipe and seed of the plan, and what became of it."""

from __future__ import annotations

import textwrap
from collections import Counter

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from harness.reporting.figures.style import new_figure
from harness.reporting.inputs import ReportInput
from harness.reporting.names import arm_name
from harness.reporting.numbers import count
from harness.reporting.sections.shortfalls import NOT_RUN, statuses
from harness.study.records import DIVERGED, FAILED, FINISHED

ROW_IN, FRAME_IN = 0.235, 0.85
LABEL_CHARS = 52
CELL_ASPECT = 1.0

# status -> (fill, ink, glyph); dark enough apart in grey, and the glyph says it without colour
LOOKS = {
    FINISHED: ("#CFE3F1", "#0B3C5D", "✓"),
    DIVERGED: ("#D55E00", "#000000", "✗"),
    FAILED: ("#3A3A3A", "#FFFFFF", "!"),
    NOT_RUN: ("#FFFFFF", "#5F5F5F", "·"),
}
OTHER = ("#F5E6A8", "#000000", "…")


def draw_matrix(report: ReportInput) -> Figure:
    """Recipes down, seeds across."""
    plan = report.plan
    status = statuses(report)
    arms = list(dict.fromkeys(arm for arm in plan.arms if any(run.arm_id == arm for run in plan.runs)))
    seeds = sorted({run.seed for run in plan.runs})
    row, column = {arm: i for i, arm in enumerate(arms)}, {seed: i for i, seed in enumerate(seeds)}
    figure = new_figure(FRAME_IN + ROW_IN * len(arms))
    ax = figure.add_subplot()
    for run in plan.runs:
        fill, ink, glyph = LOOKS.get(status[run.run_id], OTHER)
        x, y = column[run.seed], row[run.arm_id]
        ax.add_patch(
            Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=fill, edgecolor="#8A8A8A", linewidth=0.4)
        )
        ax.text(x, y, glyph, color=ink, ha="center", va="center", fontsize=8)
    labels = [textwrap.shorten(arm_name(plan, arm), LABEL_CHARS, placeholder=" ...") for arm in arms]
    ax.set_yticks(range(len(arms)), labels, fontsize=8)
    ax.set_xticks(range(len(seeds)), [str(seed) for seed in seeds])
    ax.set_xlim(-0.6, max(len(seeds), 8) - 0.4)
    ax.set_ylim(len(arms) - 0.4, -0.6)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_xlabel("Seed", loc="left")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure


def matrix_caption(report: ReportInput) -> str:
    """The counts and the meaning of the glyphs that occur."""
    found = Counter(statuses(report).values())
    legend = ", ".join(
        f"{LOOKS.get(status, OTHER)[2]} {status} ({n})"
        for status, n in sorted(found.items(), key=lambda x: -x[1])
    )
    return f"Runs of the plan by recipe and seed: {legend}."


def matrix_alt(report: ReportInput) -> str:
    """The counts in words, and which runs did not finish."""
    status = statuses(report)
    bad = [
        f"{arm_name(report.plan, run.arm_id)} seed {run.seed} {status[run.run_id]}"
        for run in report.plan.runs
        if status[run.run_id] != FINISHED
    ]
    text = f"Matrix of {count(len(status), 'run')}: {len(status) - len(bad)} finished."
    return text + (f" Others: {'; '.join(bad)}." if bad else "")
