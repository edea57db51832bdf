"""Several studies planned together: how many runs they need, and which of those they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.study.plan import Plan, PlannedRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Union:
    """The runs of several plans, each counted once."""

    runs: int
    done: int
    shared: int  # runs that more than one study needs
    macs: float  # multiply-adds of what is not done
    time_s: float | None  # seconds of one worker for what is not done; None: not known
    sharing: tuple[tuple[tuple[str, ...], int], ...]  # studies -> runs that just these share; most runs first


def union(plans: Sequence[Plan]) -> Union:
    """What several plans need together."""
    first: dict[str, PlannedRun] = {}
    users: dict[str, list[str]] = {}
    for plan in plans:
        for run in plan.runs:
            first.setdefault(run.run_id, run)
            users.setdefault(run.run_id, []).append(plan.study)
    todo = [run for run in first.values() if not run.done]
    times = [run.time_s for run in todo if run.time_s is not None]
    sharing = Counter(tuple(names) for names in users.values() if len(names) > 1)
    return Union(
        runs=len(first),
        done=len(first) - len(todo),
        shared=sum(sharing.values()),
        macs=sum(run.macs for run in todo),
        time_s=sum(times) if len(times) == len(todo) else None,
        sharing=tuple(sharing.most_common()),
    )


def union_to_json(found: Union) -> dict[str, Any]:
    """The key `totals` of `harness plan A B --json`, as docs/json.md says."""
    return {
        "runs": found.runs,
        "done": found.done,
        "shared": found.shared,
        "macs": found.macs,
        "time_s": found.time_s,
        "sharing": [{"studies": list(names), "runs": count} for names, count in found.sharing],
    }
