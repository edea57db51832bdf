"""Where every number comes from: versions, data, what distinguishes the recipes, and each run."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from harness.reporting.cells import NUMBER, TEXT, Table, plain_table
from harness.reporting.costs import arm_costs, study_cost
from harness.reporting.document import Block, Definitions, Paragraph, Section
from harness.reporting.inputs import ReportInput
from harness.reporting.names import arm_name, flatten, setting_text
from harness.reporting.numbers import count, duration, is_number, missing, number
from harness.reporting.raw import patch_path
from harness.reporting.sections.checklist import NOT_MEASURED, cost_text
from harness.reporting.sections.observers import observed
from harness.reporting.sections.shortfalls import statuses
from harness.study.spec import Arm, ModelSpec

RUN_ID_DIGITS = 12  # shown; report.json has all of them
NOT_RECORDED = "not recorded"
_ENERGY = (
    "of the devices, from their own counters, summed; not measured where a counter cannot be read or "
    "something else used the device."
)
TITLES = {  # key of report.provenance -> what a reader calls it, in the order of the report
    "code": "Code of the runs",
    "harness": "Report written by harness",
    "data": "Data set",
    "data_fingerprint": "Data fingerprint (sha256)",
    "data_left_out": "Files left out of the data",
    "device": "Device",
    "device_memory_gb": "Device memory, GB",
    "cpu": "CPU",
    "cores": "CPU cores a run could use",
    "memory_gb": "Memory, GB",
    "driver": "NVIDIA driver",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "os": "Operating system",
    "platform": "Kernel and C library",
    "hostname": "Hosts",
    "python": "Python",
    "torch": "PyTorch",
    "torchvision": "torchvision",
    "numpy": "NumPy",
    "threads": "Threads per process",
    "processes": "Processes per run",
    "determinism": "Determinism",
    "drawn_with": "Figures and PDF drawn with",
    "inputs": "Hash of the plan and of every summary",
    "records": "Hash of data/",
}


def provenance(report: ReportInput) -> Section:
    """Versions and fingerprints, the recipes and the runs."""
    blocks: list[Block] = [_facts(report)]
    if report.plan.arms:
        baseline = baseline_arm(report)
        text = f"The recipes as trained here. The baseline is “{arm_name(report.plan, baseline)}”."
        blocks += [Paragraph(text), _baseline_table(report, baseline), _differences_table(report, baseline)]
    costs = _costs_table(report)
    return Section("Provenance", (*blocks, *([costs] if costs else [])))


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
        other_model = arm.recipe.model.name != plan.arms[baseline].recipe.model.name
        changes = [
            f"{key}: {base.get(key, 'not set')} → {flat.get(key, 'not set')}"
            for key in keys
            if base.get(key) != flat.get(key) and not (other_model and key.startswith("model."))
        ]
        if other_model:
            changes.insert(0, _model_change(plan.arms[baseline].recipe.model, arm.recipe.model))
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


def _model_change(old: ModelSpec, new: ModelSpec) -> str:
    """Another architecture has other arguments: all of them, not the differences."""
    return f"model: {old.name} → {new.name}" + (f" with {_options(new.args)}" if new.args else "")


def _facts(report: ReportInput) -> Definitions:
    """What the report was made from, in a fixed order; a list that is empty was not recorded."""
    found = flatten(report.provenance)
    if found.get("cpu") == found.get("device"):
        found.pop("cpu", None)
    absent = [name for name in found if report.provenance.get(name) == []]
    names = [*(name for name in TITLES if name in found), *sorted(found.keys() - TITLES.keys())]
    facts = [(TITLES.get(name, name), found[name]) for name in names if name not in absent]
    if report.changes:
        facts.insert(1, ("Changed files", ", ".join(patch_path(digest) for digest in sorted(report.changes))))
    facts += [*_runs(report), ("Cost", cost_text(study_cost(report.records)))]
    if absent:
        titles = [title for name, title in TITLES.items() if name in absent]
        facts.append(("Not recorded by any run", "; ".join(titles)))
    return Definitions(tuple(facts))


def _runs(report: ReportInput) -> list[tuple[str, str]]:
    """How many runs there are, and when they were made; each of them stands in the files."""
    runs, status_of = report.plan.runs, statuses(report)
    counts = Counter(status_of[run.run_id] for run in runs)
    said = ", ".join(f"{number} {status}" for status, number in counts.most_common())
    text = f"{count(len(runs), 'run')} ({said})"
    if runs:
        text += f", ids {min(run.run_id for run in runs)[:RUN_ID_DIGITS]} ... "
        text += f"{max(run.run_id for run in runs)[:RUN_ID_DIGITS]}"
    text += "; each with seed, status, result and time in report.json and data/runs.jsonl"
    return [("Runs", text), ("Trained", _period(report))]


def _period(report: ReportInput) -> str:
    if not {"started_s", "ended_s"} <= set(report.records):
        return NOT_RECORDED
    starts = [value for value in report.records["started_s"] if is_number(value)]
    ends = [value for value in report.records["ended_s"] if is_number(value)]
    if not starts or not ends:
        return NOT_RECORDED
    first, last = (datetime.fromtimestamp(value, UTC) for value in (min(starts), max(ends)))
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def _costs_table(report: ReportInput) -> Table | None:
    """Per recipe; None where no run has ended."""
    costs = arm_costs(report.records)
    units = {cost.unit for cost in costs.values()}
    unit = units.pop() if len(units) == 1 else None
    measured = any(cost.energy_kj is not None for cost in costs.values())
    rows = []
    for arm_id in report.plan.arms:
        if arm_id not in costs:
            continue
        cost = costs[arm_id]
        hours = missing(NOT_RECORDED)
        if cost.device_hours is not None:
            hours = number(cost.device_hours, 4 if cost.device_hours < 1 else 1)
        time = missing(NOT_RECORDED) if cost.time_s is None else duration(cost.time_s)
        energy = missing(NOT_MEASURED) if cost.energy_kj is None else number(cost.energy_kj, 1)
        rows.append([arm_name(report.plan, arm_id), str(cost.runs), time, hours, *([energy] * measured)])
    titles = {"Recipe": TEXT, "Runs": NUMBER, "Training of one, mean": NUMBER}
    titles |= {unit or "Device-hours": NUMBER} | ({"Energy, kJ": NUMBER} if measured else {})
    caption = (
        "What each recipe cost. Device-hours: GPUs, or CPU cores, that a run held times its wall time, "
        "summed over its runs; a GPU that several runs share counts for each. Energy: "
    ) + (_ENERGY if measured else "not measured.")
    return plain_table("costs", caption, titles, rows) if rows else None
