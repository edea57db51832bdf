"""Answers to the questions of a paper checklist, each from the inputs of this report.

Questions: NeurIPS Paper Checklist (2024), "Experiment statistical significance" (error bars: what varies, how
they are computed), "Experiments compute resources" (type of compute, amount per run and in total),
"Experimental setting" (seeds), "Open access to data and code".
"""

from __future__ import annotations

from harness.analysis.units import metric_name
from harness.reporting.costs import Cost, study_cost
from harness.reporting.document import Block, Definitions, Paragraph
from harness.reporting.inputs import ReportInput
from harness.reporting.names import setting_text
from harness.reporting.numbers import count, duration, number
from harness.study.records import DIVERGED, ENDED

NOT_MEASURED = "not measured"
DIGITS = 12  # of a fingerprint
_OWN_TRAINERS = " Rows that a plugin's own function trains vary in what that function draws from the seed."


def checklist(report: ReportInput) -> list[Block]:
    """One answer per question."""
    answers = (
        ("Error bars", _error_bars(report)),
        ("Seeds", _seeds(report)),
        ("Selection", _selection(report)),
        ("Compute", _compute(report)),
        ("Code and data", _sources(report)),
    )
    return [Paragraph("Answers to a paper checklist, written from the records:"), Definitions(answers)]


def cost_text(cost: Cost) -> str:
    """For example "41.2 GPU-hours (measured energy: 1,200 kJ)"."""
    hours = "device-hours not known"
    if cost.device_hours is not None:
        digits = 1 if cost.device_hours >= 1 else 3
        hours = f"{number(cost.device_hours, digits)} {cost.unit}"
    return f"{hours}; energy: {energy_text(cost)}"


def energy_text(cost: Cost) -> str:
    return NOT_MEASURED if cost.energy_kj is None else f"{number(cost.energy_kj, 1)} kJ"


def _error_bars(report: ReportInput) -> str:
    metric, arms = metric_name(report.findings.settings.metric), report.plan.arms.values()
    if not any(cell.level and cell.level.sd is not None for t in report.findings.tables for cell in t.cells):
        return "None: no row has two seeds with a value."
    own_trainers = any(arm.recipe.trainer != "harness" for arm in arms)
    return (
        f"“±” is the standard deviation of {metric} over seeds; intervals are 95 % t intervals over "
        "re-training, which assume roughly normal noise. What varies from seed to seed: initial weights, "
        "order of the images, augmentation and every other random draw of training. What does not: the split "
        "into training and test images." + _OWN_TRAINERS * own_trainers
    )


def _seeds(report: ReportInput) -> str:
    plan = report.plan
    arms = [arm_id for arm_id in plan.arms if arm_id in {c.arm_id for t in plan.tables for c in t.cells}]
    counts = {len(plan.seeds_of(arm_id)) for arm_id in arms} or {len(plan.seeds)}
    first, last = min(plan.seeds), max(plan.seeds)
    which = f"{first} to {last}" if last > first else str(first)
    if len(counts) == 1:
        return f"{count(counts.pop(), 'seed')} for every row ({which}), the same for all rows."
    return f"{min(counts)} to {max(counts)} per row, each row the first of {which}."


def _selection(report: ReportInput) -> str:
    status = list(report.records["status"])
    ended = sum(each in ENDED for each in status)
    diverged = status.count(DIVERGED)
    return (
        f"No run was picked: {ended} of {count(len(report.plan.runs), 'planned run')} ended"
        + (f", {diverged} of them diverged," if diverged else "")
        + " and all of them are counted. No hyper-parameter was tuned on these results by the harness."
    )


def _compute(report: ReportInput) -> str:
    cost = study_cost(report.records)
    on = _machine(report)
    if not cost.runs:
        return f"{on}No run has ended."
    trained = [not report.plan.arms[arm_id].observes for arm_id in report.records["arm_id"]]
    time_s = study_cost(report.records[trained]).time_s
    mean = "not recorded" if time_s is None else f"{duration(time_s)}"
    return f"{on}Training time of one run, mean: {mean}. All {count(cost.runs, 'run')}: {cost_text(cost)}."


def _machine(report: ReportInput) -> str:
    found = report.provenance
    if not found.get("device"):
        return "Device not recorded. "
    cores, memory_gb = found.get("cores"), found.get("memory_gb")
    beside = [f"{setting_text(cores)} CPU cores"] if cores else []
    beside += [f"{setting_text(memory_gb)} GB memory"] if memory_gb else []
    return setting_text(found["device"]) + (f" ({', '.join(beside)})" if beside else "") + ". "


def _sources(report: ReportInput) -> str:
    found = report.provenance
    parts = []
    for name, title in (("code", "Code"), ("commit", "Commit"), ("data_fingerprint", "Data fingerprint")):
        if found.get(name):
            values = found[name] if isinstance(found[name], list) else [found[name]]
            shown = [str(each)[:DIGITS] if name == "data_fingerprint" else str(each) for each in values]
            parts.append(f"{title}: {setting_text(shown)}.")
    return " ".join(parts) or "Not recorded."
