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
    declaration: what was declared and when, as `study.declared.read_history` gives it; None: not recorded.
    calibration: what `harness calibrate` measured on this machine's noise; None: not calibrated.
    left_out: the runs that are not in it because they saw other data, and what to say of them; None: none.
    changes: sha256 -> what the code of runs had changed since its commit, as a patch; None: none was kept.
    A report keeps these four under data/, so that `harness verify` can read them back.
    """

    title: str
    findings: Findings
    plan: Plan
    records: DataFrame
    curves: DataFrame
    provenance: Mapping[str, Any]
    declaration: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None
    left_out: Mapping[str, Any] | None = None
    changes: Mapping[str, str] | None = None

    @property
    def extra(self) -> Mapping[str, Mapping[str, Any] | None]:
        """Name -> what `raw.extra_files` writes beside the records."""
        return {
            "declaration": self.declaration,
            "calibration": self.calibration,
            "left_out": self.left_out,
            "changes": self.changes,
        }
