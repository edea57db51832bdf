"""A submission: one `harness run --on slurm`, as a private folder of plain files, and its groups of runs."""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from harness.runs.folder import read_json, read_lines, write_bytes, write_json
from harness.runs.records import is_count, is_number, is_time, note, read_map, reason
from harness.scheduling.base import Job
from harness.slurm.cluster import Cluster, Resources
from harness.spec import SCHEMA_VERSION, AnyArm, ScriptArm, run_of, spec_from_json
from harness.spec import run_id as id_of

# A submission: one `harness run --on slurm`, as a private folder of plain files. Nothing is ever unpickled.
#
# runs/.submissions/<token>/     mode 0700; token = 12 hexadecimal digits
#     submission.json            the groups and how agents start; written before anything is submitted
#     runs.jsonl                 the arms, one a line, then the runs, one a line
#     diff.patch                 what the working tree had changed since its commit (absent: nothing)
#     <group>.<chunk>.sh         an sbatch script, written before it is submitted
#     <group>.<chunk>.answer     what sbatch says to it, until that is in jobs.json
#     jobs.json                  chunk -> {"job_id", "cluster", "tasks", "submitted_s"}, after each sbatch
#     agents/<SLURM_JOB_ID>.jsonl   events of one agent, written by it
#     logs/%A_%a_%t.out, .err    what agents print
#     closed                     nothing of it is alive any more


