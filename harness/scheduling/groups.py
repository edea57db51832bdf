"""Which runs of a submission share an array, in which order the arrays go, and how many agents each gets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from harness.scheduling.base import Job
from harness.scheduling.cluster import Cluster, Resources
from harness.scheduling.submission import Group

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
        return math.ceil(len(self.run_ids) / self.resources.runs_side_by_side)


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
