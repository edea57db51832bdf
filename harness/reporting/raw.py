"""The records a report was written from, kept beside it, so that anybody can compute its numbers again.

data/runs.jsonl    first line: the columns and their kinds; then one line per run, predictions in base64
data/curves.csv    one line per point of a learning curve
data/changes.<digest>.patch   what the code of runs had changed since its commit, where that was kept
data/<name>.json   what else the report was written from, where there is any (`EXTRA`)
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import Problem, StudyError
from harness.runs.records import parsed, reason

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA_VERSION = 1
RUNS, CURVES = "data/runs.jsonl", "data/curves.csv"
EXTRA = ("calibration", "declaration", "left_out")  # fields of `ReportInput`, each kept as data/<name>.json
BITS = "predictions"  # the only column of bytes: one bit per test image
KINDS = {"i": "int64", "u": "int64", "f": "float64", "b": "bool"}  # of numpy; everything else is text


def raw_files(records: DataFrame, curves: DataFrame, more: Mapping[str, bytes]) -> dict[str, bytes]:
    """Path in the report folder -> content. Numbers are written so that reading gives the same bits.

    more: files beside the records, as `extra_files` makes them.
    """
    runs = records.sort_values("run_id", kind="stable")
    header = {"schema": SCHEMA_VERSION, "runs": _kinds(runs), "curves": _kinds(curves)}
    lines = [header, *(_line(row) for row in runs.to_dict("records"))]
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    order = [name for name in ("run_id", "step", "epoch") if name in curves]
    points = curves.sort_values(order, kind="stable")
    return {RUNS: text.encode(), CURVES: points.to_csv(index=False, lineterminator="\n").encode(), **more}


def extra_files(inputs: Mapping[str, Mapping[str, Any] | None]) -> dict[str, bytes]:
    """Path in the report folder -> content of those of `EXTRA`, and of `changes`, that are there."""
    found = {name: inputs.get(name) for name in EXTRA}
    patches = inputs.get("changes") or {}
    return {patch_path(sha): text.encode(errors="surrogateescape") for sha, text in patches.items()} | {
        f"data/{name}.json": (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
        for name, data in found.items()
        if data is not None
    }


def patch_path(digest: str) -> str:
    """Where a report keeps what the code of its runs had changed."""
    return f"data/changes.{digest[:12]}.patch"


def read_extra(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Those of `EXTRA`, and `changes`, that a report was written from; empty for a report without any.

    Raises:
        StudyError: a file is there and is no JSON object.
    """
    found: dict[str, Mapping[str, Any]] = {}
    patches = [path.read_bytes() for path in sorted((folder / "data").glob("changes.*.patch"))]
    if patches:
        digests = [hashlib.sha256(patch).hexdigest() for patch in patches]
        texts = [patch.decode(errors="surrogateescape") for patch in patches]
        found["changes"] = dict(zip(digests, texts, strict=True))
    for name in EXTRA:
        path = folder / "data" / f"{name}.json"
        try:
            data = parsed(path.read_bytes())
        except FileNotFoundError:
            continue
        except (ValueError, OSError) as error:
            raise StudyError([Problem(str(path), 0, f"is damaged: {reason(error)}")]) from None
        if not isinstance(data, dict):
            raise StudyError([Problem(str(path), 0, "is damaged: it is no JSON object")])
        found[name] = data
    return found


def raw_digest(records: DataFrame, curves: DataFrame, more: Mapping[str, bytes]) -> str:
    """One hash over all of `raw_files`: the report shows it, so that an edited record is seen."""
    sha = hashlib.sha256()
    for _, content in sorted(raw_files(records, curves, more).items()):
        sha.update(content)
    return sha.hexdigest()


def read_raw(folder: Path) -> tuple[DataFrame, DataFrame]:
    """The frames (records, curves) as `raw_files` was given them, rows ordered by run and step.

    Raises:
        StudyError: a file is missing or damaged; which, and in which line.
    """
    import pandas as pd

    header, rows = _read_lines(folder / RUNS)
    records = pd.DataFrame(rows, columns=list(header["runs"]))
    curves = _read_csv(folder / CURVES, header["curves"])
    try:
        for name, kind in header["runs"].items():
            if kind == "float64":
                records[name] = pd.to_numeric(records[name])  # an infinity was written as text
        return _typed(records, header["runs"]), curves
    except (ValueError, TypeError) as error:
        raise StudyError([Problem(str(folder / RUNS), 0, f"is damaged: {error}")]) from None


def _kinds(frame: DataFrame) -> dict[str, str]:
    return {str(name): KINDS.get(dtype.kind, "text") for name, dtype in frame.dtypes.items()}


def _line(row: Mapping[Any, Any]) -> dict[str, Any]:
    out = {}
    for name, value in row.items():
        if isinstance(value, bytes):
            value = base64.b64encode(value).decode()
        if isinstance(value, float) and math.isinf(value):
            value = str(value)  # JSON has no infinity
        out[str(name)] = None if value is None or value != value else value  # NaN is not equal to itself
    return out


def _read_lines(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    number = 1
    try:
        lines: list[Any] = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            row = parsed(line)
            if number > 1 and row.get(BITS) is not None:
                row[BITS] = base64.b64decode(row[BITS], validate=True)
            lines.append(row)
        if lines[0]["schema"] != SCHEMA_VERSION:
            raise ValueError(f"is of schema {lines[0]['schema']}, this version reads {SCHEMA_VERSION}")
        return lines[0], lines[1:]
    except FileNotFoundError:
        text = "is not there: the report is of an older version; `harness report` writes it again"
        raise StudyError([Problem(str(path), 0, text)]) from None
    except OSError as error:
        raise StudyError([Problem(str(path), 0, f"cannot be read: {reason(error)}")]) from None
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise StudyError([Problem(str(path), number, f"is damaged: {error}")]) from None


def _read_csv(path: Path, kinds: Mapping[str, str]) -> DataFrame:
    import pandas as pd

    try:
        text = path.read_text(encoding="utf-8")
        types = {name: "str" if kind == "text" else "float64" for name, kind in kinds.items()}
        frame = pd.read_csv(io.StringIO(text), dtype=types, float_precision="round_trip")
        return _typed(frame[list(kinds)], kinds)
    except (OSError, ValueError, KeyError) as error:
        raise StudyError([Problem(str(path), 0, f"cannot be read: {error}")]) from None


def _typed(frame: DataFrame, kinds: Mapping[str, str]) -> DataFrame:
    return frame.astype({name: kind for name, kind in kinds.items() if kind != "text"})
