"""What only reads or plans answers at once: it does not import torch, MLflow, pandas, matplotlib or scipy."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from harness.cli import build_parser
from tests.end_to_end.workplace import ROOT, Workplace

HEAVY = ("torch", "torchvision", "mlflow", "pandas", "matplotlib", "scipy", "typst", "pikepdf")
BAG_OF_TRICKS = str(ROOT / "studies" / "bag_of_tricks.yaml")
CODE = """
import sys
from harness.cli import main
try:
    code = main(sys.argv[2:])
except SystemExit as end:
    code = end.code
print(code, *sorted(set(sys.argv[1].split()) & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("plan", BAG_OF_TRICKS),
        ("plan", BAG_OF_TRICKS, "--size", "paper", "--json"),
        ("status", BAG_OF_TRICKS),
        ("status", BAG_OF_TRICKS, "--json"),
        ("cancel", BAG_OF_TRICKS, "--row", "ResNet-50"),
        ("logs", "ResNet-50-B", BAG_OF_TRICKS, "--seed", "0"),
        ("run", BAG_OF_TRICKS, "--help"),
        ("tricks",),
        ("models",),
        ("data",),
        ("studies", str(ROOT / "studies")),
    ],
    ids=lambda arguments: " ".join(arguments).replace(f"{ROOT}/", ""),
)
def test_the_command_imports_nothing_heavy(fresh: Workplace, arguments):
    assert modules_after(fresh, *arguments) == ["0"]


# What takes milliseconds each: a limit of time that holds on any machine.
SLOW = ("rich", "pydantic", "numpy", "logging", "multiprocessing", "importlib.metadata", "email", "secrets")
UNUSED = "harness.tricks.inception"  # by Bag of Tricks
ELSEWHERE = ("subprocess", "shutil", "tempfile", "zipfile", "gzip", "traceback", "importlib.resources")
ELSEWHERE += ("hashlib", "threading", "shlex")
OF_DATA = ("harness.data.packed", "harness.data.tables", "harness.data.huggingface", "harness.data.loading")
LATER = ("harness.scripts", "harness.runs.claims", "harness.slurm", "harness.scheduling", UNUSED)
LATER += ("harness.plugins.load", "harness.study.part", *OF_DATA)


@pytest.mark.parametrize(
    ("arguments", "slow"),
    [
        (("--help",), (*SLOW, "json", "dataclasses", "harness.spec", "harness.commands.display")),
        (("tricks",), (*SLOW, "yaml", "harness.study.schema", "harness.models", "harness.data")),
        (("plan", BAG_OF_TRICKS), (*SLOW, *ELSEWHERE, *LATER)),
        (("plan", BAG_OF_TRICKS, "--json"), (*SLOW, *ELSEWHERE, *LATER, "harness.commands.display")),
        (("status", BAG_OF_TRICKS), (*SLOW, *ELSEWHERE, *LATER, "harness.commands.step_times", "zlib")),
    ],
    ids=lambda each: " ".join(each).replace(f"{ROOT}/", "") if each[0] not in SLOW else "",
)
def test_the_command_imports_only_what_it_needs(fresh: Workplace, arguments, slow):
    assert modules_after(fresh, *arguments, heavy=" ".join(slow)) == ["0"]


def test_the_parser_of_one_command_reads_what_the_whole_one_reads():
    lines = (["plan", "s.yaml", "--json"], ["run", "s.yaml", "--on", "slurm", "--at-most", "3"], ["tricks"])
    for line in lines:
        assert build_parser(line[0]).parse_args(line) == build_parser().parse_args(line)
    assert build_parser("plann").format_help() == build_parser().format_help()


def test_a_heavy_import_would_be_seen(fresh: Workplace):
    assert modules_after(fresh, "--help", heavy="argparse")[1:] == ["argparse"]


def modules_after(place: Workplace, *arguments: str, heavy: str = " ".join(HEAVY)) -> list[str]:
    """The exit code, then which of the heavy modules the process has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, heavy, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=place.path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stdout
    return done.stderr.split()


INTERRUPT = """
import importlib.abc, os, runpy, signal, sys

class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == at:
            os.kill(os.getpid(), signal.SIGINT)

at = sys.argv.pop(1)
sys.modules.pop(at, None)
sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize("module", ["harness.__main__", "harness.cli"])
@pytest.mark.parametrize(
    "at", ["harness.errors", "argparse", "harness.commands.plan", "harness.study.expand"]
)
def test_an_interrupt_during_imports_is_one_line_and_exit_code_3(at: str, module: str):
    code = f"{INTERRUPT}runpy.run_module('{module}', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, at, "plan", BAG_OF_TRICKS],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "interrupted; the same command goes on from here\n"
