"""A look at a folder of images before a study uses it: what is there, cannot be read, or is left out."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from harness.data.entry import PLAIN, Look, Reading
from harness.data.folders import (
    Part,
    broken_line,
    class_problem,
    composed,
    evaluation_folder,
    missing_folder,
    part_of,
    subfolders,
)
from harness.data.pixels import count_frames, decode, header, range_of

SCHEMA = 1
HEADERS_LOOKED_AT = 64  # of a plan; spread evenly
DEEP_LOOKED_AT = 16  # of those, files whose numbers are read
DECODED = 2_000  # files of a part, unless all are asked for
EXAMPLES = 20
HALF = 32_768  # 16-bit numbers that span less than this do not fill their range
THREADS = min(16, os.cpu_count() or 1)


class Seen(NamedTuple):
    """What one file says of itself; `wrong`: why it cannot be read."""

    size: tuple[int, int] = (0, 0)  # width, height as shown
    mode: str = ""
    format: str = ""
    turned: bool = False
    frames: int = 1
    wrong: str = ""


def examine(root: Path, reading: Reading = PLAIN, *, decode_all: bool = False) -> dict[str, Any]:
    """What `harness data FOLDER --json` prints (docs/json.md).

    Every file's header is read; of each part `DECODED` files are decoded, or all of them.

    Raises:
        ValueError: there is no such folder.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder")
    problem = missing_folder(root, root.name) or class_problem(root)
    problems = [problem] if problem else []
    notes: list[str] = []
    parts = _parts(root)
    described = {}
    for part in parts:
        described[part.folder.name], wrong = _describe(part, reading, decode_all)
        problems += wrong
    images = [Path(path) for part in parts for path in part.everything().images]
    deep = depth_findings(images, reading)
    problems += [each for each in deep.problems if each not in problems]
    twins = _same_content(parts)
    if twins:
        notes.append(f"{len(twins)} files have the bytes of a file in another part, for example {twins[0]}")
    return {
        "schema": SCHEMA,
        "folder": str(root),
        "problems": problems,
        "notes": [*notes, *deep.notes],
        "parts": described,
        "in_both_parts": twins[:EXAMPLES],
    }


def depth_findings(paths: Sequence[Path], reading: Reading = PLAIN) -> Look:
    """Of some of the files: numbers that need a range and have none, and 16-bit numbers that do not fill
    theirs (12-bit scans in 16-bit files). Files that cannot be read are passed over."""
    deep = []
    looked_at = _spread(paths, HEADERS_LOOKED_AT)
    for path in looked_at:
        try:
            if header(path).deep:
                deep.append(path)
        except ValueError:
            continue
    ranges = []
    for path in _spread(deep, DEEP_LOOKED_AT):
        try:
            decode(path, reading)
            ranges.append(range_of(path))
        except ValueError as error:
            return Look(problems=(str(error),))
    if not ranges:
        unused = reading.range is not None and bool(looked_at)
        says = f"range is of no effect: no file of {len(looked_at)} looked at has more than 8 bits a pixel"
        return Look(notes=(says,) if unused else ())
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if reading.range is not None or high - low >= HALF:
        return Look()
    bits = max(9, int(high).bit_length())
    return Look(
        notes=(
            f"16-bit files such as {deep[0]}: the numbers in {len(ranges)} of them lie in {low:g}..{high:g}, "
            f"so that the images have at most {round((high - low) / 257) + 1} of 256 grey levels; "
            f"`range: [0, {2**bits - 1}]` of the data set uses them all",
        )
    )


def _parts(root: Path) -> list[Part]:
    folders = [folder for folder in (root / "train", evaluation_folder(root)) if folder.is_dir()] or [root]
    # Each part by itself, under the names of the training part where they are the same name.
    parts = []
    known = {composed(name): name for name in subfolders(folders[0])}
    for folder in folders:
        own = [known.get(composed(name), name) for name in subfolders(folder)]
        parts.append(part_of(folder, own))
    return parts


def _describe(part: Part, reading: Reading, decode_all: bool) -> tuple[dict[str, Any], list[str]]:
    """The part's entry of the output, and what would make a run fail."""
    total = part.everything()
    paths = [Path(path) for path in total.images]
    decoded = set(paths if decode_all else _spread(paths, DECODED))
    with ThreadPoolExecutor(THREADS) as pool:
        seen = list(pool.map(lambda path: _look(path, reading, path in decoded), paths))
    good = [each for each in seen if not each.wrong]
    unreadable = [each.wrong for each in seen if each.wrong] + [
        f"{path}: {why}" for path, why in total.broken
    ]
    counts = {name: len(found.images) for name, found in part.classes.items()}
    problems = [f"class '{name}' has no image files in {part.folder}" for name, n in counts.items() if not n]
    problems += [line for line in (broken_line(part),) if line]
    wrong = [each.wrong for each in seen if each.wrong]
    problems += [f"{wrong[0]} ({len(wrong)} of {len(paths)} files in {part.folder})"] if wrong else []
    return {
        "images": len(paths),
        "decoded": len(decoded),
        "classes": counts,
        "images_per_class": _spread_of(counts.values()),
        "width": _spread_of(each.size[0] for each in good),
        "height": _spread_of(each.size[1] for each in good),
        "modes": _counted(each.mode for each in good),
        "formats": _counted(each.format for each in good),
        "turned_by_exif": sum(each.turned for each in good),
        "several_frames": sum(each.frames > 1 for each in good),
        "unreadable": {"files": len(unreadable), "examples": unreadable[:EXAMPLES]},
        "left_out": {
            reason: {"files": len(found), "example": found[0]}
            for reason, found in sorted(total.left_out.items())
        },
    }, problems


def _look(path: Path, reading: Reading, whole: bool) -> Seen:
    try:
        found = header(path)
        frames = count_frames(path)
        if whole:
            decode(path, reading)
    except ValueError as error:
        return Seen(wrong=str(error))
    return Seen((found.width, found.height), found.mode, found.format, found.orientation != 1, frames)


def _same_content(parts: Sequence[Part]) -> list[str]:
    """Files of a later part whose bytes a file of the first one has. Only files of one size are read."""
    if len(parts) < 2:
        return []
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in parts[0].everything().images:
        by_size[os.path.getsize(path)].append(path)
    known: dict[int, set[str]] = {}
    twins = []
    for path in (path for part in parts[1:] for path in part.everything().images):
        size = os.path.getsize(path)
        if size in by_size:
            if size not in known:
                known[size] = {_digest(each) for each in by_size[size]}
            if _digest(path) in known[size]:
                twins.append(path)
    return twins


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spread(things: Sequence[Path], most: int) -> list[Path]:
    """At most `most` of them, at even distances."""
    if len(things) <= most:
        return list(things)
    return [things[index * len(things) // most] for index in range(most)]


def _spread_of(values: Iterable[int]) -> dict[str, float] | None:
    """Least, median and most; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return {"least": ordered[0], "median": statistics.median(ordered), "most": ordered[-1]}


def _counted(texts: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0])))
