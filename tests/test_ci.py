"""`.ci/run` as a script: what it calls, what it calls once more, and what it never passes over."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import of_each
from tests.timing import PATIENCE_S

ROOT = Path(__file__).parents[1]
TARGETS = ("check", "test", "test-campaigns", "test-capped", "test-servers", "test-versions", "test-slurm")
MAKE = """#!/bin/sh
echo "$@" >> called
grep -qx "$*" fails && exit 2
exit 0
"""
LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")


def run(folder: Path, *fails: str) -> tuple[int, list[str]]:
    """Its exit code and the calls of `make`, of which these fail."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
    (folder / "make").write_text(MAKE)
    (folder / "make").chmod(0o755)
    (folder / "fails").write_text("".join(f"{call}\n" for call in fails))
    (folder / LAST_FAILED).parent.mkdir(parents=True)
    (folder / LAST_FAILED).write_text("{}")
    environment = {**os.environ, "PATH": os.pathsep.join((str(folder), "/usr/bin", "/bin"))}
    done = subprocess.run([folder / ".ci" / "run"], env=environment, capture_output=True, timeout=PATIENCE_S)
    return done.returncode, (folder / "called").read_text().splitlines()


def test_every_target_of_tests_is_called(tmp_path: Path) -> None:
    code, calls = run(tmp_path)
    assert code == 0
    assert [call for call in calls if "VERSIONS" not in call and "site" not in call] == list(TARGETS)
    assert not (tmp_path / LAST_FAILED).exists(), "what failed before, elsewhere, is not all that runs again"


@of_each(each for each in TARGETS if each not in ("check", "test-versions"))
def test_what_fails_runs_once_more_and_no_further_than_that(target: str) -> None:
    again = f"{target} AGAIN=--last-failed"
    with TemporaryDirectory() as folder:
        code, calls = run(Path(folder), target)
    assert code == 0
    assert calls[calls.index(target) + 1] == again
    with TemporaryDirectory() as folder:
        code, calls = run(Path(folder), target, again)
    assert (code != 0, calls[-1]) == (True, again)


def test_a_check_that_fails_and_oldest_versions_that_fail_end_it_and_newest_ones_do_not(
    tmp_path: Path,
) -> None:
    for name, fails in (("check", ("check",)), ("oldest", ("test-versions",)), ("site", ("docs-site",))):
        (tmp_path / name).mkdir()
        assert run(tmp_path / name, *fails)[0] != 0
    (tmp_path / "newest").mkdir()
    _, calls = run(tmp_path / "newest")
    [newest] = [call for call in calls if "VERSIONS=highest" in call]
    (tmp_path / "passed over").mkdir()
    assert run(tmp_path / "passed over", newest, ".venv/site")[0] == 0


TESTS = {
    "conftest.py": "from tests.conftest import pytest_sessionfinish as pytest_sessionfinish\n",
    "test_a.py": "import os\ndef test_a(): assert 'FAILS' not in os.environ\ndef test_b(): pass\n",
    "test_b.py": "import os\nassert 'UNREADABLE' not in os.environ\ndef test_c(): pass\n",
}


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("trouble", "again"),
    [(("FAILS",), "1 passed"), (("FAILS", "UNREADABLE"), "3 passed"), (("UNREADABLE",), "3 passed")],
)
def test_after_a_run_that_did_not_come_to_its_end_all_tests_run_again(
    tmp_path: Path, trouble: tuple[str, ...], again: str
) -> None:
    for name, text in TESTS.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist"]

    def tested(*options: str, **changes: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
        pipes = {"capture_output": True, "text": True, "timeout": PATIENCE_S}
        done = subprocess.run([*command, *options], cwd=tmp_path, env=environment, **pipes)
        return done.stdout.splitlines()[-1]

    # Workers test what can be collected, as this option does.
    first = tested("--continue-on-collection-errors", **dict.fromkeys(trouble, "1"))
    assert ("failed" in first, "error" in first) == ("FAILS" in trouble, "UNREADABLE" in trouble)
    assert tested("--last-failed").startswith(again)
