"""`harness`: parse the command line, call one command, turn errors into words and exit codes.

Exit codes: 0 done, 1 some runs failed (the report is written and says which), 2 usage or study error,
3 interrupted (resumable). Commands import what they need when called, so that this starts quickly.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # `python -m harness.cli` is `python -m harness`
    from runpy import run_module

    run_module("harness", run_name="__main__")

import argparse
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO, cast

from harness import __version__
from harness.errors import DONE, INTERRUPTED, USAGE_ERROR, Problem, StudyError, Visible, counted, printable

TALKING = ("-q", "--quiet", "-v", "--verbose")
SIZES = "one of the study's sizes (default: mini where it has that, else its first)"
# What `harness calibrate` may be told.
CALIBRATE = "train one recipe many times, count how often the verdicts see an effect where there is none"
NUMBERS = (
    ("trainings", 400, "runs of the recipe"),
    ("arms", 9, "of each table"),
    ("seeds", 3, "of each arm"),
    ("tables", 10_000, "that are drawn from the runs"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    out, err = (cast(TextIO, Visible(stream)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    try:
        argv = (sys.argv[1:] if argv is None else argv) or ["--help"]
        args = _parsed(_with_negative(_behind_the_command(argv)))
        _forget_damage()
        if not (args.verbose or args.quiet):
            return _run_command(args)
        from harness.commands.display import quietly, verbosely

        return (quietly if args.quiet else verbosely)(_run_command, args)
    except StudyError as error:
        print(error, file=sys.stderr)
        print(f"{counted(len(error.problems), 'problem')}; {error.consequence}.", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # e.g. `harness plan ... | head`
        sys.stderr.close()
        return DONE
    except OSError as error:  # a full disk, a folder of another user, a file in place of a folder
        where = f"{printable(str(error.filename))}: " if error.filename else ""
        print(f"{where}{error.strerror or error}; mend that, and the same command goes on", file=sys.stderr)
        return USAGE_ERROR


def _run_command(args: argparse.Namespace) -> int:
    module, _, call = args.command.partition(":")
    return int(getattr(import_module(f"harness.commands.{module}"), call or "main")(args))


def _behind_the_command(argv: Sequence[str]) -> list[str]:
    """`harness --quiet run x` is `harness run --quiet x`."""
    count = next((place for place, each in enumerate(argv) if each not in TALKING), 0)
    return [*argv[count : count + 1], *argv[:count], *argv[count + 1 :]]


class _Parser(argparse.ArgumentParser):
    """Asks how wide the terminal is where it prints help, not for every argument that is added."""

    def __init__(self, *args: Any, **about: Any) -> None:
        about["formatter_class"] = partial(argparse.HelpFormatter, width=80)
        super().__init__(*args, **about)

    def format_usage(self) -> str:
        self.formatter_class = argparse.HelpFormatter
        return super().format_usage()

    def format_help(self) -> str:
        self.formatter_class = argparse.HelpFormatter
        return super().format_help()


class _Command(_Parser):
    """The parser of one command: each may be quiet or verbose."""

    def __init__(self, *args: Any, **about: Any) -> None:
        super().__init__(*args, **about)
        _talking(self)


def _talking(parser: argparse.ArgumentParser) -> None:
    talk = parser.add_mutually_exclusive_group()
    talk.add_argument("-q", "--quiet", action="store_true", help="print errors and the last line only")
    text = "say which files, caches and workers are chosen, too"
    talk.add_argument("-v", "--verbose", action="store_true", help=text)


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """
    Raises:
        StudyError: an unknown command or option; names the nearest and the valid ones.
    """
    from harness.errors import unknown

    command = argv[0] if argv else None
    parser = build_parser(command)
    commands = parser._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    if command is not None and command[:1] != "-" and command not in commands:  # type: ignore[operator]
        raise StudyError([Problem("harness", 0, unknown("command", command, set(commands) - {"agent"}))])  # type: ignore[arg-type]
    args, left = parser.parse_known_args(argv)
    if left and left[0][:2] == "--" and command is not None:
        options = [name for name in commands[command]._option_string_actions if name[:2] == "--"]  # type: ignore[index]
        name = left[0].partition("=")[0]
        raise StudyError([Problem(f"harness {command}", 0, unknown("option", name, options))])
    if left:
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return args


def _forget_damage() -> None:
    """What an earlier command of this process named is named again."""
    records = sys.modules.get("harness.runs.records")
    if records is not None:
        records.begin()


class _One:
    """Takes the place of the list of commands, and makes the parser of one: all take 10 ms."""

    def __init__(self, commands: argparse._SubParsersAction, name: str) -> None:
        self._commands, self._name = commands, name

    def add_parser(self, name: str, **about: Any) -> Any:
        return self._commands.add_parser(name, **about) if name == self._name else _Nothing()


class _Nothing:
    """The parser of a command that was not called."""

    def add_argument(self, *names: str, **about: Any) -> None:
        pass

    def add_mutually_exclusive_group(self) -> _Nothing:
        return self

    def set_defaults(self, **values: Any) -> None:
        pass


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The whole command line, from which docs/cli.md is generated; or of it only one command."""
    parser, commands = _parser()
    if command is not None:
        _add_commands(cast("argparse._SubParsersAction", _One(commands, command)))
        if command in commands.choices:
            return parser
    _add_commands(commands)
    return parser


