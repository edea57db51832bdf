"""Damage to the files of run folders: full disks, kills, bad copies, other programs, and people."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import odd_values

FILES = ("events.jsonl", "events.jsonl", "summary.json", "summary.json", "spec.json", "spec.json")
FILES += ("env.json", "predictions.bin", "claim.1", "claim.2", "cancel", "lock")
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1.5,
        10**400,
        2**63,
        float("nan"),
        float("inf"),
        "",
        "finished",
        "failed",
        "x" * 10_000,
    ),
    *([], {}, [1], {"a": 1}, "\x00", "\ud800", "\x1b[2J", "../../x", [[[[]]]], {"kind": {}}),
)


def damage(folder: Path, random: Random) -> str:
    """Damage one file of a run folder, or put one there. Returns what was done, for a message."""
    path = folder / random.choice(FILES)
    hurt = random.choice(DAMAGES)
    if path.is_dir() or path.is_symlink():  # damaged already
        return ""
    hurt(path, random)
    return f"{hurt.__name__} {path.parent.name}/{path.name}"


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b"{}"


def cut(path: Path, random: Random) -> None:
    data = _bytes(path)
    path.write_bytes(data[: random.randrange(len(data) + 1)])


def empty(path: Path, random: Random) -> None:
    path.write_bytes(b"")


def flip(path: Path, random: Random) -> None:
    data = bytearray(_bytes(path) or b" ")
    for _ in range(random.choice((1, 5, 50))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def noise(path: Path, random: Random) -> None:
    path.write_bytes(random.randbytes(random.choice((1, 100, 10_000))))


def zeros(path: Path, random: Random) -> None:
    """What a file system leaves after a power cut."""
    path.write_bytes(bytes(len(_bytes(path))))


def other_json(path: Path, random: Random) -> None:
    path.write_text(json.dumps(random.choice(VALUES)) + "\n")


def deep_json(path: Path, random: Random) -> None:
    path.write_text("[" * 100_000 + "\n")


def other_value(path: Path, random: Random) -> None:
    """Change or delete one value somewhere in the JSON."""
    lines = _bytes(path).splitlines() if path.suffix == ".jsonl" else [_bytes(path)]
    if not lines:
        return
    chosen = random.randrange(len(lines))
    try:
        data = json.loads(lines[chosen])
    except ValueError:
        return
    here: Any = data
    while isinstance(here, dict | list) and here:
        key = random.choice(list(here)) if isinstance(here, dict) else random.randrange(len(here))
        if random.random() < 0.5 and isinstance(here[key], dict | list) and here[key]:
            here = here[key]
            continue
        if random.random() < 0.3:
            del here[key]
        else:
            here[key] = random.choice((*VALUES, *odd_values.NUMBERS))
        break
    lines[chosen] = json.dumps(data).encode()
    path.write_bytes(b"\n".join(lines) + b"\n")


def stray_line(path: Path, random: Random) -> None:
    with path.open("ab") as file:
        file.write(
            random.choice(
                (b"\n", b"{\n", b"null\n", b'{"kind": "epoch"}\n', b'{"kind": "attempt"}\n', b"\xff\n")
            )
        )


def folder_instead(path: Path, random: Random) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def dangling_link(path: Path, random: Random) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(random.choice(("nowhere", path.name, "/dev/null")))


def missing(path: Path, random: Random) -> None:
    path.unlink(missing_ok=True)


def file_instead_of_folder(path: Path, random: Random) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"x")


def other_run(path: Path, random: Random) -> None:
    """The file of another run, as after a wrong copy."""
    others = [each / path.name for each in path.parent.parent.iterdir() if (each / path.name).is_file()]
    if others:
        data = random.choice(others).read_bytes()
        path.write_bytes(data)


DAMAGES: tuple[Callable[[Path, Random], None], ...] = (
    *(
        cut,
        empty,
        flip,
        noise,
        zeros,
        other_json,
        deep_json,
        other_value,
        other_value,
        other_value,
        stray_line,
    ),
    *(stray_line, folder_instead, dangling_link, missing, file_instead_of_folder, other_run),
)
