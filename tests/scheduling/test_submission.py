"""Submissions as files: groups, scripts, the frozen code, and what ten thousand runs cost."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.runs.provenance import changes, code_version, digest, package, snapshot_path, take_snapshot
from harness.scheduling.base import Job
from harness.slurm.cluster import Cluster, Resources, Shape
from harness.slurm.controller import Slurm, SlurmSettings
from harness.slurm.sbatch import Chunk, script, signal_s
from harness.slurm.setup import failures
from harness.slurm.submission import (
    FOLDER,
    Group,
    Order,
    Submission,
    by_run_id,
    draft,
    make_groups,
    read_submission,
    submissions,
    write_submission,
)
from harness.spec import RunSpec
from tests.scheduling.fakes import job, spec
from tests.timing import unit_s

GOLDEN = Path(__file__).parents[1] / "golden" / "sbatch.txt"
ORDER = Order(
    study="a_study",
    size="mini",
    data_dir="/my/data",
    exact=True,
    python="/my/python",
    snapshot="/my/runs/.code/0123",
    cluster_file="my_cluster.yaml",
)


def write(
    runs_dir: Path, jobs: list[Job], cluster: Cluster | None = None, at_most: int = 8, diff: str = ""
) -> Submission:
    named = by_run_id(jobs)
    groups, group_of = make_groups(named, cluster or Cluster(), at_most)
    folder = runs_dir / FOLDER / "0123456789ab"
    return write_submission(draft(folder, ORDER, groups), folder, named, group_of, diff)


def test_what_was_written_is_read_back(tmp_path: Path):
    teacher = job(1, cost=3)
    jobs = [
        teacher,
        job(2, needs=(teacher,), cost=2),
        job(3, "sleep", time_s=0.5),
        job(4, "sleep", time_s=0.5),
    ]
    shape = Shape(match={"model": ("sleep",)}, resources=Resources(gpus=2, cpus=4))
    written = write(tmp_path, jobs, Cluster(shapes=(shape,)), diff="--- a\n+++ b\n")
    read = read_submission(tmp_path, written.token)
    assert read.groups == written.groups
    assert read.run_ids() == tuple(each.run_id for each in jobs)
    for name in read.groups:
        assert read.jobs(name) == [each for each in jobs if read.group_of(each.run_id) == name]
    assert (read.study, read.size, str(read.data_dir), read.exact) == ("a_study", "mini", "/my/data", True)
    assert read.group_of("of another study") is None
    assert (read.folder / "diff.patch").read_text() == "--- a\n+++ b\n"
    assert not read.is_closed
    read.close()
    assert read.is_closed


def test_a_submission_is_private_and_nothing_in_it_is_a_pickle(tmp_path: Path):
    written = write(tmp_path, [job(1)])
    assert written.folder.stat().st_mode & 0o777 == 0o700
    files = sorted(path.name for path in written.folder.iterdir())
    assert files == ["agents", "logs", "runs.jsonl", "submission.json"]


def test_ten_thousand_runs_are_written_and_read_at_once_in_as_many_files_as_ten(tmp_path: Path):
    arms = [spec(0, "quick", k=arm).arm for arm in range(20)]
    jobs = [Job(spec=RunSpec(arm=arm, seed=seed)) for arm in arms for seed in range(500)]
    start_s = time.process_time()
    written = write(tmp_path / "many", jobs)
    written_s = time.process_time() - start_s
    read = read_submission(tmp_path / "many", written.token)
    start_s = time.process_time()
    assert len(read.jobs("g1")) == 10_000
    read_s = time.process_time() - start_s
    assert written_s / 10_000 < unit_s(tmp_path)
    assert read_s / 10_000 < 1.5 * unit_s(tmp_path)
    few = write(tmp_path / "few", jobs[:10])
    assert len(list(written.folder.rglob("*"))) == len(list(few.folder.rglob("*")))


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"schema": 1}', '{"schema": 99}', '{"schema": 1, "groups": 3}', "\xff"]
)
def test_a_damaged_submission_is_named_and_the_others_are_read(tmp_path: Path, content: str):
    good = write(tmp_path, [job(1)])
    bad = tmp_path / FOLDER / "ffffffffffff"
    bad.mkdir()
    (bad / "submission.json").write_text(content, encoding="latin-1")
    (tmp_path / FOLDER / "eeeeeeeeeeee").mkdir()  # being written
    unreadable: list[str] = []
    assert [each.token for each in submissions(tmp_path, unreadable)] == [good.token]
    assert len(unreadable) == 1


def test_a_token_is_a_name_and_not_a_path(tmp_path: Path):
    write(tmp_path, [job(1)])
    with pytest.raises(ValueError, match="no token"):
        read_submission(tmp_path, "../.submissions/0123456789ab")


def test_damaged_lines_of_runs_cost_those_runs_only(tmp_path: Path):
    written = write(tmp_path, [job(1), job(2)])
    lines = (written.folder / "runs.jsonl").read_text().splitlines()
    (written.folder / "runs.jsonl").write_text(
        "\n".join([*lines[:2], '{"run_id": "x"}', "[1]", lines[2][:9]])
    )
    read = read_submission(tmp_path, written.token)
    assert read.run_ids() == (job(1).run_id,)


def groups_of(jobs: list[Job], cluster: Cluster | None = None, at_most: int = 100) -> dict[str, Group]:
    """Seeds of the runs in it, such as `1 2` -> group."""
    named = by_run_id(jobs)
    groups, group_of = make_groups(named, cluster or Cluster(), at_most)
    seeds: dict[str, list[str]] = {}
    for run_id, each in named.items():
        seeds.setdefault(group_of[run_id], []).append(str(each.spec.seed))
    return {" ".join(seeds[group.name]): group for group in groups}


def test_groups_are_stages_and_shapes_and_what_others_need_goes_first():
    teacher, lone = job(1), job(2)
    student = job(3, needs=(teacher,))
    observer = job(4, needs=(student, lone))
    found = groups_of([observer, student, job(5), lone, teacher])
    assert list(found) == ["2 1", "5", "3", "4"]
    assert [group.level for group in found.values()] == [0, 0, 1, 2]
    assert found["3"].after == (found["2 1"].name,)
    assert set(found["4"].after) == {found["2 1"].name, found["3"].name}
    assert found["5"].after == ()


def test_runs_of_other_resources_are_another_group():
    shape = Shape(match={"model": ("sleep",)}, resources=Resources(cpus=4))
    found = groups_of([job(1), job(2, "sleep"), job(3)], Cluster(shapes=(shape,)))
    assert {runs: group.resources.cpus for runs, group in found.items()} == {"1 3": 1, "2": 4}


def test_as_many_agents_as_runs_can_keep_busy_and_no_more_than_at_most():
    jobs = [job(seed) for seed in range(10)]
    beside = Cluster(resources=Resources(cpus=4, runs_side_by_side=4))
    assert [group.width for group in groups_of(jobs, beside).values()] == [3]
    assert [group.width for group in groups_of(jobs, at_most=7).values()] == [7]


def at_work_together(groups: list[Group]) -> int:
    """The most agents of groups none of which waits for another of them."""
    before: dict[str, set[str]] = {}
    for group in groups:
        before[group.name] = set(group.after).union(*(before[name] for name in group.after))
    most = 0
    for chosen in range(1, 2 ** len(groups)):
        these = [group for place, group in enumerate(groups) if chosen >> place & 1]
        if not any(other.name in before[group.name] for group in these for other in these):
            most = max(most, sum(group.width for group in these))
    return most


@pytest.mark.parametrize("seed", range(20))
def test_at_no_time_are_more_agents_at_work_than_asked_for(seed: int):
    draw = random.Random(seed)
    jobs: list[Job] = []
    for number in range(draw.randint(1, 15)):
        needs = tuple(draw.sample(jobs, k=min(len(jobs), draw.choice([0, 0, 1, 2]))))
        jobs.append(job(number, draw.choice(["quick", "sleep", "crash"]), needs=needs))
    shapes = (
        Shape(match={"model": ("sleep",)}, resources=Resources(cpus=2)),
        Shape(match={"model": ("crash",)}, resources=Resources(cpus=3)),
    )
    at_most = draw.choice([1, 2, 5, 16])
    groups = list(groups_of(jobs, Cluster(shapes=shapes), at_most).values())
    assert all(group.width >= 1 for group in groups)
    assert at_work_together(groups) <= at_most


def test_a_dry_run_prints_the_golden_scripts_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """After a wanted change: write what the assertion shows into the file, and read the difference."""
    code = tmp_path / "code" / "harness"
    code.mkdir(parents=True)
    (code / "__init__.py").write_text("")
    monkeypatch.setattr("harness.runs.provenance.package", lambda: code)
    monkeypatch.setattr("harness.slurm.controller.new_token", lambda: "0123456789ab")
    monkeypatch.setattr("sys.executable", "/my/python")
    large = Resources(
        nodes=2,
        gpus=1,
        cpus=8,
        memory_gb=32.0,
        time_s=4 * 3600,
        partition="gpu",
        account="my_lab",
        qos="normal",
        constraint="a100|h100",
        sbatch=("--nodelist=a[1-4]", "--exclusive"),
        processes=2,
    )
    shape = Shape(match={"model": ("sleep",)}, resources=large)
    settings = SlurmSettings(
        runs_dir=tmp_path / "my runs",
        data_dir=tmp_path / "data",
        cluster=Cluster(shapes=(shape,), resources=Resources(time_s=300)),
        study="a_study",
        size="mini",
        at_most=4,
    )
    teachers = [job(1), job(2)]
    text = Slurm(settings).scripts([*teachers, job(1, "sleep", needs=(teachers[0],)), job(3)])
    assert text.replace(str(tmp_path), "/my") == GOLDEN.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code"]
    measuring = Cluster(resources=Resources(gpus=1, runs_side_by_side=0))
    text = Slurm(replace(settings, cluster=measuring)).scripts(teachers)
    assert text.startswith("# g1: 2 runs, 2 agents; each measures how many runs share its GPUs")


def run_script(tmp_path: Path, **resources: Any) -> tuple[subprocess.CompletedProcess[str], Submission]:
    """By a shell and a Python, with `srun` played by a script that drops its own arguments."""
    code, runs_dir, bin_dir = tmp_path / "it's code", tmp_path / "my $HOME runs", tmp_path / "bin"
    for folder, word in ((code, "frozen"), (tmp_path / "here", "another")):
        (folder / "harness").mkdir(parents=True)
        (folder / "harness" / "__init__.py").write_text("")
        said = f"import os, sys\nprint('{word}', *sys.argv[1:], os.environ.get('MODULE', ''), sep='|')\n"
        (folder / "harness" / "cli.py").write_text(said)
    bin_dir.mkdir()
    (bin_dir / "srun").write_text(
        '#!/bin/sh\nwhile [ "${1#--cpus}" = "$1" ]; do shift; done; shift\nexec "$@"\n'
    )
    (bin_dir / "srun").chmod(0o755)
    written = write(runs_dir, [job(1)], Cluster(resources=Resources(**resources)))
    said = json.loads((written.folder / "submission.json").read_text())
    at = Submission(written.folder, {**said, "python": sys.executable, "snapshot": str(code)})
    (tmp_path / "run.sh").write_text(script(at, Chunk(group=at.groups["g1"], number=0, tasks=1)))
    done = subprocess.run(
        ["bash", str(tmp_path / "run.sh")],
        cwd=tmp_path / "here",
        env={
            "PATH": f"{bin_dir}:/usr/bin:/bin", "HOME": "/nowhere",
            "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "7",
        },
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    return done, at


def test_the_script_runs_the_agent_of_the_snapshot_whatever_lies_in_the_working_folder(tmp_path: Path):
    done, at = run_script(tmp_path)
    assert done.stdout == f"frozen|agent|{at.runs_dir}|0123456789ab|g1|\n", done.stderr


def test_the_lines_of_setup_run_before_the_agent_and_what_they_load_is_there_for_it(tmp_path: Path):
    """Also what they print, and a line with quotes, a comment and a `return` code of its own that is 0."""
    lines = (
        "echo \"it's $((1 + 1))\"  # a site's banner",
        "module() { export MODULE=$2; }",
        "module load cuda",
    )
    done, at = run_script(tmp_path, setup=lines)
    assert done.stdout == f"it's 2\nfrozen|agent|{at.runs_dir}|0123456789ab|g1|cuda\n", done.stderr
    assert done.returncode == 0
    assert failures(lines, at.folder, ["41"]) == []


def test_another_interpreter_may_start_the_agent(tmp_path: Path):
    done, _ = run_script(tmp_path, setup=("MODULE=container",), python=f"env MODULE=image {sys.executable}")
    assert done.stdout.endswith("|g1|image\n"), done.stderr


def test_setup_is_no_part_of_a_runs_identity(tmp_path: Path):
    jobs = [job(1), job(2)]
    resources = Resources(setup=("module load cuda",), python="python")
    other = write(tmp_path / "b", jobs, Cluster(resources=resources))
    assert read_submission(tmp_path / "b", other.token).groups["g1"].resources == resources
    assert other.run_ids() == write(tmp_path / "a", jobs).run_ids()


@pytest.mark.parametrize(
    ("line", "says", "code"),
    [
        (
            "echo loading; echo 'Lmod: cuda/13 unknown' >&2; false",
            "failed with exit code 1: Lmod: cuda/13 unknown",
            1,
        ),
        ("exit 3", "failed with exit code 3", 3),
        ("exit 0", "ended the job with exit code 0", 1),
        ("no_such_command", "failed with exit code 127: .*no_such_command: command not found", 127),
        ("set -u; echo $not_there", "failed with exit code 1: .*not_there: unbound variable", 1),
    ],
)
def test_a_line_of_setup_that_fails_ends_the_job_and_is_told_apart(
    tmp_path: Path, line: str, says: str, code: int
):
    lines = ("true", line, "echo never > after")
    done, at = run_script(tmp_path, setup=lines)
    assert done.returncode == code
    assert "agent" not in done.stdout
    assert not (tmp_path / "here" / "after").exists()
    assert re.search(f"^setup line 2, exit code [0-9]+: {re.escape(line)}$", done.stderr, re.MULTILINE)
    [text] = failures(lines, at.folder, ["40", "41"])
    assert re.fullmatch(f"the setup line '{re.escape(line)}' {says}", text)
    assert failures(lines, at.folder, ["40"]) == []


@pytest.mark.parametrize("name", ["100%j", "a'b", 'a"b', "a\\b", "a\nb"])
def test_a_folder_of_runs_with_a_name_that_slurm_would_read_is_refused(tmp_path: Path, name: str):
    written = write(tmp_path / name, [job(1)])
    with pytest.raises(ValueError, match="on Slurm its path may not have"):
        script(written, Chunk(group=written.groups["g1"], number=0, tasks=1))


def test_the_warning_comes_a_tenth_of_the_time_before_the_end_and_at_least_ten_seconds():
    assert [signal_s(time_s) for time_s in (60, 120, 300, 600, 172_800)] == [10, 12, 30, 60, 60]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package in a git repository, everything committed."""
    source = tmp_path / "checkout" / "harness"
    (source / "data").mkdir(parents=True)
    (source / "__init__.py").write_text("x = 1\n")
    (source / "data" / "table.npz").write_bytes(b"\0\1")
    git = ["git", "-C", str(source.parent), "-c", "user.name=me", "-c", "user.email=me@here"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"compiled")
    return source


