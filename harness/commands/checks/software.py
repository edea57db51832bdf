"""Python, torch and its GPUs, typst, and the environment variables that the harness reads."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import __version__
from harness.commands.checks.base import FAIL, OK, WARN, Finding, ProgramError, probe
from harness.commands.step_times import CAPS, SWITCH
from harness.commands.workspace import Workspace
from harness.scheduling.machines import available_cores
from harness.study.problems import unknown
from harness.study.secrets import masked

FIRST_PYTHON = (3, 11)
VARIABLES = {  # what the harness reads -> what it is
    "HARNESS_RUNS": "the run folders",
    "HARNESS_DATA": "your data sets",
    "HARNESS_CACHE": "what is known of your data files and of this machine",
    "HARNESS_MEASURE": "0: never measure what a step takes here",
    "HARNESS_STORE": "set by the harness for the processes of one run",
    "HARNESS_ORDERS": "set by the harness in a job of several nodes",
}
NEEDED_PER_CORE_GB = 1.0  # of a small run's worker, torch included
DRIVER = Path("/proc/driver/nvidia/version")
MEMORY = Path("/proc/meminfo")
CPU = Path("/proc/cpuinfo")
HALF = "emulated on a CPU, at 1.0 to 1.3 times the cost of fp32"
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


def python(_place: Workspace) -> Iterator[Finding]:
    """The interpreter and this package."""
    says = f"{platform.python_version()} with harness {__version__} ({sys.executable})"
    if sys.version_info < FIRST_PYTHON:
        wanted = ".".join(map(str, FIRST_PYTHON))
        yield Finding("python", FAIL, says, f"install Python {wanted} or newer")
    else:
        yield Finding("python", OK, says)


def torch(_place: Workspace) -> Iterator[Finding]:
    """torch and torchvision, whether they fit each other, and every GPU with a computation on it."""
    try:
        facts = probe("torch")
    except ProgramError as error:
        yield Finding("torch", FAIL, str(error), "pip install --force-reinstall torch torchvision")
        return
    yield versions(facts)
    driver = re.search(r"Kernel Module\D*([\d.]+)", DRIVER.read_text()) if DRIVER.exists() else None
    yield from gpus(facts, driver[1] if driver else None)


def versions(facts: Mapping[str, Any]) -> Finding:
    """torch 2.N is made together with torchvision 0.(N + 15)."""
    says = f"{facts['torch']} with torchvision {facts['torchvision']}"
    if facts["torchvision_error"]:
        mend = "pip install --force-reinstall torch torchvision"
        return Finding("torch", FAIL, f"{facts['torch']}; torchvision: {facts['torchvision_error']}", mend)
    major, minor = (int(part) for part in facts["torch"].split(".")[:2])
    if major == 2 and facts["torchvision"].split(".")[:2] != ["0", str(minor + 15)]:
        pair = f"torchvision 0.{minor + 15}"
        return Finding("torch", WARN, says, f"they are not a pair: torch {major}.{minor} goes with {pair}")
    return Finding("torch", OK, f"{says} on Python {platform.python_version()}")


def gpus(facts: Mapping[str, Any], driver: str | None) -> Iterator[Finding]:
    """What torch can compute with.

    Args:
        facts: of `probes.torch`.
        driver: version of the NVIDIA driver, or None where there is none.
    """
    if not facts["gpus"]:
        if driver is None:
            yield Finding("gpu", OK, "none; runs train on the CPU")
        elif facts["cuda"] is None:
            mend = "install a CUDA build of torch to use the GPU"
            yield Finding("gpu", WARN, f"driver {driver}, but torch was built without CUDA", mend)
        else:
            mend = "update the driver, look at CUDA_VISIBLE_DEVICES, or ask nvidia-smi"
            says = f"driver {driver}, but torch (CUDA {facts['cuda']}) finds no GPU it can use"
            yield Finding("gpu", WARN, says, mend)
    for index, gpu in enumerate(facts["gpus"]):
        about = f"cuda:{index} is {gpu['name']}, {gpu['memory_gb']:.0f} GB; "
        about += f"CUDA {facts['cuda']}, driver {driver or 'unknown'}"
        if gpu["error"]:
            mend = "install a torch built for this GPU and driver, or free the GPU"
            yield Finding("gpu", FAIL, f"{about}; a sum on it fails: {gpu['error']}", mend)
        else:
            yield Finding("gpu", OK, about)


def kernels(_place: Workspace) -> Iterator[Finding]:
    """Which of this CPU's kernels are wrong, as far as layers were examined, and what is done about it."""
    try:
        facts = probe("kernels")
    except ProgramError as error:
        yield Finding("kernels", WARN, f"not checked: {error}", "runs say in env.json whether theirs were")
        return
    if facts["unchecked"]:
        yield Finding("kernels", WARN, f"not checked: {facts['unchecked'][0]}")
        return
    wrong: Mapping[str, str] = facts["wrong"]
    many = len(wrong) or "none"
    says = f"{facts['known']} kinds of layers examined on this CPU, {many} computed wrongly by torch"
    refused = [layer for layer, form in wrong.items() if not form]
    listed = "; ".join(f"{layer}: {form or 'no form is exact'}" for layer, form in wrong.items())
    if refused:
        yield Finding(
            "kernels",
            WARN,
            f"{says} ({listed})",
            "networks with a layer of which no form is exact are refused",
        )
    elif wrong:
        yield Finding("kernels", OK, f"{says}; a safer form is used ({listed})")
    else:
        yield Finding("kernels", OK, says)


