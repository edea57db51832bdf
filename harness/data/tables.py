"""The user's images by a table: a CSV of paths and labels; what other tables of images have in common.

A line of names, then one image a line: its path, its label and, where there is one, its split; .csv, .tsv,
.txt, or JSON lines. Columns are found by their names, or said. A table that has no splits is split as an
image folder is.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.arrays import TEST_PARTS, split_lines, stratified, validate_split
from harness.data.entry import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PLAIN,
    Entry,
    Files,
    Look,
    Packed,
    Part,
    PathList,
    Pixels,
    Source,
    named_in,
)
from harness.data.folders import SUFFIXES, TO_SPLIT, Found, composed, spelt
from harness.data.imagefolder import reading_of
from harness.errors import Problem, StudyError, unknown

if TYPE_CHECKING:
    import numpy as np

    from harness.results.lines import ResultsFile

# What columns are usually called; small letters, _ for anything else.
IMAGES = ("image", "img", "images", "pixels")
PATHS = (*IMAGES, "path", "file", "filename", "filepath", *(f"{a}_{b}" for a in ("file", "image", "img")
         for b in ("path", "name", "file", "id")))  # fmt: skip
LABELS = ("label", "labels", "class", "class_name", "target", "category")
SPLITS = ("split", "set", "subset", "partition")
SPELT = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
SPELT |= {"dev": "val", "test": "test", "testing": "test"}
WHOLE = "all"  # what the only part is called
CSV_KINDS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson")
SHOWN = 3  # of a kind of mistakes


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTable:
    """What a table says. `labels`: (N,) int64, -1 where there is none. `splits`: rows by the split's name;
    `WHOLE` alone where nothing says one."""

    name: str  # as messages call it
    classes: Sequence[str]
    labels: np.ndarray
    splits: Mapping[str, np.ndarray]
    take: Callable[[np.ndarray, str], Files | Packed]  # the images of these rows, which are of that split
    notes: list[str] = field(default_factory=list)  # what is no mistake, and is said; `take` may add to it


def source_of(table: ImageTable, args: Mapping[str, Any]) -> Source:
    """The two parts that are read.

    Raises:
        ValueError: there are no two parts, a label is missing, or they have other classes.
    """
    train, test, said = rows_of(table, args)
    split = WHOLE if args["test_share"] is not None else ""
    parts = [table.take(train, split or "train"), table.take(test, split or args["test"])]
    said = (*said, *dict.fromkeys(table.notes))
    return Source(train=parts[0], test=parts[1], classes=len(table.classes), left_out=said)


def rows_of(table: ImageTable, args: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The rows of both parts, and what plan and report say of them. Raises as `source_of`."""
    import numpy as np

    name, splits, said = table.name, table.splits, list[str]()
    if len(table.classes) < 2:
        raise ValueError(f"{name} has {len(table.classes)} classes; a classifier needs at least 2")
    counts = ", ".join(f"{split} {len(rows):,}" for split, rows in splits.items())
    if args["test_share"] is not None:
        if WHOLE not in splits:
            raise ValueError(f"{name} has splits ({counts}), and test_share asks for another: take it away")
        _refuse_unlabelled(name, table.labels)
        held = stratified(table.labels, args["test_share"], args["split_seed"])
        said += split_lines(name, table.labels, args)
        return np.flatnonzero(~held), np.flatnonzero(held), tuple(said)
    if WHOLE in splits:
        raise ValueError(f"{name} does not say which images are the test part; {TO_SPLIT}")
    for part in ("train", args["test"]):
        if part not in splits:
            other = [each for each in TEST_PARTS if each in splits and part != "train"]
            mend = f": say `test: {other[0]}`" if other else ""
            raise ValueError(f"{name} has no images of the split {part}; it has {counts}{mend}")
    train, test = splits["train"], splits[args["test"]]
    _refuse_unlabelled(name, table.labels[np.concatenate([train, test])])
    said += _of_classes(table, table.labels[train], table.labels[test])
    unread = [f"{split} ({len(splits[split]):,})" for split in splits if split not in ("train", args["test"])]
    if unread:
        said.append(f"{name}: not read are the images of the splits {', '.join(unread)}")
    return train, test, tuple(said)


