"""Where two versions of a file of a report differ, in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

NUMBER = re.compile(rb"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.])")
TEXTS = (".md", ".csv", ".tex", ".jsonl", ".html", ".svg")
MOST = 5  # of one file


def numbers_in(name: str, content: bytes) -> int:
    """How many numbers a text has; 0 for pictures and PDF, which are compared as a whole."""
    return len(NUMBER.findall(content)) if name.endswith((".json", ".csv", ".jsonl", ".md", ".tex")) else 0


def differences(name: str, was: bytes, now: bytes) -> list[str]:
    """Up to `MOST` differences between what the report has and what was computed."""
    if name.endswith(".json"):
        found = _in_json(was, now)
    elif name.endswith(TEXTS):
        found = _in_text(was, now)
    else:
        found = iter(())
    listed = [text for text, _ in zip(found, range(MOST + 1), strict=False)]
    if len(listed) > MOST:
        listed[MOST] = "and more"
    return listed or ["its bytes are others"]


def _in_text(was: bytes, now: bytes) -> Iterator[str]:
    before, after = (content.decode("utf-8", "replace").splitlines() for content in (was, now))
    for number, (old, new) in enumerate(zip(before, after, strict=False), start=1):
        if old != new:
            at = next(
                (i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new))
            )
            start = max(0, at - 12)
            yield f"line {number} has {old[start : at + 12]!r}, computed: {new[start : at + 12]!r}"
    if len(before) != len(after):
        yield f"has {len(before)} lines, computed: {len(after)}"


def _in_json(was: bytes, now: bytes) -> Iterator[str]:
    try:
        yield from _in_value("", json.loads(was), json.loads(now))
    except ValueError as error:
        yield f"is not JSON: {error}"


def _in_value(path: str, was: Any, now: Any) -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            if key not in was or key not in now:
                yield f"{path}.{key}".lstrip(".") + (" is missing" if key in now else " is not computed")
            else:
                yield from _in_value(f"{path}.{key}", was[key], now[key])
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (old, new) in enumerate(zip(was, now, strict=True)):
            yield from _in_value(f"{path}[{index}]", old, new)
    elif was != now or type(was) is not type(now):
        yield f"{path.lstrip('.')} is {_short(was)}, computed: {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
