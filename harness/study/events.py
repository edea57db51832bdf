"""Which lines of a run's events.jsonl can be used: files outlive crashes, full disks and other programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LARGEST = 1e300
NEEDED = {"epoch": ("step",), "attempt": ("attempt", "device")}  # kind -> what its readers rely on


def is_event(event: Any) -> bool:
    """Whether a line says what it is, when it was, and what its readers need.

    >>> is_event({"kind": "stop", "time_s": 1.5}), is_event({"kind": "epoch", "time_s": 1.5}), is_event([])
    (True, False, False)
    """
    if not isinstance(event, Mapping) or not isinstance(event.get("kind"), str):
        return False
    whole_step = "step" not in event or (type(event["step"]) is int and 0 <= event["step"] < 2**62)
    return (
        whole_step and is_time(event.get("time_s")) and all(k in event for k in NEEDED.get(event["kind"], ()))
    )


def is_number(value: Any) -> bool:
    """A number that a curve can have: NaN and infinity too, but none that is too large for a float."""
    return type(value) is float or (type(value) is int and abs(value) < LARGEST)


def is_time(value: Any) -> bool:
    """A finite number that is not negative, such as seconds or steps."""
    return is_number(value) and math.isfinite(value) and 0 <= value < 1e15