def test_the_same_code_is_copied_once_and_other_code_beside_it(checkout: Path, tmp_path: Path):
    first = take_snapshot(tmp_path / "runs", checkout)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert take_snapshot(tmp_path / "runs", checkout) == first
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    assert first.name == digest(checkout)
    copied = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert copied == ["harness/__init__.py", "harness/data/table.npz", "source.json"]
    (checkout / "__init__.py").write_text("x = 2\n")
    second = take_snapshot(tmp_path / "runs", checkout)
    assert (first / "harness" / "__init__.py").read_text() == "x = 1\n"
    assert (second / "harness" / "__init__.py").read_text() == "x = 2\n"
    assert sorted(path.name for path in first.parent.iterdir()) == sorted([first.name, second.name])


def test_a_snapshot_says_its_commit_and_a_dirty_tree_its_changes(checkout: Path, tmp_path: Path):
    clean = code_version(checkout.parent)
    assert clean["dirty"] is False
    assert changes(checkout.parent) == ""
    (checkout / "__init__.py").write_text("x = 2\n")
    assert "+x = 2" in changes(checkout.parent)
    path = take_snapshot(tmp_path / "runs", checkout)
    assert code_version(path) == {"commit": clean["commit"], "dirty": True}
    assert code_version(tmp_path) == {"commit": None, "dirty": None}


def test_a_damaged_snapshot_is_made_again(checkout: Path, tmp_path: Path):
    path = take_snapshot(tmp_path / "runs", checkout)
    (path / "harness" / "__init__.py").write_text("")
    assert take_snapshot(tmp_path / "runs", checkout) == path
    assert (path / "harness" / "__init__.py").read_text() == "x = 1\n"


def test_a_snapshot_of_another_user_is_not_trusted(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = take_snapshot(tmp_path / "runs", checkout)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    assert take_snapshot(tmp_path / "runs", checkout) == first.with_name(f"{first.name}-12345")
    assert snapshot_path(tmp_path / "runs", checkout).is_dir()


def test_the_package_itself_can_be_frozen_and_started(tmp_path: Path):
    path = take_snapshot(tmp_path / "runs", package())
    done = subprocess.run(
        [sys.executable, "-c", "import harness.cli; print(harness.cli.__file__)"],
        env={"PYTHONPATH": str(path), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(path / "harness" / "cli.py")