def cores_and_memory(_place: Workspace) -> Iterator[Finding]:
    """What this process may use, which in a container or a Slurm job is less than the machine has."""
    cores, memory_gb = available_cores(), _memory_gb()
    if memory_gb is None:
        yield Finding("machine", OK, f"{cores} cores")
        return
    says = f"{cores} cores, {memory_gb:.1f} GB of memory available"
    if memory_gb < NEEDED_PER_CORE_GB * cores:
        fit = max(1, int(memory_gb / NEEDED_PER_CORE_GB))
        yield Finding("machine", WARN, says, f"a worker needs about 1 GB: use --workers {fit}")
    else:
        yield Finding("machine", OK, says)


def speed(_place: Workspace) -> Iterator[Finding]:
    """What makes runs, or this command line, slower here than they need be."""
    found = list(_slow(os.environ, CPU.read_text() if CPU.exists() else "", available_cores()))
    yield from found
    if not found:
        yield Finding("speed", OK, f"nothing known slows runs here; half precision is {HALF}")


def _slow(environment: Mapping[str, str], cpu: str, cores: int) -> Iterator[Finding]:
    """
    Args:
        cpu: /proc/cpuinfo; empty where there is none, and then nothing is said of the processor.
    """
    flags = set(next((line for line in cpu.splitlines() if line.startswith("flags")), "").split())
    if flags and "avx2" not in flags:
        says = "this CPU has no AVX2: convolutions run several times slower than on most machines"
        yield Finding("speed", WARN, says, "use a CPU of after 2015 or a GPU for more than `--smoke`")
    for name in CAPS:
        if name in environment:
            says = f"{name}={environment[name]} caps the instructions that torch may use"
            yield Finding("speed", WARN, says, f"unset {name}, unless you test for another machine")
    if cores == 1:
        yield Finding("speed", WARN, "1 core: runs train one after another", "give it more cores")
    if environment.get("PYTHONDONTWRITEBYTECODE"):
        says = "PYTHONDONTWRITEBYTECODE is set: every command compiles its imports again"
        yield Finding("speed", WARN, says, "unset it")
    if environment.get(SWITCH) == "0":
        says = f"{SWITCH}=0: plans do not measure what a step takes here, and may say no seconds"
        yield Finding("speed", WARN, says, f"unset {SWITCH}")


def _memory_gb() -> float | None:
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", MEMORY.read_text())
        limit = CGROUP_MEMORY.read_text().strip() if CGROUP_MEMORY.exists() else "max"
    except OSError:
        return None
    amounts = [int(found[1]) / 2**20] if found else []
    amounts += [int(limit) / 2**30] if limit.isdecimal() else []
    return min(amounts, default=None)


def typesetting(_place: Workspace) -> Iterator[Finding]:
    """Whether report.pdf can be made, in its own font."""
    try:
        facts = probe("typst")
    except ProgramError as error:
        yield Finding("pdf", FAIL, str(error), "pip install --force-reinstall typst")
        return
    if not (facts["pdf"] and facts["font"]):
        mend = "pip install --force-reinstall typst: its own fonts are missing"
        yield Finding("pdf", WARN, f"typst {facts['typst']} sets pages in another font", mend)
    else:
        yield Finding("pdf", OK, f"typst {facts['typst']} with its own fonts")


def environment(_place: Workspace) -> Iterator[Finding]:
    """Variables that are set; one that nothing reads is a misspelling."""
    names = sorted(name for name in os.environ if name.startswith("HARNESS_"))
    for name in names:
        if name not in VARIABLES:
            yield Finding("environment", WARN, f"{name} is set, and nothing reads it", _nearest(name))
    read = [name for name in (*names, "MLFLOW_TRACKING_URI") if name in os.environ and name not in _ignored()]
    values = ", ".join(f"{name}={masked(os.environ[name])}" for name in read)
    yield Finding("environment", OK, values or "no HARNESS_ variable is set")


def _ignored() -> set[str]:
    return {name for name in os.environ if name.startswith("HARNESS_") and name not in VARIABLES}


def _nearest(name: str) -> str:
    return unknown("variable", name, VARIABLES)
