"""The code of a submission, frozen: jobs that wait for days run what they were submitted with.

runs/.code/<sha256>/harness/...   the package as it was; named by its content, so the same code is kept once
                    source.json   {"commit", "dirty"}
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path

from harness.study.provenance import SNAPSHOT_FILE, code_version
from harness.study.records import write_json

FOLDER = ".code"  # in the folder of runs
LEFT_OUT = "__pycache__"


def package() -> Path:
    """The folder of the `harness` package that this process runs."""
    return Path(__file__).resolve().parents[1]


def take_snapshot(runs_dir: Path, source: Path) -> Path:
    """The folder that holds a copy of the package; nothing is copied where it is there already.

    A copy that is no longer what its name says (a disk that lost files) is put aside and made again.
    """
    path = snapshot_path(runs_dir, source)
    if not path.exists():
        return _copy(source, runs_dir)
    if _is_whole(path, source.name):
        return path
    path.rename(path.with_name(f"{path.name}.damaged.{secrets.token_hex(4)}"))
    return _copy(source, runs_dir)


def snapshot_path(runs_dir: Path, source: Path) -> Path:
    """Where the snapshot of a package is or will be. Another user's folder is not trusted with our code."""
    name = digest(source)
    path = runs_dir / FOLDER / name
    if path.exists() and path.stat().st_uid != os.getuid():
        path = path.with_name(f"{name}-{os.getuid()}")
    return path


def digest(source: Path) -> str:
    """sha256 over the names and bytes of all files of a package."""
    total = hashlib.sha256()
    for file in _files(source):
        content = file.read_bytes()
        total.update(f"{file.relative_to(source).as_posix()}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def _is_whole(path: Path, package_name: str) -> bool:
    return (path / package_name).is_dir() and digest(path / package_name) == path.name.partition("-")[0]


def _copy(source: Path, runs_dir: Path) -> Path:
    """Copy beside, then rename. Named by what was copied: files may change while they are read."""
    draft = runs_dir / FOLDER / f".{secrets.token_hex(8)}.draft"
    draft.parent.mkdir(parents=True, exist_ok=True)
    draft.mkdir(mode=0o700)
    try:
        for file in _files(source):
            copy = draft / source.name / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        write_json(draft / SNAPSHOT_FILE, code_version(source.parent))
        path = snapshot_path(runs_dir, draft / source.name)
        try:
            draft.rename(path)
        except OSError:
            if not path.exists():  # else another submission was quicker with the same
                raise
        return path
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _files(source: Path) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(source):
        folders[:] = [name for name in folders if name != LEFT_OUT]
        found += [Path(folder, name) for name in names]
    return sorted(found)
