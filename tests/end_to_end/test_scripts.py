"""A study of somebody's own script from an empty folder to a report, as docs/scripts.md shows it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness import errors
from harness.cli import main
from harness.runs.folder import RunFolder, run_state
from harness.runs.provenance import keep_places
from harness.scheduling.base import Job
from harness.slurm.cluster import Resources
from harness.slurm.submission import Group, Order, draft, read_submission, write_submission
from tests.conftest import Once
from tests.end_to_end.workplace import ROOT, Workplace
from tests.scripts.studies import WRITES, planned, study
from tests.timing import PATIENCE_S, until

PAGE = ROOT / "docs" / "scripts.md"


def blocks(language: str) -> list[str]:
    """The fenced blocks of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def begin(folder: Path) -> Workplace:
    """What the page says to write."""
    folder.mkdir()
    (folder / "train.py").write_text(blocks("python")[0])
    (folder / "flags.yaml").write_text(blocks("yaml")[0])
    return Workplace(folder)


def test_a_script_that_takes_no_seed_is_seeded_by_the_pages_few_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "beside.py").write_text("import numpy, random, torch\n")
    (tmp_path / "train.py").write_text(
        "import sys; from beside import numpy, random, torch\n"
        "print(sys.argv[1:], __name__, random.random(), numpy.random.rand(), torch.rand(1).item())\n"
    )

    def said(seed: int) -> str:
        monkeypatch.setattr(sys, "argv", ["seeded.py", str(seed), str(tmp_path / "train.py"), "--sched", "x"])
        monkeypatch.setattr(sys, "path", sys.path[:])
        exec(compile(blocks("python")[1], "seeded.py", "exec"), {})
        return capsys.readouterr().out

    first = said(3)
    assert first.startswith("['--sched', 'x'] __main__ ")
    assert (said(3), said(4) == first) == (first, False)
    assert not set(said(4).split()[3:]) & set(first.split()[3:])


@pytest.fixture(autouse=True)
def python_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment that a user has activated."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def done(once: Once[tuple[Path, list[subprocess.CompletedProcess[str]]]]) -> tuple[Workplace, list[str]]:
    """The page's commands, done once. Not to be changed."""

    def do(folder: Path) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
        place = begin(folder / "place")
        commands = [line.split()[1:] for line in blocks("sh")[0].splitlines()]
        said = [place.call(*(each if each[0] == "plan" else [*each, "--workers", "2"])) for each in commands]
        return place.path, said

    path, said = once("scripts", do)
    assert [each.returncode for each in said] == [0, 0], said
    return Workplace(path), [each.stdout for each in said]


def test_the_pages_commands_lead_to_verdicts(done):
    place, (plan, run) = done
    assert "flags (all): 4 rows, 4 arms x 3 seeds = 12 runs, 0 done; to train: 12 runs" in " ".join(
        plan.split()
    )
    assert "report: reports/flags/report.md" in run
    report = json.loads((place.path / "reports" / "flags" / "report.json").read_text())
    (table,) = report["findings"]["tables"]
    words = {cell["row"]: cell["effect"] and cell["effect"]["verdict"] for cell in table["cells"]}
    assert words["+ cosine"] == "helps"
    assert words["+ no flip"] == "hurts"
    assert report["findings"]["settings"]["metric"] == "top1"
    arm = report["arms"][table["cells"][1]["arm_id"]]
    assert arm["command"][-2:] == ["--sched", "cosine"]
    assert all(run["status"] == "finished" for run in report["runs"])


def test_the_report_says_what_is_known_of_a_command_and_what_is_not(done):
    place, _ = done
    text = " ".join((place.path / "reports" / "flags" / "details.md").read_text().split())
    for said in (
        "Runs of the study's own command (python train.py --seed {seed} --output {folder} {flags})",
        "read from “summary.csv: eval_top1” of each run after the end of its command",
        "No floor was computed, because the data are not known",
        "| main / + no flip | python train.py --seed {seed} --output {folder} --lr 0.1 --hflip 0 |",
        "train.py (sha256)",
    ):
        assert said in text
    assert "ResNet" not in text


