"""Everything a report is written from: findings, costs, environments, places. Nothing else is read."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.analysis.findings import Findings
from harness.reporting.document import setting_text
from harness.reporting.numbers import is_number
from harness.runs.provenance import data_name
from harness.runs.records import parsed
from harness.spec import ENDED, DataSpec
from harness.study.plan import Plan

if TYPE_CHECKING:
    from pandas import DataFrame, Series

# Everything a report is written from. Nothing else is read: no run folder, no clock, no environment.


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What a report of a part was computed from."""

    plan: Plan
    records: DataFrame
    curves: DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInput:
    """The findings, and what is needed to show where they come from.

    records: one row per run; `run_id`, `arm_id`, `seed` and `status` are needed; `attempts`, `train_time_s`,
    `device`, `top1`, `top5`, `loss`, ... are shown where present.
    curves: one row per epoch of a run: `run_id`, `arm_id`, `seed`, `epoch`, `val_top1` (percent).
    provenance: versions, device, commit, data fingerprint; one level of nesting at most.
    declaration: what was declared and when, as `study.declared.read_history` gives it; None: not recorded.
    part: which tables, rows and columns it is of, as names; None: of the whole study. `plan`, records and
    curves are then those of the part alone, and `whole` has those of which the findings are.
    under_way: `says` what is still to come, of a report that was written while runs were trained; None: not.
    calibration: what `harness calibrate` measured on this machine's noise; None: not calibrated.
    left_out: the runs that are not in it because they saw other data, and what to say of them; None: none.
    changes: sha256 -> what the code of runs had changed since its commit, as a patch; None: none was kept.
    floors: what simple classifiers reach on the data of each setting (`study.conditions`); None: a report of
    before floors were measured, of which verdicts and answers are as they were then.
    A report keeps these seven under data/, so that `harness verify` can read them back.
    by_class: class of images -> the findings on those alone; only of results from elsewhere.
    raw: what `frames.raw_files` makes of all this, where that has been made: of many runs it takes a second.
    """

    title: str
    findings: Findings
    plan: Plan
    records: DataFrame
    curves: DataFrame
    provenance: Mapping[str, Any]
    declaration: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None
    left_out: Mapping[str, Any] | None = None
    changes: Mapping[str, str] | None = None
    floors: Mapping[str, Any] | None = None
    part: Mapping[str, Any] | None = None
    under_way: Mapping[str, Any] | None = None
    whole: Whole | None = None
    by_class: Mapping[str, Findings] = field(default_factory=dict)
    raw: Mapping[str, bytes] | None = None

    @property
    def declared_plan(self) -> Plan:
        """The whole plan, also of a report of a part."""
        return self.whole.plan if self.whole else self.plan

    @property
    def kept(self) -> tuple[DataFrame, DataFrame]:
        """Every record and curve that the findings are of: what a report keeps to be verified by."""
        return (self.whole.records, self.whole.curves) if self.whole else (self.records, self.curves)

    @property
    def extra(self) -> Mapping[str, Mapping[str, Any] | None]:
        """Name -> what `raw.extra_files` writes beside the records."""
        return {
            "declaration": self.declaration,
            "calibration": self.calibration,
            "left_out": self.left_out,
            "changes": self.changes,
            "floors": self.floors,
            "part": self.part,
            "under_way": self.under_way,
        }


def from_file(plan: Plan) -> Mapping[str, Any] | None:
    """Of results that were not trained here, which file they are from (`harness.results`); None: a study."""
    found: Mapping[str, Any] | None = plan.header.get("results")
    return found


def findings_json(findings: Findings) -> dict[str, Any]:
    """As plain data, without what `missing_reason` says and what only files of results have."""
    data = _as_dict(findings)
    for cell in (cell for table in data["tables"] for cell in table["cells"] if cell["level"]):
        del cell["level"]["without_value"]
    usual = {"percent": False, "lower_is_better": False, "seeds_shared": True}
    settings = data["settings"]
    data["settings"] = {key: value for key, value in settings.items() if usual.get(key) != value}
    return data


NUMBERS = {int, float, bool, type(None)}
WORDS = {int, bool, str, type(None)}  # JSON has every one of them


