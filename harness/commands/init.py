"""`harness init`: a commented study of your own images or script. `harness pack`: images in a few files."""

from __future__ import annotations

import argparse
import ast
import math
import os
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.data import source_of, to_stderr
from harness.commands.workspace import load_plugins, problem, workspace
from harness.data import DATASETS
from harness.errors import DONE, Problem, StudyError, counted, unknown
from harness.study.conditions import updates_per_epoch

if TYPE_CHECKING:
    from harness.data.entry import Entry, Source


BATCH, LR_OF_256, UPDATES, LEAST_EPOCHS = 32, 0.1, 600, 10
TEST_SHARE = 0.2  # where there is no test part
SIDES = (32, 64, 96, 128, 160, 224)  # pixels; the largest that the images have
EMBEDDED = 10_000  # training images of fashion_mnist
MOST_ROWS, MOST_FLAGS = 4, 20
HEAD = "# Written by `harness init`; change what you like. Keys: docs/{page}. Next: harness plan {file}\n"

TRAINED = """study: {name}
question: Which of these tricks help on {what}?
smallest_effect: 1.0  # percentage points that matter to you; declared before the first run
seeds: 3              # trainings of each row; {{start: 3, at_most: 10}} stops where a row is settled
baseline:
  model: resnet18     # `harness models` lists the others
  recipe: bag_of_tricks_baseline
  set:
    data: {data}  # {about}
    resolution: {side}
    epochs: {epochs}
    batch_size: {batch}
    lr: {lr:g}        # 0.1 for 256 images, in proportion
    schedule: cosine
tables:
  main:
    title: Each trick alone
    design: add_one_in  # or leave_one_out, both_ends, stack, grid, ...
    tricks:             # `harness tricks` lists the others, with their options
      - label_smoothing
      - {{mixup: {{alpha: 0.2}}}}
      - no_bias_decay
"""
SCRIPT = """study: {name}
question: Which flags of {file} help?
seeds: 3
script:
  run: {run} {{flags}}
  # CHANGE: where the script leaves its result, for example a column of a CSV in its folder
  results: {{top1: "summary.csv: eval_top1"}}
tables:
  main:
    design: add_one_in
    baseline: ""  # flags of every row
    rows:
{rows}
"""
# What a script calls the things that the harness says: the flag is one of these.
SAID = {
    "seed": ("--seed", "--random-seed", "--random_seed", "--manual-seed"),
    "folder": (
        "--output",
        "--out",
        "--output-dir",
        "--output_dir",
        "--out-dir",
        "--save-dir",
        "--save_dir",
        "--logdir",
    ),
    "data": ("--data", "--data-dir", "--data_dir", "--data-path", "--data_path", "--root"),
}
_HOUSEKEEPING = re.compile(
    r"--(help|resume|workers|num.workers|device|gpu|local.rank|log|save|print|eval|test|epochs)"
)


def main(args: argparse.Namespace) -> int:
    """Write one study file and say what comes next.

    Raises:
        StudyError: the file is there already, or what it would be written from is not.
    """
    if args.results is not None:
        return _results(args.results)
    named = args.name or (args.script or args.data or Path.cwd()).resolve().stem
    name = re.sub("[^a-z0-9_-]+", "_", named.lower()).strip("_-") or "study"
    file = Path(f"{name}.yaml")
    if file.exists():
        raise problem(file, "is there already; give another name: harness init NAME")
    if args.script is not None:
        text, notes = _of_script(name, args.script), ["say in `results:` where the script leaves its result"]
        page = "scripts.md"
    else:
        text, notes = _of_images(name, args.data)
        page = "studies.md"
    file.write_text(HEAD.format(page=page, file=file) + text, encoding="utf-8")
    print(f"{file} is written")
    for note in notes:
        print(note)
    return DONE


def _results(file: Path) -> int:
    if not file.is_file():
        raise problem(file, "no such file")
    print(f"results need no study: harness table {file}")
    return DONE


