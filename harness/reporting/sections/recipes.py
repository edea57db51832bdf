"""What lies behind each number: its recipe, every setting of it, and its runs with their curves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from statistics import median
from typing import Any

from harness.analysis.findings import CellFinding
from harness.analysis.verdicts import metric_name
from harness.reporting import document as doc
from harness.reporting import numbers as num
from harness.reporting.report_input import ReportInput, gains_at_the_end
from harness.reporting.sections.opening import statuses, with_minus
from harness.spec import FINISHED, MEMBER_STRIDE, as_plain
from harness.study.plan import Plan, PlannedRun

TITLE = "Recipes and runs"
MOST_POINTS = 24  # of a curve
MOST_RECIPES = 300
_FIRST = ("lr", "batch_size", "epochs", "optimizer", "schedule", "weight_decay")
_INTRO = (
    "Every recipe with the rows that show it, all its settings and its runs: seed, value, run id, when it "
    "ran. A run's folder has its id as name, with spec.json, events.jsonl (the log) and summary.json in it."
)


def runs_section(report: ReportInput) -> doc.Section | None:
    """One entry per recipe, in the plan's order; None where nothing is trained."""
    shown = _cells(report)
    arms = [*report.plan.all_arms][:MOST_RECIPES]
    if not arms:
        return None
    recorded = {str(row["run_id"]): row for row in report.records.to_dict("records")}
    curves = _curves(report)
    planned: dict[str, list[PlannedRun]] = {}
    for run in report.plan.runs:
        planned.setdefault(run.arm_id, []).append(run)
    status = statuses(report)
    recipes = []
    for arm_id in arms:
        lines = [
            _run(report, run, recorded.get(run.run_id, {}), (status[run.run_id], curves.get(run.run_id, ())))
            for run in planned.get(arm_id, [])
        ]
        recipes.append(
            doc.RecipeRuns(
                target=doc.arm_target(arm_id),
                name=doc.arm_name(report.plan, arm_id),
                says=tuple(_says(cell) for cell in shown.get(arm_id, [])),
                settings=settings_text(report.plan, arm_id),
                brief=brief_text(report.plan, arm_id),
                runs=tuple(lines),
            )
        )
    blocks: list[doc.Block] = [doc.Note(_INTRO), doc.RunsBlock(tuple(recipes))]
    left = len(report.plan.all_arms) - len(arms)
    if left:
        blocks.insert(1, doc.Note(f"{num.count(left, 'further recipe')}: in report.json."))
    return doc.Section(TITLE, tuple(blocks))


def settings_text(plan: Plan, arm_id: str) -> str:
    """Every setting of a recipe in one line, what a reader asks for most often first; of a script, its
    command."""
    if arm_id in plan.scripts:
        return plan.scripts[arm_id].line
    arm = plan.arms[arm_id]
    flat = doc.flatten(as_plain(arm.recipe))
    names = [*(name for name in _FIRST if name in flat), *(name for name in flat if name not in _FIRST)]
    said = [f"{name} {flat[name]}" for name in names if flat[name] not in ("none", "not set")]
    tricks = [
        trick.name + "".join(f", {key} {doc.setting_text(value)}" for key, value in trick.options.items())
        for trick in arm.tricks
    ]
    said += [f"trick {name}" for name in tricks]
    said += [f"teacher {doc.arm_name(plan, arm.teacher)}"] if arm.teacher else []
    said += [f"starts from {doc.arm_name(plan, arm.source)}"] if arm.source else []
    return "; ".join(said)


def brief_text(plan: Plan, arm_id: str) -> str:
    """The settings that a reader asks for most often, and the tricks; all of them are in report.json."""
    if arm_id in plan.scripts:
        return settings_text(plan, arm_id)
    arm = plan.arms[arm_id]
    flat = doc.flatten(as_plain(arm.recipe))
    said = [f"{name} {flat[name]}" for name in _FIRST if flat.get(name, "none") not in ("none", "not set")]
    return "; ".join([*said, *(f"trick {trick.name}" for trick in arm.tricks)])


def _cells(report: ReportInput) -> dict[str, list[tuple[str, CellFinding]]]:
    """arm_id -> the tables and cells that show it."""
    found: dict[str, list[tuple[str, CellFinding]]] = {}
    for table in report.findings.tables:
        for cell in table.cells:
            if cell.arm_id is not None:
                found.setdefault(cell.arm_id, []).append((table.key, cell))
    return found


def _says(shown: tuple[str, CellFinding]) -> tuple[str, str]:
    key, cell = shown
    return doc.short_name(key), with_minus(cell.sentence)


def _curves(report: ReportInput) -> dict[str, tuple[float, ...]]:
    """run_id -> its validation accuracy over training, at most `MOST_POINTS` points."""
    if "val_top1" not in report.curves:
        return {}
    kept = report.curves[report.curves["val_top1"].between(0.0, 100.0)]
    found = {}
    for run_id, rows in kept.sort_values("epoch", kind="stable").groupby("run_id"):
        values = [float(value) for value in rows["val_top1"]]
        step = max(1, -(-len(values) // MOST_POINTS))
        found[str(run_id)] = tuple(values[::-1][::step][::-1])
    return found


def _run(
    report: ReportInput, run: PlannedRun, row: Mapping[Any, Any], what: tuple[str, tuple[float, ...]]
) -> doc.RunLine:
    status, curve = what
    metric = report.findings.settings.metric
    value = row.get(metric)
    digits = num.MOST_DIGITS if report.findings.settings.in_percent else None
    said = f"{metric_name(metric)} {num.number(value, digits)}" if num.is_number(value) else status
    member = run.seed // MEMBER_STRIDE
    log = [f"member {member + 1} of an ensemble"] if member else []
    return doc.RunLine(run.run_id, run.seed, said, "; ".join([*log, *_log(status, row)]), curve)


def _log(status: str, row: Mapping[Any, Any]) -> list[str]:
    """When and where a run ran, and what became of it."""
    said = [] if status == FINISHED else [status]
    started, ended = row.get("started_s"), row.get("ended_s")
    if num.is_number(started) and num.is_number(ended):
        first, last = (datetime.fromtimestamp(each, UTC) for each in (started, ended))
        said.append(f"{first:%Y-%m-%d %H:%M:%S} to {last:%H:%M:%S} UTC")
    if num.is_number(row.get("train_time_s")):
        said.append(f"{num.duration(row['train_time_s'])} of training")
    if num.is_number(row.get("attempts")) and row["attempts"] > 1:
        said.append(num.count(int(row["attempts"]), "attempt"))
    if isinstance(row.get("device"), str):
        said.append(row["device"])
    return said


def last_quarter(report: ReportInput) -> list[doc.Block]:
    """Whether the trainings had flattened when they ended."""
    gains = gains_at_the_end(report.curves)
    if not gains:
        return []
    ends = (min(gains, key=lambda arm: gains[arm]), max(gains, key=lambda arm: gains[arm]))
    least, most = (f"{num.signed(gains[arm], 1)} ({doc.arm_name(report.plan, arm)})" for arm in ends)
    middle = num.signed(median(gains.values()), 1)
    return [
        doc.Paragraph(
            f"The last quarter of training changed top-1 by {middle} pp in the median of "
            f"{num.count(len(gains), 'recipe')}, from {least} to {most}. Where this is much, a longer "
            "training would move levels, and may move effects."
        )
    ]
