"""The cluster file: which resources the runs of a study ask of Slurm, and what each key may say."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import Location, Problem, ProblemList, StudyError, unknown
from harness.slurm import setup
from harness.spec import AnyRun, RunSpec
from harness.study.yaml import YamlFile, read_source

# What each key of a cluster file may say. Texts end in an sbatch script, where none may leave its line.


Check = Callable[[Any], Any]  # raises ValueError with words that follow the key's name
FIELD = {"time": "time_s"}  # key -> field of Resources, where they differ
NO_LIMIT = frozenset({"UNLIMITED", "INFINITE"})  # as sbatch takes them, in any case
UNIT_S = {"min": 60, "h": 3600, "d": 86400}
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:+-]*")
CONSTRAINT = re.compile(r"[A-Za-z0-9_(\[][A-Za-z0-9_.,:+&|*()\[\]-]*")
LONG_OPTION = re.compile(r"--([a-z][a-z0-9-]*)(?:(?:=|[ ]+)([^\x00-\x1f\x7f]+))?")
VALUE = re.compile(r"[^-\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,999}")
SHORT_OPTION = re.compile(r"-([A-Za-z])[ ]*([^\x00-\x1f\x7f]*)")
SBATCH = """
account=A acctg-freq= array=a autocomplete= batch= bb= bbf= begin=b chdir=D cluster-constraint= cluster=
clusters=M comment= consolidate-segments constraint=C container-id= container= context= contiguous
core-spec=S cores-per-socket= cpu-freq= cpus-per-gpu= cpus-per-task=c deadline= delay-boot= dependency=d
distribution=m error=e exclude=x exclusive? export-file= export= external extra-node-info=B extra=
get-user-env? gid= gpu-bind= gpu-freq= gpus-per-node= gpus-per-socket= gpus-per-task= gpus=G gres-flags= gres=
help.h hint= hold.H ignore-pbs input=i job-name=J kill-on-invalid-dep= licenses=L mail-type= mail-user=
mcs-label= mem-bind= mem-per-cpu= mem-per-gpu= mem-update= mem= mincpus= network= nice? no-kill?k no-requeue
nodefile=F nodelist=w nodes=N ntasks-per-core= ntasks-per-gpu= ntasks-per-node= ntasks-per-socket=
ntasks-per-tres= ntasks=n oom-kill-step? open-mode= output=o overcommit.O oversubscribe.s parsable
partition=p power= prefer= priority= profile= propagate? qos=q quiet.Q reboot requeue? reservation=
resources= resv-ports= runtime= segment= signal= sockets-per-node= spread-job spread-segments stepmgr
switches= tasks-per-node= test-only thread-spec= threads-per-core= time-min= time=t tmp= tres-bind=
tres-per-task= uid= usage use-min-nodes verbose.v version.V wait-all-nodes= wait.W wckey= wrap=
"""  # of Slurm 22.05 to 26.05; "=" takes a value, "?" may, a letter is the short name
KINDS = {
    match[1]: (match[2] or ".", match[3])
    for match in (re.fullmatch(r"([a-z-]+)([=?.]?)([A-Za-z]?)", word) for word in SBATCH.split())
    if match
}
LONG_OF = {short: name for name, (_, short) in KINDS.items() if short}
SAME = {"cluster": "clusters", "tasks-per-node": "ntasks-per-node"}
PER_NODE = ("gpus-per-node", "gpus-per-task", "gpus")  # with one task per node; `gpus` on one node only
GENERIC = re.compile(r"(?:gres[/:])?(gpu|shard|mps)(?:[:=](.*))?")  # an entry of --gres or --tres-per-task
NO_TYPE = re.compile(r"[0-9]+[kmgtp]|none|no|yes|all|any|auto|null|true|false|one|two|max")  # of a GPU
SHARES = frozenset({"shard", "mps"})  # of one GPU, as a generic resource
ONE_TASK = "the harness starts one task on each node; leave it out"
GPUS_REFUSED = {
    "gpus-per-socket": "its number depends on the sockets of a node; use the key 'gpus', which is per node",
    "ntasks-per-gpu": ONE_TASK,
    "ntasks-per-tres": ONE_TASK,
    "cpus-per-gpu": "use the key 'cpus', which is per node",
    "mem-per-gpu": "use the key 'memory_gb', which is per node",
}
GPUS_IN_ENVIRONMENT = {  # variable of sbatch -> its option; it goes before what a script says
    f"SBATCH_{name.upper().replace('-', '_')}": name
    for name in ("gres", *PER_NODE, "gpus-per-socket", "tres-per-task")
}
MOST_GPUS = 1024
HAS_A_KEY = {  # options of sbatch that have a key of their own here
    "nodes": "nodes",
    "cpus-per-task": "cpus",
    "mem": "memory_gb",
    "time": "time",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "ntasks": "processes",
    "ntasks-per-node": "processes",
}
OURS = {  # what the harness itself says, or what would change how sbatch answers
    *("array", "dependency", "job-name", "signal", "open-mode", "output", "error", "requeue", "no-requeue"),
    *("wrap", "wait", "parsable", "quiet", "test-only", "help", "usage", "version", "autocomplete"),
}


def anything(value: Any) -> Any:
    """Checked elsewhere."""
    return value


def whole(lowest: int, highest: int, *, auto: bool = False) -> Check:
    """A whole number in a range; with `auto` that word too, as 0."""

    def check(value: Any) -> int:
        if auto and value == "auto":
            return 0
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(
                f"is a whole number from {lowest} to {highest}{', or auto' * auto}, got {value!r}"
            )
        return value

    return check


def gigabytes(value: Any) -> float:
    """More than nothing, less than a petabyte."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0.001 <= value <= 1e6:
        raise ValueError(f"is a number of gigabytes such as 32, without a unit, got {value!r}")
    return float(value)


