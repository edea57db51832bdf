"""Damages one file after another of runs, submissions and reports, and calls every command that reads it.

    python -m tests.fuzz.files --mutations 200

Each file gets so many mutations, each a function of --seed, the file and its number; then every command that
reads it is called in this process. It must end by an exit code within `LIMIT_S` of a core, without a
traceback. The last line is the figures as JSON; exit code 1: a bug was found. `--only NAME` takes one file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from unittest.mock import patch

from harness.commands.calibrate import FOLDER as CALIBRATION
from harness.runs.folder import write_json
from tests.end_to_end.under_way import UnderWay
from tests.fuzz.damage import DAMAGES, file_instead_of_folder
from tests.fuzz.records import Bug, ended_in_order, prepared
from tests.fuzz.workplace import Workplace, nothing_trained
from tests.reporting.edits import loosen

LIMIT_S = 5.0  # of one core, for a command
HARMLESS = [each for each in DAMAGES if each is not file_instead_of_folder]
CLAIM = {"host": "elsewhere", "pid": 1, "boot_id": "b", "token": "t", "job": "7", "time_s": 1.7e9}
CALIBRATED = {
    "schema": 1,
    "metric": "top1",
    "study": "calibration",
    "recipe": "plain",
    "runs": 30,
    "arms": 3,
    "seeds": 3,
    "tables": 100,
    "alarms": 4,
    "rate": 0.04,
    "rate_upper": 0.08,
    "pool_sd": 0.01,
    "measured": "2026-01-01T00:00:00Z",
    "device": "a small CPU",
    "sharing": "none",
}
SLOW = ("report", "run", "verify")  # seconds each
LOOKING = ("plan", "status", "status --json", "logs", "logs --json")
TRAINING = ("sync", "report --out OUT", "run --on inline --no-report", "run --on slurm --dry-run")
# Of an archive, laid open in data/ as older reports have them.
RAW = ("runs.jsonl", "curves.csv", "declaration.json")
OF_REPORTS = ("verify", "compare", "run --on inline --out REPORT")


@dataclass(frozen=True)
class Target:
    """A file that is damaged: its path in the folder, and what reads it."""

    path: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """A study of which all runs but one have ended, a submission of its runs, and two reports."""

    place: Workplace
    ended: str  # run_ids
    open: str

    @property
    def targets(self) -> dict[str, Target]:
        """Name -> file. `open`: of the run that has not ended."""
        both = (*LOOKING, *TRAINING)
        done = ("summary.json", "spec.json", "events.jsonl", "env.json", "predictions.bin", "lock")
        found = {name: Target(f"runs/{self.ended}/{name}", both) for name in done}
        for name in ("spec.json", "events.jsonl", "claim.1", "claim.2", "cancel", "lock"):
            # A run whose claim may be alive is waited for: nobody takes it here.
            commands = (*LOOKING, "cancel", "sync") if name.startswith("claim") else (*both, "cancel")
            found[f"open {name}"] = Target(f"runs/{self.open}/{name}", commands)
        for name in ("submission.json", "runs.jsonl", "jobs.json", "agents/7.jsonl"):
            path = f"runs/.submissions/abc123/{name}"
            found[name] = Target(path, ("status", "status --json", "logs", "logs --json", "cancel"))
        found["declaration.1.json"] = Target("runs/.studies/tiny-mini/declaration.1.json", both)
        found["calibration"] = Target(f"runs/{CALIBRATION}/calibration.json", TRAINING)
        found[".queue.json"] = Target("runs/.queue.json", ("status", "cancel"))
        for name in ("report.json", "data/records.zip", *(f"data/{each}" for each in RAW)):
            found[f"report {name}"] = Target(f"report/{name}", OF_REPORTS)
        return found

    def call(self, command: str) -> None:
        """One command line, in short.

        Raises:
            Bug: it ended otherwise than by an exit code.
        """
        place, report = self.place, str(self.place.path / "report")
        name, *options = command.split()
        options = [{"OUT": str(place.path / "out"), "REPORT": report}.get(each, each) for each in options]
        if name == "logs":
            options += ["--runs", str(place.runs_dir)]
            for run_id in (self.ended, self.open):
                ended_in_order(["logs", run_id, *options], LIMIT_S)
        elif name == "verify":
            places = ["--runs", str(place.runs_dir), "--data", str(place.path)]
            ended_in_order(["verify", report, "--study", str(place.study), *places], LIMIT_S)
        elif name == "compare":
            out = ["--out", str(place.path / "side")]
            ended_in_order(["report", report, f"{report}2", *out], LIMIT_S)
        else:
            places = ["--runs", str(place.runs_dir), "--data", str(place.path)]
            with nothing_trained():
                ended_in_order([name, str(place.study), *places, *options], LIMIT_S)


def scene(path: Path) -> Scene:
    """Make it, with everything that is damaged later."""
    with quick_reports():
        place = prepared(path)
        place.harness("run", "--on", "inline", "--out", str(path / "report"))
        shutil.copytree(path / "report", path / "report2")
    ended, unfinished = sorted(each.name for each in place.runs_dir.iterdir() if each.name[0] != ".")[:2]
    folder = place.runs_dir / unfinished
    (folder / "summary.json").unlink()
    (folder / "claim.1").write_text(json.dumps(CLAIM))
    (folder / "claim.2").write_text(json.dumps({**CLAIM, "released": True}))
    write_json(folder / "cancel", {"time_s": 1.7e9, "by": "me@here"})
    submission = UnderWay(path).submit("abc123", jobs={"g1.0": "7"})
    agent = [{"kind": "started", "host": "n1", "array_job_id": "7", "array_task_id": "0", "restart_count": 1}]
    agent += [{"kind": "run_started", "run_id": unfinished, "step": 0}, {"kind": "left", "why": "done"}]
    lines = (json.dumps({**event, "time_s": 1.7e9}) + "\n" for event in agent)
    (submission.folder / "agents" / "7.jsonl").write_text("".join(lines))
    write_json(place.runs_dir / CALIBRATION / "calibration.json", CALIBRATED)
    return Scene(place, ended, unfinished)


@contextlib.contextmanager
def quick_reports() -> Iterator[None]:
    """Within the block a report has no pictures and no PDF, which take seconds and read nothing more."""
    module = sys.modules.get("harness.reporting.render") or __import__("harness.reporting.render")
    module = sys.modules["harness.reporting.render"]
    with (
        patch.object(module, "draw_all", lambda report: []),
        patch.object(module, "to_pdf", lambda document, pictures: b"%PDF"),
    ):
        yield


def judge_file(scene: Scene, name: str, number: int, seed: int, *, slow: bool = True) -> None:
    """One mutation of one file, and every command (`slow`: also those) that reads it; then all is as it was.

    Raises:
        Bug: with everything that is known.
    """
    target, random = scene.targets[name], Random(f"{seed}/{name}/{number}")
    whole = scene.place.path / "whole"
    for folder in ("runs", "report"):
        shutil.copytree(scene.place.path / folder, whole / folder, symlinks=True)
    hurt = random.choice(HARMLESS)
    if target.path in {f"report/data/{each}" for each in RAW}:
        loosen(scene.place.path / "report")
    try:
        hurt(scene.place.path / target.path, random)
        for command in target.commands:
            if not slow and command.split()[0] in SLOW:
                continue
            try:
                scene.call(command)
            except Bug as error:
                raise Bug(f"{name} {number} ({hurt.__name__}): {error}") from None
    finally:
        for folder in ("runs", "report"):
            shutil.rmtree(scene.place.path / folder)
            (whole / folder).replace(scene.place.path / folder)
        shutil.rmtree(whole)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=200, help="of each file")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--only", help="this file alone")
    parser.add_argument("--number", type=int, help="this mutation alone")
    args = parser.parse_args(argv)
    bugs = cases = 0
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder, quick_reports():
        made = scene(Path(folder) / "scene")
        for name in [args.only] if args.only else made.targets:
            for number in range(args.mutations) if args.number is None else [args.number]:
                cases += 1
                try:
                    judge_file(made, name, number, args.seed)
                except Bug as error:
                    bugs += 1
                    print(f"--- {error}", flush=True)
            print(f"{name}: {cases} mutations by now, {bugs} bugs", flush=True)
        files = 1 if args.only else len(made.targets)
    spent_s = round(time.monotonic() - began_s, 1)
    print(json.dumps({"files": files, "mutations": cases, "bugs": bugs, "time_s": spent_s}))
    return 1 if bugs else 0


if __name__ == "__main__":
    sys.exit(main())