def _parser() -> tuple[argparse.ArgumentParser, argparse._SubParsersAction]:
    parser = _Parser(
        prog="harness",
        description="Ablation studies for image classification: one study file in, a paper's table out.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"harness {__version__}")
    _talking(parser)
    # With a `prog`, argparse need not format a usage to know it.
    commands = parser.add_subparsers(
        prog="harness", dest="command", required=True, metavar="COMMAND", parser_class=_Command
    )
    return parser, commands


def _add_commands(commands: argparse._SubParsersAction) -> None:
    _run(commands)
    plan = _study_command(
        commands,
        "plan",
        "show every row, every unique run, and what they cost",
        several="several, or a folder: which runs they share",
    )
    _part(plan)
    _json_flag(plan)
    _looking(commands)
    _report(commands)
    _verify(commands)
    _table(commands)
    _audit(commands)
    _calibrate(commands)
    sync = _study_command(commands, "sync", "mirror the run folders into MLflow; rebuilds a deleted store")
    sync.set_defaults(command="runs:sync")
    what = "open the MLflow UI on 127.0.0.1"
    ui = commands.add_parser("ui", help=what, description=f"{what[0].upper()}{what[1:]}.")
    ui.set_defaults(command="runs:ui")
    ui.add_argument("--port", type=_positive, default=5000, metavar="N", help="of 127.0.0.1 (default: 5000)")
    _places(ui)
    _pack(commands)
    what = "test your own models, data sets, tricks and metrics"
    check = commands.add_parser("check-plugin", help=what, description=f"{what[0].upper()}{what[1:]}.")
    check.set_defaults(command="doctor:check_plugin_file")
    check.add_argument("file", type=Path, metavar="FILE", help="a plugin, e.g. my_lab.py")
    _places(check)

    _init(commands)
    what = "print the script by which a shell completes commands, options and studies"
    completion = commands.add_parser("completion", help=what, description=f"{what[0].upper()}{what[1:]}.")
    completion.set_defaults(command="listing:completion")
    text = "e.g. harness completion bash > ~/.local/share/bash-completion/completions/harness"
    completion.add_argument("shell", choices=("bash", "zsh"), metavar="SHELL", help=f"bash or zsh; {text}")

    _listings(commands)
    _run_folders(commands)
    _agent(commands)


def _study_command(
    commands: argparse._SubParsersAction, name: str, what: str, *, several: str = ""
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    example = "a file, or the name of one here, in studies/ or of those that ship, e.g. bag_of_tricks"
    if several:
        more = f"{example}; {several}"
        parser.add_argument("study", type=_study, nargs="+", metavar="STUDY", help=more)
    else:
        parser.add_argument("study", type=_study, metavar="STUDY", help=example)
    parser.add_argument("--size", default="", help=SIZES)
    seeds = "seeds per arm: 5, or 3..10 to stop rows that are settled (default: the study's)"
    parser.add_argument("--seeds", type=_seeds, metavar="N", help=seeds)
    parser.add_argument("--smoke", action="store_true", help="the smallest form of the study, to see it work")
    change = "change the baseline at this size: epochs=3, lr=0.1 (may be repeated; the report says so)"
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help=change)
    _places(parser)
    return parser


def _report(commands: argparse._SubParsersAction) -> None:
    what = "write the report from the tracking store; of several, put their reports side by side"
    more = "of several, or of folders of reports: what differs between them"
    report = _study_command(commands, "report", what, several=more)
    _part(report)
    report.add_argument("--short", action="store_true", help="print the short form (Markdown, up to 60 kB)")
    _report_folder(report)


def _verify(commands: argparse._SubParsersAction) -> None:
    what = "compute every number of a report again from its raw records and compare every byte"
    verify = commands.add_parser("verify", help=what, description=f"{what[0].upper()}{what[1:]}.")
    verify.add_argument("reports", type=Path, nargs="+", metavar="REPORT", help="its folder, or the study")
    study = "its study (default: studies/<name>.yaml)"
    verify.add_argument("--study", type=_study, metavar="FILE", help=study)
    _places(verify)


def _run(commands: argparse._SubParsersAction) -> None:
    run = _study_command(commands, "run", "train what is missing, mirror it to MLflow, write the report")
    _part(run)
    places = ("local", "inline", "slurm")
    run.add_argument("--on", choices=places, default="local", help="where runs are executed")
    run.add_argument("--workers", type=_positive, metavar="K", help="workers (default: one per core)")
    share = "runs that share one GPU; auto: as many as a short measurement finds worth it"
    run.add_argument("--per-gpu", type=_positive_or_auto, default=1, metavar="K", help=share)
    together = "processes that train one run together"
    run.add_argument("--processes", type=_positive, default=1, metavar="W", help=together)
    run.add_argument("--fast", action="store_true", help="GPU: fastest kernels instead of bit-identical ones")
    run.add_argument("--compile", action="store_true", help="GPU: compile each network first (torch.compile)")
    run.add_argument(
        "--budget",
        type=_budget,
        metavar="TIME",
        help="stop when it is spent, e.g. 10min, 2h; on Slurm 8gpu-hours too. The same command goes on",
    )
    run.add_argument("--open", action="store_true", help="show the report in a browser, once there is one")
    run.add_argument("--no-report", action="store_true", help="train and mirror only")
    _report_folder(run)
    _on_slurm(run)


def _on_slurm(run: argparse.ArgumentParser) -> None:
    """What `--on slurm` may be told beside the cluster file."""
    _cluster_file(run)
    run.add_argument("--at-most", type=_positive, metavar="N", help="slurm: jobs at work at once")
    run.add_argument("--dry-run", action="store_true", help="slurm: print the sbatch scripts, submit nothing")
    run.add_argument("--detach", action="store_true", help="slurm: submit and do not wait")


def _cluster_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster",
        type=Path,
        metavar="FILE",
        help="slurm: what jobs ask for (default: ~/.config/harness/cluster.yaml, where it is there)",
    )


