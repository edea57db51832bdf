"""Whether the files of a run folder say what they should, before any of it goes into MLflow.

Run folders stand on disks that fill up, and are written by processes that are killed. A folder that cannot be
read is named, with the mend, and the others are mirrored.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.study.checked import read_quickly, reason
from harness.study.records import RunFolder
from harness.study.spec import RunSpec

NAME = re.compile(r"[A-Za-z0-9_./ -]{1,250}")  # of a metric, as MLflow takes it


class Damaged(ValueError):
    """A file of a run folder is not what a run writes. The message names it and the mend."""

    def __init__(self, path: Path, what: str, mend: str) -> None:
        super().__init__(f"{path} {what}; {mend}")


def checked_spec(folder: RunFolder, data: Any) -> RunSpec:
    """The spec of the folder.

    Raises:
        Damaged: it cannot be read, or is another run's.
    """
    mend = "`harness run` of a study that wants the run writes it again"
    try:
        spec = RunSpec.from_json(data)
        run_id = spec.run_id
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(folder.spec, f"is not the spec of a run ({reason(error)})", mend) from None
    if run_id != folder.run_id:
        raise Damaged(folder.spec, f"is the spec of another run, {run_id}", mend)
    return spec


def check_predictions(folder: RunFolder, summary: Mapping[str, Any]) -> None:
    """Raises:
    Damaged: the predictions are not those of the summary.
    """
    wanted = summary.get("predictions_sha256")
    if wanted is None:
        return
    mend = f"move {folder.summary.name} away and `harness run` does the run again"
    try:
        found = hashlib.sha256(read_quickly(folder.predictions)).hexdigest()
    except OSError as error:
        raise Damaged(folder.predictions, f"cannot be read ({reason(error)})", mend) from None
    if found != wanted:
        raise Damaged(folder.predictions, "has changed since the run ended", mend)


def is_metric(name: str) -> bool:
    """Whether MLflow takes it as the name of a curve."""
    return NAME.fullmatch(name) is not None


def clean(text: str) -> str:
    """The text without what a database cannot keep: NUL, and halves of characters."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
