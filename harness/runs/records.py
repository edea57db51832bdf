"""The one reader of records: what stands in a file is checked before anyone relies on it.

Run folders outlive crashes, full disks, wrong copies, other programs and people. Whatever a record holds, a
reader gets data of the types and ranges that it needs, or none; what is damaged counts as none and is named
once by the command that found it (`note`).
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeGuard

from harness.errors import printable
from harness.spec import ACCURACIES, ENDED, SCHEMA_VERSION, canonical_json, digest, run_id

LARGEST = 1e300
LARGEST_WHOLE = 2**62
LARGEST_MEASURE = 1e15  # seconds, multiply-adds, ...
LONGEST_TEXT = 1_000_000  # characters
MOST_LEVELS = 60  # of lists and maps in each other
MOST_NAMED = 20  # damaged files that one command names
AT_ONCE = 1 << 18  # bytes
LARGEST_FILE = 1 << 30  # bytes

NEEDED = {"epoch": ("step",), "attempt": ("attempt", "device")}  # kind of event -> what its readers rely on
TEXTS = ("run_id", "arm_id", "model", "data", "device", "precision", "predictions_sha256")  # of a summary
COUNTS = ("steps", "attempts", "images_seen", "classes", "test_images", "batch_size", "threads", "params")
MEASURES = (  # finite and not negative
    *("started_s", "ended_s", "train_time_s", "eval_time_s", "wall_time_s"),
    *("energy_j", "images_per_s", "epochs", "macs"),
)
MENDS = {  # name of a file -> what becomes of it
    "summary.json": ": `harness run` does the run again",
    "spec.json": ": `harness run` of a study that wants the run writes it again",
}
PRESENT = ("run_id", "arm_id", "seed", "steps", "started_s", "ended_s")  # in every summary, and not null

_decode = json.JSONDecoder().raw_decode
HALF = b"\\u"  # of JSON: a character, or half of one
NO_SPEC = "it is missing, though the run has ended"

_named: dict[str, str] = {}  # path -> why, of what this command has named


def begin() -> None:
    """A new command of this process: what it finds damaged is named again."""
    _named.clear()


def note(path: str | Path, why: str) -> None:
    """Name a damaged file: once in a command, and not by the processes that it starts."""
    text = str(path)
    if text in _named or len(_named) > MOST_NAMED:
        return
    import logging
    from multiprocessing import parent_process

    _named[text] = why
    if parent_process() is not None:
        return
    log = logging.getLogger(__name__)
    if len(_named) > MOST_NAMED:
        log.warning("more files are damaged; only %d are named", MOST_NAMED)
    else:
        mend = MENDS.get(os.path.basename(text), "")
        log.warning("%s is damaged (%s) and counts as none%s", printable(text), printable(why), mend)


def parsed(text: bytes | str) -> Any:
    """JSON as data.

    Raises:
        ValueError: it is none, is nested too deeply, or has a text or a number that no record has.
    """
    try:
        data = json.loads(text.decode() if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError("its lists and maps are nested too deeply") from None
    why = unusual(data)
    if why:
        raise ValueError(why)
    return data


def unusual(data: Any) -> str:
    """Why a value of JSON cannot be worked with; "": it can. NaN and infinities are left to their readers.

    >>> unusual({"a": [1, 2.5, "x", None]}), unusual([10**400]), unusual("\\ud800")
    ('', 'a whole number is too large', 'a text has half a character')
    """
    waiting = [(data, 0)]
    while waiting:
        value, level = waiting.pop()
        kind = type(value)
        if kind is str:
            if not value.isascii() and not _is_whole(value):
                return "a text has half a character"
            if len(value) > LONGEST_TEXT:
                return "a text is too long"
        elif kind is int:
            if not -LARGEST_WHOLE < value < LARGEST_WHOLE:
                return "a whole number is too large"
        elif kind is dict or kind is list:
            if level == MOST_LEVELS:
                return "its lists and maps are nested too deeply"
            waiting += ((each, level + 1) for each in (value.values() if kind is dict else value))
            if kind is dict:
                waiting += ((key, level + 1) for key in value if not key.isascii())
    return ""


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_quickly(path: str | Path) -> bytes:
    """A whole file, at half the cost of a file object.

    Raises:
        OSError: it cannot be read, or is no file that a record could be: a folder, a pipe, without end.
    """
    return read_with_stat(path)[0]


def read_with_stat(path: str | Path) -> tuple[bytes, os.stat_result]:
    """As `read_quickly`, and what the file system says of the file."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for its writer
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        if info.st_size > LARGEST_FILE:
            raise OSError(errno.EFBIG, "it is too large", str(path))
        text = os.read(handle, info.st_size + 1)
        if len(text) != info.st_size:  # a file that grows, or was read in parts
            while more := os.read(handle, AT_ONCE):
                text += more
        return text, info
    finally:
        os.close(handle)


