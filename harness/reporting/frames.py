"""Findings as pandas frames, as CSV and as JSON: full precision, one line per cell."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.analysis.findings import (
    Amount,
    CellFinding,
    ClaimFinding,
    ClaimSize,
    CreditFinding,
    Effect,
    Level,
    SpeedFinding,
    SpeedRow,
    TableFinding,
    TrickCredit,
)
from harness.errors import Problem, StudyError
from harness.reporting.report_input import (
    ReportInput,
    arm_costs,
    findings_json,
    from_file,
    indented,
    json_template,
    json_texts,
    json_values,
    plain,
    study_cost,
)
from harness.reporting.sections.opening import declaration_json
from harness.reporting.sections.results import classes_json
from harness.runs.records import parsed, reason
from harness.spec import as_plain
from harness.study.plan import Claim, PlannedRun

if TYPE_CHECKING:
    from pandas import DataFrame

# Findings as pandas frames: one row per cell, per run of a row, per claim. For Python and notebooks.


LEVEL = ("n", "diverged", "missing", "missing_reason", "mean", "sd")
EFFECT = (  # fields of `Effect`, in the order of the frame; `effect` is its estimate
    "versus", "effect", "low", "high", "adjusted_low", "adjusted_high", "p", "p_holm", "verdict", "qualifier",
    "fragile", "new_images_low", "new_images_high", "detectable", "prob_better", "more_seeds", "settled_at",
    "exploratory", "paper", "paper_status", "gap", "gap_low", "gap_high", "agreement",
)  # fmt: skip
TEXTS = frozenset(  # every other column is a number
    {"row", "column", "tricks", "missing_reason", "versus", "verdict", "qualifier", "fragile", "exploratory"}
    | {"paper_status", "agreement"}
)
COUNTS = frozenset({"n", "diverged", "missing", "more_seeds", "settled_at"})
NAMED = {"effect": "estimate"}  # column -> field, where they differ
RENAMED = {"paper": "paper_effect"}  # field -> column, where the name is another cell's


def cells_frame(table: TableFinding, metric: str) -> DataFrame:
    """One row per cell of the table, in reading order.

    Columns: row, column, tricks, n, diverged, missing, missing_reason, mean, sd, mean_low and mean_high (95 %
    t interval of the mean), paper (the printed value of the metric), then those of `EFFECT`. Accuracies are
    in percent and effects in percentage points; absent numbers are NaN, absent texts None.
    """
    import pandas as pd

    frame = pd.DataFrame([_cell(cell, metric) for cell in table.cells])
    return frame.astype({name: _kind(str(name)) for name in frame if name not in TEXTS})


def _kind(column: str) -> str:
    return "Int64" if column in COUNTS else "float64"  # Int64 has a place for "there is none"


def _cell(cell: CellFinding, metric: str) -> dict[str, Any]:
    printed = cell.paper.get(metric)
    row: dict[str, Any] = {"row": cell.row, "column": cell.column, "tricks": ", ".join(cell.tricks)}
    row |= {name: getattr(cell.level, name, None) for name in LEVEL}
    row |= {"mean_low": getattr(cell.level, "low", None), "mean_high": getattr(cell.level, "high", None)}
    row["paper"] = None if printed is None else printed.value
    found = {
        RENAMED.get(name, name): getattr(cell.effect, NAMED.get(name, name), None)
        for name in EFFECT
        if cell.effect is None or hasattr(cell.effect, NAMED.get(name, name))
    }
    return row | found


def seeds_frame(table: TableFinding, metric: str) -> DataFrame:
    """One row per cell and seed: row, column, seed, the metric, and its difference from the compared row.

    `difference` is NaN where the other row has no value for the seed.
    """
    import pandas as pd

    rows = [
        {
            "row": cell.row,
            "column": cell.column,
            "seed": seed,
            metric: value,
            "difference": float("nan") if cell.effect is None else cell.effect.differences.get(seed),
        }
        for cell in table.cells
        if cell.level is not None
        for seed, value in sorted(cell.level.values.items())
    ]
    frame = pd.DataFrame(rows, columns=["row", "column", "seed", metric, "difference"])
    return frame.astype({metric: "float64", "difference": "float64"})


def claims_frame(claims: tuple[ClaimFinding, ...]) -> DataFrame:
    """One row per claim of the paper: the fields of the claim, then those of `ClaimFinding` and its size."""
    import pandas as pd

    return pd.DataFrame([_claim_row(each, _sizes(claims)) for each in claims], columns=_claim_head(claims))


_SAID = tuple(f.name for f in fields(Claim) if f.name not in ("column", "versus_column"))
_FOUND = tuple(f.name for f in fields(ClaimFinding) if f.name not in ("claim", "differences", "size"))


def _sizes(claims: Sequence[ClaimFinding]) -> tuple[str, ...]:
    """The fields of sizes; none where claims were answered by their sign alone."""
    return tuple(f.name for f in fields(ClaimSize)) if any(claim.size for claim in claims) else ()


def _claim_head(claims: Sequence[ClaimFinding]) -> list[str]:
    return [*_SAID, *_FOUND, *(f"size_{name}" for name in _sizes(claims))]


def _claim_row(claim: ClaimFinding, sizes: Sequence[str]) -> dict[str, Any]:
    row = {name: getattr(claim.claim, name) for name in _SAID}
    row |= {name: getattr(claim, name) for name in _FOUND}
    return row | {f"size_{name}": getattr(claim.size, name, None) for name in sizes}


# A table as CSV: full precision, plain minus signs, one line per cell of the paper's table.
#
# A spreadsheet takes a text that starts with = + - @ (or a tab or a carriage return) for a formula. Such a
# text, for example the label "+ mixup", is written with one space before it; numbers are written as they
# are. Whoever matches labels takes that space off again.


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_LEVEL = tuple(f.name for f in fields(Level) if f.name not in ("secondary", "values", "without_value"))
_EFFECT = tuple(f.name for f in fields(Effect) if f.name != "differences")


def to_csv(table: TableFinding) -> str:
    """Every number of the findings. An absent number is an empty field.

    Columns: row, column, arm_id, tricks, then the fields of `Level`, the other metrics, one column per seed
    (`seed_0`, ...), the paper's values with their status, and the fields of `Effect` (prefix `effect_`).
    """
    metrics = sorted({name for cell in table.cells if cell.level for name in cell.level.secondary})
    seeds = sorted({seed for cell in table.cells if cell.level for seed in cell.level.values})
    printed = sorted({name for cell in table.cells for name in cell.paper})
    head = ["row", "column", "arm_id", "tricks", *_LEVEL, *metrics, *(f"seed_{seed}" for seed in seeds)]
    head += [text for name in printed for text in (f"paper_{name}", f"paper_{name}_status")]
    head += [f"effect_{name}" for name in _EFFECT]
    return csv_text(
        head,
        ([*_level(cell, metrics, seeds), *_paper(cell, printed), *_effect(cell)] for cell in table.cells),
    )


def claims_to_csv(claims: Sequence[ClaimFinding]) -> str:
    """One line per claim: the claim's own fields, the finding's, those of its size, a column per seed."""
    sizes, seeds = _sizes(claims), sorted({seed for claim in claims for seed in claim.differences})
    rows = (
        [*_claim_row(claim, sizes).values(), *(claim.differences.get(seed) for seed in seeds)]
        for claim in claims
    )
    return csv_text([*_claim_head(claims), *(f"seed_{seed}" for seed in seeds)], rows)


def speed_to_csv(speed: SpeedFinding) -> str:
    """One line per row: steps to the target, one column per seed (empty: not reached, or not run)."""
    names = [f.name for f in fields(SpeedRow) if f.name not in ("row", "steps", "paper", "paper_factor")]
    rows = [(panel, row) for panel in speed.panels for row in panel.rows]
    seeds = sorted({seed for _, row in rows for seed in row.steps})
    head = ["row", "column", "target_top1", *names, *(f"steps_seed_{seed}" for seed in seeds)]
    head += ["paper_steps_m", "paper_status", "paper_factor"]
    lines = (
        [
            row.row,
            panel.column,
            panel.target_top1,
            *(getattr(row, name) for name in names),
            *(row.steps.get(seed) for seed in seeds),
            *((row.paper.value, row.paper.status) if row.paper else (None, None)),
            row.paper_factor,
        ]
        for panel, row in rows
    )
    return csv_text(head, lines)


def csv_text(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Every CSV of a report: the one place where fields that others wrote are made safe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([safe_text(value) for value in head])
    writer.writerows([safe_text(value) for value in row] for row in rows)
    return buffer.getvalue()


def safe_text(value: object) -> object:
    """A field that no spreadsheet takes for a formula; anything but a text is returned as it is.

    >>> safe_text("+ mixup"), safe_text("=1+1"), safe_text(-0.5), safe_text("ResNet-50")
    (' + mixup', ' =1+1', -0.5, 'ResNet-50')
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # a bare one is not quoted, and begins a line
    return f" {text}" if value.startswith(FORMULA_STARTS) else text