def _of_images(name: str, folder: Path | None) -> tuple[str, list[str]]:
    """The study and what to do next, for images in one folder per class; None: the embedded ones."""
    about, data = f"10 classes, {EMBEDDED:,} training images, embedded", "fashion_mnist"
    side, images = 32, EMBEDDED
    what, next_step = "Fashion-MNIST", f"harness plan {name}.yaml"
    if folder is not None:
        from harness.data.contents import examine

        if not folder.is_dir():
            raise problem(folder, "no such folder")
        found = examine(folder)
        if found["problems"]:
            raise problem(folder, found["problems"][0])
        train, *test = found["parts"].values()
        all_images, what = train["images"], folder.resolve().name
        images = all_images if test else all_images - round(TEST_SHARE * all_images)
        classes = f"{counted(len(train['classes']), 'class')[:-1] + 'es'}"
        more = (
            f"+ {test[0]['images']:,} images" if test else "images, a fifth of them held out as the test part"
        )
        about = f"{classes}, {all_images:,} {more}"
        side = max(each for each in SIDES if each <= max(SIDES[0], _shorter(train)))
        data = f"{{imagefolder: {{folder: '{what}'{'' if test else f', test_share: {TEST_SHARE}'}}}}}"
        parent = folder.resolve().parent
        if parent not in (Path.cwd(), Path("data").resolve()):
            next_step += f" --data {parent}"
    epochs = max(LEAST_EPOCHS, math.ceil(UPDATES / updates_per_epoch(images, BATCH)))
    values = {"name": name, "what": what, "data": data, "about": about, "side": side}
    lr = LR_OF_256 * BATCH / 256
    return TRAINED.format(**values, epochs=epochs, batch=BATCH, lr=lr), [f"next: {next_step}"]


def _shorter(part: Mapping[str, Any]) -> float:
    """The median of the shorter side, pixels, as far as widths and heights tell apart."""
    return min(part[key]["median"] for key in ("width", "height")) if part["width"] else SIDES[0]


@dataclass(frozen=True, slots=True)
class Flag:
    """An option of a script, as its source declares it."""

    names: tuple[str, ...]
    about: Mapping[str, Any]  # constants among the keywords: default, choices, action

    @property
    def name(self) -> str:
        return max(self.names, key=len)


