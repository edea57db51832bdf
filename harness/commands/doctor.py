"""`harness doctor`: whether this machine, its folders and its services are fit, and the mend where not.

Every check has a limit on its time and a thread of its own, so that a file system or a server that hangs
costs one line, not the answer. Nothing is changed, but for a scratch folder that is removed again.
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

from harness.commands import machine, services
from harness.commands.machine import FAIL, OK, WARN, Finding
from harness.commands.workspace import Workspace, workspace
from harness.errors import DONE, SOME_FAILED

Check = Callable[[Workspace], Iterator[Finding]]

STYLES = {OK: "green", WARN: "bold yellow", FAIL: "bold red"}
IMPORTS_S, FILES_S = 100.0, 30.0
CHECKS: tuple[tuple[str, Check, float], ...] = (  # its name, the check, its limit in seconds
    ("python", machine.python, FILES_S),
    ("torch", machine.torch, IMPORTS_S),
    ("kernels", machine.kernels, IMPORTS_S),
    ("machine", machine.cores_and_memory, FILES_S),
    ("speed", machine.speed, FILES_S),
    ("disk", machine.space, FILES_S),
    ("file system", machine.file_system, FILES_S),
    ("submissions", machine.privacy, FILES_S),
    ("slurm", services.slurm, 5 * services.LIMIT_S),
    ("mlflow", services.store, IMPORTS_S),
    ("data", services.data, FILES_S),
    ("pdf", machine.typesetting, IMPORTS_S),
    ("environment", machine.environment, FILES_S),
)


def main(args: argparse.Namespace) -> int:
    findings = examine(workspace(args))
    if args.json:
        found = list(findings)
        checks = [asdict(finding) for finding in found]
        print(json.dumps({"fit": not any(each.level == FAIL for each in found), "checks": checks}, indent=1))
    else:
        from harness.commands.display import show_findings

        found = show_findings(findings, STYLES)
    return SOME_FAILED if any(finding.level == FAIL for finding in found) else DONE


def examine(place: Workspace, checks: tuple[tuple[str, Check, float], ...] = CHECKS) -> Iterator[Finding]:
    """What every check finds, in the order of the table; they work side by side."""
    start_s = time.monotonic()
    answers = [(name, limit_s, _begin(check, place)) for name, check, limit_s in checks]
    for name, limit_s, answer in answers:
        try:
            found = answer.get(timeout=max(0.0, start_s + limit_s - time.monotonic()))
        except queue.Empty:
            mend = "something hangs: a mount, a server or a program; try again, then look there"
            found = [Finding(name, FAIL, f"no answer within {limit_s:g} s", mend)]
        yield from found


def _begin(check: Check, place: Workspace) -> queue.SimpleQueue[list[Finding]]:
    """A thread that does not keep the process alive; its queue gets all it finds when it is done."""
    answer: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()

    def work() -> None:
        found: list[Finding] = []
        try:
            for finding in check(place):
                found.append(finding)
        except Exception as error:  # whatever it is, the other checks answer
            name = getattr(check, "__name__", "check").replace("_", " ")
            says = f"the check itself ended with {type(error).__name__}: {error}"
            found.append(Finding(name, FAIL, says, "please report it with this line"))
        answer.put(found)

    threading.Thread(target=work, daemon=True).start()
    return answer