def _as_dict(value: Any) -> Any:
    """As `dataclasses.asdict`, which copies every number of a list by itself."""
    if type(value) is str or type(value) in NUMBERS:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _as_dict(getattr(value, name)) for name in _names_of(type(value))}
    if isinstance(value, Mapping):
        if set(map(type, value.values())) <= NUMBERS:
            return dict(value)
        return {key: _as_dict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = value if set(map(type, value)) <= NUMBERS else map(_as_dict, value)
        return tuple(items) if isinstance(value, tuple) else list(items)
    return value


@cache
def _names_of(kind: type) -> tuple[str, ...]:
    return tuple(each.name for each in dataclasses.fields(kind))


def plain(value: Any) -> Any:
    """The value in JSON's own types: text keys, lists, no NaN or infinity (they become null)."""
    if value is None or isinstance(value, str | int | bool):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else None
    if hasattr(value, "item"):  # a scalar of numpy
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return dict(zip(map(str, value), _all_plain(value.values()), strict=True))
    if isinstance(value, list | tuple | set | frozenset):
        return list(_all_plain(value))
    if isinstance(value, int | bool):
        return value
    return None if value != value else str(value)  # pandas' missing values are not equal to themselves


def _all_plain(values: Collection[Any]) -> Iterable[Any]:
    kinds = set(map(type, values))
    known = kinds <= WORDS or (kinds == {float} and all(map(math.isfinite, values)))
    return values if known else map(plain, values)


def json_values(column: Series, of_one: Callable[[Any], Any] = plain) -> list[Any]:
    """Of each run as JSON has it; texts, and numbers that all are finite, as they are."""
    values = column.tolist()
    known = column.dtype.kind in "iub" or (column.dtype.kind == "f" and all(map(math.isfinite, values)))
    return values if known or set(map(type, values)) <= WORDS else list(map(of_one, values))


# JSON as the library writes it. With an indent it is Python's own code there that writes each value, which
# takes ten times as long; so it is asked for what has no lines of its own.


def json_texts(values: list[Any], of_nested: Callable[[Any], str]) -> list[str]:
    """Each value of a column as JSON; lists and objects by `of_nested`."""
    if not values:
        return []
    if not {dict, list}.isdisjoint(map(type, values)):
        return list(map(of_nested, values))
    # Within texts, the end of a line is escaped.
    text = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=("\n", ": ")).encode(values)
    return text[1:-1].split("\n")


def json_template(names: Sequence[str], between: str) -> str:
    """The inside of an object with these keys: filled by `%` with the texts of its values."""
    keys = (json.dumps(name, ensure_ascii=False).replace("%", "%%") for name in names)
    return between.join(f"{key}: %s" for key in keys)


def indented(data: Any, depth: int = 0) -> str:
    """As `json.dumps` with sorted keys and an indent of 1 writes plain data that stand so deep in others."""
    inside = list(data.values()) if isinstance(data, dict) else data if isinstance(data, list) else []
    margin = "\n" + " " * (depth + 1)
    if not any(isinstance(item, dict | list) and item for item in inside):
        text = _encoder(f",{margin}").encode(data)
        if not inside:
            return text
        text = text[1:-1]
    elif isinstance(data, dict):
        key_text = _encoder("").encode
        lines = (f"{key_text(key)}: {indented(item, depth + 1)}" for key, item in sorted(data.items()))
        text = f",{margin}".join(lines)
    else:
        text = f",{margin}".join(indented(item, depth + 1) for item in data)
    first, last = "{}" if isinstance(data, dict) else "[]"
    return f"{first}{margin}{text}{margin[:-1]}{last}"


@cache
def _encoder(between: str) -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(between, ": "))


# What the runs of a report were made with, from the column `env`: the text of each run's env.json.


Environment = Mapping[str, Any]
SHOWN = (  # of env.json; one entry of the provenance each, in this order
    "device_memory_gb", "cpu", "cores", "memory_gb", "driver", "cuda", "cudnn", "os", "platform", "python",
    "torch", "torchvision", "numpy", "threads", "processes", "hostname",
)  # fmt: skip
OF_A_GPU = frozenset({"device_memory_gb", "driver", "cuda", "cudnn"})


def environments(records: DataFrame) -> dict[str, Environment]:
    """run_id -> what its env.json says; {} for a run that left none, or whose store did not keep it."""
    if "env" not in records:
        return {str(run_id): {} for run_id in records["run_id"]}
    known: dict[Any, Environment] = {}
    found = {}
    for run_id, text in zip(records["run_id"], records["env"], strict=True):
        if text not in known:
            known[text] = _parsed(text)
        found[str(run_id)] = known[text]
    return found


def distinct(found: Iterable[Environment], name: str) -> list[str]:
    """The values of one entry over all runs, as text, sorted; runs without it are left out."""
    values = {found_in[name] for found_in in found if found_in.get(name) is not None}
    return sorted(str(value) for value in values)


def _parsed(text: Any) -> Environment:
    if not isinstance(text, str):
        return {}
    try:
        data = parsed(text)
    except ValueError:
        return {}
    if not isinstance(data, dict):
        return {}
    return {str(key): value for key, value in data.items() if not isinstance(value, dict | list)}