def flags_of(source: str) -> list[Flag]:
    """Every `add_argument("--x", ...)` of a script; the script is read, not run.

    >>> [flag.name for flag in flags_of('p.add_argument("-l", "--lr", default=.1); p.add_argument("x")')]
    ['--lr']
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            names = tuple(_constants(node.args))
            about = {
                word.arg: value for word in node.keywords if word.arg for value in _constants([word.value])
            }
            if names and str(max(names, key=lambda each: len(str(each)))).startswith("--"):
                found.append(Flag(tuple(map(str, names)), about))
    return found


def _constants(nodes: list[ast.expr]) -> Iterator[Any]:
    for node in nodes:
        try:
            yield ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError):
            continue


def _of_script(name: str, script: Path) -> str:
    try:
        source = script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise problem(script, f"cannot be read: {getattr(error, 'strerror', None) or 'not text'}") from None
    try:
        flags = flags_of(source) if script.suffix == ".py" else []
    except SyntaxError as error:
        raise problem(script, f"is not Python: {error.msg} in line {error.lineno}") from None
    there = {each for flag in flags for each in flag.names}
    own = {key: next((each for each in names if each in there), None) for key, names in SAID.items()}
    run = [*(("python",) if script.suffix == ".py" else ()), shlex.quote(str(script))]
    for key in ("data", "seed", "folder"):
        if own[key] is not None or key != "data":
            run.append(f"{own[key] or SAID[key][0]} {{{key}}}")
    missing = [f"{SAID[key][0]}" for key in ("seed", "folder") if own[key] is None]
    rows = list(_rows([flag for flag in flags if flag.name not in own.values()]))
    rows = rows or ["      - {label: with my flag, flags: --my-flag}  # CHANGE: no flag was found"]
    text = SCRIPT.format(name=name, file=script.name, run=" ".join(run), rows="\n".join(rows))
    if own["data"] is not None:
        text = text.replace(
            "  # CHANGE: where", "  data: data  # CHANGE: the folder of the data\n  # CHANGE: where", 1
        )
    if missing:
        said = f"  # CHANGE: no {' and no '.join(missing)} was found in the script; say how it is told\n"
        text = text.replace("script:\n", f"script:\n{said}", 1)
    return text


def _rows(flags: list[Flag]) -> Iterator[str]:
    """A row for each of the first flags that may be tried, and a comment with the others."""
    tried = [(flag, how) for flag in flags if (how := _tried(flag)) and not _HOUSEKEEPING.match(flag.name)]
    for _, how in tried[:MOST_ROWS]:
        yield f"      - {{label: '{how.removeprefix('--')}', flags: {how}}}"
    others = [flag.name for flag in flags if flag not in [each for each, _ in tried[:MOST_ROWS]]][:MOST_FLAGS]
    if tried and others:
        yield f"      # further flags: {' '.join(others)}"


def _tried(flag: Flag) -> str | None:
    """The flag with another value than its default; None: nobody knows one."""
    default, choices = flag.about.get("default"), flag.about.get("choices")
    if flag.about.get("action") == "store_true":
        return flag.name
    if isinstance(choices, list | tuple):
        other = next((each for each in choices if each != default), None)
        return None if other is None else f"{flag.name} {other}"
    if isinstance(default, float) and default:
        return f"{flag.name} {default / 2:g}"
    return None


# `harness pack DATA`: store a set of image files in a few large files, smaller where that is wanted.


class NotPacked(StudyError):
    """Why packing ended."""

    consequence = "what was packed whole stays, and the same command goes on"


def pack(args: argparse.Namespace) -> int:
    """Pack, or go on packing; the same command on a packed folder looks whether it is still right.

    Raises:
        NotPacked: there is nothing to pack, an image cannot be read, or the folder cannot be used.
    """
    from harness.data.packed import Pace, Pack, PackSettings, describe

    if args.study is not None:
        load_plugins(args.study)
    data_dir = workspace(args).data_dir
    started_s = time.monotonic()
    try:
        entry, filled, root, title = _which(args.what, data_dir)
        settings = PackSettings(of=title, side=args.side, jpeg=None if args.raw else args.jpeg)
        folder = args.to or data_dir / settings.folder
        _refuse_unwritable(folder)
        index = Pack(_source(entry, filled, root), folder, settings, Pace(to_stderr)).run()
    except (ValueError, FileNotFoundError) as error:
        raise NotPacked([Problem(args.what, 0, str(error))]) from None
    print(describe(index))
    size = sum(each["bytes"] for part in index["shards"].values() for each in part)
    files = sum(map(len, index["shards"].values()))
    print(f"{folder}: {files} files, {size / 1e9:.2f} GB, {time.monotonic() - started_s:.0f} s")
    print(f"in a study: data: {{packed: {{folder: {_named(folder, data_dir)}}}}}")
    return DONE


def _which(what: str, data_dir: Path) -> tuple[Entry, Mapping[str, Any], Path, str]:
    """The data set, its arguments, the data folder it lies in, and what a person calls it.

    Raises:
        ValueError: there is none of this name, and no such folder.
        FileNotFoundError: it is not there; the message says what to put where.
    """
    folders = [path for path in (data_dir / what, Path(what)) if what and path.is_dir()]
    if what in DATASETS and what != "imagefolder":
        entry, more, root, title = DATASETS[what], {}, data_dir, what
    elif folders:
        path = folders[0].resolve()
        entry, more, root = DATASETS["imagefolder"], {"folder": path.name}, path.parent
        title = f"imagefolder {path.name}"
    else:
        raise ValueError(f"{unknown('data set', what, DATASETS)}; nor is it a folder, here or in {data_dir}")
    filled = {**entry.args, **more}
    missing = entry.missing(filled, root)
    if missing is not None:
        raise FileNotFoundError(missing)
    return entry, filled, root, title


def _source(entry: Entry, args: Mapping[str, Any], data_dir: Path) -> Source:
    """Both parts as files, with the entry's own normalisation where it is not the usual one."""
    from dataclasses import replace

    from harness.data.entry import checked
    from harness.data.packed import PACKED

    source = checked(source_of(entry, args, data_dir), entry)
    usual = (PACKED.mean, PACKED.std)
    return source if (entry.mean, entry.std) == usual else replace(source, normalised=(entry.mean, entry.std))


def _refuse_unwritable(folder: Path) -> None:
    """
    Raises:
        ValueError: the folder cannot be made or written to.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is no folder; name one that can be written to with --to DIR")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{there} cannot be written to; name another folder with --to DIR")


def _named(folder: Path, data_dir: Path) -> str:
    inside = folder.resolve()
    return (
        str(inside.relative_to(data_dir))
        if inside.is_relative_to(data_dir)
        else f"{inside.name}, with --data"
    )
