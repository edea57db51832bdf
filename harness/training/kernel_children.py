"""The parent's side of the check: child processes that examine layers, and what a dead or hung one means."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness.training import kernel_probe
from harness.training.kernel_probe import REPETITIONS, REPETITIONS_ALONE, LayerCall

LIMIT_S = 120.0  # for one step of a child, on a machine with other work
HANGS = f"it did not end within {LIMIT_S:g} s"


@dataclass(frozen=True, slots=True)
class KernelVerdict:
    """The fastest form in which a layer is exact (empty: none), and what is wrong with the ones before it."""

    form: str
    faults: Mapping[str, str] = field(default_factory=dict)
    is_certain: bool = True  # False: no child could be started; nothing is known

    def says(self) -> str:
        """
        >>> KernelVerdict("", {"as it is": "it ends the process (SIGABRT)"}).says()
        'as it is: it ends the process (SIGABRT)'
        """
        return "; ".join(f"{form}: {fault}" for form, fault in self.faults.items())


@dataclass(slots=True)
class _Case:
    """A layer on its way to a verdict."""

    call: LayerCall
    forms: list[str]  # still to be tried
    faults: dict[str, str] = field(default_factory=dict)
    is_exact: bool = False

    @property
    def is_open(self) -> bool:
        return bool(self.forms) and not self.is_exact

    def fail(self, form: str, fault: str) -> None:
        self.faults[form] = fault
        self.forms = [each for each in self.call.forms() if each not in self.faults]
        self.is_exact = False

    def verdict(self) -> KernelVerdict:
        return KernelVerdict(self.forms[0] if self.is_exact else "", dict(self.faults))


class ChildError(Exception):
    """No child process could be started, or it ended before it examined anything."""


def examine_all(calls: Sequence[LayerCall]) -> list[KernelVerdict]:
    """What holds for each layer, in child processes of this one; this one computes nothing of it.

    A child that dies names the layer that it was at. Memory that one layer broke may kill the child in a
    later one, so the layer is then examined alone, often; where it is innocent, so are those before it, each
    alone.
    """
    cases = [_Case(call, list(call.forms())) for call in calls]
    try:
        while rest := [case for case in cases if case.is_open]:
            done = _examine(rest, REPETITIONS)
            if done is not None:
                _find_culprit(*done)
    except ChildError as error:
        return [
            KernelVerdict(kernel_probe.AS_IT_IS, {"unchecked": str(error)}, is_certain=False) for _ in calls
        ]
    return [case.verdict() for case in cases]


def _find_culprit(before: Sequence[_Case], at: _Case, how: str) -> None:
    """Blame the layers that end a child of their own; of none the one at which the first child ended."""
    for suspects in ([at], before):
        guilty = [case for case in suspects if _ends_alone(case)]
        if guilty:
            return
    at.fail(at.forms[0], how)


def _ends_alone(case: _Case) -> bool:
    """Whether a layer ends a child of its own in its present form; then it has failed."""
    form = case.forms[0]
    alone = _Case(case.call, [form])
    ended = _examine([alone], REPETITIONS_ALONE)
    if ended is not None:
        case.fail(form, ended[2])
    elif alone.faults:
        case.fail(form, alone.faults[form])
    return form in case.faults


def _examine(cases: Sequence[_Case], repetitions: int) -> tuple[list[_Case], _Case, str] | None:
    """Let one child examine cases, and take in what it says.

    Returns:
        Nothing when it came to its end; else the cases that it had examined, the one that it was at, and how
        it ended.

    Raises:
        ChildError: it ended before it examined anything, twice.
    """
    request = {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "repetitions": repetitions,
        "limit_s": LIMIT_S * (1 + len(cases)),
        "layers": [(asdict(case.call), case.forms) for case in cases],
    }
    return _follow(request, cases, fork=can_fork())


def _follow(
    request: Mapping[str, Any], cases: Sequence[_Case], *, fork: bool
) -> tuple[list[_Case], _Case, str] | None:
    before: list[_Case] = []
    at: _Case | None = None
    child = Child(request, fork=fork)
    with child:
        for step in child.steps():
            if "end" in step:
                return None
            at = cases[step["layer"]]
            if "fault" not in step:
                continue
            before.append(at)
            if step["fault"]:
                at.fail(step["form"], step["fault"])
            else:
                at.is_exact = True
                at.forms = [step["form"]]
    # A forked child may hang or die for being forked: believe a fresh one, if it says anything.
    if fork and (at is None or child.hung):
        with contextlib.suppress(*([] if at is None else [ChildError])):
            return _follow(request, cases, fork=False)
    if at is None:
        raise ChildError(f"a child process {child.how}")
    return [each for each in before if each is not at], at, child.how


def can_fork() -> bool:
    """Whether a forked copy of this process can compute: no thread of a library is lost with the fork."""
    if sys.platform != "linux" or torch.cuda.is_initialized():
        return False
    try:
        return len(os.listdir("/proc/self/task")) == threading.active_count()
    except OSError:
        return False


class Child:
    """A process that examines layers and tells each step in a line; ended with the block."""

    def __init__(self, request: Mapping[str, Any], *, fork: bool) -> None:
        self.hung = False
        self.how = ""
        self._request = request
        self._process: subprocess.Popen[bytes] | None = None
        self._pid, self._pipe = self._fork() if fork else self._start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def steps(self) -> Iterator[dict[str, Any]]:
        """What the child says, until it ends or says nothing for `LIMIT_S`; then `how` says how it ended."""
        rest = b""
        while True:
            if not select.select([self._pipe], [], [], LIMIT_S)[0]:
                self.hung, self.how = True, HANGS
                return
            data = os.read(self._pipe, 1 << 16)
            if not data:
                self._end()
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from map(json.loads, lines)

    def _end(self) -> None:
        if self._pid == 0:
            return
        if self._process is not None:
            self._process.kill() if self.hung else None
            code = self._process.wait(timeout=LIMIT_S)
        else:
            if self.hung:
                os.kill(self._pid, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._pid = 0
        os.close(self._pipe)
        self.how = self.how or f"it ends the process ({_name_of(code)})"

    def _fork(self) -> tuple[int, int]:
        """A copy of this process; it has torch already."""
        read, write = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns of threads; the others of this process wait in system calls (see can_fork).
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                pid = os.fork()
            except OSError as error:
                raise ChildError(f"a child process cannot be forked: {error}") from None
        if pid == 0:
            _be_child(self._request, write)
        os.close(write)
        return pid, read

    def _start(self) -> tuple[int, int]:
        """A new interpreter, which takes a second."""
        command = [sys.executable, "-m", kernel_probe.__name__]
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
        try:
            process = subprocess.Popen(  # noqa: S603  an argument list, no shell
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )
        except OSError as error:
            raise ChildError(f"a child process cannot be started: {error}") from None
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(self._request).encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:
            pass
        return process.pid, os.dup(process.stdout.fileno())


def _be_child(request: Mapping[str, Any], pipe: int) -> None:
    """In the forked child: examine, say so, and leave without any of the parent's business."""
    code = 1
    try:
        kernel_probe.die_with_parent(request["limit_s"])
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        # Locks and pipes of the parent are not held open by its child.
        os.closerange(3, pipe)
        os.closerange(pipe + 1, os.sysconf("SC_OPEN_MAX"))
        kernel_probe.work(request, lambda step: _say(pipe, step))
        code = 0
    finally:
        os._exit(code)


def _say(pipe: int, step: Mapping[str, Any]) -> None:
    os.write(pipe, (json.dumps(step) + "\n").encode())


def _name_of(code: int) -> str:
    """
    >>> _name_of(-6), _name_of(1)
    ('SIGABRT', 'exit code 1')
    """
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"