def _level(cell: CellFinding, metrics: list[str], seeds: list[int]) -> list[object]:
    first: list[object] = [cell.row, cell.column, cell.arm_id, " ".join(cell.tricks)]
    if cell.level is None:
        return first + [None] * (len(_LEVEL) + len(metrics) + len(seeds))
    level = cell.level
    return [
        *first,
        *(getattr(level, name) for name in _LEVEL),
        *(level.secondary.get(name) for name in metrics),
        *(level.values.get(seed) for seed in seeds),
    ]


def _paper(cell: CellFinding, printed: list[str]) -> list[object]:
    values = [cell.paper.get(name) for name in printed]
    return [item for value in values for item in ((value.value, value.status) if value else (None, None))]


def _effect(cell: CellFinding) -> list[object]:
    if cell.effect is None:
        return [None] * len(_EFFECT)
    return [getattr(cell.effect, name) for name in _EFFECT]


# The credits of a table as CSV: full precision, plain minus signs, one line per trick and column.


_AMOUNTS = ("first", "last", "credit", "half_gap", "forward")
_PLAIN = tuple(f.name for f in fields(TrickCredit) if f.name not in ("trick", "column", "n", *_AMOUNTS))
_PARTS = tuple(f.name for f in fields(Amount))


def credit_to_csv(credit: CreditFinding) -> str:
    """Every number of the finding; an absent one is an empty field.

    Columns: trick, column, design, n, then estimate, low and high of first, last, credit, half_gap and
    forward, then the other fields of `TrickCredit`. The total of a column is a line with the trick "all
    tricks".
    """
    head = ["trick", "column", "design", "n"]
    head += [f"{name}_{part}" for name in _AMOUNTS for part in _PARTS]
    return csv_text([*head, *_PLAIN], _lines(credit))


