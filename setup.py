"""What pyproject.toml cannot say: a wheel has the shipped studies and the commit that it was built from."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
SOURCE = "harness/source.json"  # as harness/runs/provenance.py reads it


def bake(folder: Path) -> None:
    """Write the commit of this checkout into a copy of the package; an sdist keeps what it was made with."""
    if not (ROOT / ".git").exists():
        return

    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    dirty = bool(git("status", "--porcelain", "--untracked-files=no"))
    said = {"commit": git("rev-parse", "HEAD"), "dirty": dirty}
    (folder / SOURCE).write_text(json.dumps(said) + "\n")


class Build(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:  # a checkout has both itself
            return
        built = Path(self.build_lib)
        shutil.copytree(
            ROOT / "studies",
            built / "harness" / "shipped",
            ignore=shutil.ignore_patterns("tuning"),
            dirs_exist_ok=True,
        )
        bake(built)


class Sources(sdist):
    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        bake(Path(base_dir))


setup(cmdclass={"build_py": Build, "sdist": Sources})
