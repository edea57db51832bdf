"""Metrics of a read-out beside top-1, top-5 and the loss, by the names that a recipe asks for."""

from __future__ import annotations

from collections.abc import Mapping

from harness.plugins import METRICS  # filled by the plugins that a run uses, in the process that trains it
from harness.study.problems import unknown
from harness.study.spec import Recipe
from harness.training.evaluate import Metric


def make_metrics(recipe: Recipe) -> Mapping[str, Metric]:
    """The recipe's metrics by name.

    Raises:
        ValueError: no plugin of the run defines one of them.
    """
    for name in recipe.metrics:
        if name not in METRICS:
            raise ValueError(unknown("metric", name, METRICS))
    return {name: METRICS[name] for name in recipe.metrics}