def test_it_can_be_verified_and_is_not_done_twice(done):
    place, _ = done
    verified = place.call("verify", "reports/flags", "--study", "flags.yaml")
    assert (verified.returncode, "verified: " in verified.stdout) == (0, True), verified.stdout
    again = place.call("run", "flags.yaml")
    assert "nothing to train" in again.stdout
    assert "is up to date" in again.stdout


def test_a_mended_place_of_results_costs_no_execution(tmp_path: Path):
    script = 'echo run >> count; echo "$@"\n' + WRITES
    study(tmp_path, {'"r.csv: acc"': '"s.csv: acc"'}, script)
    place = Workplace(tmp_path)
    failed = place.call("run", "flags.yaml", "--no-report", "--workers", "1")
    said = failed.stderr.splitlines()
    assert sum("its last lines: " in line for line in said) == 1, "though each printed something else"
    assert any(line.startswith("failed for the same reason (no result: ") for line in said)
    study(tmp_path, script=script)
    again = "; 6 of them were executed before: what they wrote is read anew"
    assert again in " ".join(place.call("plan", "flags.yaml").stdout.split())
    done = place.call("run", "flags.yaml", "--no-report", "--workers", "1")
    assert again in " ".join(done.stdout.split())
    assert "6 finished" in done.stderr
    assert len((tmp_path / "count").read_text().splitlines()) == 6
    logs = place.call("logs", "cosine", "flags.yaml", "--seed", "1").stdout
    assert "not run again: its results are read in what run " in logs


def test_status_and_logs_tell_of_a_run(done):
    place, _ = done
    assert "12 finished" in place.call("status", "flags.yaml").stdout
    said = place.call("logs", "+ cosine", "flags.yaml", "--seed", "1").stdout
    assert (
        "python train.py --seed {seed} --output {folder} --lr 0.1 --hflip 0.5 --sched cosine (seed 1)" in said
    )
    assert "epoch 3/3" in said


def test_a_changed_script_is_said_with_how_many_runs_had_the_old_one(done, tmp_path):
    place, _ = done
    shutil.copytree(place.path, tmp_path / "copy")
    (tmp_path / "copy" / "train.py").open("a").write("# other\n")
    copy = Workplace(tmp_path / "copy")
    for command in ("plan", "status"):
        said = " ".join(copy.call(command, "flags.yaml").stdout.split())
        assert "code of train.py changed (sha256 " in said
        assert "train.py changed since 12 of these runs ended" in said


def test_a_script_that_fails_says_so_and_is_run_again(tmp_path):
    place = begin(tmp_path / "place")
    text = (place.path / "flags.yaml").read_text().replace("seeds: 3", "seeds: 1")
    (place.path / "flags.yaml").write_text(text)
    script = (place.path / "train.py").read_text()
    flag = "if not pathlib.Path('mended').exists() and args.hflip == 0:\n    raise SystemExit('no disk')\n"
    (place.path / "train.py").write_text(script + flag)
    first = place.call("run", "flags.yaml", "--on", "inline", "--no-report")
    assert first.returncode == 1
    status = place.call("status", "flags.yaml").stdout
    assert "failed: main / + no flip, seed 0: the command ended with exit code 1; its last lines: " in status
    assert "no disk" in status
    (place.path / "mended").touch()
    second = place.call("run", "flags.yaml", "--on", "inline", "--no-report")
    assert (second.returncode, "to train: 1 run" in second.stdout) == (0, True), second.stderr


def test_an_adaptive_study_of_scripts_looks_and_goes_on(tmp_path):
    place = begin(tmp_path / "place")
    text = (place.path / "flags.yaml").read_text().replace("seeds: 3", "seeds: {start: 2, at_most: 3}")
    (place.path / "flags.yaml").write_text(text)
    done = place.call("run", "flags.yaml", "--on", "inline", "--no-report")
    assert done.returncode == 0, done.stderr
    assert "look 1 of 2 (2 seeds)" in done.stdout
    assert "adaptive seeds: " in done.stdout


