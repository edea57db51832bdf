"""What a check says, and programs that are called with a limit on their time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.study.problems import printable
from harness.study.secrets import masked

OK, WARN, FAIL = "ok", "warn", "fail"
PACKAGE_ROOT = Path(__file__).parents[3]
PROBE_LIMIT_S = 90.0  # importing torch from a cold network file system takes a minute


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `harness doctor`."""

    name: str
    level: str  # OK | WARN (look at it) | FAIL (something will not work)
    says: str
    mend: str = ""  # what to do about it; empty where there is nothing to do

    def __post_init__(self) -> None:
        for name in ("says", "mend"):
            object.__setattr__(self, name, printable(masked(getattr(self, name))))


class ProgramError(Exception):
    """A program gave no answer; the message says why, in one line."""


def answer_of(
    command: Sequence[str], limit_s: float, environment: Mapping[str, str | None] | None = None
) -> str:
    """The standard output of a program. `environment`: what is other than here; None: not set.

    Raises:
        ProgramError: it is not there, took longer than `limit_s` seconds, or ended with another code than 0.
    """
    name = Path(command[0]).name
    try:
        process = subprocess.Popen(  # noqa: S603  an argument list, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_environment(environment or {}),
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramError(f"{name} cannot be started: {error.strerror or error}") from None
    try:
        output, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        _end(process)
        raise ProgramError(f"{name} gave no answer within {limit_s:g} s") from None
    if process.returncode != 0:
        raise ProgramError(last_line(errors or output) or f"{name} ended with code {process.returncode}")
    return output


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    found = {**os.environ, **changes}
    return {name: value for name, value in found.items() if value is not None}


def _end(process: subprocess.Popen[str]) -> None:
    """With all that it started; one that does not even die is left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)


def probe(name: str, *, limit_s: float = PROBE_LIMIT_S, **environment: str) -> dict[str, Any]:
    """What a function of `probes` says in a process of its own, so that no import can end or hang this one.

    Raises:
        ProgramError: it says nothing, or not in time.
    """
    path = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-m", "harness.commands.checks.probes", name]
    output = answer_of(command, limit_s, {"PYTHONPATH": path, **environment})
    facts: dict[str, Any] = json.loads(output.splitlines()[-1])
    if "error" in facts:
        raise ProgramError(facts["error"])
    return facts


def last_line(text: str) -> str:
    """The last line with something in it: where a traceback has its message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return masked(lines[-1]) if lines else ""
