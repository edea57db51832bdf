"""What only reads or plans answers at once: it does not import torch, MLflow, pandas, matplotlib or scipy."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.end_to_end.workplace import ROOT, Workplace

HEAVY = ("torch", "torchvision", "mlflow", "pandas", "matplotlib", "scipy", "typst")
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
