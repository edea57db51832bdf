"""A study that has been run, without training anything: its run folders hold drawn numbers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from harness import cli
from harness.commands.workspace import build_catalogue
from harness.runs.folder import RunFolder
from harness.spec import FINISHED, Machine, RunSpec, Stop
from harness.study.expand import ExpandOptions, expand, load_study
from tests.fuzz.corpus import TINY
from tests.tracking.folders import epoch, finish, start


@dataclass(frozen=True)
class Workplace:
    """A folder with a study, its run folders, and whatever commands put beside them."""

    path: Path

    @property
    def study(self) -> Path:
        return self.path / TINY.name

    @property
    def runs_dir(self) -> Path:
        return self.path / "runs"

    def specs(self) -> list[RunSpec]:
        """What the study wants to have run, in order."""
        catalogue = build_catalogue(self.path / "data")
        plan = expand(load_study(self.study, catalogue), catalogue, ExpandOptions())
        return [plan.spec(run) for run in plan.runs]

    def harness(self, command: str, *arguments: str) -> int:
        """`harness COMMAND STUDY ...` in this process; its exit code."""
        places = ["--runs", str(self.runs_dir), "--data", str(self.path / "data")]
        return cli.main([command, str(self.study), *places, *arguments])


def finished_study(path: Path) -> Workplace:
    """Every run of the small study of the end-to-end tests, finished."""
    place = Workplace(path)
    shutil.copy(TINY, path)
    for spec in place.specs():
        write_run(spec, place.runs_dir)
    return place


def write_run(spec: RunSpec, runs_dir: Path) -> RunFolder:
    """The folder of one finished run."""
    folder = start(runs_dir, spec)
    for number in (1, 2, 3):
        epoch(folder, number)
    finish(folder, spec)
    return folder


@contextmanager
def nothing_trained() -> Iterator[list[str]]:
    """Within the block a run finishes at once, with drawn numbers. Yields the run_ids, as they come."""
    done: list[str] = []

    def run_one(spec: RunSpec, folder: RunFolder, machine: Machine, stop: Stop) -> str:
        done.append(spec.run_id)
        shutil.rmtree(folder.path, ignore_errors=True)
        write_run(spec, machine.runs_dir)
        return FINISHED

    with patch("harness.commands.run.run_one", run_one):
        yield done
