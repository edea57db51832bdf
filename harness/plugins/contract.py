"""One contract suite for a whole plugin: the checks that the harness's own tables are tested with.

`IN_EVERY_SETTING` and `ONCE` (tricks), `MODEL_CHECKS`, `DATA_CHECKS` (of a `Placed`), `METRIC_CHECKS` and
`TRAINER_CHECKS` are functions of one thing that raise `Broken`; tests may call them on the harness's own
tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.plugins.checks import BROKEN, KEPT, SKIPPED, Broken, Check, Finding, Skipped, run_checks
from harness.plugins.data_contract import DATA_CHECKS, METRIC_CHECKS, TRAINER_CHECKS, Placed
from harness.plugins.errors import from_exception
from harness.plugins.load import Plugin
from harness.plugins.model_contract import CHECKS as MODEL_CHECKS
from harness.plugins.trick_contract import IN_EVERY_SETTING, ONCE, settings
from harness.tricks.base import Trick

__all__ = [
    "BROKEN",
    "DATA_CHECKS",
    "IN_EVERY_SETTING",
    "KEPT",
    "METRIC_CHECKS",
    "MODEL_CHECKS",
    "ONCE",
    "SKIPPED",
    "TRAINER_CHECKS",
    "Broken",
    "Check",
    "Finding",
    "Placed",
    "Skipped",
    "check_plugin",
    "settings",
]


def check_plugin(plugin: Plugin, data_dir: Path) -> Iterator[Finding]:
    """Every check on everything that an installed plugin names, in the order of its tables."""
    path, tables = plugin.path, plugin.tables
    for name, model in tables.models.items():
        yield from run_checks(f"model {name}", model, MODEL_CHECKS, path)
    for name, trick in tables.tricks.items():
        yield from _check_trick(name, trick, path)
    for name, entry in tables.datasets.items():
        yield from run_checks(f"data set {name}", Placed(entry, data_dir), DATA_CHECKS, path)
    for name, metric in tables.metrics.items():
        yield from run_checks(f"metric {name}", metric, METRIC_CHECKS, path)
    for name, trainer in tables.trainers.items():
        yield from run_checks(f"trainer {name}", trainer, TRAINER_CHECKS, path)


def _check_trick(name: str, trick: type[Trick], path: Path) -> Iterator[Finding]:
    try:
        default, *others = settings(trick)
    except Exception as error:
        why = str(from_exception(error, path, "making it with its defaults"))
        mend = "let its defaults be valid options"
        yield Finding(
            subject=f"trick {name}", claim="Its defaults are valid", outcome=BROKEN, why=why, mend=mend
        )
        return
    yield from run_checks(f"trick {name}", default, (*IN_EVERY_SETTING, *ONCE), path)
    for other in others:
        yield from run_checks(f"trick {other!r}", other, IN_EVERY_SETTING, path)
