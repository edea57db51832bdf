"""`harness pack DATA`: store a set of image files in a few large files, smaller where that is wanted."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.data import source_of, to_stderr
from harness.commands.workspace import load_plugins, workspace
from harness.data import DATASETS
from harness.errors import DONE, Problem, StudyError, unknown

if TYPE_CHECKING:
    from harness.data.entry import Entry, Source


class NotPacked(StudyError):
    """Why packing ended."""

    consequence = "what was packed whole stays, and the same command goes on"


def main(args: argparse.Namespace) -> int:
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

    from harness.data.loading import checked
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