def read_map(path: str | Path, wrong: Callable[[Mapping[str, Any]], str] | None = None) -> dict[str, Any]:
    """The JSON object of a file; {} where there is none. One that is damaged is named and counts as none.

    wrong: says what is wrong with its values; "": nothing.
    """
    try:
        data = parsed(read_quickly(path))
        why = (wrong(data) if wrong else "") if isinstance(data, dict) else "it is no JSON object"
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        why = reason(error)
    if why:
        note(path, why)
        return {}
    return data


def reason(error: Exception) -> str:
    """Why a file cannot be used, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, UnicodeDecodeError | json.JSONDecodeError):
        return "it is cut off, or no JSON"
    if isinstance(error, KeyError):
        return f"no {error}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_event(event: Any) -> bool:
    """Whether a line says what it is, when it was, and what its readers need.

    >>> is_event({"kind": "stop", "time_s": 1.5}), is_event({"kind": "epoch", "time_s": 1.5}), is_event([])
    (True, False, False)
    """
    if not isinstance(event, Mapping) or not isinstance(event.get("kind"), str):
        return False
    whole_step = "step" not in event or is_count(event["step"])
    needed = all(name in event for name in NEEDED.get(event["kind"], ()))
    return whole_step and needed and is_time(event.get("time_s"))


def event_of(line: bytes | str) -> dict[str, Any] | None:
    """A line of events.jsonl; None where it is empty, half a line of a crash, or no event."""
    try:
        event = json.loads(
            line.decode() if isinstance(line, bytes) else line
        )  # of bytes it guesses their encoding
    except (ValueError, RecursionError):
        return None
    return event if is_event(event) and not unusual(event) else None


def is_number(value: Any) -> TypeGuard[float]:
    """A number that a curve can have: NaN and infinity too, but none that is too large for a float."""
    return type(value) is float or (type(value) is int and abs(value) < LARGEST)


def is_time(value: Any) -> TypeGuard[float]:
    """A finite number that is not negative, such as seconds or steps."""
    return is_number(value) and math.isfinite(value) and 0 <= value < LARGEST_MEASURE


def is_count(value: Any) -> TypeGuard[int]:
    """A whole number that is not negative and fits into 63 bits."""
    return type(value) is int and 0 <= value < LARGEST_WHOLE


def wrong_with_summary(summary: Any, run_id: str) -> str:
    """What is wrong with the summary of a run, in words; "": nothing.

    >>> wrong_with_summary({"status": "finished"}, "ab"), wrong_with_summary([], "ab")
    ('it lacks its run_id', 'it is no JSON object')
    """
    if not isinstance(summary, dict):
        return "it is no JSON object"
    status = summary.get("status")
    if not isinstance(status, str) or status not in ENDED:
        return "it does not say how the run ended"
    for name in PRESENT:
        if summary.get(name) is None:
            return f"it lacks its {name}"
    if summary["run_id"] != run_id:
        return "it is another run's"
    return _wrong_values(summary) or _wrong_metrics(summary.get("metrics"))


def _wrong_values(summary: Mapping[str, Any]) -> str:
    get = summary.get
    for names, is_right, what in KINDS:
        for name in names:
            value = get(name)
            if value is not None and not is_right(value):
                return f"{name} is {what}"
    for name, value in summary.items():
        if name != "metrics" and isinstance(value, dict | list):
            return f"{name} is a list or a map"
    return unusual(summary)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_seed(value: Any) -> bool:
    return type(value) is int


KINDS = (  # of what a summary may hold
    (COUNTS, is_count, "not a whole number"),
    (MEASURES, is_time, "not a number"),
    (TEXTS, _is_text, "no text"),
    (("seed",), _is_seed, "not a whole number"),
    (("train_loss",), is_number, "not a number"),
)


def _wrong_metrics(metrics: Any) -> str:
    if not isinstance(metrics, dict) or not all(each is None or is_number(each) for each in metrics.values()):
        return "its metrics are not numbers"
    for name in ACCURACIES:
        value = metrics.get(name)
        if value is not None and math.isfinite(value) and not 0 <= value <= 100:
            return f"its {name} is {value:g}, which is no percentage"
    return ""


def summary_of(text: bytes, run_id: str, path: str | Path) -> dict[str, Any] | None:
    """The content of a summary.json, or None where it is damaged, which is named."""
    try:
        summary = _loaded(text.decode())
        if _is_like_one_before(summary, run_id) and HALF not in text:
            return summary
        why = wrong_with_summary(summary, run_id)
    except RecursionError:
        why = "its lists and maps are nested too deeply"
    except ValueError as error:
        why = reason(error)
    if why:
        note(path, why)
        return None
    numbers = [name for name, value in summary.items() if type(value) in _NUMBERS]
    _shapes[(*summary, *map(type, summary.values()))] = itemgetter(*numbers)
    return summary


def _loaded(text: str) -> Any:
    """As `json.loads`, of ten thousand summaries a fifth faster: they have nothing around the object."""
    try:
        found, end = _decode(text)
    except ValueError:
        return json.loads(text)  # it may begin with a space, or says what is wrong
    return found if text[end:] in ("", "\n") else json.loads(text)


def _is_like_one_before(summary: Any, run_id: str) -> bool:
    """Whether all is well, in a sixth of the time: it has the keys and types of one that was looked through,
    and every number is in its range. False: look through it."""
    try:
        numbers_of = _shapes.get((*summary, *map(type, summary.values())))
        if numbers_of is None:
            return False
        numbers, metrics = numbers_of(summary), summary["metrics"]
        return (
            summary["run_id"] == run_id
            and summary["status"] in ENDED
            and min(numbers) >= 0
            and sum(numbers) < LARGEST_MEASURE  # no NaN and no infinity either
            and _FLOATS.issuperset(map(type, metrics.values()))
            and 0 <= metrics.get("top1", 0) <= 100
            and 0 <= metrics.get("top5", 0) <= 100
        )
    except (AttributeError, TypeError, OverflowError):
        return False


# Keys and types of summaries that were looked through -> what takes their numbers out: several, as each has.
_shapes: dict[tuple[Any, ...], Callable[[Any], tuple[float, ...]]] = {}
_NUMBERS, _FLOATS = frozenset({int, float}), frozenset({float})


class Specs:
    """Which specs hash to the names of their folders; remembers the text of every arm that does.

    The runs of an arm differ in the seed alone, which is the last thing in the file: of the others only the
    text is compared.
    """

    def __init__(self) -> None:
        self._arms: dict[bytes, str] = {}  # the text before the seed -> arm_id

    def wrong(self, text: bytes, name: str) -> str:
        """What is wrong with the spec of the run folder of this name; "": nothing."""
        arm, _, seed = text.rpartition(b'"seed": ')
        arm_id = self._arms.get(arm)
        if arm_id is not None and seed.endswith(b"\n}\n") and seed[:-3].isdigit() and len(seed) < 22:
            return "" if run_id(arm_id, int(seed[:-3])) == name else "it is another run's"
        try:
            data = parsed(text)
            if data["schema"] != SCHEMA_VERSION:
                return f"it has schema {data['schema']}, this harness reads {SCHEMA_VERSION}"
            arm_id = digest(canonical_json(data["arm"]))
            if type(data["seed"]) is not int or run_id(arm_id, data["seed"]) != name:
                return "it is not the spec of this run"
        except (ValueError, KeyError, TypeError) as error:
            return reason(error)
        if seed == b"%d\n}\n" % data["seed"]:
            self._arms[arm] = arm_id
        return ""
