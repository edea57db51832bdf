"""A folder with the chaos study, and `harness` as a real process in it, watched by the injector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.runs.folder import RunFolder
from tests.chaos.orders import ENVIRONMENT, Control
from tests.end_to_end.workplace import NOT_INHERITED, ROOT

STUDY = Path(__file__).with_name("chaos.yaml")
CHECKPOINT_EVERY_S = 0.3
HOOK = "from tests.chaos.injector import install\n\ninstall()\n"
RESULTS = ("status", "metrics", "predictions_sha256", "steps", "images_seen", "train_loss")


@dataclass(frozen=True, slots=True)
class Place:
    """base/work is the user's folder, base/control the driver's."""

    base: Path
    arguments: tuple[str, ...] = ()  # of `harness run`, beside the study
    small: bool = False  # one seed, half of the epochs

    @property
    def work(self) -> Path:
        return self.base / "work"

    @property
    def control(self) -> Control:
        return Control(self.base / "control")

    @property
    def runs_dir(self) -> Path:
        return self.work / "runs"

    def prepare(self, checkpoint_every_s: float = CHECKPOINT_EVERY_S) -> Place:
        """Write the study and the control folder."""
        self.work.mkdir(parents=True, exist_ok=True)
        text = STUDY.read_text()
        if self.small:
            for whole, half in {"seeds: 2": "seeds: 1", "epochs: 12": "epochs: 6"}.items():
                assert whole in text
                text = text.replace(whole, half)
        (self.work / "chaos.yaml").write_text(text)
        self.control.prepare(self.work, checkpoint_every_s)
        (self.base / "hook").mkdir()
        (self.base / "hook" / "sitecustomize.py").write_text(HOOK)
        return self

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """`harness ARGUMENTS` (default: run the study) in a group of its own; it prints into files."""
        command = arguments or ("run", "chaos.yaml", "--no-report", *self.arguments)
        with (self.base / "output.txt").open("ab") as output, (self.base / "errors.txt").open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "harness.cli", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=self.work,
                env=self.environment(),
                process_group=0,
            )

    def environment(self) -> dict[str, str]:
        """That of a user, and the injector on the path."""
        kept = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        path = os.pathsep.join([str(self.base / "hook"), str(ROOT)])
        return {**kept, "PYTHONPATH": path, ENVIRONMENT: str(self.control.path), "OMP_NUM_THREADS": "1"}

    def planned(self) -> list[str]:
        """The run_ids of the study."""
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", "plan", "chaos.yaml", "--json"],
            cwd=self.work,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        )
        return [run["run_id"] for run in json.loads(done.stdout)["runs"]]

    def folders(self) -> list[RunFolder]:
        """The run folders that are there."""
        paths = sorted(self.runs_dir.glob("[0-9a-f]*"))
        return [RunFolder(path) for path in paths if path.is_dir()]

    def errors(self) -> str:
        """What all commands so far printed on stderr."""
        path = self.base / "errors.txt"
        return path.read_text(errors="replace") if path.exists() else ""


def results(folder: RunFolder) -> dict[str, Any]:
    """Everything of an ended run that must not depend on what happened to it."""
    summary = folder.read_summary() or {}
    kept: dict[str, Any] = {key: summary.get(key) for key in RESULTS}
    for path in (folder.predictions, folder.weights, folder.raw_weights):
        kept[path.name] = path.read_bytes() if path.exists() else None
    curve: dict[int, Any] = {}
    for event in folder.read_events():
        if event["kind"] == "epoch":
            curve[event["step"]] = (event["epoch"], event["lr"], event["train_loss"], event["val_top1"])
    kept["curve"] = curve
    return kept
