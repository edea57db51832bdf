"""Slurm, as far as `harness run --on slurm` needs it. A machine without Slurm commands is in order."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from harness.commands.checks.base import FAIL, OK, WARN, Finding, ProgramError, answer_of
from harness.commands.workspace import Workspace

NEEDED = ("sbatch", "squeue", "scancel", "scontrol")
ALSO = ("sinfo", "sacct")
SYSTEM_CONFIGURATION = Path("/etc/slurm/slurm.conf")
LIMIT_S = 10.0
NOT_CONFIGURED = "Could not establish a configuration source"
SHOWN = ("MaxArraySize", "MaxJobCount", "PreemptMode", "JobRequeue")
NO_USR2 = "preempted runs get SIGTERM only, and what they checkpoint in the grace time"


def slurm(_place: Workspace) -> Iterator[Finding]:
    """Commands, the controller with its limits, the nodes, a job that is only tried, and accounting."""
    present = [name for name in (*NEEDED, *ALSO) if shutil.which(name)]
    if not present:
        yield Finding("slurm", OK, "no Slurm commands here; `--on slurm` needs a machine that has them")
        return
    absent = [name for name in NEEDED if name not in present]
    if absent:
        mend = "add the folder of the other Slurm commands to PATH"
        yield Finding("slurm", WARN, f"{present[0]} is here, but not {', '.join(absent)}", mend)
        return
    try:
        yield controller(configuration(answer_of(["scontrol", "show", "config"], LIMIT_S)))
    except ProgramError as error:
        yield no_controller(str(error))
        return
    yield from nodes(present)
    yield trial()
    yield accounting(present)


def no_controller(message: str) -> Finding:
    """Commands without a cluster are a remark; a cluster that does not answer is a fault."""
    configured = os.environ.get("SLURM_CONF") or SYSTEM_CONFIGURATION.exists()
    if NOT_CONFIGURED in message and not configured:
        mend = "`--on slurm` needs a login node of a cluster, or SLURM_CONF"
        return Finding("slurm", WARN, "the commands are here, but no cluster is configured", mend)
    mend = "ask the administrators; jobs that run go on, and `harness status` works without it"
    return Finding("slurm", FAIL, f"the controller does not answer: {message}", mend)


def configuration(text: str) -> dict[str, str]:
    """`scontrol show config` as a map.

    >>> configuration("MaxArraySize            = 1001\\nPreemptMode = REQUEUE")["MaxArraySize"]
    '1001'
    """
    return dict(re.findall(r"^\s*(\w+)\s*= (.*?)\s*$", text, re.MULTILINE))


def controller(settings: dict[str, str]) -> Finding:
    """Its version, and the limits that arrays and preemption have to keep to."""
    about = ", ".join(f"{name} {settings[name]}" for name in SHOWN if name in settings)
    version, name = settings.get("SLURM_VERSION", "version unknown"), settings.get("ClusterName", "?")
    says = f"{version}, cluster {name}: {about}"
    parameters = settings.get("SlurmctldParameters", "") + settings.get("PreemptParameters", "")
    preempts = settings.get("PreemptType", "preempt/none") not in ("preempt/none", "(null)")
    if preempts and "send_user_signal" not in parameters:
        says += f"; {NO_USR2}"
    return Finding("slurm", OK, says)


def nodes(present: list[str]) -> Iterator[Finding]:
    """How many nodes are in which state, all partitions together."""
    if "sinfo" not in present:
        return
    try:
        lines = answer_of(["sinfo", "--noheader", "--Node", "--format=%N %T"], LIMIT_S).splitlines()
    except ProgramError as error:
        yield Finding("slurm nodes", FAIL, str(error), "ask the administrators")
        return
    states = Counter(dict(line.split()[:2] for line in lines if len(line.split()) > 1).values())
    says = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no node"
    usable = any(state.startswith(("idle", "mix", "alloc", "comp", "resv")) for state in states)
    mend = "" if usable else "jobs will wait: ask the administrators, or sinfo -R for the reasons"
    yield Finding("slurm nodes", OK if usable else WARN, says, mend)


def trial() -> Finding:
    """Whether a job would be accepted; nothing is submitted."""
    try:
        answer_of(["sbatch", "--test-only", "--wrap=true"], LIMIT_S)
    except ProgramError as error:
        mend = "name a partition, account or qos in the cluster file"
        return Finding("slurm jobs", WARN, f"a job without options would be refused: {error}", mend)
    return Finding("slurm jobs", OK, "a job without options would be accepted")


def accounting(present: list[str]) -> Finding:
    """sacct is a convenience: heartbeats in the run folders say what is alive."""
    if "sacct" not in present:
        return Finding("slurm accounting", OK, "no sacct; the run folders say what is alive")
    try:
        answer_of(
            ["sacct", "--noheader", "--parsable2", "--format=JobID", "--starttime=now-1minutes"], LIMIT_S
        )
    except ProgramError as error:
        mend = "nothing to do: the run folders say what is alive"
        return Finding("slurm accounting", WARN, f"sacct does not answer: {error}", mend)
    return Finding("slurm accounting", OK, "sacct answers")
