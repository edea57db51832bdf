"""The accuracy of one arm over its seeds, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from harness.analysis.findings import Level
from harness.analysis.intervals import half_width, mean
from harness.analysis.outcomes import DIVERGED, FINISHED, Outcome, is_lost, lacks_value
from harness.analysis.verdicts import too_many_diverged


def level_of(runs: Mapping[int, Outcome], seeds: Sequence[int], metric: str) -> Level:
    """Mean, sd and 95 % t interval from the arm's own runs; counts of what is not there, with the reason."""
    values = {
        seed: runs[seed].metrics[metric]
        for seed in seeds
        if seed in runs and runs[seed].status == FINISHED and metric in runs[seed].metrics
    }
    diverged = sum(seed in runs and runs[seed].status == DIVERGED for seed in seeds)
    n = len(values)
    average = float(np.mean(list(values.values()))) if n else None
    sd = low = high = None
    if n > 1:
        estimate = mean(list(values.values()))
        width = float(half_width(estimate, 0.05))
        sd = float(np.std(list(values.values()), ddof=1))
        low, high = float(estimate.value) - width, float(estimate.value) + width
    return Level(
        n=n,
        diverged=diverged,
        missing=len(seeds) - n - diverged,
        missing_reason=_missing_reason(runs, seeds, metric),
        mean=average,
        sd=sd,
        low=low,
        high=high,
        secondary=_secondary(runs, values, metric),
        values=values,
        without_value=sum(lacks_value(runs.get(seed), metric) for seed in seeds),
    )


def why_no_value(level: Level) -> str:
    """Why an arm has no value at all, in a few words."""
    parts = [f"{level.diverged} diverged"] if level.diverged else []
    return "; ".join(parts + ([level.missing_reason] if level.missing_reason else [])) or "no runs planned"


def why_too_few(level: Level, metric: str) -> str:
    """Why so many runs of an arm gave no number that nothing can be said of it; "" where they are few."""
    ended = level.n + level.lost
    if not too_many_diverged(level.lost, ended):
        return ""
    parts = [f"{level.diverged} of {ended} runs diverged"] if level.diverged else []
    if level.without_value:
        parts.append(f"{level.without_value} of {ended} runs have {no_value(metric)}")
    return ", ".join(parts)


def no_value(metric: str) -> str:
    """What is wrong with a run that finished without one."""
    return f"no finite value of {metric}"


def _secondary(runs: Mapping[int, Outcome], values: Mapping[int, float], metric: str) -> dict[str, float]:
    """Means of the other metrics over the same seeds; left out where a seed lacks one."""
    names = dict.fromkeys(name for seed in values for name in runs[seed].metrics)
    return {
        name: float(np.mean([runs[seed].metrics[name] for seed in values]))
        for name in names
        if name != metric and all(name in runs[seed].metrics for seed in values)
    }


def _missing_reason(runs: Mapping[int, Outcome], seeds: Sequence[int], metric: str) -> str | None:
    """For example "1 failed: out of memory; 2 not run yet"."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        run = runs.get(seed)
        if run is None:
            counts["not run yet"] += 1
        elif lacks_value(run, metric):
            counts[f"with {no_value(metric)}"] += 1
        elif not is_lost(run, metric) and run.status != FINISHED:
            counts[f"{run.status}: {run.reason}" if run.reason else run.status] += 1
    return "; ".join(f"{count} {what}" for what, count in sorted(counts.items())) or None