def test_missing_data_are_said_before_anything_starts(tmp_path):
    place = begin(tmp_path / "place")
    text = (place.path / "flags.yaml").read_text()
    text = text.replace("{flags}", "--x {data} {flags}").replace("script:", "script:\n  data: pictures")
    (place.path / "flags.yaml").write_text(text)
    refused = place.call("run", "flags.yaml")
    assert refused.returncode == 2
    assert "the folder of the data is not there: " in refused.stderr
    assert not place.folders()


def test_agents_of_slurm_execute_scripts(tmp_path):
    plan, runs_dir, token = planned(study(tmp_path / "s")), tmp_path / "runs", "0123456789ab"
    keep_places(runs_dir, plan.places)
    jobs = {run.run_id: Job(spec=plan.spec(run)) for run in plan.runs[:2]}
    group = Group(name="g", resources=Resources(runs_side_by_side=2), level=0, width=1)
    order = Order(
        study="flags", size="all", data_dir="data", exact=True, python=sys.executable, snapshot=str(ROOT)
    )
    folder = runs_dir / ".submissions" / token
    write_submission(draft(folder, order, [group]), folder, jobs, dict.fromkeys(jobs, "g"), "")
    read = read_submission(runs_dir, token)
    assert read.is_of_a_script
    assert [job.spec for job in read.jobs("g")] == [job.spec for job in jobs.values()]
    done = Workplace(tmp_path).call_apart("agent", str(runs_dir), token, "g")
    assert done.returncode == 0, done.stderr
    assert {RunFolder(runs_dir / run_id).read_summary()["status"] for run_id in jobs} == {"finished"}


@pytest.mark.campaign
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets orphans be adopted")
def test_ctrl_c_ends_the_scripts_and_the_same_command_goes_on(tmp_path):
    path = study(
        tmp_path / "place", script='[ -e ../mended ] || { echo $$ > "$2/pid"; sleep 600; }\n' + WRITES
    )
    place = Workplace(path.parent)
    command = place.start("run", "flags.yaml", "--workers", "2", "--no-report")
    pids = until(lambda: len(found := list(place.runs_dir.glob("*/output/pid"))) == 2 and found)
    begun = [int(until(each.read_text)) for each in pids]
    command.send_signal(signal.SIGINT)
    assert command.wait(PATIENCE_S) == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in begun)
    assert {run_state(folder) for folder in place.folders() if folder.spec.exists()} == {"stopped"}
    (tmp_path / "mended").touch()
    assert place.call("run", "flags.yaml", "--on", "inline", "--no-report").returncode == 0
    assert all(run_state(folder) == "finished" for folder in place.folders())


def test_quiet_and_verbose_stand_before_or_behind_the_command(tmp_path, monkeypatch, capsys):
    place = begin(tmp_path / "place")
    monkeypatch.chdir(place.path)
    run = ("run", "flags.yaml", "--seeds", "1", "--no-report", "--on", "inline")
    assert main(["--verbose", *run]) == 0
    loud = capsys.readouterr()
    assert f"decided: study flags.yaml; runs in {place.path / 'runs'}; data in" in loud.err
    assert len(re.findall(r"^decided: this process takes run \w+$", loud.err, re.MULTILINE)) > 1
    for quiet in (["--quiet", *run], [*run, "-q"]):
        assert main(quiet) == 0
        said = capsys.readouterr()
        assert (len(said.out.splitlines()), said.err) == (1, "")
    assert main(["-q", "plan", "flags.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"]
    assert main(["plan", "flag.yaml", "--quiet"]) == 2
    assert "did you mean 'flags'?" in capsys.readouterr().err
    (place.path / "train.py").write_text("raise SystemExit('no such flag')")
    assert main([*run, "--quiet"]) == 1
    assert "no such flag" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plan", "flags.yaml", "-q", "-v"])
    assert errors.told == []
