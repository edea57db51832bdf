"""Which version of the harness this is: the commit of its checkout, or what a snapshot of it says."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from harness.study.records import read_json

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
