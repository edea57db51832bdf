"""What the runs of a report were made with, from the column `env`: the text of each run's env.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from harness.study.checked import parsed

if TYPE_CHECKING:
    from pandas import DataFrame

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
