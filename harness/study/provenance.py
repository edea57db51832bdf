"""Which version of the harness this is: the commit of its checkout, or what a snapshot of it says."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.study.records import read_json, write_bytes

CHANGES_FOLDER = ".changes"  # in the folder of runs: <sha256>.patch
LONGEST_CHANGES = 1 << 20  # bytes
HEX = re.compile(r"[0-9a-f]{64}")
SNAPSHOT_FILE = "source.json"  # beside the package in a snapshot: {"commit", "dirty"}


def code_version(root: Path) -> dict[str, Any]:
    """{"commit", "dirty"} of the folder that holds the package: its commit, and whether files differ from it.

    Both are None outside a checkout and a snapshot.
    """
    said = read_json(root / SNAPSHOT_FILE)
    if said is not None:
        return {"commit": said.get("commit"), "dirty": said.get("dirty")}
    commit = git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    changed = git(root, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "commit": commit.strip() if commit else None,
        "dirty": None if changed is None else bool(changed.strip()),
    }


def changes(root: Path) -> str:
    """What the files of the checkout have changed since its commit, as a patch; empty outside a checkout."""
    return (git(root, "diff", "HEAD") or "") if (root / ".git").exists() else ""


def changes_digest(root: Path) -> str | None:
    """sha256 of that patch; None where there is none."""
    text = changes(root)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest() if text else None


def keep_changes(runs_dir: Path, root: Path) -> None:
    """Keep that patch beside the runs under its digest, unless it is there, or too long for a report."""
    data = changes(root).encode(errors="surrogateescape")
    path = runs_dir / CHANGES_FOLDER / f"{hashlib.sha256(data).hexdigest()}.patch"
    if data and len(data) <= LONGEST_CHANGES and not path.exists():
        write_bytes(path, data)


def kept_changes(runs_dir: Path, digests: Iterable[str]) -> dict[str, str]:
    """Digest -> patch, of those that were kept and are still what their digest says."""
    found = {}
    for digest in digests:
        path = runs_dir / CHANGES_FOLDER / f"{digest}.patch"
        data = path.read_bytes() if HEX.fullmatch(digest) and path.is_file() else b""
        if data and hashlib.sha256(data).hexdigest() == digest:
            found[digest] = data.decode(errors="surrogateescape")
    return found


def git(root: Path, *words: str) -> str | None:
    """What git prints about a folder; None where it cannot be asked. Never writes, not even git's index."""
    try:
        done = subprocess.run(  # noqa: S603 (a fixed command)
            ["git", "--no-optional-locks", "-C", str(root), *words],  # noqa: S607
            capture_output=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="surrogateescape")