def duration(value: Any) -> int | None:
    """Seconds of `30min`, `4h`, `1.5h` or `2d`, or of one of Slurm's own forms; None: no limit.

    >>> [duration(each) for each in (90, "90", "1:30", "4:00:00", "2-12", "1-00:00:00", "UNLIMITED")]
    [5400, 5400, 90, 14400, 216000, 86400, None]
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and text.upper() in NO_LIMIT:
        return None
    with_unit = (
        re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(min|h|d)", text) if isinstance(text, str) else None
    )
    time_s = float(with_unit[1]) * UNIT_S[with_unit[2]] if with_unit else _slurm_time(text)
    if not 60 <= time_s <= 365 * 86400:
        raise ValueError(
            "is a number with a unit, from 1min to 365d, such as 30min, 4h or 2d, or as Slurm writes it"
            f" (minutes, 4:00:00, 1-12, 1-00:00:00, UNLIMITED); got {value!r}"
        )
    return math.ceil(time_s)


def _slurm_time(text: Any) -> int:
    """Seconds of minutes, minutes:seconds, hours:minutes:seconds, or days- and then hours, hours:minutes or
    hours:minutes:seconds; 0 for anything else."""
    match = (
        re.fullmatch(r"(?:([0-9]{1,4})-)?([0-9]{1,6}(?::[0-9]{1,6}){0,2})", text)
        if isinstance(text, str)
        else None
    )
    if match is None:
        return 0
    parts = [int(each) for each in match[2].split(":")]
    units = (3600, 60, 1) if match[1] or len(parts) == 3 else (60, 1)
    return int(match[1] or 0) * 86400 + sum(part * unit_s for part, unit_s in zip(parts, units, strict=False))


def word(pattern: re.Pattern[str], example: str) -> Check:
    """Text that fits a pattern; a plain number in YAML is taken as text."""

    def check(value: Any) -> str:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(text, str) or len(text) > 200 or not pattern.fullmatch(text):
            raise ValueError(f"is a name such as {example}, got {value!r}")
        return text

    return check


def options(value: Any) -> tuple[str, ...]:
    """Further options of sbatch, as sbatch understands them, each then a text `--name` or `--name=value` with
    the whole name.

    >>> options(["--exclus", "-w a[1-4]", "--gres", "gpu:1"])
    ('--exclusive', '--nodelist=a[1-4]', '--gres=gpu:1')
    """
    if not isinstance(value, list):
        raise ValueError(f'is a list of options such as ["--nodelist=a[1-4]"], got {value!r}')
    found: dict[str, str] = {}
    for text, name, argument in _pairs(value):
        if name in HAS_A_KEY:
            raise ValueError(f"has '{text}'; use the key '{HAS_A_KEY[name]}' in place of --{name}")
        if name in OURS:
            raise ValueError(f"has '{text}'; --{name} is set by the harness")
        if name in found:
            raise ValueError(f"has --{name} twice")
        found[name] = f"--{name}" if argument is None else f"--{name}={argument}"
    gpus_of(found.values())
    return tuple(found.values())


def _pairs(items: list[Any]) -> Iterator[tuple[str, str, str | None]]:
    """Each option as it was written, its whole name, and its value, which may be the next item."""
    left = list(items)
    while left:
        text = left.pop(0)
        long = LONG_OPTION.fullmatch(text) if isinstance(text, str) and len(text) <= 1000 else None
        short = SHORT_OPTION.fullmatch(text) if isinstance(text, str) and len(text) <= 1000 else None
        if long is None and short is None:
            raise ValueError(f"has {text!r}; an option is one line such as --nodelist=a[1-4]")
        name = _whole_name(text, long[1]) if long else LONG_OF.get(short[1], "") if short else ""
        argument = long[2] if long else short[2] or None if short else None
        if not name:
            raise ValueError(f"has '{text}'; sbatch has no such option")
        takes = KINDS.get(name, ("?", ""))[0]
        if takes == "=" and argument is None:
            if not (left and isinstance(left[0], str) and VALUE.fullmatch(left[0])):
                raise ValueError(f"has '{text}' without a value, such as --{name}=...")
            argument = left.pop(0)
        elif takes == "." and argument is not None:
            raise ValueError(f"has '{text}'; --{name} takes no value")
        yield text, SAME.get(name, name), argument


def _whole_name(text: str, name: str) -> str:
    """As getopt_long: the beginning of one name stands for it. A name that is none may be a site's own."""
    fitting = [name] if name in KINDS else [each for each in KINDS if each.startswith(name)]
    if len(fitting) > 1:
        raise ValueError(f"has '{text}'; --{name} may be any of {', '.join(f'--{each}' for each in fitting)}")
    if not fitting and re.search(r"gpu|gres|shard|mps|tres", name):
        raise ValueError(f"has '{text}', an option of sbatch that is not known here; use the key 'gpus'")
    return fitting[0] if fitting else name


