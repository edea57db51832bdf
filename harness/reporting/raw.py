"""The records a report was written from, kept beside it, so that anybody can compute its numbers again.

They are the members of one archive, data/records.zip:

runs.jsonl    first line: the columns and their kinds; then one line per run, predictions in base64
curves.csv    one line per point of a learning curve
changes.<digest>.patch   what the code of runs had changed since its commit, where that was kept
<name>.json   what else the report was written from, where there is any (`EXTRA`)

Reports of before 0023 (docs/decisions) have the same files in data/ itself; they are read, too.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import Problem, StudyError
from harness.runs.records import parsed, reason

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA_VERSION = 1
ARCHIVE = "data/records.zip"
RUNS, CURVES = "runs.jsonl", "curves.csv"
EXTRA = ("calibration", "declaration", "left_out")  # fields of `ReportInput`, each kept as <name>.json
# What an archive may hold: a thousand times the largest report here, and no more than fits into memory.
MOST_BYTES = 2**30
BITS = "predictions"  # the only column of bytes: one bit per test image
KINDS = {"i": "int64", "u": "int64", "f": "float64", "b": "bool"}  # of numpy; everything else is text


def raw_files(records: DataFrame, curves: DataFrame, more: Mapping[str, bytes]) -> dict[str, bytes]:
    """Name -> content. Numbers are written so that reading gives the same bits.

    more: files beside the records, as `extra_files` makes them.
    """
    runs = records.sort_values("run_id", kind="stable")
    header = {"schema": SCHEMA_VERSION, "runs": _kinds(runs), "curves": _kinds(curves)}
    lines = [header, *(_line(row) for row in runs.to_dict("records"))]
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    order = [name for name in ("run_id", "step", "epoch") if name in curves]
    points = curves.sort_values(order, kind="stable")
    return {RUNS: text.encode(), CURVES: points.to_csv(index=False, lineterminator="\n").encode(), **more}


def packed(files: Mapping[str, bytes]) -> bytes:
    """The archive of raw files: the same files give the same bytes, with one version of zlib.

    Another zlib may compress otherwise, so `harness verify` compares what is in the archive.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in sorted(files.items()):
            # Without a date it says 1980, the first that a zip can say.
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            # As on Linux whatever the machine: a file that all may read.
            member.create_system, member.external_attr = 3, 0o644 << 16
            archive.writestr(member, content, compresslevel=9)
    return buffer.getvalue()


def unpacked(folder: Path) -> tuple[Path, dict[str, bytes]]:
    """Where a report keeps its raw files (the archive; once the folder data/), and name -> content.

    Raises:
        StudyError: the archive is damaged, or holds more than `MOST_BYTES`.
    """
    path = folder / ARCHIVE
    try:
        if not path.exists():
            return path.parent, {each.name: each.read_bytes() for each in _files_in(path.parent)}
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if len(set(names)) < len(names):
                raise ValueError("it has two files of one name")
            if sum(member.file_size for member in members) > MOST_BYTES:
                raise ValueError(f"it holds more than {MOST_BYTES / 2**30:.0f} GiB")
            return path, {name: archive.read(name) for name in names}
    except OSError as error:
        raise StudyError([Problem(str(path), 0, f"cannot be read: {reason(error)}")]) from None
    # RuntimeError: it asks for a password; NotImplementedError: it is compressed in another way
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise StudyError([Problem(str(path), 0, f"is damaged: {error}")]) from None


def _files_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file()] if folder.is_dir() else []


def extra_files(inputs: Mapping[str, Mapping[str, Any] | None]) -> dict[str, bytes]:
    """Name -> content of those of `EXTRA`, and of `changes`, that are there."""
    found = {name: inputs.get(name) for name in EXTRA}
    patches = inputs.get("changes") or {}
    return {patch_path(sha): text.encode(errors="surrogateescape") for sha, text in patches.items()} | {
        f"{name}.json": (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
        for name, data in found.items()
        if data is not None
    }


def patch_path(digest: str) -> str:
    """Under which name a report keeps what the code of its runs had changed."""
    return f"changes.{digest[:12]}.patch"


def read_extra(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Those of `EXTRA`, and `changes`, that a report was written from; empty for a report without any.

    Raises:
        StudyError: a file is there and is no JSON object.
    """
    found: dict[str, Mapping[str, Any]] = {}
    place, files = unpacked(folder)
    patches = [files[name] for name in sorted(files) if fnmatch(name, "changes.*.patch")]
    if patches:
        digests = [hashlib.sha256(patch).hexdigest() for patch in patches]
        texts = [patch.decode(errors="surrogateescape") for patch in patches]
        found["changes"] = dict(zip(digests, texts, strict=True))
    for name in EXTRA:
        path = place / f"{name}.json"
        if path.name not in files:
            continue
        try:
            data = parsed(files[path.name])
        except ValueError as error:
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

    place, files = unpacked(folder)
    for name in (RUNS, CURVES):
        if name not in files:
            text = "is not there: the report is of an older version; `harness report` writes it again"
            raise StudyError([Problem(str(place / name), 0, text)])
    header, rows = _read_lines(place / RUNS, files[RUNS])
    records = pd.DataFrame(rows, columns=list(header["runs"]))
    curves = _read_csv(place / CURVES, files[CURVES], header["curves"])
    try:
        for name, kind in header["runs"].items():
            if kind == "float64":
                records[name] = pd.to_numeric(records[name])  # an infinity was written as text
        return _typed(records, header["runs"]), curves
    except (ValueError, TypeError) as error:
        raise StudyError([Problem(str(place / RUNS), 0, f"is damaged: {error}")]) from None


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


def _read_lines(path: Path, content: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    number = 1
    try:
        lines: list[Any] = []
        for number, line in enumerate(content.decode().splitlines(), start=1):
            row = parsed(line)
            if number > 1 and row.get(BITS) is not None:
                row[BITS] = base64.b64decode(row[BITS], validate=True)
            lines.append(row)
        if lines[0]["schema"] != SCHEMA_VERSION:
            raise ValueError(f"is of schema {lines[0]['schema']}, this version reads {SCHEMA_VERSION}")
        return lines[0], lines[1:]
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise StudyError([Problem(str(path), number, f"is damaged: {error}")]) from None


def _read_csv(path: Path, content: bytes, kinds: Mapping[str, str]) -> DataFrame:
    import pandas as pd

    try:
        types = {name: "str" if kind == "text" else "float64" for name, kind in kinds.items()}
        frame = pd.read_csv(io.StringIO(content.decode()), dtype=types, float_precision="round_trip")
        return _typed(frame[list(kinds)], kinds)
    except (ValueError, KeyError) as error:
        raise StudyError([Problem(str(path), 0, f"cannot be read: {error}")]) from None


def _typed(frame: DataFrame, kinds: Mapping[str, str]) -> DataFrame:
    return frame.astype({name: kind for name, kind in kinds.items() if kind != "text"})