def _table(commands: argparse._SubParsersAction) -> None:
    what = "verdicts, intervals and a report from results that you have: one line a run"
    table = commands.add_parser("table", help=what, description=f"{what[0].upper()}{what[1:]}.")
    table.add_argument(
        "results",
        metavar="RESULTS",
        nargs="+",
        help="CSV, JSON lines, Parquet; MLflow: STORE#EXPERIMENT; TensorBoard: its CSV of every run",
    )
    for name, metavar, text in (
        ("row", "COLUMN", "whose values are the rows (repeated: their combinations)"),
        ("metric", "COLUMN", "that verdicts are about (repeated: further ones are shown)"),
    ):
        table.add_argument(f"--{name}", action="append", metavar=metavar, help=text)
    for name, metavar, text in (
        ("seed", "COLUMN", "that says which runs of different rows belong together"),
        ("table", "COLUMN", "one table for each of its values"),
        ("column", "COLUMN", "one column (a network, a data set) for each of its values"),
        ("paper", "COLUMN", "the printed value of the row"),
        ("images", "COLUMN", "the file of each run that says which test images it had right"),
        ("classes", "PREFIX", "of the columns with the accuracy on one class each, such as class_"),
        ("versus", "ROW", "that the others are compared with (default: baseline, or the first); or previous"),
    ):
        table.add_argument(f"--{name}", metavar=metavar, help=text)
    table.add_argument(
        "--smallest-effect", type=float, metavar="X", help="that matters (percent: 0.2 points)"
    )
    _unit(table)
    _report_folder(table)


def _unit(table: argparse.ArgumentParser) -> None:
    """What a number does not say of itself."""
    units = table.add_mutually_exclusive_group()
    for name, text in (
        ("percent", "the metric is in percent, such as 93.1"),
        ("fraction", "the metric is a fraction, such as 0.931; it is shown in percent"),
        ("plain", "the metric is neither; it is shown as it is"),
    ):
        units.add_argument(f"--{name}", dest="unit", action="store_const", const=name, help=text)
    better = table.add_mutually_exclusive_group()
    for value, name, text in (
        (True, "lower-is-better", "a loss, an error, a time"),
        (False, "higher-is-better", "although its name says a loss, an error or a time"),
    ):
        better.add_argument(f"--{name}", dest="lower_is_better", action="store_const", const=value, help=text)


