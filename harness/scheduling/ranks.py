"""One run trained by several processes, on this machine or on all nodes of a job: torchrun's semantics.

The worker that was given the run starts the ranks of its machine and waits for rank 0, whose word counts.
A rank that dies ends the others and the attempt, like the death of a worker: the scheduler retries it, so
often and no more. On several nodes the first one gives orders (`harness.scheduling.orders`) and the others
`follow`; they need no connection but the shared folder, and the ranks' own.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness.scheduling.base import INTERRUPTED, RunOne
from harness.scheduling.orders import FOLDER, Orders
from harness.scheduling.rank_group import Place, RankGroup, Trouble
from harness.study.machine import Machine, Stop
from harness.study.spec import RunSpec

POLL_S = 0.1  # between two questions whether to stop
ORDERS_POLL_S = 0.5  # between two looks into the shared folder
SETTLE_S = 1.0  # after a first trouble: the time in which its cause may show
SETTLE_NODES_S = 5.0  # the same where it may come from another node, through the shared folder
ENDING_S = 10.0  # the time the other ranks have to end after rank 0 has
LEADER_GONE_S = 120.0  # without a beat of the first node


class RankDied(Exception):
    """A rank is gone, or was lost, although the run had not ended; in words."""


class RankFailed(Exception):
    """`run_one` raised in a rank. `args[0]` is its message; `traceback` the rank's own."""

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message)
        self.traceback = traceback


def run_ranks(run_one: RunOne, spec: RunSpec, machine: Machine, stop: Stop) -> Any:
    """Train one run in `machine.processes` processes; where `machine.devices` are fewer, and HARNESS_ORDERS
    names a folder of orders, so many on each node. When `stop()` is True rank 0 is told, and all end.

    Returns:
        What rank 0 returned, or INTERRUPTED where nothing was started.

    Raises:
        RankDied: a rank died, or lost the others.
        RankFailed: `run_one` raised in a rank.
        TypeError: `run_one` is not a function at the top of a module.
        ValueError: the processes do not go evenly into the devices.
    """
    local = min(len(machine.devices) or machine.processes, machine.processes)
    if stop():
        return INTERRUPTED
    if local == machine.processes:
        with RankGroup(run_one, spec, machine, Place(world=local, local=local)) as group:
            return _lead(group, stop, list, SETTLE_S)
    if FOLDER not in os.environ or machine.processes % local:
        raise ValueError(f"{machine.processes} processes on {local} devices; give each process a device")
    place = Place(world=machine.processes, local=local, host=socket.gethostname(), port=_free_port())
    orders = Orders(Path(os.environ[FOLDER]))
    with ExitStack() as stack:
        order = {"schema": 1, "run_id": spec.run_id, "spec": spec.to_json(), **dataclasses.asdict(place)}
        number = orders.give(order)
        stack.callback(orders.end_group, number)
        group = stack.enter_context(RankGroup(run_one, spec, machine, place))
        return _lead(group, stop, _Others(orders, number), SETTLE_NODES_S)


def follow(orders_dir: Path, node: int, run_one: RunOne, machine: Machine, stop: Stop) -> None:
    """On node 1, 2, ... of a job: start this node's ranks of every group that the first node orders, until it
    says that nothing more will come, is seen to be gone, or `stop()` is True."""
    orders, number = Orders(orders_dir), 1
    leader = _Leader(orders)
    while not (stop() or orders.at_end or leader.is_gone()):
        order = orders.read(number)
        if order is None:
            time.sleep(ORDERS_POLL_S)
            continue
        if not orders.is_over(number):
            _follow_one(orders, number, order, (node, run_one, machine))
        number += 1


def _follow_one(orders: Orders, number: int, order: dict[str, Any], own: tuple[int, RunOne, Machine]) -> None:
    node, run_one, machine = own
    place = Place(
        world=order["world"], local=order["local"], node=node, host=order["host"], port=order["port"]
    )
    spec, machine = RunSpec.from_json(order["spec"]), dataclasses.replace(machine, processes=place.world)
    is_over = _now_and_then(lambda: orders.is_over(number))
    try:
        with RankGroup(run_one, spec, machine, place) as group:
            while not (group.ended or group.troubles or is_over()):
                group.wait(POLL_S)
            group.wait_for_end(SETTLE_S if group.troubles else ENDING_S)
        troubles = group.troubles
    except (OSError, ValueError) as error:  # no process, no disk: the first node must not wait for these
        message = f"node {node}: {type(error).__name__}: {error}"
        troubles = [Trouble(rank=place.ranks.start, kind="error", message=message)]
    report = [dataclasses.asdict(each) for each in troubles]
    orders.report(number, node, {"schema": 1, "troubles": report})


def _lead(group: RankGroup, stop: Stop, others: Callable[[], list[Trouble]], settle_s: float) -> Any:
    """Until rank 0 says how the run ended, or something is wrong with any rank."""
    told, give_up_s = False, float("inf")
    while True:
        group.wait(POLL_S)
        if 0 in group.statuses:
            group.wait_for_end(ENDING_S)
            return group.statuses[0]
        if not told and stop():
            group.tell_to_stop()
            told = True
        troubles = group.troubles + others()
        if troubles:  # an exception may be the echo of a death that is not yet seen
            now_s = time.monotonic()
            give_up_s = min(give_up_s, now_s + settle_s)
            if now_s >= give_up_s or any(each.kind == "died" for each in troubles):
                raise _verdict(troubles)


def _verdict(troubles: Sequence[Trouble]) -> Exception:
    """What to make of them: a death weighs more than an exception, and that more than a lost connection."""
    died, errors = ([each for each in troubles if each.kind == kind] for kind in ("died", "error"))
    if errors and not died:
        return RankFailed(errors[0].message, errors[0].traceback)
    if died:
        return RankDied("; ".join(each.message for each in (*died, *errors)))
    return RankDied(f"the ranks lost each other: {troubles[0].message}")


class _Others:
    """Troubles of the ranks on other nodes, looked for now and then."""

    def __init__(self, orders: Orders, number: int) -> None:
        self._look = _now_and_then(lambda: orders.reports(number))

    def __call__(self) -> list[Trouble]:
        reports = self._look() or {}
        return [Trouble(**each) for node in sorted(reports) for each in reports[node]["troubles"]]


class _Leader:
    """Whether the first node's agent is gone, by this machine's own clock."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._seen: tuple[float | None, float] = (None, time.monotonic())

    def is_gone(self) -> bool:
        beat, now_s = self._orders.beat(), time.monotonic()
        if beat is None or beat != self._seen[0]:
            self._seen = (beat, now_s)
        return now_s - self._seen[1] > LEADER_GONE_S


def _now_and_then(look: Callable[[], Any]) -> Callable[[], Any]:
    """`look`, its last answer kept for `ORDERS_POLL_S`."""
    answer, asked_s = None, float("-inf")

    def ask() -> Any:
        nonlocal answer, asked_s
        if time.monotonic() - asked_s >= ORDERS_POLL_S:
            answer, asked_s = look(), time.monotonic()
        return answer

    return ask


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