def _lines(credit: CreditFinding) -> Iterator[list[object]]:
    for each in credit.credits:
        amounts = [_parts(getattr(each, name)) for name in _AMOUNTS]
        plain = [getattr(each, name) for name in _PLAIN]
        yield [each.trick, each.column, credit.design, each.n, *(part for a in amounts for part in a), *plain]
    for total in credit.totals:
        amounts = [_parts(total.total if name == "credit" else None) for name in _AMOUNTS]
        plain = [total.sentence if name == "sentence" else None for name in _PLAIN]
        yield ["all tricks", total.column, credit.design, total.n, *(p for a in amounts for p in a), *plain]


def _parts(amount: Amount | None) -> list[float | None]:
    return [None if amount is None else getattr(amount, name) for name in _PARTS]


# The report as data: every finding and every run, in one canonical text.


SCHEMA_VERSION = 2
BEFORE_FLOORS = 1  # of reports without the key `floors`
OPTIONAL = ("floors", "part", "under_way")  # keys
RUN_FIELDS = (
    "run_id", "arm_id", "seed", "status", "attempts", "top1", "top5", "loss", "train_loss", "train_time_s",
    "epochs", "steps", "images_seen", "test_images", "params", "macs", "model", "precision", "batch_size",
    "data", "data_fingerprint", "device", "threads", "torch", "wall_time_s", "energy_j", "started_s",
    "ended_s",
)  # fmt: skip


