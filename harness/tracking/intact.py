"""Whether the files of a run folder say what they should, before any of it goes into MLflow.

Run folders stand on disks that fill up, and are written by processes that are killed. A folder that cannot be
read is named, with the mend, and the others are mirrored.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.study.events import is_number, is_time
from harness.study.records import ENDED, RunFolder
from harness.study.spec import RunSpec

ACCURACIES = ("top1", "top5")  # percent
NUMBERS = ("steps", "ended_s", "started_s")  # of a summary, which everything else needs
NAME = re.compile(r"[A-Za-z0-9_./ -]{1,250}")  # of a metric, as MLflow takes it
AGAIN = "delete {} and `harness run` does the run again"


class Damaged(ValueError):
    """A file of a run folder is not what a run writes. The message names it and the mend."""

    def __init__(self, path: Path, what: str, mend: str) -> None:
        super().__init__(f"{path} {what}; {mend.format(path.name)}")


def checked_spec(folder: RunFolder, data: Any) -> RunSpec:
    """The spec of the folder.

    Raises:
        Damaged: it cannot be read, or is another run's.
    """
    mend = f"delete the folder {folder.path.name} and `harness run` does the run again"
    try:
        spec = RunSpec.from_json(data)
        run_id = spec.run_id
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(folder.spec, f"is not the spec of a run ({_reason(error)})", mend) from None
    if run_id != folder.run_id:
        raise Damaged(folder.spec, f"is the spec of another run, {run_id}", mend)
    return spec


def check_summary(folder: RunFolder, summary: Mapping[str, Any]) -> None:
    """Raises:
    Damaged: the summary lacks a result, or has one of another kind, or the predictions are not its own.
    """
    wrong = _wrong(summary)
    if wrong:
        raise Damaged(folder.summary, f"is damaged ({wrong})", AGAIN)
    wanted = summary.get("predictions_sha256")
    if wanted is None:
        return
    try:
        found = hashlib.sha256(folder.predictions.read_bytes()).hexdigest()
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise Damaged(folder.predictions, what, AGAIN.format(folder.summary.name)) from None
    if found != wanted:
        raise Damaged(
            folder.predictions, "has changed since the run ended", AGAIN.format(folder.summary.name)
        )


def is_metric(name: str) -> bool:
    """Whether MLflow takes it as the name of a curve."""
    return NAME.fullmatch(name) is not None


def clean(text: str) -> str:
    """The text without what a database cannot keep: NUL, and halves of characters."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _wrong(summary: Mapping[str, Any]) -> str:
    metrics = summary.get("metrics")
    if summary.get("status") not in ENDED:
        return "it does not say how the run ended"
    if not isinstance(metrics, Mapping) or not all(_is_result(value) for value in metrics.values()):
        return "its metrics are not numbers"
    for name in ACCURACIES:
        value = metrics.get(name)
        if value is not None and math.isfinite(value) and not 0 <= value <= 100:
            return f"its {name} is {value:g}, which is no percentage"
    for name in NUMBERS:
        if not is_time(summary.get(name)):
            return f"{name} is not a number"
    if not all(_is_plain(value) for name, value in summary.items() if name != "metrics"):
        return "a value is a list or a map"
    return (
        "" if isinstance(summary.get("predictions_sha256"), str | None) else "predictions_sha256 is no text"
    )


def _is_result(value: Any) -> bool:
    return value is None or is_number(value)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | bool | None) or is_number(value)


def _reason(error: Exception) -> str:
    words = (str(error).splitlines() or [""])[0]
    return f"no {words}" if isinstance(error, KeyError) else words or type(error).__name__
