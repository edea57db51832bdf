"""Everything a report is written from. Nothing else is read: no run folder, no clock, no environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.analysis.findings import Findings
from harness.study.plan import Plan

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInput:
    """The findings, and what is needed to show where they come from.

    records: one row per run; `run_id`, `arm_id`, `seed` and `status` are needed; `attempts`, `train_time_s`,
    `device`, `top1`, `top5`, `loss`, ... are shown where present.
    curves: one row per epoch of a run: `run_id`, `arm_id`, `seed`, `epoch`, `val_top1` (percent).
    provenance: versions, device, commit, data fingerprint; one level of nesting at most.
    """

    title: str
    findings: Findings
    plan: Plan
    records: DataFrame
    curves: DataFrame
    provenance: Mapping[str, Any]
