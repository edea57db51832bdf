"""Names that are taken: by columns of records, curves and tables, by MLflow, and by file systems.

The one list. What writes a column takes its name from here, or a test finds the column in it.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Sequence

from harness.errors import Location, ProblemList
from harness.spec import ACCURACIES, Arm, AugmentSpec, Recipe
from harness.study.plan import MEASURES

# Records: one row per run
IDENTITY = ("run_id", "arm_id", "seed", "status", "attempts")
RESULTS = (*ACCURACIES, "loss")
NUMBERS = (
    "train_loss",
    "train_time_s",
    "eval_time_s",
    "wall_time_s",
    "images_per_s",
    "params",
    "macs",
    "epochs",
    "steps",
    "images_seen",
    "batch_size",
    "threads",
    "started_s",
    "ended_s",
    "test_images",
    "energy_j",
)
TEXTS = ("model", "precision", "data", "data_fingerprint", "device", "torch")
RECORD_COLUMNS = (*IDENTITY, *RESULTS, *NUMBERS, *TEXTS, "error", "env", "predictions")

# Curves: one row per point
CURVES = ("train_loss", "val_top1", "lr", "images_per_s")
CURVE_COLUMNS = ("run_id", "arm_id", "seed", "epoch", "step", *CURVES)

# A summary has more than travels to the records; a point of MLflow has a time; a trainer answers with these.
SUMMARY = (
    *("schema", "read_out", "classes", "energy_source", "metrics", "predictions_sha256"),
    *("train_fingerprint", "test_fingerprint", "built_on", "weights", "initialised"),
)
EVENT = ("kind", "time_s")
ANSWER = ("correct", "logits")
MIRROR = ("study", "size", "mirrored", "rows", "summary", "reason")

# Tables, and the frames of the Python interface
CELL = ("row", "column", "tricks", "versus", "difference", "cell")
LEVEL = ("n", "diverged", "missing", "missing_reason", "mean", "sd", "low", "high", "mean_low", "mean_high")
EFFECT = (
    *("effect", "estimate", "adjusted_low", "adjusted_high", "df", "p", "p_holm", "verdict", "qualifier"),
    *("fragile", "new_images_low", "new_images_high", "detectable", "prob_better", "more_seeds", "answer"),
    *("settled_at", "exploratory", "paper", "paper_status", "gap", "gap_low", "gap_high", "agreement", "why"),
)
PRINTED = (  # of the paper, beside the metrics
    *("top1_std", "params_m", "gflops", "cost", "cost_bn_ops", "epoch_minutes", "steps_to_target_m"),
)
PREFIXES = ("val_", "seed_", "paper_", "effect_")

METRICS: frozenset[str] = frozenset(
    {*RECORD_COLUMNS, *CURVE_COLUMNS, *SUMMARY, *EVENT, *ANSWER, *MIRROR, *CELL, *LEVEL, *EFFECT}
    | {*PRINTED, *MEASURES}
)
# Parameters of MLflow are called by the fields of a recipe and by `trick.option`; factors of a grid too.
TRICKS: frozenset[str] = frozenset(
    {field.name for kind in (Recipe, Arm) for field in dataclasses.fields(kind)}
    | {field.name for field in dataclasses.fields(AugmentSpec)}
    | {"resolution", "seed", "tricks", "plugins", "baseline", "off", "none"}
)
DEVICES = r"(?i)(?:con|prn|aux|nul|clock\$|com[0-9]|lpt[0-9])(?:\..*)?"  # of Windows
LONGEST = 100  # bytes of a name that becomes a key or a file: with suffixes, file systems take 255

# Files of a report: those of a table T are T_values.tex, T_effects_2.svg, ...; those of a study have no T.
OF_A_TABLE = (
    *("values", "details", "steps", "credit", "credit_order", "effects", "curves", "sides", "levels"),
    "evidence",
)
OF_A_STUDY = (
    *("runs", "budget", "resolvable", "flips", "seeds", "gains", "looks"),
    *("paper", "paper_claims", "paper_effects", "paper_values", "comparison", "records", "curves"),
    "scoreboard",
)
NO_FILE = "cannot be the name of a file on Windows; choose another one"
_NUMBERED = r"_[0-9]+$"


def why_not(kind: str, name: str) -> str:
    """What is wrong with calling a metric, trick, model, data set or trainer so; "" where nothing is.

    >>> why_not("metric", "epoch")
    "a metric cannot be called 'epoch': records, curves, tables or MLflow have a column of that name"
    """
    if len(name.encode()) > LONGEST:
        return f"a {kind} has a name of at most {LONGEST} bytes, got {len(name.encode())}"
    if re.fullmatch(DEVICES, name):
        return f"a {kind} cannot be called '{name}': on Windows that is a device, not a file"
    if kind == "metric" and (name in METRICS or name.startswith(PREFIXES)):
        return f"a metric cannot be called '{name}': records, curves, tables or MLflow have " + (
            "a column of that name" if name in METRICS else "columns that begin so"
        )
    if kind == "trick" and name in TRICKS:
        return f"a trick cannot be called '{name}': recipes, factors or MLflow have a field of that name"
    return ""


def check_files(study: str, sizes: Iterable[str], tables: Sequence[str], problems: ProblemList) -> None:
    """Add the names that cannot be files of one report side by side, on every file system."""
    for name, at in ((study, ("study",)), *((name, ("sizes", name)) for name in sizes)):
        if re.fullmatch(DEVICES, name) or name.endswith("."):
            problems.add(at, f"'{name}' {NO_FILE}")
    check_apart(list(sizes), ("sizes",), problems)
    check_apart(tables, ("tables",), problems)
    folded = {name.casefold(): name for name in tables}
    for name in tables:
        base = re.sub(_NUMBERED, "", name.casefold())
        if re.fullmatch(DEVICES, name) or name.endswith("."):
            problems.add(("tables", name), f"'{name}' {NO_FILE}")
        elif name.casefold() in OF_A_STUDY or base in OF_A_STUDY:
            said = f"a table cannot be called '{name}': every report has files of that name"
            problems.add(("tables", name), said)
        for suffix in OF_A_TABLE:
            owner = folded.get(base.removesuffix(f"_{suffix}"))
            if base.endswith(f"_{suffix}") and owner is not None:
                said = f"a table cannot be called '{name}': the table '{owner}' has files of that name"
                problems.add(("tables", name), said)


def check_apart(names: Sequence[str], at: Location, problems: ProblemList, *, case: bool = False) -> None:
    """Add every name that a reader, or a file system, cannot tell from an earlier one.

    case: upper and lower case tell them apart; they do not where names become files.
    """
    seen: dict[str, str] = {}
    for name in names:
        key = looks_like(name) if case else looks_like(name).casefold()
        other = seen.setdefault(key, name)
        if other != name:
            problems.add(
                (*at, name) if at[-1] in ("sizes", "tables") else at,
                f"'{name}' ({code_points(name, other)}) and '{other}' ({code_points(other, name)}) look the"
                " same to a reader or a file system; rename one",
            )


def looks_like(name: str) -> str:
    """The name without what no reader sees: composed (NFC), without marks of format, spaces as one."""
    shown = "".join(each for each in unicodedata.normalize("NFC", name) if unicodedata.category(each) != "Cf")
    return unicodedata.normalize("NFC", " ".join(shown.split()))


def code_points(name: str, other: str) -> str:
    """Where a name differs from another: its code points there.

    >>> code_points("cafe\\u0301", "caf\\u00e9")
    'U+0065 U+0301'
    """
    start = 0
    while start < min(len(name), len(other)) and name[start] == other[start]:
        start += 1
    end = 0
    while end < min(len(name), len(other)) - start and name[-1 - end] == other[-1 - end]:
        end += 1
    part = name[start : len(name) - end][:8]
    return " ".join(f"U+{ord(each):04X}" for each in part) or "nothing there"
