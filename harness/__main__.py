"""The way into the command line: Ctrl-C ends it in one line from here on, also while it is still imported."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 3
SAID = b"interrupted; the same command goes on from here\n"
# Commands that read, answer and end: what they make stays until then.
PLANNING = frozenset({"plan", "status"})
BRIEF = PLANNING | frozenset({"tricks", "models", "data", "studies", "logs", "audit", "cancel", "list"})


def main() -> int:
    """`harness`, `python -m harness` and `python -m harness.cli`."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else whoever started it ignores it
    if ours:
        signal.signal(signal.SIGINT, _leave)
    named = next((each for each in sys.argv[1:] if each[:1] != "-"), "--help")
    is_brief = named in BRIEF or named == "--help"
    if is_brief:
        # Looking for dropped objects, while importing and at the end, takes a fifth of the time of `plan`.
        gc.disable()
    import argparse

    from harness.cli import main as command

    # We speak English: argparse would look for a translation of its words each time. In this process only: a
    # program that imports ours may have words of its own.
    argparse._ = str  # type: ignore[attr-defined]
    try:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = command()
    except KeyboardInterrupt:  # between two statements that say so themselves
        _say()
        code = INTERRUPTED
    finally:
        _flush()
        if is_brief:
            gc.freeze()
    if named in PLANNING:
        # Nothing is left to be done: taking all apart, object by object, would take 4 ms more.
        os._exit(code)
    return code


def _leave(number: int, frame: FrameType | None) -> None:
    """Nothing has been begun that would have to be ended; an exception could end in any module's import."""
    _say()
    os._exit(INTERRUPTED)


def _flush() -> None:
    """Write what is left now: a reader that has gone (`harness plan mixup | head`) is no error."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # the interpreter writes once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say() -> None:
    os.write(2, SAID)


if __name__ == "__main__":
    sys.exit(main())
