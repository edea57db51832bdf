"""A folder in which a user works, and the harness in it: in this process, or as one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from harness.cli import main
from harness.runs.folder import RunFolder
from tests.timing import PATIENCE_S

ROOT = Path(__file__).parents[2]
TINY = Path(__file__).with_name("tiny.yaml")
NOT_INHERITED = ("HARNESS_RUNS", "HARNESS_DATA", "MLFLOW_TRACKING_URI", "COLUMNS")


@dataclass(frozen=True)
class Workplace:
    """A folder with a study file; runs, the MLflow store and reports appear in it."""

    path: Path

    @property
    def study(self) -> Path:
        return self.path / "tiny.yaml"

    @property
    def runs_dir(self) -> Path:
        return self.path / "runs"

    @property
    def report_dir(self) -> Path:
        return self.path / "reports" / "tiny"

    def harness(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`harness COMMAND tiny.yaml ...`, to its end."""
        return self.call(command, "tiny.yaml", *arguments)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`harness ...`, to its end, in this process: an interpreter that imports torch takes seconds."""
        output, errors = io.StringIO(), io.StringIO()
        with _in_folder(self.path), _said_to(output, errors):
            try:
                code = main(arguments)
            except SystemExit as left:  # argparse
                code = left.code if isinstance(left.code, int) else 1
        said = output.getvalue(), errors.getvalue()
        return subprocess.CompletedProcess(["harness", *arguments], code, *said)

    def call_apart(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`harness ...`, to its end, as a user's process."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=PATIENCE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`harness ...` in a process group of its own, without a terminal."""
        return subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.path,
            env=_environment() | {"PYTHONPATH": str(ROOT)},
            process_group=0,
        )

    def json(self, *arguments: str) -> Any:
        """What `harness ... --json` prints."""
        done = self.call(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def runs(self) -> dict[str, tuple[str, int]]:
        """run_id -> (label of the arm, seed), as the plan has them."""
        plan = self.json("plan", "tiny.yaml")
        return {run["run_id"]: (plan["arms"][run["arm_id"]]["label"], run["seed"]) for run in plan["runs"]}

    def folders(self) -> list[RunFolder]:
        """The run folders that are there."""
        return [RunFolder(path) for path in sorted(self.runs_dir.glob("[!.]*"))]

    def results(self) -> dict[str, dict[str, Any]]:
        """run_id -> what must not depend on interruptions."""
        summaries = {folder.run_id: folder.read_summary() for folder in self.folders()}
        same = ("status", "metrics", "predictions_sha256", "steps", "images_seen", "train_loss")
        return {
            run_id: {key: summary[key] for key in same} for run_id, summary in summaries.items() if summary
        }

    def files(self) -> dict[str, tuple[bytes, int]]:
        """Every file's content and time of change."""
        found = (path for path in self.path.rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.path)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found
        }

    def add_row(self, row: str) -> None:
        """Append a row to the table, which is the last thing in the file."""
        self.study.write_text(self.study.read_text() + f"      - {row}\n")


def _environment() -> dict[str, str]:
    """That of this process, without what a user may have set."""
    return {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}


@contextlib.contextmanager
def _in_folder(path: Path) -> Iterator[None]:
    with contextlib.chdir(path), patch.dict(os.environ, _environment(), clear=True):
        yield


@contextlib.contextmanager
def _said_to(output: io.StringIO, errors: io.StringIO) -> Iterator[None]:
    """As in a process without a terminal. pytest takes the records of loggers, so they are handed on."""
    handler = logging.StreamHandler(errors)
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("harness")
    logger.addHandler(handler)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            yield
    finally:
        logger.removeHandler(handler)


def group_of(process: subprocess.Popen[str]) -> list[int]:
    """The living processes of its group: the controller, its fork server and its workers."""
    return list(states_of_group(process))


def states_of_group(process: subprocess.Popen[str]) -> dict[int, str]:
    """Process -> its state, a letter of /proc, for the living processes of a group."""
    alive = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = file.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(group) == process.pid and state != "Z":
            alive[int(file.parent.name)] = state
    return alive


def state_of(pid: int) -> str:
    """The letter of /proc for what a living process does: S waits for something, T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal that was sent to a process has not been taken by it."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(lines["ShdPnd"], 16) >> (number - 1) & 1)