def _refuse_unlabelled(name: str, labels: np.ndarray) -> None:
    if missing := int((labels < 0).sum()):
        raise ValueError(f"{name}: {missing:,} of {len(labels):,} images have no label (none, or below 0)")


def _of_classes(table: ImageTable, train: np.ndarray, test: np.ndarray) -> list[str]:
    """
    Raises:
        ValueError: a class is in the test part alone.
    """
    import numpy as np

    counts = [np.bincount(labels, minlength=len(table.classes)) for labels in (train, test)]
    untrained = [
        table.classes[index] for index in np.flatnonzero((counts[0] == 0) & (counts[1] > 0)).tolist()
    ]
    if untrained:
        names = _some(untrained)
        raise ValueError(f"{table.name}: no training image of the classes of test images {names}")
    untested = [table.classes[index] for index in np.flatnonzero(counts[1] == 0).tolist()]
    single = [table.classes[index] for index in np.flatnonzero(counts[0] == 1).tolist()]
    kinds = ((untested, "no test image"), (single, "one training image only"))
    return [f"{table.name}: {what} of {_some(found)}" for found, what in kinds if found]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(spelt, names[:SHOWN])) + more


# A CSV of paths and labels.


def csv_table(args: Mapping[str, Any], data_dir: Path) -> ImageTable:
    """
    Raises:
        ValueError: with the line: what is wrong with the file, or which images are not there.
        OSError: it cannot be read.
    """
    path = named_in(data_dir, args["file"])
    stat = path.stat()
    key = json.dumps({**args, "folder": str(data_dir)}, default=str)
    try:
        return _csv_table(key, str(path), (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    except StudyError as error:
        raise ValueError("; ".join(map(str, error.problems))) from None


@lru_cache(maxsize=4)
def _csv_table(key: str, path: str, _when: tuple[int, ...]) -> ImageTable:
    import numpy as np

    from harness.results.lines import open_results

    args = json.loads(key)
    found = open_results(Path(path))
    names = [_column(found, args[each], known, each) for each, known in (("path", PATHS), ("label", LABELS))]
    said = args["split"] is not None or any(short(name) in SPLITS for name in found.names)
    split = _column(found, args["split"], SPLITS, "split") if said else None
    lines = found.read(list(dict.fromkeys([*names, *([split] if split else [])])))
    rows = _Rows(found, lines.at, [[_text(cell) for cell in lines.cells[name]] for name in names])
    root = named_in(Path(args["folder"]), args["images"]) if args["images"] else Path(path).parent
    files = rows.files(root, args["suffix"])
    classes = sorted(set(rows.labels), key=_numbers_first)
    numbers = {name: index for index, name in enumerate(classes)}
    labels = np.array([numbers[label] for label in rows.labels], np.int64)
    splits = (
        rows.splits([_text(cell) for cell in lines.cells[split]]) if split else {WHOLE: range(len(files))}
    )
    reading = reading_of(args, "csv")

    def take(chosen: np.ndarray, _: str) -> Files:
        paths = PathList([files[index] for index in chosen.tolist()])
        return Files(root=root, paths=paths, labels=labels[chosen], reading=reading)

    by_split = {name: np.array(found, np.int64) for name, found in splits.items()}
    return ImageTable(
        name=f"csv {args['file']}",
        classes=classes,
        labels=labels,
        splits=by_split,
        take=take,
        notes=rows.notes(),
    )


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _numbers_first(label: str) -> tuple[bool, int, str]:
    """Labels that are whole numbers in the order of numbers, then the others.

    >>> sorted(["10", "9", "cat"], key=_numbers_first)
    ['9', '10', 'cat']
    """
    is_number = label.removeprefix("-").isdecimal()
    return (not is_number, int(label) if is_number else 0, label)


def short(name: str) -> str:
    """A column's name in small letters, with _ for anything else than letters and digits."""
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def _column(source: ResultsFile, said: str | None, known: Sequence[str], what: str) -> str:
    """The column that was said, else the only one that is called as such columns are.

    Raises:
        StudyError: there is none, or more than one.
    """
    fitting = [name for name in source.names if (short(name) in known if said is None else name == said)]
    distinct = list(dict.fromkeys(fitting))
    if len(fitting) == 1:
        return fitting[0]
    if len(distinct) == 1:
        raise source.wrong(source.head, f"{len(fitting)} columns are called '{distinct[0]}': rename one")
    if said is not None:
        raise source.wrong(source.head, unknown("column", said, source.names))
    if fitting:
        both = " and ".join(f"'{name}'" for name in distinct[:SHOWN])
        raise source.wrong(source.head, f"{both} may both be the {what}: say which, `{what}: {distinct[0]}`")
    columns = ", ".join(source.names)
    says = f"no column is called as a {what} ({', '.join(known[:5])}, ...): say which, `{what}: NAME`"
    raise source.wrong(source.head, f"{says}. Columns: {columns}")


@dataclass(slots=True)
class _Rows:
    """The lines of a CSV: where each begins, its path and its label."""

    source: ResultsFile
    at: Sequence[int]
    columns: list[list[str]]

    @property
    def labels(self) -> list[str]:
        return self.columns[1]

    def files(self, root: Path, suffix: str) -> list[str]:
        """The file of every row.

        Raises:
            StudyError: rows without a path or a label, paths outside of `root`, files that are not there,
                labels that look the same, one image with two labels.
        """
        start = f"{os.path.normpath(root)}{os.sep}"
        written = [path.replace("\\", "/") for path in self.columns[0]]
        paths = [os.path.normpath(os.path.join(start, path + suffix)) for path in written]
        problems = [*self._wrong("rows have no path", lambda row: not written[row])]
        problems += self._wrong("rows have no label", lambda row: not self.labels[row])
        outside = f"paths lie outside of {root}; `images: FOLDER` says where paths start"
        problems += self._wrong(outside, lambda row: not paths[row].startswith(start))
        if problems:
            raise StudyError(problems)
        seen: dict[str, str] = {}
        spelling: dict[str, str] = {}
        for path, label in zip(paths, self.labels, strict=True):
            seen.setdefault(path, label)
            spelling.setdefault(composed(label), label)
        problems += self._wrong(
            "images are on a line above with another label", lambda row: seen[paths[row]] != self.labels[row]
        )
        alike = "labels look the same as one above and have other code points"
        problems += self._wrong(alike, lambda row: spelling[composed(self.labels[row])] != self.labels[row])
        gone = {path for path in seen if not os.path.isfile(path)}
        says = f"images are not there; paths start in {root}{_with_a_suffix(gone)}"
        problems += self._wrong(says, lambda row: paths[row] in gone)
        if problems:
            raise StudyError(problems)
        return paths

    def _wrong(self, what: str, is_wrong: Callable[[int], bool]) -> Iterator[Problem]:
        """How many rows are so, and the first of them: one sentence, at the first one's line."""
        rows = [row for row in range(len(self.at)) if is_wrong(row)]
        if rows:
            shown = "; ".join(f"line {self.at[row]} '{self.columns[0][row]}'" for row in rows[:SHOWN])
            yield self.source.problem(self.at[rows[0]], f"{len(rows)} of {len(self.at)} {what} ({shown})")

    def splits(self, cells: Sequence[str]) -> dict[str, list[int]]:
        """Rows by split.

        Raises:
            StudyError: a split that nobody knows, or an image in two of them.
        """
        rows: dict[str, list[int]] = {}
        first: dict[str, str] = {}
        for row, cell in enumerate(cells):
            split = SPELT.get(cell.lower())
            if split is None:
                raise self.source.wrong(self.at[row], unknown("split", cell, SPELT))
            rows.setdefault(split, []).append(row)
            first.setdefault(self.columns[0][row], split)
        both = [*self._wrong("images are in two splits",
                lambda row: first[self.columns[0][row]] != SPELT[cells[row].lower()])]  # fmt: skip
        if both:
            raise StudyError(both)
        return rows

    def notes(self) -> list[str]:
        """What is no mistake, and is said."""
        found = []
        if twice := len(self.at) - len(set(self.columns[0])):
            found.append(f"{self.source.path}: {twice:,} lines name an image that a line above names")
        by_letters: dict[str, set[str]] = {}
        for label in set(self.labels):
            by_letters.setdefault(label.casefold(), set()).add(label)
        if alike := sorted(min(each) for each in by_letters.values() if len(each) > 1):
            both = " and ".join(sorted(by_letters[alike[0].casefold()]))
            found.append(f"{self.source.path}: {len(alike)} labels differ in capital letters only: {both}")
        return found


def _with_a_suffix(gone: set[str]) -> str:
    """What to say where names were written without the suffix that the files have."""
    one = min(gone, default="")
    fits = next((suffix for suffix in sorted(SUFFIXES) if one and os.path.isfile(one + suffix)), None)
    return f"; with `suffix: {fits}` the first one is there" if fits else ""


# A look at data before a study uses them.


def examine_entry(
    entry: Entry, args: Mapping[str, Any], data_dir: Path, *, decode_all: bool = False
) -> dict[str, Any]:
    """What `harness data` prints of data that are no image folder (docs/json.md): every split of a table, the
    two parts of another data set."""
    from harness.data import contents

    filled = {**entry.args, **args}
    title = " ".join([entry.name, *(str(args[key]) for key in ("file", "folder") if key in args)])
    problems, shown, names = [], {}, None
    try:
        entry.validate(filled)
        missing = entry.missing(filled, data_dir)
        parts, names, notes = ({}, None, ()) if missing else _parts_of(entry, filled, data_dir)
        problems += [missing] if missing else []
    except (OSError, ValueError) as error:
        problems, parts, notes = [str(error)], {}, ()
    for name, part in parts.items():
        shown[name], wrong = _examined(f"{title}, {name}", part, names, filled, decode_all)
        problems += wrong
    return {
        "schema": contents.SCHEMA,
        "folder": title,
        "problems": problems,
        "notes": list(notes),
        "parts": shown,
        "in_both_parts": [],
    }


def _parts_of(
    entry: Entry, args: Mapping[str, Any], data_dir: Path
) -> tuple[dict[str, Part], Sequence[str] | None, tuple[str, ...]]:
    """Splits or parts, the names of the classes, and what is to be known."""
    if not isinstance(entry.load, partial) or entry.load.func is not _load:
        source = (entry.listed or entry.load)(args, data_dir)
        return {"train": source.train, "test": source.test}, None, source.left_out
    table = entry.load.args[0](args, data_dir)
    parts: dict[str, Part] = {split: table.take(rows, split) for split, rows in table.splits.items()}
    split = (TO_SPLIT,) if WHOLE in parts else ()
    return parts, table.classes, (*table.notes, *split)


def _examined(
    title: str, part: Part, names: Sequence[str] | None, args: Mapping[str, Any], decode_all: bool
) -> tuple[dict[str, Any], list[str]]:
    import numpy as np

    from harness.data import contents
    from harness.data.loading import PackedImages

    labels = np.asarray(part.labels)
    labelled = np.bincount(labels[labels >= 0], minlength=len(names or ())).tolist()
    counts = {names[index] if names else str(index): count for index, count in enumerate(labelled)}
    found = ({name: count for name, count in counts.items() if count}, Found())
    images: Sequence[Any] = [] if isinstance(part, Pixels) else part.paths if isinstance(part, Files) else (
        PackedImages(part).files()
    )  # fmt: skip
    reading = reading_of(args) if "range" in args else PLAIN
    shown, wrong = contents.described(title, images, found, reading, decode_all=decode_all)
    if isinstance(part, Pixels):
        count, height, width, channels = part.images.shape
        sides = ({key: side for key in ("least", "median", "most")} for side in (width, height))
        shown |= {"images": count, "decoded": count, **dict(zip(("width", "height"), sides, strict=True))}
        shown["modes"] = {"L" if channels == 1 else "RGB": count}
    return shown, wrong


# What is made of a table.


def entry_of(
    kind: str,
    key: str,
    table_of: Callable[[Mapping[str, Any], Path], ImageTable],
    missing: Callable[[Mapping[str, Any], Path], str | None],
    columns: Mapping[str, Any],
) -> Entry:
    """A data set whose place the argument `key` names. `columns`: what may be said of its columns."""
    options: dict[str, Any] = {"test": "test", "test_share": None, "split_seed": 0}
    options |= {"range": None, "background": (255, 255, 255)}

    load = partial(_load, table_of)
    return Entry(
        name=kind,
        args={key: "", **columns, **options},
        said_if_set=frozenset({*columns, *options}),
        channels=3,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        missing=missing,
        load=load,
        listed=load,
        validate=partial(_validate, kind, key),
        count_classes=lambda args, data_dir: len(table_of(args, data_dir).classes),
        look=partial(_look, kind, table_of),
    )


def _load(table_of: Callable[..., ImageTable], args: Mapping[str, Any], data_dir: Path) -> Source:
    return source_of(table_of(args, data_dir), args)


def _look(kind: str, table_of: Callable[..., ImageTable], args: Mapping[str, Any], data_dir: Path) -> Look:
    """Of images in files some are opened too; those in a table are when they are unpacked."""
    table = table_of(args, data_dir)
    train, test, said = rows_of(table, args)
    deep = Look()
    if kind == "csv":
        from harness.data.contents import depth_findings

        paths = [path for rows in (train, test) for path in table.take(rows, "").paths]  # type: ignore[union-attr]
        deep = depth_findings(paths, reading_of(args, kind))
    return Look(problems=deep.problems, notes=(*said, *table.notes, *deep.notes))


def _validate(kind: str, key: str, args: Mapping[str, Any]) -> None:
    place = args[key]
    if not isinstance(place, str) or not place:
        raise ValueError(f"{kind}: {key} must name a {key} of the data folder")
    for each in (place, args.get("images", "")):
        if not isinstance(each, str) or Path(each).is_absolute() or ".." in Path(each).parts:
            raise ValueError(f"{kind}: '{each}' does not lie inside the data folder")
    if kind == "csv" and Path(place).suffix.lower() not in CSV_KINDS:
        raise ValueError(f"csv: file must end in one of {', '.join(CSV_KINDS)}, '{place}' does not")
    for name in ("path", "label", "split", "image"):
        if args.get(name) is not None and not isinstance(args[name], str):
            raise ValueError(f"{kind}: {name} must be the name of a column, not {args[name]!r}")
    if not isinstance(args.get("suffix", ""), str):
        raise ValueError(f"{kind}: suffix must be text such as .jpg, not {args['suffix']!r}")
    if args["test"] not in TEST_PARTS:
        says = f"must be test or val, not {args['test']!r}"
        raise ValueError(f"{kind}: test, the part that is evaluated, {says}")
    reading_of(args, kind)
    validate_split(kind, args)


def _missing(args: Mapping[str, Any], data_dir: Path) -> str | None:
    path = named_in(data_dir, args["file"])
    return None if path.is_file() else f"csv needs the file {path}"


CSV = entry_of(
    "csv", "file", csv_table, _missing,
    {"images": "", "path": None, "label": None, "split": None, "suffix": ""},
)  # fmt: skip
