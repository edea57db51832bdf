"""What `harness calibrate` may be told. Imports nothing of the harness: the command line starts with it."""

from __future__ import annotations

import argparse
from pathlib import Path

CALIBRATE = "train one recipe many times, count how often the verdicts see an effect where there is none"
NUMBERS = (
    ("trainings", 400, "runs of the recipe"),
    ("arms", 9, "of each table"),
    ("seeds", 3, "of each arm"),
    ("tables", 10_000, "that are drawn from the runs"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that no other command has."""
    parser.add_argument(
        "study", type=Path, nargs="?", metavar="STUDY", help="default: a small network, a second a run"
    )
    parser.add_argument("--row", metavar="LABEL", help="the row that is trained (default: the first)")
    parser.add_argument("--size", default="mini", help="mini (default), gpu, paper")
    for name, value, text in NUMBERS:
        what = f"{text} (default: {value})"
        parser.add_argument(f"--{name}", type=_count, default=value, metavar="N", help=what)
    parser.add_argument("--workers", type=_count, metavar="K", help="workers (default: one per core)")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value
