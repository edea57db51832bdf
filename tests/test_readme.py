"""The README's study file and its error message are what the harness really reads and says."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import USAGE_ERROR
from scripts import readme_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
MISTAKES = {
    "seeds: 3": "seed: {start: 3}",
    "epochs: 30": "epochs: -30",
    "[label_smoothing, mixup]": "[{label_smoothing: {epsilon: 0.1}}, mixup]",
}


def block(language: str, start: str) -> str:
    """The fenced block of this language that begins with `start`."""
    found = re.findall(rf"```{language}\n({re.escape(start)}.*?)```", README, re.S)
    assert len(found) == 1
    return found[0]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("studies/my_study.yaml")
    path.parent.mkdir()
    path.write_text(block("yaml", "study: my_study"))
    return path


@pytest.mark.parametrize("size", ["mini", "gpu", "paper"])
def test_the_study_in_the_readme_can_be_planned(study: Path, size: str, capsys: pytest.CaptureFixture[str]):
    assert main(["plan", str(study), "--size", size]) == 0
    assert f"my_study ({size}): 4 rows, 4 arms x 3 seeds = 12 runs" in capsys.readouterr().out


def test_the_mistakes_in_the_readme_are_reported_as_it_says(study: Path, capsys: pytest.CaptureFixture[str]):
    text = study.read_text()
    for right, wrong in MISTAKES.items():
        assert right in text
        text = text.replace(right, wrong)
    study.write_text(text)
    assert main(["run", str(study)]) == USAGE_ERROR
    assert capsys.readouterr().err == block("text", "studies/my_study.yaml")
    assert not Path("runs").exists()


def test_the_baseline_in_the_readme_is_the_committed_reports():
    path = ROOT / "reports" / "bag_of_tricks" / "report.json"
    committed = subprocess.run(
        ["git", "-C", str(ROOT), "show", "HEAD:reports/bag_of_tricks/report.json"], capture_output=True
    )
    report = json.loads(committed.stdout if committed.returncode == 0 else path.read_bytes())
    baseline = report["findings"]["tables"][0]["cells"][0]
    assert baseline["row"] == "ResNet-50 baseline"
    assert f"the baseline reaches {baseline['level']['mean']:.1f} % top-1" in README


def test_only_claims_of_papers_are_counted(tmp_path: Path) -> None:
    claim = {"answer": "not settled", "size": None}
    for name, paper in (("paper", "he2016deep"), ("own", None)):
        (tmp_path / name).mkdir()
        report = {"claims": [claim, claim], "header": {"paper": paper}}
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    said = readme_table.claims_section(list(tmp_path.glob("*/report.json")))
    assert "2 testable of 2; 2 not settled" in said


def test_the_first_page_has_claims_of_many_studies():
    settled = {"answer": "opposite"}
    claims = [
        ("a", settled | {"says": "a1"}),
        ("a", {"answer": "not settled", "says": "a2"}),
        ("a", settled | {"says": "a3"}),
        ("a", settled | {"says": "a4"}),
        ("b", settled | {"says": "b1"}),
        ("c", settled | {"says": "c1"}),
    ]
    assert [claim["says"] for _, claim in readme_table.of_many_studies(claims, 4)] == ["a1", "a3", "b1", "c1"]


def test_the_first_page_shows_every_answer_there_is_misses_too():
    claims = [(name, {"answer": "same direction", "says": name}) for name in "abcdef"]
    claims += [("e", {"answer": "opposite", "says": "miss"}), ("e", {"answer": "opposite", "says": "more"})]
    assert [claim["says"] for _, claim in readme_table.of_many_studies(claims, 3)] == ["a", "b", "miss"]
