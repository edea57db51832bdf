"""The cluster file: what it may say, what is said about mistakes, and what can never reach a shell."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.errors import StudyError
from harness.slurm.cluster import DEFAULT_FILE, Cluster, Resources, find_cluster, read_cluster
from harness.slurm.controller import Slurm, SlurmSettings
from tests.scheduling.fakes import job, spec

WHOLE = """\
partition: gpu
account: my_lab
qos: normal
constraint: a100|h100
nodes: 1
gpus: 1            # of one job, per node
cpus: 8
memory_gb: 32
time: 4h           # 30min, 4h, 2d
at_most: 16
runs_side_by_side: 2
sbatch: ["--nodelist=a[1-4]", "--exclusive"]
setup:
  - module load cuda/13
  - conda activate vision
python: python
shapes:
  - match: {model: large}
    memory_gb: 64
    time: 2d
  - match: {model: [small, tiny], data: none}
    gpus: 0
    cpus: 2
    setup: |
      # nothing of CUDA
      conda activate cpu
"""


def read(tmp_path: Path, text: str) -> Cluster:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    return read_cluster(file)


def mistakes(tmp_path: Path, text: str) -> list[str]:
    """What is said about a file, each with its line."""
    with pytest.raises(StudyError) as caught:
        read(tmp_path, text)
    return [f"{each.line}: {each.message}" for each in caught.value.problems]


def test_every_key_is_read_and_a_run_gets_the_first_shape_that_fits(tmp_path: Path):
    cluster = read(tmp_path, WHOLE)
    common = Resources(
        partition="gpu",
        account="my_lab",
        qos="normal",
        constraint="a100|h100",
        gpus=1,
        cpus=8,
        memory_gb=32.0,
        time_s=4 * 3600,
        runs_side_by_side=2,
        sbatch=("--nodelist=a[1-4]", "--exclusive"),
        setup=("module load cuda/13", "conda activate vision"),
        python="python",
    )
    assert cluster.at_most == 16
    assert cluster.resources_of(spec(0, "quick")) == cluster.resources == common
    large, small = cluster.resources_of(spec(0, "large")), cluster.resources_of(spec(1, "tiny"))
    assert (large.memory_gb, large.time_s, large.cpus) == (64.0, 2 * 86400, 8)
    assert (small.gpus, small.cpus, small.memory_gb) == (0, 2, 32.0)
    assert (small.setup, large.setup) == (("conda activate cpu",), common.setup)


def test_without_a_file_a_run_gets_one_core_for_four_hours_of_the_default_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    cluster = find_cluster(None)
    assert cluster.resources == Resources(cpus=1, gpus=0, time_s=4 * 3600, partition=None, memory_gb=None)
    own = DEFAULT_FILE.expanduser()
    own.parent.mkdir(parents=True)
    own.write_text("partition: mine\n")
    assert find_cluster(None).resources.partition == "mine"


@pytest.mark.parametrize("text", ["", "# partition: gpu\n", "\n  # later\n"])
def test_a_file_that_says_nothing_means_the_defaults(tmp_path: Path, text: str):
    assert read(tmp_path, text).resources == Resources()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partion: gpu\n", "1: unknown key 'partion'; did you mean 'partition'? Valid: account, at_most,"),
        ("cpus: 8\ngpu: 1\n", "2: unknown key 'gpu'; did you mean 'gpus'?"),
        (
            "time: 0\n",
            "1: time is a number with a unit, from 1min to 365d, such as 30min, 4h or 2d, or as Slurm",
        ),
        ("time: 1-\n", "1: time is a number with a unit"),
        ("time: 1-0:0:0:1\n", "1: time is a number with a unit"),
        ("time: 4:00h\n", "1: time is a number with a unit"),
        ("time: -1\n", "1: time is a number with a unit"),
        ("time: 1.5\n", "1: time is a number with a unit"),
        ("time: 366-0\n", "1: time is a number with a unit"),
        ("time: true\n", "1: time is a number with a unit"),
        ("time: 0:30\n", "1: time is a number with a unit"),
        ("time: 4 hours\n", "1: time is a number with a unit"),
        ("time: 10s\n", "1: time is a number with a unit"),
        ("time: 0h\n", "1: time is a number with a unit"),
        ("time: 400d\n", "1: time is a number with a unit"),
        ("memory_gb: 32G\n", "1: memory_gb is a number of gigabytes such as 32, without a unit, got '32G'"),
        ("memory_gb: .nan\n", "1: memory_gb is a number of gigabytes"),
        ("memory_gb: -1\n", "1: memory_gb is a number of gigabytes"),
        ("cpus: 0\n", "1: cpus is a whole number from 1 to 4096, got 0"),
        ("cpus: true\n", "1: cpus is a whole number from 1 to 4096, got True"),
        ("cpus: 2.5\n", "1: cpus is a whole number"),
        (
            "gpus: -1\n",
            "1: gpus is a whole number from 0 to 1024, or a type, or both, such as 2, a100 or",
        ),
        ("gpus: 1025\n", "1: gpus is a whole number"),
        ("gpus: true\n", "1: gpus is a whole number"),
        ("gpus: none\n", "1: gpus is a whole number"),
        ("gpus: all\n", "1: gpus is a whole number"),
        ("gpus: 2.0\n", "1: gpus is a whole number"),
        ("gpus: a100:x\n", "1: gpus is a whole number"),
        ("gpus: a100:1,v100:1\n", "1: gpus is a whole number"),
        (
            "memory_gb: 8\nsbatch: [--mem-per-cpu=4G]\n",
            "2: --mem-per-cpu and the key 'memory_gb' exclude each",
        ),
        ("at_most: 0\n", "1: at_most is a whole number from 1"),
        ("partition: [a, b]\n", "1: partition is a name such as gpu, got ['a', 'b']"),
        ("sbatch: --exclusive\n", "1: sbatch is a list of options"),
        ("- a\n", "1: a cluster file is a map"),
        ("setup: 3\n", "1: setup is a list of commands such as [module load cuda/13], got 3"),
        ("setup: [true]\n", "1: setup is a list of commands"),
        (
            "setup: ['echo \"it']\n",
            "1: setup has 'echo \"it', which bash does not understand: unexpected EOF",
        ),
        ("setup: |\n  if true\n  then x; fi\n", "1: setup has 'if true', which bash does not understand: "),
        ('setup: ["a\\nb"]\n', "1: setup has 'a\\nb'; each entry is one whole command on one line"),
        (
            "python: ''\n",
            "1: python is a command such as python or apptainer exec --nv torch.sif python, got ''",
        ),
        ('python: "it\'s"\n', "1: python is a command such as python"),
        ("shapes: 3\n", "1: shapes is a list"),
        ("shapes:\n  - cpus: 3\n", "2: each entry of shapes says which runs: match: {model: resnet50}"),
        (
            "shapes:\n  - match: {modle: a}\n    cpus: 3\n",
            "2: unknown condition 'modle'; did you mean 'model'?",
        ),
        ("shapes:\n  - match: {model: 3}\n", "2: model is a name or a list of names"),
        ("shapes:\n  - match: {model: a}\n    at_most: 3\n", "3: unknown key 'at_most'"),
        ("processes: 4\n", "1: 4 processes train on each node"),
        ("cpus: 2\nruns_side_by_side: 3\n", "1: 3 processes train on each node"),
        ("runs_side_by_side: atuo\n", "1: runs_side_by_side is a whole number from 1 to 1024, or auto, got"),
        ("cpus: 8\nruns_side_by_side: auto\n", "2: auto measures how many runs of one process share a GPU"),
        ("nodes: 2\ncpus: 2\n", "1: 1 processes cannot be shared equally by 2 nodes; give a multiple of 2"),
        (
            "gpus: 1\nprocesses: 2\ncpus: 2\n",
            "1: 2 processes of a run on each node but 1 gpus; each needs one",
        ),
        (
            "nodes: 2\nprocesses: 2\ncpus: 4\nruns_side_by_side: 2\n",
            "4: an agent on several nodes trains one run at a time; leave it at 1",
        ),
        ("cpus: 8\nshapes:\n  - match: {model: a}\n    processes: 9\n", "3: 9 processes train on each node"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, said: str):
    (mistake,) = mistakes(tmp_path, text)
    assert mistake.startswith(said)


@pytest.mark.parametrize(
    ("text", "time_s"),
    [
        ("30min", 1800),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("60", 3600),
        ("1:30", 90),
        ("90:00", 5400),
        ("1:30:00", 5400),
        ("01:30:00", 5400),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("1-00:00:00", 86_400),
        ('"1-00:00:00"', 86_400),
        ("UNLIMITED", None),
        ("infinite", None),
    ],
)
def test_a_time_may_be_written_as_slurm_writes_it(tmp_path: Path, text: str, time_s: int | None):
    """A number alone is minutes, and 1:30 is minutes and seconds: as `sbatch --time` reads them."""
    assert read(tmp_path, f"time: {text}\n").resources.time_s == time_s


def test_every_mistake_is_named_not_only_the_first(tmp_path: Path):
    found = mistakes(tmp_path, "cpus: 0\ntme: 4h\nshapes:\n  - match: {model: a}\n    gpus: -x\n")
    assert [each.split(":")[0] for each in found] == ["1", "2", "5"]


def test_a_file_that_is_not_there_is_named_with_what_is_beside_it(tmp_path: Path):
    (tmp_path / "cluster.yaml").write_text("cpus: 1\n")
    with pytest.raises(StudyError, match=r"clustr\.yaml: no such file; .* did you mean 'cluster\.yaml'"):
        find_cluster(tmp_path / "clustr.yaml")


HOSTILE = (
    "a\nrm -rf ~",
    "a\r#",
    "$(reboot)",
    "`reboot`",
    "a; reboot",
    "a && reboot",
    "a reboot",
    "'a",
    'a"',
    "-a",
    "",
    "é",
    "a" * 201,
)


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("key", ["partition", "account", "qos"])
def test_a_name_that_a_shell_could_read_is_refused(tmp_path: Path, key: str, value: str):
    text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    assert len(mistakes(tmp_path, f'{key}: "{text}"\n')) >= 1


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("-p gpu", "use the key 'partition'"),
        ("--parti=gpu", "use the key 'partition'"),
        ("-N2", "use the key 'nodes'"),
        ("--arr=0-3", "--array is set by the harness"),
        ("--wra=reboot", "--wrap is set by the harness"),
        ("-a0-3", "--array is set by the harness"),
        ("--mem-per=1", "may be any of --mem-per-cpu, --mem-per-gpu"),
        ("--hold=1", "--hold takes no value"),
        ("--nodelist", "without a value"),
        ("-Z", "sbatch has no such option"),
        ("nodelist=a", "an option is one line"),
        ("--nodelist=a\\nreboot", "an option is one line"),
        ("--nodelist=", "an option is one line"),
        ("--", "an option is one line"),
        ("--Nodelist=a", "an option is one line"),
        ("--partition=gpu", "use the key 'partition'"),
        ("--mem=4G", "use the key 'memory_gb'"),
        ("--array=0-3", "--array is set by the harness"),
        ("--output=x", "--output is set by the harness"),
        ("--wrap=reboot", "--wrap is set by the harness"),
        ("--no-requeue", "--no-requeue is set by the harness"),
    ],
)
def test_an_option_of_sbatch_that_is_not_one_or_is_not_the_users_is_refused(
    tmp_path: Path, option: str, said: str
):
    assert said in mistakes(tmp_path, f'sbatch: ["{option}"]\n')[0]


def test_an_option_is_given_once(tmp_path: Path):
    assert "--mail-type twice" in mistakes(tmp_path, 'sbatch: ["--mail-type=END", "--mail-type=FAIL"]\n')[0]


def test_options_are_read_as_sbatch_reads_them(tmp_path: Path):
    text = 'sbatch: ["--exclus", "-w", "a[1-4]", "--mail-type END", "--gres-flags=x", "--of-site=x"]\n'
    options = (
        "--exclusive",
        "--nodelist=a[1-4]",
        "--mail-type=END",
        "--gres-flags=x",
        "--of-site=x",
    )
    assert read(tmp_path, text).resources.sbatch == options


@pytest.mark.parametrize(
    ("text", "count", "kind"),
    [
        ("2", 2, None),
        ("0", 0, None),
        ("a100", 1, "a100"),
        ("a100:1", 1, "a100"),
        ('"a100:4"', 4, "a100"),
        ("gpu:a100:2", 2, "a100"),
        ("nvidia_a100-sxm4_80gb:2", 2, "nvidia_a100-sxm4_80gb"),
        ("1g.5gb:2", 2, "1g.5gb"),
    ],
)
def test_gpus_may_have_a_type(tmp_path: Path, text: str, count: int, kind: str | None):
    resources = read(tmp_path, f"gpus: {text}\n").resources
    assert (resources.gpus, resources.gpu_type) == (count, kind)
    request = f"{kind}:{count}" if kind else f"{count}"
    assert gpu_lines(resources, tmp_path) == ([f"#SBATCH --gpus-per-node={request}"] if count else [])


@pytest.mark.parametrize(
    ("options", "count", "kind"),
    [
        (["--gres=gpu:a100:1"], 1, "a100"),
        (["--gres", "gpu:2"], 2, None),
        (["--gres gpu:2"], 2, None),
        (["--gres=gpu"], 1, None),
        (["--gres=gpu:tesla:2,nvme:1"], 2, "tesla"),
        (["--gres=gpu:a100:2,gpu:a100:1"], 3, "a100"),
        (["--gres=gres/gpu:2"], 2, None),
        (["--gres=shard:4"], 1, None),
        (["--gres=mps:50"], 1, None),
        (["--gpus=2"], 2, None),
        (["-G2"], 2, None),
        (["-G", "a100:2"], 2, "a100"),
        (["--gpus-per-node=a100:1"], 1, "a100"),
        (["--gpus-per-n=1"], 1, None),
        (["--gpus-per-task=1"], 1, None),
        (["--tres-per-task=cpu=4,gres/gpu=2"], 2, None),
        (["--tres-per-task=gres/gpu:a100=2"], 2, "a100"),
        (["--gres=gpu:a100:1", "--gpus=1"], 1, "a100"),
    ],
)
def test_a_gpu_asked_for_in_the_sites_own_words_is_a_gpu(
    tmp_path: Path, options: list[str], count: int, kind: str | None
):
    """The agent trains on it, and Slurm is asked for it in those words and no others."""
    file = f"sbatch: {json.dumps(options)}\n"
    resources = read(tmp_path, file).resources
    assert resources.gpus == count
    assert resources.gpu_type in (kind, None)
    assert len(gpu_lines(resources, tmp_path)) == len(resources.sbatch)
    assert read(tmp_path, f"gpus: {count}\n{file}").resources == resources
    found = mistakes(tmp_path, f"gpus: {count + 1}\n{file}")
    assert any("give one of them" in each and each.startswith("1: gpus is") for each in found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gre=gpu:1"], "--gre may be any of --gres-flags, --gres"),
        (["--gp=1"], "--gp may be any of"),
        (["--gpus-per-socket=1"], "use the key 'gpus', which is per node"),
        (["--ntasks-per-gpu=1"], "leave it out"),
        (["--cpus-per-gpu=4"], "use the key 'cpus'"),
        (["--mem-per-gpu=4G"], "use the key 'memory_gb'"),
        (["--gres=gpu:1(S:0)"], "'1(S:0)' is no number of GPUs such as 2 or a100:2"),
        (["--gres=gpu:1K"], "'1K' is no number of GPUs"),
        (["--gres=gpu:"], "'' is no number of GPUs"),
        (["--gres=gpu:-1"], "'-1' is no number of GPUs"),
        (["--gres=gpu:a100:1,gpu:v100:1"], "several types of GPU"),
        (["--gres=help"], "submits nothing"),
        (["--gres=gpu:2", "--gpus=1"], "asks for GPUs twice, 2 and 1; give one of them"),
        (["--tres-per-node=gres/gpu:1"], "use the key 'gpus'"),
        (["--site-gpus=1"], "use the key 'gpus'"),
        (["--gpus"], "without a value"),
        (["gpu:1"], "an option is one line"),
    ],
)
def test_a_gpu_asked_for_in_a_way_that_cannot_be_followed_is_refused_with_the_mend(
    tmp_path: Path, options: list[str], said: str
):
    (mistake,) = mistakes(tmp_path, f"cpus: 1\nsbatch: {json.dumps(options)}\n")
    assert mistake.startswith("2: sbatch ")
    assert said in mistake


@pytest.mark.parametrize(
    "option", ["--gres=nvme:1", "--gres=none", "--gpu-bind=closest", "--hint=nomultithread"]
)
def test_what_asks_for_no_gpu_gives_none(tmp_path: Path, option: str):
    assert read(tmp_path, f'constraint: a100\nsbatch: ["{option}"]\n').resources.gpus == 0


def test_gpus_over_all_nodes_are_refused_where_there_are_several(tmp_path: Path):
    text = "nodes: 2\nprocesses: 2\nsbatch: [--gpus=2]\n"
    assert mistakes(tmp_path, text) == [
        "3: --gpus counts over all nodes, as Slurm spreads them; use the key 'gpus', per node"
    ]


def test_each_process_of_a_node_needs_a_gpu_however_they_are_asked_for(tmp_path: Path):
    text = "processes: 2\ncpus: 2\nsbatch: [--gres=gpu:1]\n"
    assert mistakes(tmp_path, text)[0].startswith("1: 2 processes of a run on each node but 1 gpus")


@pytest.mark.parametrize(
    ("common", "shape", "resources"),
    [
        ("sbatch: [--gres=gpu:1]", "gpus: 2", (2, None, ())),
        ("sbatch: [--gres=gpu:a100:1]", "gpus: 0", (0, None, ())),
        ("sbatch: ['--gres=gpu:1,nvme:1']", "gpus: 2", (2, None, ("--gres=nvme:1",))),
        ("sbatch: [--gres=gpu:a100:1]", "cpus: 2", (1, "a100", ("--gres=gpu:a100:1",))),
        ("gpus: 1", "sbatch: [--gres=gpu:a100:2]", (2, "a100", ("--gres=gpu:a100:2",))),
        ("gpus: a100:1", "sbatch: [--exclusive]", (1, "a100", ("--exclusive",))),
        ("gpus: a100:1", "gpus: 2", (2, None, ())),
    ],
)
def test_what_a_shape_says_of_gpus_replaces_what_the_file_says(
    tmp_path: Path, common: str, shape: str, resources: tuple[int, str | None, tuple[str, ...]]
):
    file = f"{common}\nshapes:\n  - match: {{model: large}}\n    {shape}\n"
    found = read(tmp_path, file).resources_of(spec(0, "large"))
    assert (found.gpus, found.gpu_type, found.sbatch) == resources


def test_a_shape_whose_options_replace_the_gpus_of_the_file_says_so(tmp_path: Path):
    file = "sbatch: [--gres=gpu:a100:1]\nshapes:\n  - match: {model: a}\n    sbatch: [--exclusive]\n"
    assert mistakes(tmp_path, file) == [
        "4: this list replaces the file's, which asks for GPUs; add gpus: a100:1, or gpus: 0"
    ]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SBATCH_GRES", "gpu:1"),
        ("SBATCH_GPUS", "a100:1"),
        ("SBATCH_GPUS_PER_NODE", "1"),
        ("SBATCH_GPUS_PER_TASK", "1"),
        ("SBATCH_GPUS_PER_SOCKET", "1"),
        ("SBATCH_TRES_PER_TASK", "gres/gpu=1"),
    ],
)
def test_gpus_asked_for_by_the_environment_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
):
    """sbatch would put them before what the script says."""
    (tmp_path / "cluster.yaml").write_text("cpus: 1\n")
    monkeypatch.setenv("SBATCH_GRES", "nvme:1")
    assert find_cluster(tmp_path / "cluster.yaml").resources.gpus == 0
    monkeypatch.setenv(variable, value)
    with pytest.raises(
        StudyError, match=rf"{variable}: .*\({value}\); unset it and say it in the cluster file: gpus"
    ):
        find_cluster(tmp_path / "cluster.yaml")


def gpu_lines(resources: Resources, folder: Path) -> list[str]:
    """What the sbatch script of a run says of GPUs."""
    cluster = Cluster(resources=resources)
    settings = SlurmSettings(runs_dir=folder, data_dir=folder, cluster=cluster, study="a", size="mini")
    return re.findall(r"^#SBATCH --(?:gpu|gres|tres).*$", Slurm(settings).scripts([job(1)]), re.MULTILINE)


def test_resources_survive_json():
    resources = Resources(partition="gpu", memory_gb=2.5, sbatch=("--exclusive",), gpus=2)
    assert Resources.from_json(resources.to_json()) == resources
    assert Resources.from_json({**resources.to_json(), "of_a_later_version": 1}) == resources