def to_json(report: ReportInput) -> str:
    """Keys: schema, title, study, size, header, notes, looks, arm_seeds, findings, claims, speed, arms, runs,
    provenance, declaration, costs; floors, part, under_way, classes where there are any.

    Keys are sorted, numbers are exact, absent numbers are null. When it was written is not in it, and no
    tracking id, so the same inputs give the same bytes. `runs` has every run of the plan, in the plan's
    order, with the metrics of plugins. docs/json.md lists the keys of `claims` and `speed`.
    """
    plan = report.plan
    findings = findings_json(report.findings)
    claims, speed = findings.pop("claims"), findings.pop("speed")
    more: dict[str, Any] = {name: report.extra[name] for name in OPTIONAL if report.extra[name] is not None}
    more |= {"classes": classes_json(report)} if report.by_class else {}
    if "floors" not in more:
        del findings["competence"]
        claims = [{key: value for key, value in claim.items() if key != "size"} for claim in claims]
    data = {
        "schema": SCHEMA_VERSION if "floors" in more else BEFORE_FLOORS,
        "title": report.title,
        "study": report.findings.study,
        "size": report.findings.size,
        "header": plan.header,
        "notes": plan.notes,
        "looks": plan.looks,
        "arm_seeds": plan.arm_seeds,
        "findings": findings,
        "claims": [{**claim.pop("claim"), **claim} for claim in claims],
        "speed": speed,
        "arms": _arms(report),
        "runs": [],
        "provenance": report.provenance,
        "declaration": declaration_json(report),
        "costs": {
            "study": dataclasses.asdict(study_cost(report.records)),
            "arms": {arm_id: dataclasses.asdict(cost) for arm_id, cost in arm_costs(report.records).items()},
        },
    }
    # The text has one line like this: within texts, the end of a line is escaped.
    return indented(plain(data | more)).replace('\n "runs": []', f'\n "runs": {_runs(report)}', 1) + "\n"


def _arms(report: ReportInput) -> dict[str, Any]:
    labels = report.plan.arm_labels
    arms = report.plan.all_arms.items()
    return {arm_id: {"label": labels.get(arm_id), **as_plain(arm)} for arm_id, arm in arms}


def _runs(report: ReportInput) -> str:
    """Of every planned run, column by column: of 100,000, objects would take a second."""
    more = tuple(name for arm in report.plan.arms.values() for name in arm.recipe.metrics)
    if found := from_file(report.plan):
        own = (*report.plan.header["metrics"], *found.get("classes", ()))
        more = (report.findings.settings.metric, *own, "line")
    if report.plan.scripts:
        more = (report.findings.settings.metric, *report.plan.header["metrics"])
    fields = sorted({key for key in (*RUN_FIELDS, *more) if key in report.records})
    columns = (json_values(report.records[key]) for key in fields)
    texts = [json_texts(column, partial(indented, depth=3)) for column in columns]
    of_one = "{\n   " + json_template(fields, ",\n   ") + "\n  }"
    ids = map(str, report.records["run_id"].tolist())
    known = dict(zip(ids, map(of_one.__mod__, zip(*texts, strict=True)), strict=True))
    runs = [known.get(run.run_id) or indented(_not_run(run), 2) for run in report.plan.runs]
    return "[\n  " + ",\n  ".join(runs) + "\n ]" if runs else "[]"


def _not_run(run: PlannedRun) -> dict[str, Any]:
    return {"run_id": run.run_id, "arm_id": run.arm_id, "seed": run.seed, "status": "not run"}