@dataclass(frozen=True, slots=True)
class Gpus:
    """GPUs of a node."""

    count: int
    kind: str | None = None  # as the cluster calls it; None: any

    @property
    def request(self) -> str:
        """As Slurm takes it, such as `a100:2`."""
        return f"{self.kind}:{self.count}" if self.kind else f"{self.count}"

    def agrees(self, other: Gpus) -> bool:
        """Whether one request can mean both."""
        kinds = {self.kind, other.kind} if self.count else set()
        return self.count == other.count and len(kinds - {None}) < 2


def gpus(value: Any) -> Gpus:
    """A number of GPUs, a type of one, or both.

    >>> [gpus(each).request for each in (2, "2", "a100", "a100:2", "gpu:a100:2")]
    ['2', '2', 'a100:1', 'a100:2', 'a100:2']
    """
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    text = str(value) if is_whole else value
    found = _gpu(text.removeprefix("gpu:")) if isinstance(text, str) and text else None
    if found is None:
        raise ValueError(
            f"is a whole number from 0 to {MOST_GPUS}, or a type, or both, such as 2, a100 or a100:2;"
            f" got {value!r}"
        )
    return found


def gpus_of(options: Iterable[str]) -> Gpus | None:
    """The GPUs that options of sbatch ask for, per node; None: they do not speak of any.

    Raises:
        ValueError: it cannot be known how many, or the harness has no use for it.
    """
    asked: Gpus | None = None
    for option in options:
        name, _, value = option.removeprefix("--").partition("=")
        found = _gpus_of_option(name, value)
        if found is not None and asked is not None and not found.agrees(asked):
            raise ValueError(f"asks for GPUs twice, {asked.request} and {found.request}; give one of them")
        asked = asked if found is None or (asked and asked.kind) else found
    return asked


