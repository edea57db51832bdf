"""Damaged cluster files: each is read or refused in words, and no value leaves its line of a script."""

from __future__ import annotations

import copy
from pathlib import Path
from random import Random

import pytest
import yaml

from harness.errors import Problem, StudyError
from harness.slurm.cluster import Cluster, read_cluster
from harness.slurm.controller import Slurm, SlurmSettings
from tests.fuzz.text_mutators import TEXT_MUTATORS
from tests.fuzz.tree_mutators import delete, dumped, move, odd_value, places, rename, repeat, unwrap, wrap
from tests.scheduling.fakes import job

SHORT, LONG = 50, 500
FINE = """\
partition: gpu
gpus: 1
cpus: 8
memory_gb: 32
time: 4h
at_most: 16
runs_side_by_side: 1
account: lab
qos: normal
constraint: a100|h100
sbatch: ["--nodelist=a[1-4]", "--comment=a comment"]
shapes:
  - match: {model: [inception_v4, resnet50]}
    memory_gb: 64
    time: 2d
"""
INJECTIONS = (
    "a\n#SBATCH --wrap=id",
    "a; touch x",
    "$(id)",
    "`id`",
    "a --uid=0",
    "--wrap=id",
    "a'b",
    'a"b',
    "%j",
    "\\",
)


def mutated(random: Random) -> str:
    """The cluster file with an edit of its text, or of its tree."""
    if random.random() < 0.5:
        return random.choice(TEXT_MUTATORS)(FINE, random)
    tree = yaml.safe_load(FINE)
    for _ in range(random.choice((1, 1, 3))):
        random.choice((odd_value, odd_value, delete, rename, move, repeat, wrap, unwrap))(tree, random)
    return dumped(tree, random)


def outcome(path: Path) -> tuple[Cluster | None, tuple[Problem, ...]]:
    """The cluster of the file, or what is wrong with it, of which there is something."""
    try:
        return read_cluster(path), ()
    except StudyError as error:
        return None, error.problems or (Problem("nowhere", 0, ""),)


@pytest.mark.parametrize(
    "cases", [SHORT, pytest.param(LONG, marks=pytest.mark.campaign)], ids=["50 cases", "500 cases"]
)
def test_a_damaged_cluster_file_is_read_or_refused_in_words(cases: int, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    read = 0
    for number in range(cases):
        text = mutated(Random(f"cluster/{number}"))
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        cluster, problems = outcome(path)
        assert all(problem.path == str(path) and problem.message for problem in problems), number
        if cluster is not None:
            read += 1
            assert_one_line_each(cluster, tmp_path)
    assert cases / 20 < read < cases * 0.95


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_value_of_a_cluster_file_leaves_its_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    tree = yaml.safe_load(FINE)
    for here, key in places(tree):
        if isinstance(here[key], str):
            edited = copy.deepcopy(tree)
            place = next((h, k) for h, k in places(edited) if h == here and k == key)
            place[0][key] = text if not here[key].startswith("--") else f"--comment={text}"
            path.write_text(yaml.safe_dump(edited))
            try:
                cluster = read_cluster(path)
            except StudyError:
                continue
            assert_one_line_each(cluster, tmp_path)


def assert_one_line_each(cluster: Cluster, folder: Path) -> None:
    """Every directive of the script is one that the harness or the file's own option names."""
    runs_dir = folder / "runs"
    settings = SlurmSettings(runs_dir=runs_dir, data_dir=folder, cluster=cluster, study="tiny", size="mini")
    script = Slurm(settings).scripts([job(1)])
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    own = 0 if not cluster.resources.sbatch else len(cluster.resources.sbatch)
    assert 5 < len(lines) <= 22 + own
    assert "--wrap" not in [line.partition("#SBATCH ")[2].partition("=")[0] for line in lines]
    code = [line for line in script.splitlines() if line and not line.startswith("#")]
    assert not [line for line in code if "touch x" in line or "$(id)" in line or "`id`" in line]
