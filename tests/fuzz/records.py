"""Damages the records of a finished study and calls every command: `python -m tests.fuzz.records`."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

from harness import cli
from harness.tracking.store import Store
from tests.fuzz.bounds import TooLong, within
from tests.fuzz.damage import damage
from tests.fuzz.workplace import Workplace, finished_study, nothing_trained

LIMIT_S = 30.0  # of one core, for a command
REPORT_EVERY = 15  # drawing a report takes seconds
CODES = (0, 1, 2)
MOST_DAMAGED = 3  # files of one case


class Bug(Exception):
    """A command ended with a traceback, took too long, or did not mend what it could."""


def prepared(folder: Path) -> Workplace:
    """A finished study with an empty store, which takes seconds to make."""
    folder.mkdir(parents=True, exist_ok=True)
    place = finished_study(folder)
    Store.beside(place.runs_dir).client()
    return place


def judge(template: Workplace, folder: Path, number: int, seed: int, report: bool) -> str:
    """Damage a copy of the template, then look at it, mirror it, mend it and mirror it again.

    Returns: what was damaged.

    Raises:
        Bug: with everything that is known.
    """
    random = Random(f"{seed}/{number}")
    shutil.copytree(template.path, folder)
    place = Workplace(folder)
    call(place, "sync")
    done = []
    for _ in range(random.randint(1, MOST_DAMAGED)):
        record = random.choice(sorted(place.runs_dir.iterdir()))
        if record.is_dir():
            done.append(damage(record, random))
    said = ", ".join(done)
    try:
        for command in ("status", "plan", "sync"):
            call(place, command)
        with nothing_trained():
            call(place, "run", "--on", "inline", "--no-report")
        call(place, "status")
        call(place, "sync")
        if report:
            call(place, "report", "--out", str(folder / "report"))
    except Bug as error:
        raise Bug(f"{said}: {error}") from None
    return said


def call(place: Workplace, command: str, *arguments: str) -> str:
    """One command; what it wrote to stderr.

    Raises:
        Bug: it ended otherwise than by an exit code.
    """
    places = ["--runs", str(place.runs_dir), "--data", str(place.path / "data")]
    return ended_in_order([command, str(place.study), *places, *arguments], LIMIT_S)


def ended_in_order(arguments: list[str], limit_s: float) -> str:
    """One command line in this process, within so many seconds of a core; what it wrote to stderr.

    Raises:
        Bug: it ended otherwise than by an exit code.
    """
    said, errors = Terminal(), Terminal()
    command = " ".join(arguments)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors), within(limit_s):
            code = cli.main(arguments)
    except (Exception, TooLong, SystemExit) as error:
        trace = "".join(traceback.format_exception(error)[-5:])
        raise Bug(f"harness {command}: {type(error).__name__}: {str(error)[:300]}\n{trace[-2500:]}") from None
    if code not in CODES or "Traceback" in errors.getvalue():
        raise Bug(f"harness {command} ended with {code}: {errors.getvalue()[-2500:]}")
    if "\x1b" in said.getvalue() + errors.getvalue():
        raise Bug(f"harness {command} sends orders to the terminal: {said.getvalue()[-2500:]!r}")
    return errors.getvalue()


class Terminal(io.StringIO):
    """Takes what a terminal takes: no halves of characters."""

    def write(self, text: str) -> int:
        text.encode()
        return super().write(text)


def main(argv: list[str] | None = None) -> int:
    """Run the campaign; its figures are one line of JSON, the last of the output. Exit code 1: a bug."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--only", type=int, help="this case alone")
    args = parser.parse_args(argv)
    counts: Counter[str] = Counter()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        template = prepared(Path(name) / "template")
        numbers = range(args.cases) if args.only is None else [args.only]
        for number in numbers:
            folder = Path(name) / str(number)
            try:
                said = judge(template, folder, number, args.seed, report=number % REPORT_EVERY == 0)
                counts["went on"] += 1
                if args.only is not None:
                    print(said)
            except Bug as error:
                counts["bug"] += 1
                print(f"--- case {number}: {error}", flush=True)
            shutil.rmtree(folder)
    print(json.dumps({"cases": len(numbers), **counts, "time_s": round(time.monotonic() - began_s, 1)}))
    return 1 if counts["bug"] else 0


if __name__ == "__main__":
    sys.exit(main())