def without_gpus(options: Iterable[str]) -> tuple[str, ...]:
    """The options that are left where a key says which GPUs; other generic resources stay.

    >>> without_gpus(("--exclusive", "--gres=gpu:a100:1,nvme:1", "--gpus=1"))
    ('--exclusive', '--gres=nvme:1')
    """
    left = []
    for option in options:
        name, _, value = option.partition("=")
        if gpus_of([option]) is None:
            left.append(option)
        elif name in ("--gres", "--tres-per-task"):
            others = [each for each in value.split(",") if gpus_of([f"{name}={each}"]) is None]
            left += [f"{name}={','.join(others)}"] if others else []
    return tuple(left)


def _gpus_of_option(name: str, value: str) -> Gpus | None:
    if name in GPUS_REFUSED:
        raise ValueError(f"has '--{name}={value}'; {GPUS_REFUSED[name]}")
    if name in PER_NODE:
        entries = [("gpu", each) for each in value.split(",")]
    elif name in ("gres", "tres-per-task"):
        if value == "help":
            raise ValueError(f"has '--{name}=help', with which sbatch submits nothing")
        parts = (GENERIC.fullmatch(each) for each in value.split(","))
        entries = [(part[1], "1" if part[2] is None else part[2]) for part in parts if part]
    else:
        return None
    found = []
    for what, text in entries:
        each = _gpu(text.replace("=", ":"))
        if each is None:
            raise ValueError(f"has '--{name}={value}'; '{text}' is no number of GPUs such as 2 or a100:2")
        found.append(Gpus(min(each.count, 1), each.kind) if what in SHARES else each)
    if not found:
        return None
    kinds = {each.kind for each in found}
    if len(kinds) > 1:
        raise ValueError(
            f"has '--{name}={value}', several types of GPU; runs to compare need the same: name one"
        )
    return Gpus(sum(each.count for each in found), kinds.pop())


def _gpu(text: str) -> Gpus | None:
    """Of `2`, `a100` or `a100:2`."""
    match = re.fullmatch(
        r"(?:((?=[A-Za-z0-9])[\w.+-]*[A-Za-z][\w.+-]*)(?::|$))?([0-9]{1,4})?", text, re.ASCII
    )
    if match is None or not (match[1] or match[2]) or text.endswith(":"):
        return None
    if match[1] and NO_TYPE.fullmatch(match[1].lower()):
        return None
    count = int(match[2] or 1)
    kind = match[1] if match[1] != "gpu" else None
    return Gpus(count, kind if count else None) if count <= MOST_GPUS else None


RESOURCES: Mapping[str, Check] = {
    "nodes": whole(1, 10_000),
    "gpus": gpus,
    "cpus": whole(1, 4096),
    "memory_gb": gigabytes,
    "time": duration,
    "partition": word(NAME, "gpu"),
    "account": word(NAME, "my_lab"),
    "qos": word(NAME, "normal"),
    "constraint": word(CONSTRAINT, "a100|h100"),
    "sbatch": options,
    "setup": setup.commands,
    "python": setup.interpreter,
    "processes": whole(1, 100_000),
    "runs_side_by_side": whole(1, 1024, auto=True),
}


