"""`harness tricks|models|data|studies|completion`: what can be named in a study, and on the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DONE, SOME_FAILED, Problem, StudyError

if TYPE_CHECKING:
    from harness.data.entry import Entry


def main(args: argparse.Namespace) -> int:
    if args.listing == "data" and args.folder is not None:
        return _folder(args)
    rows = {"tricks": _tricks, "models": _models, "data": _data, "studies": _studies}[args.listing](args)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        from harness.commands.display import show_listing

        show_listing(args.listing, rows)
    return 0


def _tricks(args: argparse.Namespace) -> list[dict[str, Any]]:
    from harness.tricks import TRICKS
    from harness.tricks.build import card, describe

    rows = []
    for name, trick in sorted(TRICKS.items()):
        about, paper = describe(trick), card(trick)
        rows.append(
            {
                "name": name,
                "what": paper.summary,
                "options": dict(about["options"]),
                "hooks": list(about["hooks"]),
                "paper": paper.paper,
                "differs": paper.differs,
                "conflicts": sorted(about["conflicts"]),
            }
        )
    return rows


def _models(args: argparse.Namespace) -> list[dict[str, Any]]:
    from harness.models import MODELS, VARIANTS, find, resolve
    from harness.models.costs import CLASSES, COUNTED, lookup

    rows = []
    for name in sorted({*MODELS, *VARIANTS}):
        entry, (family, full) = find(name), resolve(name, {})
        params, macs = lookup(name, {}, resolution=entry.input_size, classes=CLASSES)
        rows.append(
            {
                "name": name,
                "family": family,
                "params": params,
                "macs": macs,
                "input_size": entry.input_size,
                "classes": CLASSES,
                "source": COUNTED,
                "args": full,
                "paper": entry.paper,
                "note": entry.note,
            }
        )
    return rows


def _data(args: argparse.Namespace) -> list[dict[str, Any]]:
    from harness.commands.workspace import build_catalogue, workspace

    entries = build_catalogue(workspace(args).data_dir).data
    return [
        {
            "name": name,
            "classes": entry.classes,
            "train_images": entry.train_images,
            "test_images": entry.test_images,
            "args": dict(entry.args),
            "missing": entry.missing(entry.args),
        }
        for name, entry in sorted(entries.items())
    ]


def _folder(args: argparse.Namespace) -> int:
    """What lies in one folder of images; exit code 1 where a study would fail on it.

    Raises:
        StudyError: there is no such folder, neither here nor in the data folder.
    """
    from harness.commands.workspace import workspace
    from harness.data import DATASETS
    from harness.data.contents import examine
    from harness.data.entry import Reading
    from harness.data.tables import examine_entry

    place = workspace(args)
    here = [path for path in (args.folder, place.data_dir / args.folder) if path.exists()]
    name = str(args.folder)
    if name in DATASETS and not any((path / "train").is_dir() for path in here):
        here = []  # what lies there are its files
    if not here and name not in DATASETS:
        says = f"no such folder, file or data set, here or in {place.data_dir}"
        raise StudyError([Problem(name, 0, says)])
    if args.range is not None and not args.range[0] < args.range[1]:
        raise StudyError(
            [Problem("--range", 0, "the number that is black comes first, and is the lower one")]
        )
    reading = Reading(range=tuple(args.range) if args.range else None)
    entry = _entry_of(here[0]) if here else (DATASETS[name], {}, place.data_dir)
    if entry is None:
        found = examine(here[0], reading, decode_all=args.decode)
    else:
        data_set, more, data_dir = entry
        limits = {"range": list(reading.range)} if reading.range and "range" in data_set.args else {}
        found = examine_entry(data_set, {**more, **limits}, data_dir, decode_all=args.decode)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        from harness.commands.display import show_folder

        show_folder(found)
    return SOME_FAILED if found["problems"] else DONE


def _entry_of(path: Path) -> tuple[Entry, dict[str, Any], Path] | None:
    """The data set that reads this file or folder, with its arguments and its data folder; None: an image
    folder."""
    from harness.data import DATASETS
    from harness.data.huggingface import is_huggingface

    place = path.resolve()
    if path.is_dir():
        entry = DATASETS["huggingface"]
        return (entry, {"folder": place.name}, place.parent) if is_huggingface(place) else None
    return DATASETS["npz" if path.suffix == ".npz" else "csv"], {"file": place.name}, place.parent


def _studies(args: argparse.Namespace) -> list[dict[str, Any]]:
    from harness.commands.workspace import plan_of, workspace
    from harness.study.expand import ExpandOptions
    from harness.study.yaml import STUDIES, shipped_studies

    folder: Path = args.folder or (Path(STUDIES) if Path(STUDIES).is_dir() else shipped_studies())
    data_dir = workspace(args).data_dir
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            plan = plan_of(path, data_dir, ExpandOptions())
        except StudyError as error:
            rows.append({"file": str(path), "error": str(error)})
            continue
        rows.append(
            {
                "file": str(path),
                "study": plan.study,
                "paper": plan.header.get("paper"),
                "question": plan.header.get("question"),
                "tables": len(plan.tables),
                "arms": len(plan.all_arms),
                "runs": len(plan.runs),
            }
        )
    return rows


# `harness completion SHELL`: the script by which a shell completes commands, options and studies.


STUDY_FUNCTION = {"bash": "_harness_study", "zsh": "_harness_study"}
# What is named of a study, by the metavar of its option: a key of the rows of `harness status --json`.
OF_A_STUDY = {"LABEL": "row", "KEY": "table", "NAME": "column"}
# What `shtab` calls for a study: files and folders here, and the names of those that ship. For what a study
# has, that is the first word which may be one.
FUNCTIONS = {
    "bash": r"""_harness_study() {{
  compgen -W "{names}" -- "$1"
  compgen -f -X '!*.y*ml' -- "$1"
  compgen -d -S / -- "$1"
}}
_harness_of_a_study() {{
  local word study='' name typed=${{2//\\/}}
  for word in "${{COMP_WORDS[@]:2}}"; do
    case " {names} " in *" $word "*) study=$word; break;; esac
    case $word in *.y*ml) study=$word; break;; esac
  done
  [ -n "$study" ] || return
  harness status "$study" --json 2> /dev/null | sed -n '/^ *{{"table": /s/.*"'"$1"'": "\([^"]*\)".*/\1/p' |
    sort -u | while IFS= read -r name; do case $name in "$typed"*) printf '%q\n' "$name";; esac; done
}}
""",
    "zsh": r"""_harness_study() {{
  _alternative 'files:study file:_files -g "*.y(a|)ml"' 'names:shipped study:({names})'
}}
_harness_of_a_study() {{
  local word study=''
  local -a names
  for word in "${{words[@]:1}}"; do
    case " {names} " in *" $word "*) study=$word; break;; esac
    case $word in *.y*ml) study=$word; break;; esac
  done
  [ -n "$study" ] || return
  names=("${{(@f)$(harness status "$study" --json 2> /dev/null |
    sed -n '/^ *{{"table": /s/.*"'"$1"'": "\([^"]*\)".*/\1/p' | sort -u)}}")
  compadd -a names
}}
""",
}
# `shtab` calls a function with what is typed and nothing else.
OF_KEY = {
    "bash": """_harness_{key}() {{ _harness_of_a_study {key} "$1"; }}\n""",
    "zsh": """_harness_{key}() {{ _harness_of_a_study {key}; }}\n""",
}


def completion(args: argparse.Namespace) -> int:
    import shtab

    from harness.cli import build_parser
    from harness.study.yaml import shipped_studies

    parser = build_parser()
    for command in _parsers(parser):
        for action in command._actions:
            if action.dest == "study":
                action.complete = STUDY_FUNCTION  # type: ignore[attr-defined]
            elif action.metavar in OF_A_STUDY and action.dest in OF_A_STUDY.values():
                action.complete = dict.fromkeys(FUNCTIONS, f"_harness_{OF_A_STUDY[action.metavar]}")  # type: ignore[attr-defined]
            elif action.metavar == "DIR":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.metavar in ("FILE", "TABLE", "REPORT", "RESULTS"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    names = " ".join(sorted(file.stem for file in shipped_studies().glob("*.yaml")))
    of_keys = "".join(OF_KEY[args.shell].format(key=key) for key in OF_A_STUDY.values())
    print(shtab.complete(parser, args.shell, preamble=FUNCTIONS[args.shell].format(names=names) + of_keys))
    return DONE


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()