def ran_with(records: DataFrame) -> dict[str, list[str]]:
    """Everything in which runs may differ that is no part of their recipe: entry -> its distinct values.

    `code` and `determinism` say for how many runs each value holds. An entry that no run recorded is [];
    those of a GPU are left out where no run used one.
    """
    found = environments(records)
    ran = [env for env in found.values() if env]
    on_gpu = any(env.get("device", "cpu") != "cpu" for env in ran)
    shown = [name for name in SHOWN if on_gpu or name not in OF_A_GPU]
    columns = ("data", "data_fingerprint", "device", "threads", "torch")  # in the summaries of runs, too
    out = {name: _column(records, name) for name in columns}
    out |= {name: values for name in shown if (values := distinct(ran, name)) or name not in out}
    if left_out := distinct(ran, "data_left_out"):
        out["data_left_out"] = left_out
    out["code"] = _counted(_code(env) for env in ran)
    out["determinism"] = _counted(_determinism(env) for env in ran)
    return out


def _column(records: DataFrame, name: str) -> list[str]:
    values = records[name].dropna().tolist() if name in records else []
    return sorted({f"{value:g}" if isinstance(value, float) else str(value) for value in values})


def _counted(texts: Iterable[str]) -> list[str]:
    counts = Counter(texts)
    if len(counts) == 1:
        return list(counts)
    return [f"{text} ({number} run{'s' if number != 1 else ''})" for text, number in sorted(counts.items())]


def _code(env: Environment) -> str:
    """For example "commit 46ae5c0294e5 with changes (patch sha256 ab12cd34ef56)"."""
    commit = env.get("commit")
    if not commit:
        return "commit not recorded"
    text = f"commit {commit!s:.12}"
    if env.get("dirty") is None:
        return f"{text}; whether files differed from it was not recorded"
    if not env["dirty"]:
        return f"{text}, no file changed"
    patch = f"patch sha256 {env['changes']!s:.12}" if env.get("changes") else "which ones was not recorded"
    return f"{text} with changed files ({patch})"


def _determinism(env: Environment) -> str:
    if "exact" not in env:
        return "not recorded"
    kind = "exact: repeatable algorithms only" if env["exact"] else "fast: algorithms chosen by speed"
    tf32 = "TF32 on" if env.get("tf32") else "TF32 off"
    half = {"emulated": ", half precision (where a recipe has it) emulated in FP32"}.get(
        str(env.get("half_precision")), ""
    )
    return f"{kind}, {tf32}, {'compiled' if env.get('compile') else 'not compiled'}{half}"


# What the runs cost: time, device-hours and energy, per recipe and for a study. A sum over runs of which
# one was not measured is not known; nothing here is estimated.


GPU_HOURS, CORE_HOURS = "GPU-hours", "CPU core-hours"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """Of the runs that have ended (finished or diverged). None: not measured for all of them."""

    runs: int
    time_s: float | None  # training time of one run, mean; without evaluation and preparation
    device_hours: float | None  # sum over runs: devices x wall time; a device that runs share counts for each
    unit: str | None  # GPU_HOURS | CORE_HOURS; None: not known, or both
    energy_kj: float | None  # sum over runs, of the GPUs or of the CPU packages, as their counters say


def arm_costs(records: DataFrame) -> dict[str, RunCost]:
    """arm_id -> what its runs cost; arms without an ended run are left out."""
    by_arm: dict[str, list[_Run]] = {}
    for arm_id, run in _runs(records):
        by_arm.setdefault(arm_id, []).append(run)
    return {arm_id: _cost(runs) for arm_id, runs in by_arm.items()}


def study_cost(records: DataFrame) -> RunCost:
    """All runs together."""
    return _cost([run for _, run in _runs(records)])


LAST_PART = 0.75  # of the epochs: what comes after it shows whether a training had flattened


def gains_at_the_end(curves: DataFrame) -> dict[str, float]:
    """arm_id -> test top-1 gained over the last quarter of training, percentage points, mean over seeds.

    Arms whose runs have no reading before and after it are left out.
    """
    gains: dict[str, list[float]] = {}
    read = curves[curves["val_top1"].between(0.0, 100.0)].sort_values("epoch")
    for (arm_id, _), rows in read.groupby(["arm_id", "seed"], sort=False):
        end = rows.iloc[-1]
        before = rows[rows["epoch"] <= LAST_PART * end["epoch"]]
        if len(before):
            gains.setdefault(str(arm_id), []).append(float(end["val_top1"] - before["val_top1"].iloc[-1]))
    return {arm_id: sum(found) / len(found) for arm_id, found in gains.items()}


@dataclass(frozen=True, slots=True)
class _Run:
    time_s: float | None
    device_hours: float | None
    unit: str | None
    energy_j: float | None


