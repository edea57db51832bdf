"""The record of a run that has ended, as short as readers accept it: a spec and a summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.runs.folder import RunFolder, write_json
from harness.spec import FINISHED, RunSpec


def end(
    folder: RunFolder,
    spec: RunSpec,
    status: str = FINISHED,
    metrics: Mapping[str, float | None] | None = None,
    **about: Any,
) -> str:
    """Let the run end. `about`: further entries of the summary. Returns the status."""
    if not folder.spec.exists():
        write_json(folder.spec, spec.to_json())
    who = {"run_id": spec.run_id, "arm_id": spec.arm.arm_id, "seed": spec.seed}
    when = {"steps": 1, "started_s": 1.7e9, "ended_s": 1.7e9 + 1}
    write_json(folder.summary, {**who, **when, "status": status, "metrics": dict(metrics or {}), **about})
    return status