# The records a report was written from, kept beside it in one archive, data/records.zip, so that anybody can
# compute its numbers again.
#
# runs.jsonl              the columns and their kinds; then one line per run, predictions in base64
# curves.csv              one line per point of a learning curve
# changes.<digest>.patch  what the code of runs had changed since its commit, where that was kept
# <name>.json             what else the report was written from, where there is any (`EXTRA`)
#
# Reports of before 0023 (docs/decisions) have the same files in data/ itself; they are read, too.


RAW_SCHEMA_VERSION = 1
ARCHIVE = "data/records.zip"
RUNS, CURVES = "runs.jsonl", "curves.csv"
# Fields of `ReportInput`, each kept as <name>.json.
EXTRA = ("calibration", "declaration", "floors", "left_out", "part", "under_way")
# What an archive may hold: a thousand times the largest report here, and no more than fits into memory.
MOST_BYTES = 2**30
LARGE = 2**24  # bytes of a file that is packed less tightly: 4 % more, in a quarter of the time
BITS = "predictions"  # the only column of bytes: one bit per test image
IDS = {"run_id", "arm_id", "status"}
KINDS = {"i": "int64", "u": "int64", "f": "float64", "b": "bool"}  # of numpy; everything else is text


def raw_files(records: DataFrame, curves: DataFrame, more: Mapping[str, bytes]) -> dict[str, bytes]:
    """Name -> content. Numbers are written so that reading gives the same bits.

    more: files beside the records, as `extra_files` makes them.
    """
    runs = records.sort_values("run_id", kind="stable")
    header = {"schema": RAW_SCHEMA_VERSION, "runs": _kinds(runs), "curves": _kinds(curves)}
    names = [str(name) for name in runs]
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    texts = [json_texts(json_values(runs[name], _json_value), encode) for name in runs]
    of_one = "{" + json_template(names, ", ") + "}\n"
    text = encode(header) + "\n" + "".join(map(of_one.__mod__, zip(*texts, strict=True)))
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
            archive.writestr(member, content, compresslevel=9 if len(content) < LARGE else 6)
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


def raw_digest(files: Mapping[str, bytes]) -> str:
    """One hash over all of `raw_files`: the report shows it, so that an edited record is seen."""
    return hashlib.sha256(b"".join(content for _, content in sorted(files.items()))).hexdigest()


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


def _json_value(value: Any) -> Any:
    if value is None or value != value:  # NaN is not equal to itself
        return None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if hasattr(value, "item"):  # a scalar of numpy
        value = value.item()
    # JSON has no infinity
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _read_lines(path: Path, content: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    number, lines, texts = 1, list[Any](), list[str]()
    try:
        for number, line in enumerate(content.decode().splitlines(), start=1):
            row = parsed(line)
            if number == 1:
                if row["schema"] != RAW_SCHEMA_VERSION:
                    raise ValueError(f"is of schema {row['schema']}, this version reads {RAW_SCHEMA_VERSION}")
                kinds = [*row["runs"].items(), *row["curves"].items()]
                texts = [name for name, kind in kinds if kind == "text"]
            elif any(not isinstance(row.get(name), str if name in IDS else str | None) for name in texts):
                raise ValueError("a column of texts has another value")
            elif row.get(BITS) is not None:
                row[BITS] = base64.b64decode(row[BITS], validate=True)
            lines.append(row)
        return lines[0], lines[1:]
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise StudyError([Problem(str(path), number, f"is damaged: {error}")]) from None


def _read_csv(path: Path, content: bytes, kinds: Mapping[str, str]) -> DataFrame:
    import pandas as pd

    try:
        # As text, and then each number by itself: only so does every version of pandas give back its bits.
        frame = pd.read_csv(io.StringIO(content.decode()), dtype="str")[list(kinds)]
        return _typed(frame.astype({name: "float64" for name in kinds if kinds[name] != "text"}), kinds)
    except (ValueError, KeyError) as error:
        raise StudyError([Problem(str(path), 0, f"cannot be read: {error}")]) from None


def _typed(frame: DataFrame, kinds: Mapping[str, str]) -> DataFrame:
    return frame.astype({name: kind for name, kind in kinds.items() if kind != "text"})
