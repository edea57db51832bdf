"""How an amount is written: accuracies in percent and percentage points, any other metric as it is."""

from __future__ import annotations

from harness.analysis.findings import Settings

METRIC_NAMES = {"top1": "top-1", "top5": "top-5"}


def metric_name(metric: str) -> str:
    """`top1` -> `top-1`; other metrics keep their name.

    >>> metric_name("top5"), metric_name("macro_f1")
    ('top-5', 'macro f1')
    """
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def level_text(value: float, settings: Settings) -> str:
    """A mean with its metric, for example "70.10 % top-1" or "macro f1 0.7123"."""
    name = metric_name(settings.metric)
    return f"{plain_text(value, settings)} % {name}" if settings.in_percent else f"{name} {value:.4g}"


def effect_text(value: float, settings: Settings) -> str:
    """A difference with its sign and unit, for example "+0.31 pp" or "+0.0123"."""
    return f"{value:+.2f} pp" if settings.in_percent else f"{value:+.4g}"


def size_text(value: float, settings: Settings) -> str:
    """A declared size without a sign, for example "0.2 pp"."""
    return f"{value:g} pp" if settings.in_percent else f"{value:g}"


def plain_text(value: float, settings: Settings) -> str:
    """A number without a unit: two decimals of a percentage, else four significant digits."""
    return f"{value:.2f}" if settings.in_percent else f"{value:.4g}"


def interval_text(low: float, high: float, settings: Settings) -> str:
    """For example "[0.12, 0.50]"."""
    return f"[{plain_text(low, settings)}, {plain_text(high, settings)}]"