def _audit(commands: argparse._SubParsersAction) -> None:
    what = "read published tables and say what they could, and could not, have detected"
    audit = commands.add_parser("audit", help=what, description=f"{what[0].upper()}{what[1:]}.")
    audit.set_defaults(command="table:audit_tables")
    audit.add_argument(
        "tables", type=Path, nargs="+", metavar="TABLE", help="YAML or CSV; see docs/audits.md"
    )
    _json_flag(audit)


def _calibrate(commands: argparse._SubParsersAction) -> None:
    calibrate = commands.add_parser("calibrate", help=CALIBRATE, description=f"{CALIBRATE.capitalize()}.")
    _calibrate_options(calibrate)
    _json_flag(calibrate)
    _places(calibrate)


def _looking(commands: argparse._SubParsersAction) -> None:
    """What is asked, and told, while runs are under way: from any machine that sees the run folders."""
    status = _study_command(commands, "status", "show every row's runs, the queue, time left and cost so far")
    _part(status)
    _json_flag(status)

    cancel = _study_command(commands, "cancel", "stop unfinished runs; `harness run` goes on with them")
    cancel.set_defaults(command="runs:cancel_runs")
    cancel.add_argument("--row", action="append", metavar="LABEL", help="only this row's (may be repeated)")
    cancel.add_argument("--seed", action="append", type=int, metavar="N", help="only this seed's")
    cancel.add_argument("--queued", action="store_true", help="only those that no process has at the moment")
    _json_flag(cancel)

    what = "tell the story of one run: attempts, checkpoints, why it stopped, its Slurm logs"
    logs = commands.add_parser("logs", help=what, description=f"{what[0].upper()}{what[1:]}.")
    logs.add_argument("run", metavar="RUN", help="first characters of a run_id; with STUDY, a row's label")
    logs.add_argument("study", type=_study, nargs="?", metavar="STUDY", help="the study that has the row")
    logs.add_argument("--seed", type=int, metavar="N", help="which of the row's runs")
    logs.add_argument("--size", default="", help=SIZES)
    logs.add_argument(
        "--lines", type=_positive, default=20, metavar="N", help="of each Slurm log (default: 20)"
    )
    logs.add_argument("--smoke", action="store_true", help="with STUDY: a run of its smallest form")
    logs.set_defaults(seeds=None)
    _json_flag(logs)
    _places(logs)

    what = "check this machine, its folders and services, and say how to mend what is not in order"
    doctor = commands.add_parser("doctor", help=what, description=f"{what[0].upper()}{what[1:]}.")
    doctor.add_argument(
        "--on", choices=["slurm"], help="slurm: what a job finds there; submits one of about a minute"
    )
    _cluster_file(doctor)
    doctor.add_argument("--into", type=Path, help=argparse.SUPPRESS)  # what such a job is told
    _json_flag(doctor)
    _places(doctor)


def _init(commands: argparse._SubParsersAction) -> None:
    what = "write a commented study that plans, from a folder of images or a script's flags"
    init = commands.add_parser("init", help=what, description=f"{what[0].upper()}{what[1:]}.")
    init.add_argument(
        "name", nargs="?", metavar="NAME", help="of the study (default: what it is written from)"
    )
    sources = init.add_mutually_exclusive_group()
    for name, metavar, text in (
        ("data", "DIR", "images in one folder per class, below train/ and val/ (default: the embedded ones)"),
        ("script", "FILE", "a training script: its flags become rows; it is read, not run"),
        ("results", "FILE", "results that you have: says what to do with them"),
    ):
        sources.add_argument(f"--{name}", type=Path, metavar=metavar, help=text)


def _run_folders(commands: argparse._SubParsersAction) -> None:
    what = "list the run folders that are here"
    listed = commands.add_parser("list", help=what, description=f"{what[0].upper()}{what[1:]}.")
    listed.set_defaults(command="runs:list_runs")
    for name, text in (
        ("of", "only runs of recipes that this study declared (mixup, or mixup-gpu at one size)"),
        ("state", "only these: finished, diverged, failed, cancelled, stopped, running, missing"),
        ("model", "only of this model"),
        ("dataset", "only on this data set"),
    ):
        listed.add_argument(f"--{name}", metavar="NAME", help=text)
    _json_flag(listed)
    _places(listed)

    what = "delete runs that no study here needs and no report cites: shows them first, and asks"
    clean = commands.add_parser("clean", help=what, description=f"{what[0].upper()}{what[1:]}.")
    clean.set_defaults(command="runs:clean")
    text = "whose runs stay, beside those of every study in this folder and in studies/"
    clean.add_argument("study", type=_study, nargs="*", metavar="STUDY", help=text)
    text = "a study whose file is not here: its runs may go, too (may be repeated)"
    clean.add_argument("--of", action="append", metavar="NAME", help=text)
    clean.add_argument("--yes", action="store_true", help="do not ask")
    text = "whose reports cite runs that stay (default: reports, here and beside the runs)"
    clean.add_argument("--reports", type=Path, metavar="DIR", help=text)
    _places(clean)


