"""`harness completion SHELL`: the script by which a shell completes commands, options and studies."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from harness.errors import DONE
from harness.study.yaml import shipped_studies

STUDY = {"bash": "_harness_study", "zsh": "_harness_study"}
# What `shtab` calls for a study: files and folders here, and the names of those that ship.
FUNCTIONS = {
    "bash": """_harness_study() {{
  compgen -W "{names}" -- "$1"
  compgen -f -X '!*.y*ml' -- "$1"
  compgen -d -S / -- "$1"
}}
""",
    "zsh": """_harness_study() {{
  _alternative 'files:study file:_files -g "*.y(a|)ml"' 'names:shipped study:({names})'
}}
""",
}


def main(args: argparse.Namespace) -> int:
    import shtab

    from harness.cli import build_parser

    parser = build_parser()
    for command in _commands(parser):
        for action in command._actions:
            if action.dest == "study":
                action.complete = STUDY  # type: ignore[attr-defined]
            elif action.metavar == "DIR":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.metavar in ("FILE", "TABLE", "REPORT", "RESULTS"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    names = " ".join(sorted(file.stem for file in shipped_studies().glob("*.yaml")))
    print(shtab.complete(parser, args.shell, preamble=FUNCTIONS[args.shell].format(names=names)))
    return DONE


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()
