"""A few hundred damaged studies, always the same: each plans or is refused in words. `make fuzz`: 10,000."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.bounds import TooLong, within
from tests.fuzz.corpus import ROOT, seeds
from tests.fuzz.judge import BUG
from tests.timing import PATIENCE_S

SHORT, LONG = 15, 300
BUGS = {  # a study that shows what the judge must see -> what it says
    "a traceback": ("raise TypeError('x')", "TypeError: x"),
    "a warning": ("import warnings; warnings.warn('deprecated')", "UserWarning: deprecated"),
    "a line on stderr": ("import sys; print('hello', file=sys.stderr)", "wrote to stderr: hello"),
    "a file": ("open('somewhere', 'w').close()", "touched: [\"wrote 'somewhere'"),
    "a file elsewhere": ("open('/etc/hostname').close()", "touched: [\"read '/etc/hostname'"),
    "a process": ("import subprocess; subprocess.run(['true'])", "subprocess.Popen ("),
    "a hang": ("while True: pass", "TooLong: took more than 1 s"),
}
PROBE = """
import json, sys
from pathlib import Path
from tests.fuzz import judge
found = judge.Judge(Path(sys.argv[1]))
text = Path(sys.argv[2]).read_bytes()
assert found.judge(text).kind == "planned"
judge.LIMIT_S = 1.0
for bug, code in json.loads(sys.argv[3]).items():
    judge.reconcile = lambda *_: exec(code)
    verdict = found.judge(text)
    print(json.dumps([bug, verdict.kind, verdict.why]))
"""


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own: the audit hook and the limit of memory stay for its life."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=cwd,
        env=environment,
    )


@pytest.mark.parametrize(
    "cases", [SHORT, pytest.param(LONG, marks=pytest.mark.campaign)], ids=["15 cases", "300 cases"]
)
def test_damaged_studies_plan_or_are_refused_in_words(cases: int, tmp_path: Path) -> None:
    done = python("-m", "tests.fuzz.campaign", "--cases", str(cases), "--seed", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["planned"] + figures["refused"] == figures["cases"] == cases
    assert figures["planned"] > cases / 25
    assert figures["refused"] > cases / 2
    assert list(tmp_path.iterdir()) == []


def test_the_judge_sees_every_bug_that_is_planted(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    study = tmp_path / "fine.yaml"
    study.write_text(next(seed.text for seed in seeds() if seed.name == "tiny.yaml"))
    codes = json.dumps({bug: code for bug, (code, _) in BUGS.items()})
    done = python("-c", PROBE, str(folder), str(study), codes, cwd=tmp_path)
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [bug for bug, _, _ in verdicts] == list(BUGS), done.stderr
    for bug, kind, why in verdicts:
        assert kind == BUG, bug
        assert BUGS[bug][1] in why


def test_the_limit_of_time_ends_what_does_not_end() -> None:
    with pytest.raises(TooLong), within(0.05):
        [None for _ in itertools.repeat(None)]
