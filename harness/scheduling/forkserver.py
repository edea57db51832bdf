"""A process that has imported the training code once, from which workers are forked in milliseconds.

This is multiprocessing's fork server, started with care for four things it does not do by itself:

- Python before 3.12.8 and 3.13.1 ignores the caller's `sys.path` while preloading, and a module that is
  not found is passed over in silence (python/cpython issue 117378): the path is handed over in PYTHONPATH,
  and every worker says which modules it found loaded.
- The number of threads of OpenMP and BLAS is read once, when they are loaded: it is set before.
- A worker runs the caller's main script again before it starts, which costs the time of its imports and
  starts everything anew where the script has no `if __name__ == "__main__"`: the script is hidden from it.
- A Ctrl-C in a terminal, or the end of it, reaches every process of the group. The signals are blocked in
  the server, hence in a new worker until it has its own handlers. Slurm sends SIGUSR2 to all processes of a
  task: it stays blocked in the server and whatever comes of it, because it is the agent's alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from harness.scheduling.interrupts import SIGNALS

BLOCKED = (*SIGNALS, signal.SIGUSR2)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def context() -> ForkServerContext:
    """The multiprocessing context all workers belong to."""
    return multiprocessing.get_context("forkserver")


def start_server(preload: Sequence[str], threads: int) -> None:
    """Start the server, unless this process already has one; then its modules and threads stay.

    Returns at once; the modules are imported while the caller goes on. A module that raises something else
    than ImportError ends the server, and `start_process` raises EOFError or ConnectionError.
    """
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload(list(preload))
    with _signals_blocked((signal.SIGUSR2,)):  # of the others it unblocks two, here as well, when it starts
        resource_tracker.ensure_running()
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    variables = {name: str(threads) for name in THREAD_VARIABLES} | {"PYTHONPATH": path}
    with _environment(variables), _signals_blocked(BLOCKED), _main_hidden():
        forkserver.ensure_running()


def start_process(
    target: Callable[..., None], args: tuple[Any, ...], *, with_main: bool
) -> ForkServerProcess:
    """Fork a process that calls `target(*args)`; `with_main` where `args` refer to the main script.

    Raises:
        OSError, EOFError: the server has died or the process could not be forked.
    """
    process = context().Process(target=target, args=args, daemon=False)  # a daemon may not have children
    with contextlib.nullcontext() if with_main else _main_hidden():
        process.start()
    return process


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    """Let multiprocessing find no main script to run again in the new process."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _signals_blocked(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