def _runs(records: DataFrame) -> Iterable[tuple[str, _Run]]:
    measured = [name for name in ("env", "wall_time_s", "train_time_s", "energy_j") if name in records]
    ended = records[records["status"].isin(list(ENDED))]
    if not measured:  # of 100,000 lines of a file, nothing is
        nothing = _Run(None, None, None, None)
        return [(str(arm_id), nothing) for arm_id in ended["arm_id"]]
    env = environments(ended)
    names = [name for name in ("run_id", "arm_id", "threads", *measured) if name in records]
    rows = ended[names].to_dict("records")
    return [(str(row["arm_id"]), _run(row, env[str(row["run_id"])])) for row in rows]


def _run(row: Mapping[Any, Any], env: Environment) -> _Run:
    unit, devices = _devices(row, env)
    wall_s = _number(row, "wall_time_s")
    hours = None if wall_s is None or devices is None else devices * wall_s / 3600
    return _Run(_number(row, "train_time_s"), hours, unit, _number(row, "energy_j"))


def _devices(row: Mapping[Any, Any], env: Environment) -> tuple[str | None, float | None]:
    """How many GPUs, or CPU cores, a run held. Runs of before `processes` was recorded had one process."""
    if "device" not in env:
        return None, None
    processes = _number({"processes": 1, **env}, "processes")
    if env["device"] != "cpu":
        return GPU_HOURS, processes
    threads = _number({"threads": row.get("threads"), **env}, "threads")
    return CORE_HOURS, None if threads is None or processes is None else processes * threads


def _cost(runs: list[_Run]) -> RunCost:
    units = {run.unit for run in runs}
    unit = units.pop() if len(units) == 1 else None
    times = _sum(run.time_s for run in runs)
    energy_j = _sum(run.energy_j for run in runs)
    return RunCost(
        runs=len(runs),
        time_s=None if times is None else times / len(runs),
        device_hours=_sum(run.device_hours for run in runs) if unit else None,
        unit=unit,
        energy_kj=None if energy_j is None else energy_j / 1000,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum, whatever their order; None where one is not known, or there is none."""
    known = []
    for value in values:
        if value is None:
            return None
        known.append(value)
    return math.fsum(known) if known else None


def _number(row: Mapping[Any, Any], name: str) -> float | None:
    value = row.get(name)
    return float(value) if is_number(value) else None


# On which data and at which resolution a row is trained, where rows of one report differ in that.


MOST_LISTED = 3  # resolutions of one data set in a line of text


def usual_data(plan: Plan) -> DataSpec | None:
    """The data and the resolution of most cells that are trained; the first of equals."""
    shown = [cell.arm_id for table in plan.tables for cell in table.cells if cell.arm_id in plan.arms]
    specs = [plan.arms[arm_id].recipe.data for arm_id in shown if arm_id]
    counted = Counter(map(_key, specs))
    best = max(counted.values(), default=0)
    return next((spec for spec in specs if counted[_key(spec)] == best), None)


def place_labels(plan: Plan) -> dict[str, str]:
    """arm_id -> how its data differ from those of most rows, for example "at 20 × 20 pixels".

    Arms that do not differ are left out.
    """
    usual = usual_data(plan)
    if usual is None:
        return {}
    labels = {arm_id: _label(arm.recipe.data, usual) for arm_id, arm in plan.arms.items()}
    return {arm_id: label for arm_id, label in labels.items() if label}


def _label(data: DataSpec, usual: DataSpec) -> str:
    size = f"{data.resolution} × {data.resolution} pixels"
    if _set(data) != _set(usual):
        extra = [f"{name} {setting_text(value)}" for name, value in sorted(data.args.items())]
        named = f"{data.name} ({', '.join(extra)})" if data.name == usual.name and extra else data.name
        return f"on {named}, {size}" if data.resolution != usual.resolution else f"on {named}"
    return f"at {size}" if data.resolution != usual.resolution else ""


def places(plan: Plan) -> list[str]:
    """Every data set with its resolutions, for example "fashion_mnist (20 to 40 pixels)"."""
    sides: dict[str, set[int]] = {}
    for arm in plan.arms.values():
        sides.setdefault(data_name(arm.recipe.data), set()).add(arm.recipe.data.resolution)
    return [f"{name} ({_sides(sorted(found))} pixels)" for name, found in sorted(sides.items())]


def _sides(sides: list[int]) -> str:
    if len(sides) > MOST_LISTED:
        return f"{sides[0]} to {sides[-1]}"
    return ", ".join(map(str, sides))


def _set(data: DataSpec) -> str:
    return f"{data.name} {sorted(data.args.items())}"


def _key(data: DataSpec) -> str:
    return f"{_set(data)} {data.resolution}"
