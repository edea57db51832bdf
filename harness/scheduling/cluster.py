"""The cluster file: which resources the runs of a study ask of Slurm, and for which runs they are others."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.scheduling import cluster_values as values
from harness.study.problems import Location, Problem, ProblemList, StudyError, unknown
from harness.study.source import Source, read_source
from harness.study.spec import RunSpec

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
    processes: int = 1  # that train one run together, over all nodes
    runs_side_by_side: int = 1  # workers of one agent

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` gives equal resources back."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Resources:
        """Rebuild from `to_json`'s data. Fields of a later version are left out."""
        names = {each.name for each in dataclasses.fields(Resources)}
        known = {name: value for name, value in data.items() if name in names}
        return Resources(**(known | {"sbatch": tuple(known.get("sbatch", ()))}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Resources for the runs whose model, data set, ... is one of those named."""

    match: Mapping[str, tuple[str, ...]]
    resources: Resources

    def fits(self, spec: RunSpec) -> bool:
        """Whether every condition holds for the run."""
        return all(MATCHES[name](spec) in wanted for name, wanted in self.match.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster file, checked."""

    path: str = "the cluster file"  # as messages name it
    resources: Resources = Resources()
    at_most: int = AT_MOST
    shapes: tuple[Shape, ...] = ()

    def resources_of(self, spec: RunSpec) -> Resources:
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
    for variable, option in values.GPUS_IN_ENVIRONMENT.items():
        said = os.environ.get(variable, "")
        try:
            asked = values.gpus_of([f"--{option}={said}"]) if said else None
        except ValueError:
            asked = values.Gpus(1)
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
    source = Source(str(path), data={}) if _says_nothing(path) else read_source(path, found)
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

    def __init__(self, source: Source, problems: ProblemList) -> None:
        self._source, self._problems = source, problems

    def cluster(self) -> Cluster:
        data = self._source.data
        if not isinstance(data, dict):
            self._problems.add((), "a cluster file is a map such as partition: gpu, one key per line")
            data = {}
        at_top = {**values.RESOURCES, "at_most": values.whole(1, 100_000), "shapes": values.anything}
        found = self._values(data, (), at_top, {})
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
        found = self._values(entry, at, {**values.RESOURCES, "match": values.anything}, common)
        conditions = {}
        for name, wanted in found.pop("match").items():
            names = wanted if isinstance(wanted, list) else [wanted]
            if name not in MATCHES:
                self._problems.add((*at, "match", name), unknown("condition", str(name), MATCHES))
            elif not names or not all(isinstance(each, str) for each in names):
                self._problems.add((*at, "match", name), f"{name} is a name or a list of names")
            else:
                conditions[name] = tuple(names)
        resources = self._checked(Resources(**{**common, **found}), entry, at)
        return Shape(match=conditions, resources=resources)

    def _values(
        self,
        data: Mapping[Any, Any],
        at: Location,
        valid: Mapping[str, values.Check],
        common: Mapping[str, Any],
    ) -> dict[str, Any]:
        """field of `Resources` -> value, without those that are wrong; `common`: those of the whole file."""
        found = {}
        for key, value in data.items():
            if key not in valid:
                self._problems.add((*at, key), unknown("key", str(key), valid))
                continue
            try:
                found[values.FIELD.get(key, key)] = valid[key](value)
            except ValueError as error:
                self._problems.add((*at, key), f"{key} {error}")
        return self._with_gpus(found, at, common)

    def _with_gpus(self, found: dict[str, Any], at: Location, common: Mapping[str, Any]) -> dict[str, Any]:
        """The number and the type of GPUs, whether a key or an option of sbatch asks for them. What a shape
        asks for replaces what the file asks for, in whichever way."""
        by_key: values.Gpus | None = found.pop("gpus", None)
        by_option = values.gpus_of(found.get("sbatch", ()))
        if by_key and by_option and not by_key.agrees(by_option):
            message = f"gpus is {by_key.request}, but sbatch asks for {by_option.request}; give one of them"
            self._problems.add((*at, "gpus"), message)
        if by_key and "sbatch" not in found and "sbatch" in common:
            found["sbatch"] = values.without_gpus(common["sbatch"])
        if by_key or by_option:
            kind = (by_option and by_option.kind) or (by_key and by_key.kind)
            found |= {"gpus": (by_option or by_key).count, "gpu_type": kind}  # type: ignore[union-attr]
        elif "sbatch" in found and (asked := values.gpus_of(common.get("sbatch", ()))):
            message = (
                f"this list replaces the file's, which asks for GPUs; add gpus: {asked.request}, or gpus: 0"
            )
            self._problems.add((*at, "sbatch"), message)
        return found

    def _checked(self, resources: Resources, data: Mapping[Any, Any], at: Location) -> Resources:
        for key, message in values.contradictions(resources):
            self._problems.add((*at, key) if key in data else at, message)
        return resources
