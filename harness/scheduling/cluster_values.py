"""What each key of a cluster file may say. Texts end in an sbatch script, where none may leave its line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.scheduling.cluster import Resources

Check = Callable[[Any], Any]  # raises ValueError with words that follow the key's name
FIELD = {"time": "time_s"}  # key -> field of Resources, where they differ
NO_LIMIT = frozenset({"UNLIMITED", "INFINITE"})  # as sbatch takes them, in any case
UNIT_S = {"min": 60, "h": 3600, "d": 86400}
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:+-]*")
CONSTRAINT = re.compile(r"[A-Za-z0-9_(\[][A-Za-z0-9_.,:+&|*()\[\]-]*")
OPTION = re.compile(r"--([a-z][a-z0-9-]*)(?:=([^\x00-\x1f\x7f]+))?")
HAS_A_KEY = {  # options of sbatch that have a key of their own here
    "nodes": "nodes",
    "gpus-per-node": "gpus",
    "cpus-per-task": "cpus",
    "mem": "memory_gb",
    "time": "time",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "ntasks": "processes",
    "ntasks-per-node": "processes",
}
OURS = {  # what the harness itself says, or what would change how sbatch answers
    *("array", "dependency", "job-name", "signal", "open-mode", "output", "error", "requeue", "no-requeue"),
    *("wrap", "wait", "parsable", "quiet", "test-only", "help", "usage", "version"),
}


def anything(value: Any) -> Any:
    """Checked elsewhere."""
    return value


def whole(lowest: int, highest: int) -> Check:
    """A whole number in a range."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"is a whole number from {lowest} to {highest}, got {value!r}")
        return value

    return check


def gigabytes(value: Any) -> float:
    """More than nothing, less than a petabyte."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0.001 <= value <= 1e6:
        raise ValueError(f"is a number of gigabytes such as 32, without a unit, got {value!r}")
    return float(value)


def duration(value: Any) -> int | None:
    """Seconds of `30min`, `4h`, `1.5h` or `2d`, or of one of Slurm's own forms; None: no limit.

    >>> [duration(each) for each in (90, "90", "1:30", "4:00:00", "2-12", "1-00:00:00", "UNLIMITED")]
    [5400, 5400, 90, 14400, 216000, 86400, None]
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and text.upper() in NO_LIMIT:
        return None
    with_unit = (
        re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(min|h|d)", text) if isinstance(text, str) else None
    )
    time_s = float(with_unit[1]) * UNIT_S[with_unit[2]] if with_unit else _slurm_time(text)
    if not 60 <= time_s <= 365 * 86400:
        raise ValueError(
            "is a number with a unit, from 1min to 365d, such as 30min, 4h or 2d, or as Slurm writes it"
            f" (minutes, 4:00:00, 1-12, 1-00:00:00, UNLIMITED); got {value!r}"
        )
    return math.ceil(time_s)


def _slurm_time(text: Any) -> int:
    """Seconds of minutes, minutes:seconds, hours:minutes:seconds, or days- and then hours, hours:minutes or
    hours:minutes:seconds; 0 for anything else."""
    match = (
        re.fullmatch(r"(?:([0-9]{1,4})-)?([0-9]{1,6}(?::[0-9]{1,6}){0,2})", text)
        if isinstance(text, str)
        else None
    )
    if match is None:
        return 0
    parts = [int(each) for each in match[2].split(":")]
    units = (3600, 60, 1) if match[1] or len(parts) == 3 else (60, 1)
    return int(match[1] or 0) * 86400 + sum(part * unit_s for part, unit_s in zip(parts, units, strict=False))


def word(pattern: re.Pattern[str], example: str) -> Check:
    """Text that fits a pattern; a plain number in YAML is taken as text."""

    def check(value: Any) -> str:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(text, str) or len(text) > 200 or not pattern.fullmatch(text):
            raise ValueError(f"is a name such as {example}, got {value!r}")
        return text

    return check


def options(value: Any) -> tuple[str, ...]:
    """Further options of sbatch, each a text `--name` or `--name=value` on one line."""
    if not isinstance(value, list):
        raise ValueError(f'is a list of options such as ["--nodelist=a[1-4]"], got {value!r}')
    names: set[str] = set()
    for text in value:
        match = OPTION.fullmatch(text) if isinstance(text, str) and len(text) <= 1000 else None
        if match is None:
            raise ValueError(f"has {text!r}; an option is one line such as --nodelist=a[1-4]")
        name = match[1]
        if name in HAS_A_KEY:
            raise ValueError(f"has '{text}'; use the key '{HAS_A_KEY[name]}' in place of --{name}")
        if name in OURS:
            raise ValueError(f"has '{text}'; --{name} is set by the harness")
        if name in names:
            raise ValueError(f"has --{name} twice")
        names.add(name)
    return tuple(value)


RESOURCES: Mapping[str, Check] = {
    "nodes": whole(1, 10_000),
    "gpus": whole(0, 1024),
    "cpus": whole(1, 4096),
    "memory_gb": gigabytes,
    "time": duration,
    "partition": word(NAME, "gpu"),
    "account": word(NAME, "my_lab"),
    "qos": word(NAME, "normal"),
    "constraint": word(CONSTRAINT, "a100|h100"),
    "sbatch": options,
    "processes": whole(1, 100_000),
    "runs_side_by_side": whole(1, 1024),
}


def contradictions(resources: Resources) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) for numbers that do not go together."""
    nodes, processes, beside = resources.nodes, resources.processes, resources.runs_side_by_side
    if processes % nodes:
        yield (
            "nodes",
            f"{processes} processes cannot be shared equally by {nodes} nodes; give a multiple of {nodes}",
        )
        return
    if nodes > 1 and beside > 1:
        yield "runs_side_by_side", "an agent on several nodes trains one run at a time; leave it at 1"
    here = beside * processes // nodes
    if here > resources.cpus:
        yield (
            "cpus",
            f"{here} processes train on each node (runs_side_by_side x processes / nodes) but it has"
            f" {resources.cpus} cpus; ask for at least {here}",
        )
    if resources.gpus and processes // nodes > resources.gpus:
        yield (
            "gpus",
            f"{processes // nodes} processes of a run on each node but {resources.gpus} gpus; each needs one",
        )
