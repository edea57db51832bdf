"""Which data sets are ready on this machine."""

from __future__ import annotations

from collections.abc import Iterator

from harness.commands.checks.base import FAIL, OK, Finding
from harness.commands.workspace import Workspace
from harness.data import DATASETS


def data(place: Workspace) -> Iterator[Finding]:
    """One line per data set. One that is not here is no fault: only studies that use it need it."""
    for name, entry in sorted(DATASETS.items()):
        try:
            missing = entry.missing(entry.args, place.data_dir)
        except (OSError, ValueError) as error:
            mend = f"put it anew into {place.data_dir}, or --data DIR"
            yield Finding(f"data {name}", FAIL, str(error), mend)
            continue
        if missing is None:
            yield Finding(f"data {name}", OK, "ready")
        else:
            says = "not here; only studies that use it need it (`harness data` says what to put where)"
            yield Finding(f"data {name}", OK, says, missing)
