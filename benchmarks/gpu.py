"""The figures that need a GPU, as one Markdown table.

    python3 benchmarks/gpu.py --call 1               does it run, is it right, what is a step: at most 330 s
    python3 benchmarks/gpu.py --call 2               how fast it is, after reading the first: at most 330 s
    python3 benchmarks/gpu.py --only exact study     some sections; without any of these, both calls
    python3 benchmarks/gpu.py --dry                  every code path on a CPU; the figures mean nothing
    python3 benchmarks/gpu.py --write-plan           write the plan file of the study (needs the full install)
    python3 benchmarks/gpu.py --only study --study-epochs 30 --study-seeds 3 --study-seconds 36000
                                                     the whole study

Needs torch, torchvision and numpy; not mlflow, submitit, typst or yaml. timm is measured
where it is installed. Each section runs in a process of its own, is ended at its bound, puts its failure
into its row, and is printed, and written to --out, when it ends. Without a CUDA device nothing is measured.
Ends with 1 where a row failed, else with 0.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu_parts.rows import Row, RowFile, reason, table

PLAN = Path(__file__).resolve().with_name("gpu_plan.json")
VERSIONS = ("torch", "torchvision", "timm", "numpy", "triton")
STUDY_START_UP_S = 20.0  # importing, workers, and the checkpoints of what is interrupted
GRACE_S = 8.0  # from SIGTERM to SIGKILL


@dataclass(frozen=True)
class Section:
    """A function of gpu_parts, the seconds after which it is ended, and the call that it belongs to."""

    function: str  # module:name
    bound_s: float
    call: int


SECTIONS = {  # at most 330 s a call, starting and ending included
    "tests": Section("exact:measure_tests", 95, 1),
    "exact": Section("exact:measure", 45, 1),
    "waits": Section("steps:measure_waits", 30, 1),
    "families": Section("steps:measure_families", 80, 1),
    "profile": Section("steps:measure_profile", 60, 1),
    "feed": Section("feeds:measure", 55, 2),
    "resnet50": Section("resnet50:measure", 65, 2),
    "sharing": Section("sharing:measure", 75, 2),
    "compile": Section("compiled:measure", 75, 2),
    "study": Section("study:measure", 50, 2),
}


def main() -> int:
    options = parse()
    if options.write_plan:
        return write_plan(options.plan)
    if options.section:
        return run_section(options)
    about = describe(options.device)
    if isinstance(about, str):
        print(f"not measured: {about}")
        return 0
    for line in header(about, options):
        print(line)
    rows: list[Row] = []
    took_s: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="harness-gpu-") as folder:
        for name in options.only:
            found, time_s = run_apart(name, options, Path(folder))
            print(table(found, titles=not rows), flush=True)
            rows += found
            took_s[name] = round(time_s, 1)
            write(options, {"about": about, "tiny": options.tiny, "section_s": took_s}, rows)
    print("\nSeconds per section: " + ", ".join(f"{name} {time_s:.0f}" for name, time_s in took_s.items()))
    return 1 if any(row.failed is not None for row in rows) else 0


def write(options: argparse.Namespace, facts: dict[str, Any], rows: list[Row]) -> None:
    """The figures of the sections that have ended, as JSON, where --out asks for them."""
    if options.out:
        data = {**facts, "rows": [asdict(row) for row in rows]}
        options.out.write_text(json.dumps(data, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=tuple(SECTIONS))
    parser.add_argument("--call", type=int, choices=(1, 2), help="the sections of the first or second call")
    parser.add_argument("--dry", action="store_true", help="the same as --device cpu --tiny")
    parser.add_argument("--device", default="cuda:0", help="cuda:0 (the default), cuda:1, ..., cpu")
    parser.add_argument("--tiny", action="store_true", help="a shrunken form of every section")
    parser.add_argument(
        "--out",
        type=Path,
        help="also write the figures to this file, as JSON, and beside it what a section that failed said; "
        "without it into the folder that the variable OUT names, if any",
    )
    parser.add_argument("--plan", type=Path, default=PLAN, help="the plan file of the study")
    parser.add_argument("--write-plan", action="store_true", help="write the plan file and end")
    parser.add_argument(
        "--study-seconds", type=float, default=30.0, help="interrupt the study then (default 30)"
    )
    parser.add_argument(
        "--study-epochs", type=float, default=0.5, help="of the baseline, other arms in proportion"
    )
    parser.add_argument("--study-seeds", type=int, default=1)
    parser.add_argument("--study-workers", type=int, help="runs at a time; default 8 or one per core")
    parser.add_argument("--section", help=argparse.SUPPRESS)  # in the process of a section
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.dry:
        options.device, options.tiny = "cpu", True
    if options.out is None and (folder := os.environ.get("OUT")):
        options.out = Path(folder) / f"gpu-{options.call or 'all'}.json"
    mine = [name for name, section in SECTIONS.items() if options.call in (None, section.call)]
    options.only = options.only or mine
    if options.device == "cpu" and not (options.tiny or options.write_plan):
        parser.error("--device cpu is there to try the script: add --tiny")
    return options


def describe(device: str) -> dict[str, Any] | str:
    """Versions, device and date; or why nothing can be measured."""
    try:
        import torch
    except ImportError as error:
        return f"no CUDA device that this python3 could use ({error})"
    if device != "cpu" and not torch.cuda.is_available():
        return "no CUDA device"
    from harness.runs.provenance import cpu_name
    from harness.training.environment import device_name, source_version

    about = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": device_name(device),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in VERSIONS},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if device != "cpu" else None,
        **source_version(),
    }
    if device != "cpu":
        properties = torch.cuda.get_device_properties(device)
        about["memory_gib"] = round(properties.total_memory / 2**30, 1)
        about["compute_capability"] = f"{properties.major}.{properties.minor}"
    return about


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def header(about: dict[str, Any], options: argparse.Namespace) -> Iterator[str]:
    yield f"# GPU figures, {about['date']}\n"
    if options.tiny:
        yield "**Tiny form: it shows that the code runs; its figures mean nothing.**\n"
    skipped = ("date", "dirty")
    words = {"commit": f"{about['commit']}{' with changes' if about['dirty'] else ''}"}
    facts = {**about, **words}
    yield "; ".join(f"{key} {value}" for key, value in facts.items() if key not in skipped and value) + "\n"


def run_apart(name: str, options: argparse.Namespace, folder: Path) -> tuple[list[Row], float]:
    """A section in a process group of its own, ended at its bound: its rows, failures too, and seconds."""
    own = folder / name
    own.mkdir()
    file = RowFile(own / "rows.jsonl", name)
    limit_s = bound_s(name, options)
    started_s = time.monotonic()
    command = [sys.executable, __file__, *sys.argv[1:], "--section", name, "--folder", str(own)]
    with (own / "errors.txt").open("w+") as errors:
        process = subprocess.Popen(command, stdout=errors, stderr=errors, start_new_session=True)
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            file.add(Row(what="the rest of the section", failed=f"ended at its bound of {limit_s:.0f} s"))
            code = 0
        finally:
            end_group(process)
        errors.seek(0)
        text = errors.read()
        last = [line for line in text.splitlines() if line.strip()][-1:]
    if code:
        file.add(Row(what="the section", failed=f"its process ended with {code}: {' '.join(last)[:300]}"))
    rows = file.read() or [Row(what="the section", failed="no figure", section=name)]
    if options.out and text.strip() and any(row.failed for row in rows):
        options.out.with_name(f"{options.out.stem}-{name}.txt").write_text(text)
    took_s = time.monotonic() - started_s
    print(f"{name}: {len(rows)} rows in {took_s:.0f} s", file=sys.stderr, flush=True)
    return rows, took_s


def bound_s(name: str, options: argparse.Namespace) -> float:
    """The study's bound follows what the user asked for; a try on a CPU is not about time."""
    usual = SECTIONS[name].bound_s * (10 if options.tiny else 1)
    return max(usual, options.study_seconds + STUDY_START_UP_S) if name == "study" else usual


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the section and every worker it has started: asked first, then killed."""
    for number, wait_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)


def run_section(options: argparse.Namespace) -> int:
    """In the process of a section: measure, one row at a time."""
    ended_at_s = time.monotonic() + bound_s(options.section, options)
    file = RowFile(options.folder / "rows.jsonl", options.section)
    try:
        module, name = SECTIONS[options.section].function.split(":")
        measure = getattr(importlib.import_module(f"gpu_parts.{module}"), name)
        measure(make_settings(options, ended_at_s), file.add)
    except Exception as error:
        traceback.print_exc()
        file.add(Row(what="the section", failed=reason(error)))
    return 0


def make_settings(options: argparse.Namespace, ended_at_s: float) -> Any:
    from gpu_parts.settings import BEFORE_THE_END_S, Settings

    workers = 2 if options.tiny else min(8, os.cpu_count() or 1)
    return Settings(
        device=options.device,
        tiny=options.tiny,
        folder=options.folder,
        stop_at_s=ended_at_s - BEFORE_THE_END_S,
        plan=options.plan,
        study_epochs=options.study_epochs,
        study_seeds=options.study_seeds,
        study_seconds=options.study_seconds,
        study_workers=options.study_workers or workers,
    )


def write_plan(path: Path) -> int:
    from gpu_parts.study_plan import write_plan as write

    plan = write(path)
    print(f"{path.name}: {len(plan.arms)} arms of {plan.study} at size {plan.size}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that sections are ended with this process
    sys.exit(main())