SCHEMA = 1
FOLDER = ".submissions"  # in the folder of runs
RUN_KEYS = {"run_id", "arm_id", "seed", "group", "needs", "cost"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The runs of a submission with the same resources and stage: one array, or several chunks of one."""

    name: str
    resources: Resources
    level: int  # the longest chain of needs within the submission
    width: int  # agents at once
    after: tuple[str, ...] = ()  # groups that must have ended before its agents start
    after_jobs: tuple[str, ...] = ()  # likewise, job ids of other submissions

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` gives an equal group back."""
        return {
            "resources": self.resources.to_json(),
            "level": self.level,
            "width": self.width,
            "after": list(self.after),
            "after_jobs": list(self.after_jobs),
        }

    @staticmethod
    def from_json(name: str, data: Mapping[str, Any]) -> Group:
        """Rebuild from `to_json`'s data."""
        if not is_count(data["level"]) or not is_count(data["width"]):
            raise ValueError(f"the level or the width of group {name} is not a whole number")
        return Group(
            name=name,
            resources=Resources.from_json(data["resources"]),
            level=data["level"],
            width=data["width"],
            after=tuple(data["after"]),
            after_jobs=tuple(data["after_jobs"]),
        )


class Submission:
    """A submission as its files say. Reading never writes; runs are read when they are first asked for."""

    def __init__(self, folder: Path, said: Mapping[str, Any]) -> None:
        """`said`: the content of submission.json.

        Raises:
            ValueError: it is damaged, or of another version.
        """
        if said.get("schema") != SCHEMA:
            raise ValueError(f"{folder}: schema {said.get('schema')}, this harness reads {SCHEMA}")
        self.folder, self.token = folder, folder.name
        try:
            self.created_s = _time(said["created_s"])
            self.study: str = said["study"]
            self.size: str = said["size"]
            self.data_dir = Path(said["machine"]["data_dir"])
            self.exact: bool = said["machine"]["exact"]
            self.compile: bool = said["machine"].get("compile", False)
            self.python: str = said["python"]
            self.snapshot = Path(said["snapshot"])
            self.cluster_file: str = said["cluster_file"]
            self.user: str = said["user"]
            self.environment_clusters = str(said.get("clusters") or "")
            self.groups = {name: Group.from_json(name, each) for name, each in said["groups"].items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{folder}: submission.json is damaged ({reason(error)})") from None
        texts = (self.study, self.size, self.python, self.cluster_file, self.user)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{folder}: submission.json is damaged (a value is no text)")
        if not all(isinstance(each, bool) for each in (self.exact, self.compile)):
            raise ValueError(f"{folder}: submission.json is damaged (a value is neither true nor false)")

    @staticmethod
    def read(folder: Path) -> Submission:
        """
        Raises:
            OSError, ValueError: there is none that can be read, e.g. it is another user's.
        """
        said = read_json(folder / "submission.json")
        if said is None:
            raise FileNotFoundError(f"{folder}: no submission.json")
        if not isinstance(said, dict):
            raise ValueError(f"{folder}: submission.json is damaged")
        return Submission(folder, said)

    @property
    def runs_dir(self) -> Path:
        return self.folder.parents[1]

    @property
    def is_ours(self) -> bool:
        """Whether it belongs to this user: the queue is asked for this user's jobs only."""
        return self.folder.stat().st_uid == os.getuid()

    @property
    def is_closed(self) -> bool:
        """Whether a controller has seen that nothing of it is alive any more."""
        return (self.folder / "closed").exists()

    def jobs(self, group: str) -> list[Job]:
        """The runs of one group, in the order of the plan."""
        lines = (line for line in self._runs.values() if line["group"] == group)
        return [
            Job(
                spec=run_of(self._arms[line["arm_id"]], line["seed"]),
                needs=tuple(line["needs"]),
                cost=line["cost"],
            )
            for line in lines
        ]

    def run_ids(self) -> tuple[str, ...]:
        """Every run of it."""
        return tuple(self._runs)

    def group_of(self, run_id: str) -> str | None:
        """The group of a run; None: it has no such run."""
        line = self._runs.get(run_id)
        return None if line is None else line["group"]

    def chunks(self) -> dict[str, dict[str, Any]]:
        """Chunk -> {"job_id", "cluster", "tasks", "submitted_s"}, as far as they were submitted. The first
        two are "" where they are not known."""
        said = read_map(self.folder / "jobs.json")
        return {chunk: job for chunk, job in said.items() if _is_job(job)}

    def job_ids(self) -> dict[str, str]:
        """Chunk -> the id of its array, as far as it is known."""
        return {chunk: said["job_id"] for chunk, said in self.chunks().items() if said["job_id"]}

    @property
    def cluster(self) -> str:
        """The cluster that has its jobs, where sbatch named one; else ""."""
        return next((said["cluster"] for said in self.chunks().values() if said.get("cluster")), "")

    def clusters(self) -> frozenset[str]:
        """The clusters whose queues may have its jobs; "" is the one of this machine."""
        known = {said.get("cluster", "") for said in self.chunks().values()}
        if known and all(known):
            return frozenset(known)
        return frozenset(self._clusters_asked or {""}) | known - {""}

    @cached_property
    def _clusters_asked(self) -> set[str]:
        """Those among which sbatch chooses, as the environment or the cluster file says."""
        texts = [self.environment_clusters]
        for group in self.groups.values():
            options = group.resources.sbatch
            texts += [each.partition("=")[2] for each in options if each.startswith("--clusters=")]
        return {name.strip() for text in texts for name in text.split(",")} - {""}

    def job_name(self, group: str) -> str:
        """As squeue shows it."""
        return f"harness-{self.token}-{group}"

    def agents(self) -> dict[str, list[dict[str, Any]]]:
        """SLURM_JOB_ID -> the events of that agent, oldest first; a line that was cut off is left out."""
        return {path.stem: read_lines(path) for path in sorted(self.folder.glob("agents/*.jsonl"))}

    def close(self) -> None:
        """Nothing of it is alive any more: later controllers need not look at it."""
        write_bytes(self.folder / "closed", b"")

    @property
    def is_of_a_script(self) -> bool:
        """Whether its runs are commands of the user's."""
        return any(isinstance(arm, ScriptArm) for arm in self._arms.values())

    @cached_property
    def _arms(self) -> dict[str, AnyArm]:
        arms: dict[str, AnyArm] = {}
        for line in read_lines(self.folder / "runs.jsonl"):
            if "arm" not in line:
                break  # the arms come first
            try:
                spec = spec_from_json({"schema": SCHEMA_VERSION, "seed": 0, "arm": line["arm"]})
                if spec.arm.arm_id == line["arm_id"]:
                    arms[line["arm_id"]] = spec.arm
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
        return arms

    @cached_property
    def _runs(self) -> dict[str, dict[str, Any]]:
        """By run_id. Lines that no writer writes are left out, and said: their runs stay to be done."""
        lines = read_lines(self.folder / "runs.jsonl")
        runs = {line["run_id"]: line for line in lines if line.keys() >= RUN_KEYS and _is_run(line)}
        if len(runs) + len(self._arms) != len(lines):
            note(self.folder / "runs.jsonl", f"{len(lines) - len(runs) - len(self._arms)} of its lines")
        return {run_id: line for run_id, line in runs.items() if line["arm_id"] in self._arms}


def _time(value: Any) -> float:
    if not is_time(value):
        raise ValueError("its time is not a number")
    return float(value)


def _is_job(said: Any) -> bool:
    """Whether an entry of jobs.json is one of those that are written after an sbatch."""
    return (
        isinstance(said, dict)
        and isinstance(said.get("job_id"), str)
        and isinstance(said.get("cluster", ""), str)
        and is_count(said.get("tasks", 0))
        and is_time(said.get("submitted_s", 0.0))
    )


def _is_cost(value: Any) -> bool:
    return is_number(value) and math.isfinite(value) and value >= 0


def _is_run(line: Mapping[str, Any]) -> bool:
    texts = all(isinstance(line[name], str) for name in ("run_id", "arm_id", "group"))
    needs = isinstance(line["needs"], list) and all(isinstance(need, str) for need in line["needs"])
    return texts and needs and type(line["seed"]) is int and _is_cost(line["cost"])


def submissions(runs_dir: Path, unreadable: list[str] | None = None) -> list[Submission]:
    """Those that can be read, newest last; `unreadable` gets a line on each other one (another user's)."""
    found = []
    try:
        names = sorted(os.listdir(runs_dir / FOLDER))
    except FileNotFoundError:
        return []
    for name in names:
        if name.startswith("."):
            continue
        try:
            found.append(Submission.read(runs_dir / FOLDER / name))
        except FileNotFoundError:
            continue  # being written, or given up before anything was submitted
        except (OSError, ValueError) as error:
            if unreadable is not None:
                unreadable.append(str(error))
    return sorted(found, key=lambda each: each.created_s)


def read_submission(runs_dir: Path, token: str) -> Submission:
    """One submission by its token.

    Raises:
        OSError, ValueError: there is none that can be read.
    """
    if not token.isalnum():
        raise ValueError(f"{token!r} is no token of a submission")
    return Submission.read(runs_dir / FOLDER / token)


def new_token() -> str:
    """12 random hexadecimal digits."""
    return secrets.token_hex(6)


# Writing a submission: one private folder with a fixed number of files, however many runs it has.


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a submission is to say beside its runs: whose they are, how agents start, from which code."""

    study: str
    size: str
    data_dir: str
    exact: bool
    compile: bool = False
    python: str  # the interpreter of the agents
    snapshot: str  # the folder that holds the frozen `harness`
    cluster_file: str = ""
    commit: str | None = None
    dirty: bool | None = None


def draft(folder: Path, order: Order, groups: Sequence[Group]) -> dict[str, Any]:
    """The content of submission.json."""
    return {
        "schema": SCHEMA,
        "token": folder.name,
        "created_s": time.time(),
        "user": os.environ.get("USER") or str(os.getuid()),
        "study": order.study,
        "size": order.size,
        "machine": {"data_dir": order.data_dir, "exact": order.exact, "compile": order.compile},
        "python": order.python,
        "snapshot": order.snapshot,
        "cluster_file": order.cluster_file,
        "clusters": os.environ.get("SBATCH_CLUSTERS") or os.environ.get("SLURM_CLUSTERS") or "",
        "commit": order.commit,
        "dirty": order.dirty,
        "groups": {group.name: group.to_json() for group in groups},
    }


def write_submission(
    said: Mapping[str, Any], folder: Path, jobs: Mapping[str, Job], group_of: Mapping[str, str], diff: str
) -> Submission:
    """Write all files but scripts into a new private folder, submission.json last. `jobs` is by run_id."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700)
    for name in ("agents", "logs"):
        (folder / name).mkdir()
    write_bytes(folder / "runs.jsonl", "".join(_run_lines(jobs, group_of)).encode())
    if diff:
        write_bytes(folder / "diff.patch", diff.encode(errors="surrogateescape"))
    write_json(folder / "submission.json", said)
    return Submission(folder, said)


def arm_ids(jobs: Sequence[Job]) -> list[str]:
    """The arm_id of each job; each arm is hashed once, however many seeds it has."""
    known: dict[int, str] = {}
    return [known.setdefault(id(job.spec.arm), "") or _remember(known, job.spec.arm) for job in jobs]


def by_run_id(jobs: Sequence[Job]) -> dict[str, Job]:
    """run_id -> job."""
    return {id_of(arm, job.spec.seed): job for arm, job in zip(arm_ids(jobs), jobs, strict=True)}


def _remember(known: dict[int, str], arm: AnyArm) -> str:
    known[id(arm)] = arm.arm_id
    return known[id(arm)]


def _run_lines(jobs: Mapping[str, Job], group_of: Mapping[str, str]) -> Iterator[str]:
    identities = arm_ids(list(jobs.values()))
    arms = dict(zip(identities, (job.spec for job in jobs.values()), strict=True))
    for arm_id, spec in arms.items():
        yield json.dumps({"arm_id": arm_id, "arm": spec.to_json()["arm"]}) + "\n"
    for arm_id, (name, job) in zip(identities, jobs.items(), strict=True):
        line = {
            "run_id": name,
            "arm_id": arm_id,
            "seed": job.spec.seed,
            "group": group_of[name],
            "needs": list(job.needs),
            "cost": job.cost,
        }
        yield json.dumps(line) + "\n"


# Which runs of a submission share an array, in which order the arrays go, and how many agents each gets.


JobsOf = Callable[[str], Iterable[str]]  # run_id -> ids of Slurm jobs of other submissions that will do it


@dataclass(slots=True)
class _Draft:
    """A group while it is put together."""

    resources: Resources
    level: int
    run_ids: list[str] = field(default_factory=list)
    after: set[int] = field(default_factory=set)  # places of other drafts
    after_jobs: set[str] = field(default_factory=set)

    @property
    def wanted(self) -> int:
        """As many agents as its runs can keep busy."""
        return math.ceil(len(self.run_ids) / self.resources.least_beside)


def make_groups(
    jobs: Mapping[str, Job], cluster: Cluster, at_most: int, elsewhere: JobsOf = lambda _: ()
) -> tuple[tuple[Group, ...], dict[str, str]]:
    """The groups in the order of their submission, and run_id -> name of its group. `jobs` is by run_id.

    A run's stage is the longest chain of its needs within `jobs`. Runs that need nothing but are needed form
    a group of their own, which goes first. At no time are more than `at_most` agents at work; where that is
    fewer than there are groups that could be at work together, the groups follow each other.
    """
    drafts, place_of = _drafts(jobs, cluster)
    for run_id, job in jobs.items():
        draft = drafts[place_of[run_id]]
        for need in job.needs:
            if need in place_of:
                draft.after.add(place_of[need])
            else:
                draft.after_jobs.update(elsewhere(need))
    widths = _widths(drafts, at_most)
    if widths is None:
        for place, draft in enumerate(drafts[1:]):
            draft.after.add(place)
        widths = [min(draft.wanted, at_most) for draft in drafts]
    groups = [
        Group(
            name=_name(place),
            resources=draft.resources,
            level=draft.level,
            width=width,
            after=tuple(_name(each) for each in sorted(draft.after)),
            after_jobs=tuple(sorted(draft.after_jobs)),
        )
        for place, (draft, width) in enumerate(zip(drafts, widths, strict=True))
    ]
    return tuple(groups), {run_id: _name(place) for run_id, place in place_of.items()}


def _name(place: int) -> str:
    return f"g{place + 1}"


def _drafts(jobs: Mapping[str, Job], cluster: Cluster) -> tuple[list[_Draft], dict[str, int]]:
    levels = _levels(jobs)
    needed = {need for job in jobs.values() for need in job.needs}
    resources: dict[int, Resources] = {}  # by arm, of which there are few
    found: dict[tuple[bool, int, str], _Draft] = {}
    for run_id, job in jobs.items():
        arm = id(job.spec.arm)
        if arm not in resources:
            resources[arm] = cluster.resources_of(job.spec)
        level = levels[run_id]
        goes_later = level > 0 or run_id not in needed
        key = (goes_later, level, repr(resources[arm]))
        found.setdefault(key, _Draft(resources[arm], level)).run_ids.append(run_id)
    drafts = [found[key] for key in sorted(found)]
    return drafts, {run_id: place for place, draft in enumerate(drafts) for run_id in draft.run_ids}


def _levels(jobs: Mapping[str, Job]) -> dict[str, int]:
    """run_id -> the longest chain of needs among `jobs`."""
    inside = {run_id: [need for need in job.needs if need in jobs] for run_id, job in jobs.items()}
    levels: dict[str, int] = {}
    for run_id in TopologicalSorter(inside).static_order():
        levels[run_id] = 1 + max((levels[need] for need in inside[run_id]), default=-1)
    return levels


def _widths(drafts: list[_Draft], at_most: int) -> list[int] | None:
    """Agents per group, in proportion to its runs; None where a group would get none.

    Two groups are at work together unless one waits for the other. A group's share is its part of all that
    may be at work beside it, so that any set of groups at work together has at most `at_most` agents.
    """
    before: list[set[int]] = []  # every group that has ended when this one starts
    for draft in drafts:  # those it waits for come earlier in the list
        before.append(draft.after.union(*(before[each] for each in draft.after)))
    widths = []
    for place, draft in enumerate(drafts):
        beside = sum(
            other.wanted
            for there, other in enumerate(drafts)
            if there not in before[place] and place not in before[there]
        )
        share = min(draft.wanted, at_most * draft.wanted // beside)
        if share < 1:
            return None
        widths.append(share)
    return widths