def _agent(commands: argparse._SubParsersAction) -> None:
    about = "One task of a Slurm array: trains runs of a submission. Called by sbatch scripts, not by hand."
    agent = commands.add_parser("agent", description=about)  # without help it is not listed
    agent.add_argument("runs_dir", type=Path)
    agent.add_argument("token")
    agent.add_argument("group")
    agent.set_defaults(command="runs:agent")


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
            text = "of study files (default: studies, or else those that ship)"
            listing.add_argument("folder", nargs="?", type=Path, help=text)
        if name == "data":
            _look_at_a_folder(listing)


def _pack(commands: argparse._SubParsersAction) -> None:
    what = "store a set of image files in a few large files, which are read faster"
    pack = commands.add_parser("pack", help=what, description=f"{what[0].upper()}{what[1:]}.")
    pack.set_defaults(command="init:pack")
    pack.add_argument("what", metavar="DATA", help="a data set (imagenet), or a folder of images")
    pack.add_argument(
        "--side", type=_positive, metavar="N", help="pixels of the shorter side, at most (default: as it is)"
    )
    form = pack.add_mutually_exclusive_group()
    form.add_argument(
        "--jpeg", type=_positive, default=95, metavar="QUALITY", help="JPEG files (default: of 95)"
    )
    form.add_argument("--raw", action="store_true", help="raw pixels: five times the space, read fastest")
    pack.add_argument("--to", type=Path, metavar="DIR", help="the new folder (default: in the data folder)")
    pack.add_argument("--study", type=Path, metavar="FILE", help="a study, for a data set of its plugins")
    _places(pack)


def _look_at_a_folder(listing: argparse.ArgumentParser) -> None:
    listing.add_argument(
        "folder",
        nargs="?",
        type=Path,
        help="a folder of images, a CSV or a data set, to be looked at: classes, sizes, unreadable files",
    )
    listing.add_argument("--decode", action="store_true", help="with a folder: decode every image")
    listing.add_argument(
        "--range", nargs=2, type=float, metavar=("BLACK", "WHITE"), help="with a folder: of deep images"
    )


def _places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, metavar="DIR", help="run folders ($HARNESS_RUNS or runs)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="your data sets ($HARNESS_DATA or data)")
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow store (default: SQLite beside the run folders)"
    )


def _report_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="report folder (default: reports/<study>)")


def _part(parser: argparse.ArgumentParser) -> None:
    """Which part of the study; `harness.study.part` says what else it needs."""
    for name, metavar, what in (
        ("table", "KEY", "only this table, by key or title (may be repeated)"),
        ("row", "LABEL", "only this row, with those it is compared with (may be repeated)"),
        ("column", "NAME", "only this column (may be repeated)"),
    ):
        parser.add_argument(f"--{name}", action="append", metavar=metavar, help=what)


def _json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable, documented in docs/json.md")


def _study(text: str) -> Path:
    from harness.study.yaml import study_file

    return study_file(Path(text))


def _seeds(text: str) -> tuple[int, ...]:
    from harness.study.plan import parse_seeds  # seeds per arm at each look; one entry: fixed

    try:
        return parse_seeds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _budget(text: str) -> Any:
    from harness.commands.budget import parse_budget

    try:
        return parse_budget(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _with_negative(argv: Sequence[str]) -> list[str]:
    """`--budget -5min` as one argument: a second one that starts with - is taken for an option of its own."""
    joined: list[str] = []
    for each in argv:
        if joined and joined[-1] == "--budget" and each[:1] == "-" and each[1:2].isdigit():
            joined[-1] = f"--budget={each}"
        else:
            joined.append(each)
    return joined


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _positive_or_auto(text: str) -> int | str:
    return text if text == "auto" else _positive(text)


def _calibrate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "study", type=_study, nargs="?", metavar="STUDY", help="default: a small network, a second a run"
    )
    parser.add_argument("--row", metavar="LABEL", help="the row that is trained (default: the first)")
    parser.add_argument("--size", default="", help=SIZES)
    for name, value, text in NUMBERS:
        what = f"{text} (default: {value})"
        parser.add_argument(f"--{name}", type=_positive, default=value, metavar="N", help=what)
    parser.add_argument("--workers", type=_positive, metavar="K", help="workers (default: one per core)")
