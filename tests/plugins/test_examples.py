"""The examples keep the contracts, and the commands of the story do what its text says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import main
from harness.plugins import trick_contract
from harness.plugins.contract import check_plugin
from harness.plugins.install import only
from harness.plugins.load import load
from harness.plugins.trick_contract import KEPT
from harness.tricks import TRICKS
from tests.timing import PATIENCE_S

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
STORY = EXAMPLES / "story"
PLUGINS = [*sorted(EXAMPLES.glob("my_*.py")), STORY / "clothes_lab.py"]
NOT_INHERITED = ("HARNESS_RUNS", "HARNESS_DATA", "MLFLOW_TRACKING_URI", "COLUMNS")
BLOCK = re.compile(r"^```sh( slow)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_every_example_keeps_the_contracts(path: Path, tmp_path: Path, monkeypatch) -> None:
    few = {name: TRICKS[name] for name in ("mixup", "label_smoothing", "ema", "bf16")}
    monkeypatch.setattr(trick_contract, "TRICKS", few)
    plugin = load(path)
    with only([plugin]):
        found = list(check_plugin(plugin, tmp_path))
    assert found
    assert [each for each in found if each.outcome != KEPT] == []


def shell(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The commands in bash, stopped at the first that fails, with this Python and `harness` on the path."""
    programs = folder.parent / "programs"
    programs.mkdir(exist_ok=True)
    for name, line in (("python", '"$@"'), ("harness", '-m harness.cli "$@"')):
        program = programs / name
        program.write_text(f"#!/bin/sh\nexec {sys.executable} {line}\n")
        program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    environment |= {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HARNESS": str(ROOT),
    }
    return subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", commands],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


def commands_of_the_story(*, slow: bool) -> str:
    found = BLOCK.findall((STORY / "README.md").read_text())
    assert len(found) == 7
    return "".join(text for is_slow, text in found if slow or not is_slow)


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.campaign
def test_the_story_goes_from_an_empty_folder_to_a_report(tmp_path: Path) -> None:
    place = empty(tmp_path / "work")
    done = shell(commands_of_the_story(slow=False), place)
    assert done.returncode == 0, done.stderr
    assert "data/clothes: 600 images" in done.stdout
    assert "24 checks: 24 kept, 0 broken, 0 not checked" in done.stdout
    assert re.search(r"code of clothes_lab\.py \(sha256 [0-9a-f]+\) runs in this study", done.stdout)
    report = (place / "reports" / "clothes-smoke" / "report.md").read_text()
    for row in ("clothes_net", "+ label smoothing", "+ cosine", "+ shift"):
        assert f"| {row} |" in report
    (stored,) = (place / "runs" / ".plugins").glob("*/clothes_lab.py")
    assert stored.read_bytes() == (STORY / "clothes_lab.py").read_bytes()


@pytest.mark.slow
def test_every_command_of_the_story_works(tmp_path: Path) -> None:
    place = empty(tmp_path / "work")
    done = shell(commands_of_the_story(slow=True), place)
    assert done.returncode == 0, done.stderr
    assert "# Clothes" in done.stdout


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in which commands run in this process; afterwards no plugin is left in its tables."""
    for name in NOT_INHERITED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(empty(tmp_path / "work"))
    with only([]):
        yield tmp_path / "work"


@pytest.mark.campaign
def test_a_study_uses_all_five_and_a_changed_file_makes_new_runs(place: Path, capsys) -> None:
    for path in (*EXAMPLES.glob("my_*.py"), EXAMPLES / "my_study.yaml"):
        shutil.copy(path, place)
    options = ["my_study.yaml", "--smoke", "--seeds", "1"]
    assert main(["run", *options, "--on", "inline", "--no-report"]) == 0, capsys.readouterr().err
    summaries = [json.loads(path.read_text()) for path in place.glob("runs/*/summary.json")]
    assert [each["status"] for each in summaries] == ["finished"] * 4
    assert all(0 <= each["metrics"]["calibration"] <= 100 for each in summaries)
    assert {each["data"] for each in summaries} == {"tops"}
    assert {each["steps"] > 0 for each in summaries} == {True, False}  # the linear classifier makes its own

    def run_ids() -> set[str]:
        capsys.readouterr()
        assert main(["plan", *options, "--json"]) == 0
        return {run["run_id"] for run in json.loads(capsys.readouterr().out)["runs"]}

    before = run_ids()
    assert before == {path.name for path in place.glob("runs/[!.]*")}
    append(place / "my_trick.py", "# another thought")
    assert len(run_ids() - before) == 1  # of the row that uses the trick
    append(place / "my_data.py", "# another thought")
    assert not run_ids() & before


def append(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line + "\n")


def test_user_code_runs_only_when_a_study_names_it(place: Path, capsys) -> None:
    shutil.copy(STORY / "clothes.yaml", place)
    (place / "clothes_lab.py").write_text("import pathlib\npathlib.Path('ran').touch()\n1 / 0\n")
    for command in ("data", "models", "tricks"):
        assert main([command]) == 0
    assert not (place / "ran").exists()
    assert (main(["plan", "clothes.yaml"]), (place / "ran").exists()) == (2, True)
    said = capsys.readouterr().err
    assert "clothes_lab.py:3: importing it failed: ZeroDivisionError: division by zero" in said
    assert "Traceback" not in said
