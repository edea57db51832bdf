"""What a check of a contract is, and how checks are run over a plugin's things."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.plugins.errors import from_exception

KEPT, BROKEN, SKIPPED = "kept", "broken", "skipped"


class Broken(Exception):
    """The contract is not kept: why, and how to mend it."""

    def __init__(self, why: str, mend: str) -> None:
        super().__init__(why)
        self.mend = mend


class Skipped(Exception):
    """The check cannot be made here; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check said of one thing."""

    subject: str  # e.g. "trick half_batch"
    claim: str  # what is promised
    outcome: str  # KEPT | BROKEN | SKIPPED
    why: str = ""
    mend: str = ""


Check = Callable[[Any], None]  # raises Broken or Skipped; the first line of its docstring is the claim


def run_checks(subject: str, thing: Any, checks: Sequence[Check], path: Path) -> list[Finding]:
    """Every check on one thing. An exception in the user's code is a broken contract, with its place."""
    return [_run(subject, thing, check, path) for check in checks]


def require(condition: bool, why: str, mend: str) -> None:
    """
    Raises:
        Broken: the condition does not hold.
    """
    if not condition:
        raise Broken(why, mend)


def _run(subject: str, thing: Any, check: Check, path: Path) -> Finding:
    claim = (check.__doc__ or check.__name__).strip().splitlines()[0].rstrip(".")
    try:
        check(thing)
    except Broken as broken:
        return Finding(subject=subject, claim=claim, outcome=BROKEN, why=str(broken), mend=broken.mend)
    except Skipped as skipped:
        return Finding(subject=subject, claim=claim, outcome=SKIPPED, why=str(skipped))
    except Exception as error:
        why = str(from_exception(error, path, "it"))
        return Finding(subject=subject, claim=claim, outcome=BROKEN, why=why, mend="mend the line it names")
    return Finding(subject=subject, claim=claim, outcome=KEPT)
