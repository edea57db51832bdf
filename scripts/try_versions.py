"""Runs a light part of the tests with the oldest versions that pyproject.toml allows, or with the newest.

    python scripts/try_versions.py [lowest-direct | highest] [--python python3.13]

All is resolved and installed by uv into build/versions. With the Python of this environment, torch and
torchvision are linked from here (their oldest builds are gigabytes), and the rest takes a minute; another
Python gets a torch of its own. Ends with the exit code of the tests.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "build" / "versions"
RESOLUTIONS = ("lowest-direct", "highest")
LINKED = ("torch", "torchvision", "triton", "nvidia")  # what packages of this environment begin with
NEEDED = ("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "statsmodels>=0.14")
TESTS = (  # of each library that has a version: reports, analysis, the store, runs, scripts
    "tests/study/test_mistakes.py",
    "tests/analysis/test_golden.py",
    "tests/analysis/test_intervals.py",
    "tests/commands/test_table.py",
    "tests/reporting/test_files.py",
    "tests/tracking/test_mirror.py",
    "tests/end_to_end/test_scripts.py",
)


def main() -> int:
    parser = argparse.ArgumentParser(description="A light part of the tests with other versions.")
    parser.add_argument("versions", nargs="?", default=RESOLUTIONS[0], choices=RESOLUTIONS)
    parser.add_argument(
        "--python", default=sys.executable, help="the command of another Python, 3.11 or newer"
    )
    asked = parser.parse_args()
    of_its_own = version_of(asked.python) != version_of(sys.executable)
    python = install(asked.versions, asked.python, of_its_own)
    if not of_its_own:
        link(next((PLACE / "env" / "lib").glob("python*")) / "site-packages")
    print(f"{asked.versions}, Python {version_of(python)}: {', '.join(direct(python))}", flush=True)
    tests = [python, "-m", "pytest", "-W", "ignore", "-m", "not slow and not campaign", *TESTS]
    return subprocess.call(tests, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def direct(python: str) -> list[str]:
    """What pyproject.toml itself asks for, each as NAME VERSION of that Python's environment, as a failure is
    read without the environment: `scipy 1.13.0`."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.match(r"[\w.-]+", line)[0] for line in asked]  # type: ignore[index]
    code = "import sys; from importlib.metadata import version as of; print(*map(of, sys.argv[1:]))"
    found = subprocess.check_output([python, "-c", code, *names], text=True).split()
    return [f"{name} {version}" for name, version in zip(names, found, strict=True)]


def version_of(python: str) -> str:
    """Such as 3.13."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.check_output([python, "-c", code], text=True).strip()


def install(resolution: str, other: str, with_torch: bool) -> str:
    """A new environment of that Python with these versions. Returns: its Python."""
    PLACE.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--upgrade", "--target", str(PLACE / "uv"), "uv"]
    subprocess.run(pip, check=True)
    uv, needed, found = PLACE / "uv" / "bin" / "uv", PLACE / "needed.txt", PLACE / f"{resolution}.txt"
    # MLflow 3.5, the oldest that resolves, was made for SQLAlchemy 2.0 and does not say so.
    older = ("sqlalchemy>=2,<2.1",) if resolution == RESOLUTIONS[0] else ()
    needed.write_text("\n".join((*NEEDED, *older)) + "\n")
    kept = PLACE / "kept.txt"
    kept.write_text("".join(f"{each.name}=={each.version.partition('+')[0]}\n" for each in linked()
                            if each.name in LINKED and not with_torch))  # fmt: skip
    links = [f"--find-links={each}" for each in os.environ.get("PIP_FIND_LINKS", "").split()]
    inputs = [str(ROOT / "pyproject.toml"), str(needed), "--python", other]
    compiled = [str(uv), "pip", "compile", "-q", "--no-annotate", "--no-header", "--resolution", resolution]
    subprocess.run([*compiled, "--override", str(kept), *links, *inputs, "-o", str(found)], check=True)
    if not with_torch:
        lines = [line for line in found.read_text().splitlines() if not line.startswith(LINKED)]
        found.write_text("\n".join(lines) + "\n")
    subprocess.run([str(uv), "venv", "-q", "--clear", "--python", other, str(PLACE / "env")], check=True)
    python = str(PLACE / "env" / "bin" / "python")
    subprocess.run(
        [str(uv), "pip", "install", "-q", "--python", python, *links, "-r", str(found)], check=True
    )
    return python


def linked() -> Iterator[Distribution]:
    """torch and what it brings along."""
    yield from (each for each in distributions() if (each.name or "").lower().startswith(LINKED))


def link(packages: Path) -> None:
    """Their folders, as they are here, in the packages of the new environment."""
    for each in linked():
        for name in {file.parts[0] for file in each.files or () if file.parts[0] != ".."}:
            place = packages / name
            if not place.exists() and not name.startswith("__pycache__"):
                place.symlink_to(Path(str(each.locate_file(name))))


if __name__ == "__main__":
    sys.exit(main())
