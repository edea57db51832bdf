"""A program: start a command in a session of its own, and let nothing of it survive.

Started by `harness.scripts.run` as `python -I -S supervise.py GRACE_S COMMAND...`, because a process that
is killed cannot clean up after itself: this one outlives the worker that asked for the run, and holds the
run's lock until everything of it is gone. On Linux it adopts what the command leaves behind, daemons too.

It imports little, because it is started once per run. It ends the command (SIGTERM, after GRACE_S seconds
SIGKILL) when its standard input says so or ends, or when it is told to end itself. Its standard output is one
line, a literal of Python: {"code", "error", "left", "killed"}. `code` is the exit code, or minus the signal;
`left`: how many processes the command left behind when it ended.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LEFT_S = 5.0  # what a command leaves behind has so long to end after SIGTERM
POLL_S = 0.05  # between looks at processes that are no children of this one


def main() -> None:
    grace_s, command = float(sys.argv[1]), sys.argv[2:]
    adopts = _prctl(PR_SET_CHILD_SUBREAPER, 1)  # processes whose parents have ended become children of this
    wake, told = _wake_on_signals()
    child, error = _start(command)
    code, killed = None, False
    if child is not None:
        code, killed = _until_it_ends(child, grace_s, wake, told)
    left = _end_what_is_left(child, adopts)
    print({"code": code, "error": error, "left": left, "killed": killed}, flush=True)


def _prctl(option: int, value: int) -> bool:
    """Whether it could be set; never where this is not Linux: there, what leaves the session is not found."""
    try:
        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _wake_on_signals() -> tuple[int, list[int]]:
    """What is readable after a signal, and the signals that ask for the end."""
    told: list[int] = []
    wake, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return wake, told


def _start(command: list[str]) -> tuple[int | None, str]:
    """The process, or why there is none. Its output goes where the standard error goes."""
    read, write = os.pipe()  # closed by a successful exec
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # should this one be killed
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            os.closerange(3, write)
            os.closerange(write + 1, 256)
            os.execvp(command[0], command)  # noqa: S606 (the study's command, read by no shell)
        except OSError as error:
            os.write(write, f"{command[0]}: {error.strerror}".encode())
        finally:
            os._exit(127)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        why = file.read().decode(errors="replace")
    if why:
        os.waitpid(child, 0)
        return None, why
    return child, ""


def _until_it_ends(child: int, grace_s: float, wake: int, told: list[int]) -> tuple[int, bool]:
    """Its exit code, and whether it had to be killed."""
    deadline_s: float | None = None
    killed = False
    waiting = [wake, 0]
    while True:
        if (code := _reap(child)) is not None:
            return code, killed
        left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        ready, _, _ = select.select(waiting, [], [], left_s)
        if wake in ready:
            os.read(wake, 4096)
        if 0 in ready:
            os.read(0, 4096)
            waiting = [wake]
        if deadline_s is None and (0 in ready or told):
            deadline_s = time.monotonic() + grace_s
            _signal_group(child, signal.SIGTERM)
        elif deadline_s is not None and not killed and time.monotonic() >= deadline_s:
            killed, deadline_s = True, deadline_s + 3600.0
            _signal_group(child, signal.SIGKILL)


def _reap(child: int) -> int | None:
    """The exit code of the command once it has ended; adopted processes that have ended are forgotten."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _signal_group(group: int, number: int) -> None:
    _sent(os.killpg, group, number)


def _sent(send: Callable[[int, int], None], target: int, number: int) -> bool:
    """Whether there was somebody to send it to, who is ours."""
    try:
        send(target, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _end_what_is_left(child: int | None, adopts: bool) -> int:
    """Ask, then kill, whatever is still there. Returns: how many processes there were."""
    if child is None:
        return 0
    found = _left(child, adopts)
    most = len(found)
    deadline_s = time.monotonic() + LEFT_S
    number = signal.SIGTERM
    while found:
        for pid in found:
            _sent(os.kill, pid, number)
        while found and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
            found = _left(child, adopts)
        if number == signal.SIGKILL:
            break
        number, deadline_s = signal.SIGKILL, time.monotonic() + LEFT_S
    return most


def _left(child: int, adopts: bool) -> list[int]:
    """Descendants that have not ended: of those that were adopted, and of what the group still has."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            if adopts:
                return []
            break
    parents: dict[int, int] = {}
    groups: dict[int, int] = {}
    names = os.listdir("/proc") if os.path.isdir("/proc/self") else []
    for name in filter(str.isdigit, names):
        try:
            with open(f"/proc/{name}/stat") as file:
                state, parent, group = file.read().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if state not in "ZX":
            parents[int(name)], groups[int(name)] = int(parent), int(group)
    found = {pid for pid, group in groups.items() if group == child}
    own = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in own | found} - own - found:
        found |= more
    return sorted(found)


if __name__ == "__main__":
    main()