def contradictions(resources: Resources) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) for numbers that do not go together."""
    nodes, processes, beside = resources.nodes, resources.processes, resources.least_beside
    if not resources.runs_side_by_side and (not resources.gpus or processes > 1):
        yield "runs_side_by_side", "auto measures how many runs of one process share a GPU; it needs gpus"
    if processes % nodes:
        yield (
            "nodes",
            f"{processes} processes cannot be shared equally by {nodes} nodes; give a multiple of {nodes}",
        )
        return
    if nodes > 1 and beside > 1:
        yield "runs_side_by_side", "an agent on several nodes trains one run at a time; leave it at 1"
    here = beside * processes // nodes
    if here > resources.cpus:
        yield (
            "cpus",
            f"{here} processes train on each node (runs_side_by_side x processes / nodes) but it has"
            f" {resources.cpus} cpus; ask for at least {here}",
        )
    if nodes > 1 and any(each.startswith("--gpus=") for each in resources.sbatch):
        yield "sbatch", "--gpus counts over all nodes, as Slurm spreads them; use the key 'gpus', per node"
    per_cpu = any(each.startswith("--mem-per-cpu=") for each in resources.sbatch)
    if per_cpu and resources.memory_gb is not None:
        yield "sbatch", "--mem-per-cpu and the key 'memory_gb' exclude each other; give one of them"
    if resources.gpus and processes // nodes > resources.gpus:
        yield (
            "gpus",
            f"{processes // nodes} processes of a run on each node but {resources.gpus} gpus; each needs one",
        )


# The cluster file: which resources the runs of a study ask of Slurm, and for which runs they are others.


DEFAULT_FILE = Path("~/.config/harness/cluster.yaml")
AT_MOST = 32  # agents at once, unless the file or the command line says otherwise
MATCHES = {
    "model": lambda spec: spec.arm.recipe.model.name,
    "data": lambda spec: spec.arm.recipe.data.name,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one agent (one array task) gets. Counts are per node; memory as Slurm counts it (2^30 bytes)."""

    nodes: int = 1
    gpus: int = 0
    gpu_type: str | None = None  # as the cluster calls it; None: any
    cpus: int = 1
    memory_gb: float | None = None  # None: the partition's default
    time_s: int | None = 4 * 3600  # None: no limit
    partition: str | None = None  # None: the cluster's default
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    sbatch: tuple[str, ...] = ()  # further options, e.g. "--nodelist=a[1-4]"
    setup: tuple[str, ...] = ()  # commands of bash, run before the agent
    python: str = ""  # the words that start its interpreter; "": that of the command that submits
    processes: int = 1  # that train one run together, over all nodes
    runs_side_by_side: int = 1  # workers of one agent; 0: it measures how many are worth it on its GPUs

    @property
    def least_beside(self) -> int:
        """Runs that an agent trains at a time, as far as is known before it measures."""
        return max(1, self.runs_side_by_side)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` gives equal resources back."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Resources:
        """Rebuild from `to_json`'s data. Fields of a later version are left out."""
        names = {each.name for each in dataclasses.fields(Resources)}
        known = {name: value for name, value in data.items() if name in names}
        return Resources(**(known | {name: tuple(known.get(name, ())) for name in ("sbatch", "setup")}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Resources for the runs whose model, data set, ... is one of those named."""

    match: Mapping[str, tuple[str, ...]]
    resources: Resources

    def fits(self, spec: AnyRun) -> bool:
        """Whether every condition holds for the run; a command has no model and no data that are known."""
        return isinstance(spec, RunSpec) and all(
            MATCHES[name](spec) in wanted for name, wanted in self.match.items()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster file, checked."""

    path: str = "the cluster file"  # as messages name it
    resources: Resources = Resources()
    at_most: int = AT_MOST
    shapes: tuple[Shape, ...] = ()

    def resources_of(self, spec: AnyRun) -> Resources:
        """Those of the first shape that fits, else the common ones."""
        return next((shape.resources for shape in self.shapes if shape.fits(spec)), self.resources)


def find_cluster(path: Path | None) -> Cluster:
    """The cluster file at `path`, without one the user's own, or the defaults where there is none either.

    Raises:
        StudyError: every mistake in the file, or that `path` does not exist.
    """
    _check_environment()
    if path is not None:
        return read_cluster(path)
    own = DEFAULT_FILE.expanduser()
    return read_cluster(own) if own.is_file() else Cluster(path=str(DEFAULT_FILE))


def _check_environment() -> None:
    """
    Raises:
        StudyError: a variable of sbatch asks for GPUs, of which a cluster file would know nothing.
    """
    found = []
    for variable, option in GPUS_IN_ENVIRONMENT.items():
        said = os.environ.get(variable, "")
        try:
            asked = gpus_of([f"--{option}={said}"]) if said else None
        except ValueError:
            asked = Gpus(1)
        if asked and asked.count:
            mend = f"unset it and say it in the cluster file: gpus: {asked.request}"
            found.append(Problem(variable, 0, f"the environment asks Slurm for GPUs ({said}); {mend}"))
    if found:
        raise StudyError(found)


def read_cluster(path: Path) -> Cluster:
    """Read and check a cluster file.

    Raises:
        StudyError: every mistake in it, with file:line and the nearest valid name.
    """
    if not path.is_file():
        beside = [file.name for file in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        message = f"no such file; {unknown('cluster file', path.name, beside)}"
        raise StudyError([Problem(str(path), 0, message)])
    found: list[Problem] = []
    source = YamlFile(str(path), data={}) if _says_nothing(path) else read_source(path, found)
    problems = source.problem_list()
    cluster = _Reader(source, problems).cluster()
    if found or problems:
        raise StudyError([*found, *problems.problems()])
    return cluster


def _says_nothing(path: Path) -> bool:
    """Only blank lines and comments: a file of defaults."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False  # read_source says what is wrong
    return all(not line.strip() or line.lstrip().startswith("#") for line in lines)


class _Reader:
    """Turns plain data into a `Cluster`; mistakes are collected and reading goes on."""

    def __init__(self, source: YamlFile, problems: ProblemList) -> None:
        self._source, self._problems = source, problems

    def cluster(self) -> Cluster:
        data = self._source.data
        if not isinstance(data, dict):
            self._problems.add((), "a cluster file is a map such as partition: gpu, one key per line")
            data = {}
        found = self._values(data, (), {**RESOURCES, "at_most": whole(1, 100_000), "shapes": anything}, {})
        at_most = found.pop("at_most", AT_MOST)
        shapes = found.pop("shapes", [])
        resources = self._checked(Resources(**found), data, ())
        if not isinstance(shapes, list):
            self._problems.add(("shapes",), "shapes is a list, each entry with match: and other resources")
            shapes = []
        read = [self._shape(entry, ("shapes", place), found) for place, entry in enumerate(shapes)]
        return Cluster(
            path=self._source.path,
            resources=resources,
            at_most=at_most,
            shapes=tuple(shape for shape in read if shape is not None),
        )

    def _shape(self, entry: Any, at: Location, common: Mapping[str, Any]) -> Shape | None:
        if not isinstance(entry, dict) or not isinstance(entry.get("match"), dict) or not entry["match"]:
            self._problems.add(at, "each entry of shapes says which runs: match: {model: resnet50}")
            return None
        found = self._values(entry, at, {**RESOURCES, "match": anything}, common)
        conditions = {}
        for name, wanted in found.pop("match").items():
            names = wanted if isinstance(wanted, list) else [wanted]
            if name not in MATCHES:
                self._problems.add((*at, "match", name), unknown("condition", str(name), MATCHES))
            elif not names or not all(isinstance(each, str) for each in names):
                self._problems.add((*at, "match", name), f"{name} is a name or a list of names")
            else:
                conditions[name] = tuple(names)
        return Shape(match=conditions, resources=self._checked(Resources(**{**common, **found}), entry, at))

    def _values(
        self,
        data: Mapping[Any, Any],
        at: Location,
        valid: Mapping[str, Check],
        common: Mapping[str, Any],
    ) -> dict[str, Any]:
        """field of `Resources` -> value, without those that are wrong; `common`: those of the whole file."""
        found = {}
        for key, value in data.items():
            if key not in valid:
                self._problems.add((*at, key), unknown("key", str(key), valid))
                continue
            try:
                found[FIELD.get(key, key)] = valid[key](value)
            except ValueError as error:
                self._problems.add((*at, key), f"{key} {error}")
        return self._with_gpus(found, at, common)

    def _with_gpus(self, found: dict[str, Any], at: Location, common: Mapping[str, Any]) -> dict[str, Any]:
        """The number and the type of GPUs, whether a key or an option of sbatch asks for them. What a shape
        asks for replaces what the file asks for, in whichever way."""
        by_key: Gpus | None = found.pop("gpus", None)
        by_option = gpus_of(found.get("sbatch", ()))
        if by_key and by_option and not by_key.agrees(by_option):
            message = f"gpus is {by_key.request}, but sbatch asks for {by_option.request}; give one of them"
            self._problems.add((*at, "gpus"), message)
        if by_key and "sbatch" not in found and "sbatch" in common:
            found["sbatch"] = without_gpus(common["sbatch"])
        if by_key or by_option:
            kind = (by_option and by_option.kind) or (by_key and by_key.kind)
            found |= {"gpus": (by_option or by_key).count, "gpu_type": kind}  # type: ignore[union-attr]
        elif "sbatch" in found and (asked := gpus_of(common.get("sbatch", ()))):
            message = (
                f"this list replaces the file's, which asks for GPUs; add gpus: {asked.request}, or gpus: 0"
            )
            self._problems.add((*at, "sbatch"), message)
        return found

    def _checked(self, resources: Resources, data: Mapping[Any, Any], at: Location) -> Resources:
        for key, message in contradictions(resources):
            self._problems.add((*at, key) if key in data else at, message)
        return resources
