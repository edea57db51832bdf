"""`harness`: parse the command line, call one command, turn errors into words and exit codes.

Exit codes: 0 done, 1 some runs failed (the report is written and says which), 2 usage or study error,
3 interrupted (resumable). Commands import what they need when called, so that this starts quickly.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from harness import __version__
from harness.study.problems import StudyError

DONE, SOME_FAILED, USAGE_ERROR, INTERRUPTED = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for some takes 20 ms a command
    args = build_parser().parse_args(argv)
    try:
        return import_module(f"harness.commands.{args.command}").main(args)
    except StudyError as error:
        print(error, file=sys.stderr)
        count = len(error.problems)
        print(f"{count} problem{'s' if count != 1 else ''}; nothing was started.", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # e.g. `harness plan ... | head`
        sys.stderr.close()
        return DONE


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; docs/cli.md is generated from it."""
    parser = argparse.ArgumentParser(
        prog="harness",
        description="Ablation studies for image classification: one study file in, a paper's table out.",
    )
    parser.add_argument("--version", action="version", version=f"harness {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = _study_command(commands, "run", "train what is missing, mirror it to MLflow, write the report")
    run.add_argument("--on", choices=("local", "inline"), default="local", help="where runs are executed")
    run.add_argument("--workers", type=_positive, metavar="K", help="workers (default: one per core)")
    run.add_argument("--per-gpu", type=_positive, default=1, metavar="K", help="runs that share one GPU")
    run.add_argument("--fast", action="store_true", help="GPU: fastest kernels instead of bit-identical ones")
    run.add_argument("--no-report", action="store_true", help="train and mirror only")
    _report_folder(run)

    plan = _study_command(
        commands, "plan", "show every row, every unique run, and what they cost", several=True
    )
    _json_flag(plan)
    status = _study_command(commands, "status", "show which runs are done, running, failed or missing")
    _json_flag(status)
    report = _study_command(commands, "report", "write the report from the tracking store")
    _report_folder(report)
    _study_command(commands, "sync", "mirror the run folders into MLflow; rebuilds a deleted store")
    ui = commands.add_parser("ui", help="open the MLflow UI on 127.0.0.1")
    ui.add_argument("--port", type=_positive, default=5000)
    _places(ui)

    check = commands.add_parser("check-plugin", help="test your own models, data sets, tricks and metrics")
    check.set_defaults(command="check_plugin")
    check.add_argument("file", type=Path, metavar="FILE", help="a plugin, e.g. my_lab.py")
    _places(check)

    _listings(commands)
    return parser


def _study_command(
    commands: argparse._SubParsersAction, name: str, what: str, *, several: bool = False
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    example = "e.g. studies/bag_of_tricks.yaml"
    if several:
        more = f"{example}; several, or a folder: which runs they share"
        parser.add_argument("study", type=Path, nargs="+", metavar="STUDY", help=more)
    else:
        parser.add_argument("study", type=Path, metavar="STUDY", help=example)
    parser.add_argument("--size", default="mini", help="mini (default), gpu, paper")
    parser.add_argument("--seeds", type=_positive, metavar="N", help="seeds per arm (default: the study's)")
    parser.add_argument("--smoke", action="store_true", help="the smallest form of the study, to see it work")
    _places(parser)
    return parser


def _listings(commands: argparse._SubParsersAction) -> None:
    for name, what in (
        ("tricks", "the paper tricks a study may switch on"),
        ("models", "the architectures, with parameters and multiply-adds"),
        ("data", "the data sets, and what is missing here"),
        ("studies", "the studies in a folder"),
    ):
        listing = commands.add_parser(name, help=f"list {what}", description=f"List {what}.")
        listing.set_defaults(command="listing", listing=name)
        _json_flag(listing)
        _places(listing)
        if name == "studies":
            listing.add_argument("folder", nargs="?", type=Path, default=Path("studies"))


def _places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, metavar="DIR", help="run folders ($HARNESS_RUNS or runs)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="your data sets ($HARNESS_DATA or data)")
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow store (default: SQLite beside the run folders)"
    )


def _report_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="report folder (default: reports/<study>)")


def _json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable, documented in docs/json.md")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
