"""Where every number comes from: versions, data, what distinguishes the recipes, and each run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from harness.analysis.units import metric_name
from harness.reporting.cells import NUMBER, TEXT, Table, plain_table
from harness.reporting.document import Block, Definitions, Paragraph, Section
from harness.reporting.inputs import ReportInput
from harness.reporting.names import arm_name, flatten, percent_suffix, run_name, setting_text
from harness.reporting.numbers import DASH, MOST_DIGITS, duration, is_number, number
from harness.reporting.sections.observers import observed
from harness.reporting.sections.shortfalls import NOT_RUN
from harness.study.spec import Arm

RUN_ID_DIGITS = 12  # shown; report.json has all of them


def provenance(report: ReportInput) -> Section:
    """Versions and fingerprints, the recipes and the runs."""
    blocks: list[Block] = []
    if report.provenance:
        blocks.append(Definitions(tuple(sorted(flatten(report.provenance).items()))))
    if report.plan.arms:
        baseline = baseline_arm(report)
        text = f"The recipes as trained here. The baseline is “{arm_name(report.plan, baseline)}”."
        blocks += [Paragraph(text), _baseline_table(report, baseline), _differences_table(report, baseline)]
    return Section("Provenance", (*blocks, _runs_table(report)))


def baseline_arm(report: ReportInput) -> str:
    """The first arm in reading order that is trained."""
    arms = report.plan.arms
    shown = (cell.arm_id for table in report.plan.tables for cell in table.cells if cell.arm_id)
    return next((arm_id for arm_id in (*shown, *arms) if not arms[arm_id].observes), next(iter(arms)))


def _flat_arm(arm: Arm) -> dict[str, str]:
    flat = flatten(dataclasses.asdict(arm.recipe))
    names = [trick.name + (f"({_options(trick.options)})" if trick.options else "") for trick in arm.tricks]
    return flat | {"tricks in training": ", ".join(names) or "none"}


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={setting_text(value)}" for key, value in options.items())


def _baseline_table(report: ReportInput, baseline: str) -> Table:
    rows = [[key, value] for key, value in _flat_arm(report.plan.arms[baseline]).items()]
    return plain_table("baseline", "Every setting of the baseline.", {"Setting": TEXT, "Value": TEXT}, rows)


def _differences_table(report: ReportInput, baseline: str) -> Table:
    plan = report.plan
    base = _flat_arm(plan.arms[baseline])
    rows = []
    for arm_id, arm in plan.arms.items():
        flat = _flat_arm(arm)
        keys = dict.fromkeys([*base, *flat])
        changes = [
            f"{key}: {base.get(key, 'not set')} → {flat.get(key, 'not set')}"
            for key in keys
            if base.get(key) != flat.get(key)
        ]
        if arm.teacher:
            changes.append(f"teacher: {arm_name(plan, arm.teacher)}")
        if arm.source:
            changes.append(f"starts from the weights of: {arm_name(plan, arm.source)}")
        if arm.observes:
            changes.append(f"trains nothing, evaluates: {observed(plan, arm)}")
        changes += [f"plugin {name}: sha256 {digest[:12]}" for name, digest in sorted(arm.plugins.items())]
        rows.append([arm_name(plan, arm_id), "; ".join(changes) or "the baseline"])
    titles = {"Recipe": TEXT, "Differs from the baseline in": TEXT}
    return plain_table("recipes", "What each recipe changes.", titles, rows)


def _runs_table(report: ReportInput) -> Table:
    settings = report.findings.settings
    metric, digits = settings.metric, MOST_DIGITS if settings.in_percent else None
    records = {str(row["run_id"]): row for row in report.records.to_dict("records")}
    rows = []
    for run in report.plan.runs:
        record = records.get(run.run_id, {})
        value, time_s = record.get(metric), record.get("train_time_s")
        rows.append(
            [
                run_name(report.plan, run),
                str(run.seed),
                run.run_id[:RUN_ID_DIGITS],
                str(record.get("status", NOT_RUN)),
                number(value, digits) if is_number(value) else DASH,
                duration(time_s) if is_number(time_s) else DASH,
            ]
        )
    result = f"{metric_name(metric)}{percent_suffix(metric)}"
    titles = {"Run": TEXT, "Seed": NUMBER, "Id": TEXT, "Status": TEXT, result: NUMBER, "Training": NUMBER}
    return plain_table("runs", "Every run of the plan.", titles, rows)
