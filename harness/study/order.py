"""The runs of a plan in submission order, each with what it needs and what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from harness.study.plan import PlannedRun
from harness.study.resolve import Resolver
from harness.study.spec import MEMBER_STRIDE, Arm, run_id

MOST_RUNS = 500_000  # of a plan; more is a mistake in the file rather than a plan
BACKWARD_FACTOR = 3  # training costs three forward passes: forward, and twice that backward


class Work(NamedTuple):
    """What one run of an arm is."""

    arm_id: str
    needs_runs: bool  # of other arms
    macs: float  # multiply-adds


def planned_runs(resolver: Resolver, seeds: int) -> list[PlannedRun]:
    """Every arm with the seeds 0, 1, ... `seeds` - 1, in the order of `runs_of`.

    Raises:
        ValueError: they are more than MOST_RUNS.
    """
    work = list(_work(resolver))
    return runs_of(resolver.arms, work, dict.fromkeys(resolver.arms, seeds))


def runs_of(arms: Mapping[str, Arm], work: Iterable[Work], counts: Mapping[str, int]) -> list[PlannedRun]:
    """Seed-major: all arms of the first seed, those that others need first, then all of the next seed.

    The further members of an ensemble have seeds of their own, seed + k * MEMBER_STRIDE; they stand before
    the run that observes them, after the runs that they need themselves.

    Args:
        work: of every arm, those that others need first.
        counts: arm_id -> with how many seeds it is planned; no arm has more than those that it needs.
    Raises:
        ValueError: they are more than MOST_RUNS.
    """
    work = list(work)
    most = max(counts.values(), default=0)
    further = _FurtherRuns(arms, {each.arm_id: each.macs for each in work})
    runs: list[PlannedRun] = []
    for seed in range(most):
        if len(runs) + len(work) > MOST_RUNS:
            raise ValueError(_too_many(len(work), most))
        for arm_id, needs_runs, macs in work:
            if seed >= counts[arm_id]:
                continue
            needs = further.needs(arm_id, seed, runs) if needs_runs else ()
            runs.append(
                PlannedRun(run_id=run_id(arm_id, seed), arm_id=arm_id, seed=seed, needs=needs, macs=macs)
            )
    return runs


def check_budget(runs: Sequence[PlannedRun], looks: Sequence[int]) -> None:
    """
    Raises:
        ValueError: the runs of the first look would become more than MOST_RUNS at the last one.
    """
    if len(runs) // looks[0] * looks[-1] > MOST_RUNS:
        raise ValueError(_too_many(len({run.arm_id for run in runs}), looks[-1]))


def _too_many(arms: int, seeds: int) -> str:
    return f"{arms} arms x {seeds} seeds and what they need are more than {MOST_RUNS} runs"


class _FurtherRuns:
    """The runs that are there only because others need them: their seeds are MEMBER_STRIDE or more."""

    def __init__(self, arms: Mapping[str, Arm], macs: Mapping[str, float]) -> None:
        self._arms, self._macs = arms, macs
        self._taken: set[str] = set()

    def needs(self, arm_id: str, seed: int, runs: list[PlannedRun]) -> tuple[str, ...]:
        """The runs that a run needs, as `RunSpec.needs`; further ones among them are appended to `runs`."""
        if len(runs) > MOST_RUNS:
            raise ValueError(_too_many(len(self._arms), seed % MEMBER_STRIDE + 1))
        needed = _needed(self._arms[arm_id], seed)
        for other, its_seed in needed:
            if its_seed >= MEMBER_STRIDE:
                self._append(other, its_seed, runs)
        return tuple(run_id(*each) for each in needed)

    def _append(self, arm_id: str, seed: int, runs: list[PlannedRun]) -> None:
        name = run_id(arm_id, seed)
        if name in self._taken:
            return
        self._taken.add(name)
        needs = self.needs(arm_id, seed, runs)
        runs.append(PlannedRun(run_id=name, arm_id=arm_id, seed=seed, needs=needs, macs=self._macs[arm_id]))


def _needed(arm: Arm, seed: int) -> list[tuple[str, int]]:
    """(arm, seed) of what a run needs, in the order of `RunSpec.needs`."""
    needed = [(each, seed) for each in (arm.teacher, arm.source) if each is not None]
    for member in arm.observes:
        needed += [(member.arm, seed + index * MEMBER_STRIDE) for index in range(member.runs)]
    return needed


def needs_runs(arm: Arm) -> bool:
    """Whether a run of the arm needs runs of others."""
    return bool(arm.observes) or arm.teacher is not None or arm.source is not None


def _work(resolver: Resolver) -> Iterator[Work]:
    """Each arm, whether it needs other runs, and the multiply-adds of one run of it.

    A training: 3 x forward x images x epochs. An observer: forward x test images x crops, of every network
    that it evaluates. 0 where the number of images is not known yet.
    """
    images: dict[int, int] = {}  # by the id of the data, which arms share
    for arm_id, arm in resolver.arms.items():
        recipe = arm.recipe
        if arm.observes:
            yield Work(arm_id, True, _macs_of_observer(arm_id, resolver))
            continue
        count = images.get(id(recipe.data))
        if count is None:
            count = images[id(recipe.data)] = resolver.inputs.train_images(recipe.data) or 0
        macs = float(BACKWARD_FACTOR * resolver.costs[arm_id].macs * count) * recipe.epochs
        yield Work(arm_id, needs_runs(arm), macs)


def _macs_of_observer(arm_id: str, resolver: Resolver) -> float:
    recipe = resolver.arms[arm_id].recipe
    own, *partners = resolver.arms[arm_id].observes
    forward = own.runs * resolver.costs[arm_id].macs
    forward += sum(member.runs * resolver.costs[member.arm].macs for member in partners)
    return float(forward * (resolver.inputs.test_images(recipe.data) or 0) * recipe.eval_crops)
