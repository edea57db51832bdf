"""The report as data: every finding and every run, in one canonical text."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from harness.reporting.costs import arm_costs, study_cost
from harness.reporting.inputs import ReportInput
from harness.reporting.sections.amendments import declaration_json

SCHEMA_VERSION = 1
RUN_FIELDS = (
    "run_id", "arm_id", "seed", "status", "attempts", "top1", "top5", "loss", "train_loss", "train_time_s",
    "epochs", "steps", "images_seen", "test_images", "params", "macs", "model", "precision", "batch_size",
    "data", "data_fingerprint", "device", "threads", "torch", "wall_time_s", "energy_j", "started_s",
    "ended_s",
)  # fmt: skip


def to_json(report: ReportInput) -> str:
    """Keys: schema, title, study, size, header, notes, looks, arm_seeds, findings, claims, speed, arms, runs,
    provenance, declaration, costs.

    Keys are sorted, numbers are exact, absent numbers are null. When it was written is not in it, and no
    tracking id, so the same inputs give the same bytes. `runs` has every run of the plan, in the plan's
    order, with the metrics of plugins. docs/json.md lists the keys of `claims` and `speed`.
    """
    plan = report.plan
    arms = {
        arm_id: {"label": plan.arm_labels.get(arm_id), **dataclasses.asdict(arm)}
        for arm_id, arm in plan.arms.items()
    }
    findings = dataclasses.asdict(report.findings)
    for cell in (cell for table in findings["tables"] for cell in table["cells"] if cell["level"]):
        del cell["level"]["without_value"]  # a part of `missing`, and `missing_reason` says it
    claims, speed = findings.pop("claims"), findings.pop("speed")
    data = {
        "schema": SCHEMA_VERSION,
        "title": report.title,
        "study": report.findings.study,
        "size": report.findings.size,
        "header": plan.header,
        "notes": plan.notes,
        "looks": plan.looks,
        "arm_seeds": plan.arm_seeds,
        "findings": findings,
        "claims": [{**claim.pop("claim"), **claim} for claim in claims],
        "speed": speed,
        "arms": arms,
        "runs": _runs(report),
        "provenance": report.provenance,
        "declaration": declaration_json(report),
        "costs": {
            "study": dataclasses.asdict(study_cost(report.records)),
            "arms": {arm_id: dataclasses.asdict(cost) for arm_id, cost in arm_costs(report.records).items()},
        },
    }
    text = json.dumps(plain(data), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def _runs(report: ReportInput) -> list[dict[str, Any]]:
    records = {str(row["run_id"]): row for row in report.records.to_dict("records")}
    more = (name for arm in report.plan.arms.values() for name in arm.recipe.metrics)
    fields = tuple(dict.fromkeys((*RUN_FIELDS, *more)))
    runs = []
    for run in report.plan.runs:
        record = records.get(run.run_id, {})
        known = {key: record[key] for key in fields if key in record}
        planned = {"run_id": run.run_id, "arm_id": run.arm_id, "seed": run.seed, "status": "not run"}
        runs.append(planned | known)
    return runs


def plain(value: Any) -> Any:
    """The value in JSON's own types: text keys, lists, no NaN or infinity (they become null)."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "item"):  # a scalar of numpy
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return None if value != value else str(value)  # pandas' missing values are not equal to themselves
