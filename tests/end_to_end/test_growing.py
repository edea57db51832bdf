"""The report of a study under way: when it is written, what it says, and that the last one is whole."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.commands import report, run
from harness.commands.floors import AfterTheFirstBlock
from harness.commands.report import SHARE, SOONEST_S, GrowingReport, options_of, start_writing
from harness.errors import DONE, INTERRUPTED, USAGE_ERROR
from harness.scheduling.base import Progress
from harness.spec import FINISHED
from harness.study.plan import Plan
from tests.end_to_end import scripted
from tests.end_to_end.under_way import UnderWay
from tests.timing import PATIENCE_S

REFRESH = '<meta http-equiv="refresh"'
NO_OPTIONS = dict.fromkeys(("runs", "data", "tracking_uri", "table", "row", "column", "out", "seeds"))


@dataclass
class Writing:
    """A process that writes until it is told that it has ended."""

    returncode: int | None = None
    signals: list[int] = field(default_factory=list)

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def wait(self, timeout: float = 0.0) -> int:
        return 0

    def kill(self) -> None:
        self.returncode = -9


class Study:
    """The tiny study, a clock that stands, and the writings that were begun."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan: Plan = UnderWay.begin(tmp_path / "place").plan
        self.now_s = self.cost_s = 0.0
        self.writings: list[Writing] = []
        self.ended: dict[str, str] = {}
        monkeypatch.setattr(report, "_children_s", lambda: self.cost_s)
        args = argparse.Namespace(study=Path("tiny.yaml"), size="mini", smoke=False, open=False, **NO_OPTIONS)
        self.growing = GrowingReport(args, self.plan, clock=lambda: self.now_s, start=self._start)

    def _start(self, options: Mapping[str, Any]) -> Any:
        self.writings.append(Writing())
        return self.writings[-1]

    def end_row(self, row: str, seeds: int = 2) -> None:
        [arm] = [arm for arm, label in self.plan.arm_labels.items() if label.endswith(row)]
        runs = [run for run in self.plan.runs if run.arm_id == arm][:seeds]
        self.ended |= {run.run_id: FINISHED for run in runs}

    def watch(self, at_s: float) -> int:
        """How many writings were begun by then."""
        self.now_s = at_s
        self.growing.watch(Progress(waiting=0, running=(), ended=dict(self.ended)), None)
        return len(self.writings)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    return Study(tmp_path, monkeypatch)


def test_it_is_written_when_a_row_is_complete_and_not_before_the_first_minute(study: Study) -> None:
    study.end_row("Baseline", seeds=1)
    assert study.watch(SOONEST_S) == 0, "no row is complete"
    study.end_row("Baseline")
    assert study.watch(SOONEST_S) == 1
    study.writings[0].returncode = 0
    assert study.watch(10 * SOONEST_S) == 1, "nothing is new"


def test_it_costs_at_most_two_percent_of_the_time(study: Study) -> None:
    study.end_row("Baseline")
    assert study.watch(SOONEST_S) == 1
    study.end_row("Smoothed")
    assert study.watch(2 * SOONEST_S) == 1, "one writing at a time"
    study.writings[0].returncode, study.cost_s = 0, 4.0
    end_s = 2 * SOONEST_S + 10
    assert study.watch(end_s) == 1
    assert study.watch(end_s + SHARE * 4.0 - 1) == 1
    assert study.watch(end_s + SHARE * 4.0) == 2


def test_what_is_being_written_at_the_end_is_stopped(study: Study) -> None:
    study.end_row("Baseline")
    study.watch(SOONEST_S)
    study.growing.close()
    assert study.writings[0].returncode == -9


@pytest.mark.campaign
def test_a_report_under_way_loads_itself_again_says_what_is_to_come_and_is_followed_by_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = scripted.begin(tmp_path / "work")
    whole = ("run", "tiny.yaml", "--seeds", "3", "--on", "inline")
    assert place.call(*whole, "--row", "huge", "--no-report").returncode == DONE
    monkeypatch.chdir(place.path)
    args = argparse.Namespace(**NO_OPTIONS | {"study": "tiny.yaml", "size": "mini", "smoke": False})
    args.seeds = [3]
    process = start_writing(options_of(args, 125.0))
    assert process.wait(PATIENCE_S) == 0
    page = (place.report_dir / "report.html").read_text()
    says = "Under way: 6 of 9 runs have ended, about 2 min 5 s left. only: 2 of 3 rows complete; to come"
    assert REFRESH in page
    assert says in page
    assert (place.report_dir / "report.md").read_text().lstrip().startswith(says)
    assert json.loads((place.report_dir / "report.json").read_text())["under_way"]["says"].startswith(says)
    assert place.call("verify", "reports/tiny", "--study", "tiny.yaml").returncode == DONE
    assert place.call(*whole).returncode == DONE
    assert REFRESH not in (place.report_dir / "report.html").read_text()
    assert "under_way" not in json.loads((place.report_dir / "report.json").read_text())


def test_a_report_that_will_not_be_written_cannot_be_opened(tmp_path: Path) -> None:
    done = scripted.begin(tmp_path / "work").call("run", "tiny.yaml", "--open", "--no-report")
    assert done.returncode == USAGE_ERROR
    assert "--open: there will be no report to open" in done.stderr


def test_without_a_screen_the_place_of_the_report_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in report.TERMINALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(report.sys, "platform", "linux")
    report.open_report(tmp_path)
    assert f"the report is {tmp_path}/report.html" in capsys.readouterr().err


def test_with_a_screen_the_page_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(report.webbrowser, "open", lambda url: bool(opened.append(url)) or True)
    report.open_report(tmp_path)
    assert opened == [(tmp_path / "report.html").as_uri()]


def test_after_ctrl_c_the_report_of_what_is_there_is_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = scripted.begin(tmp_path / "work")
    told = AfterTheFirstBlock.__call__
    pressed: list[int] = []

    def watch(self: AfterTheFirstBlock, progress: Progress) -> None:
        if len(progress.ended) == 4 and not pressed:
            pressed.append(1)
            signal.raise_signal(signal.SIGINT)
        told(self, progress)

    monkeypatch.setattr(AfterTheFirstBlock, "__call__", watch)
    monkeypatch.setattr(run, "measure_floors", lambda *_: pytest.fail("somebody waits for the end"))
    done = place.call("run", "tiny.yaml", "--seeds", "3", "--on", "inline")
    assert done.returncode == INTERRUPTED
    assert done.stderr.endswith("interrupted; the same command goes on from here\n")
    runs = json.loads((place.report_dir / "report.json").read_text())["runs"]
    assert sum(each["status"] == FINISHED for each in runs) == 5, "the one that had been taken, too"
    assert len(runs) == 9


def test_after_ctrl_c_before_anything_has_ended_there_is_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = scripted.begin(tmp_path / "work")
    monkeypatch.setattr(
        AfterTheFirstBlock, "__call__", lambda self, progress: signal.raise_signal(signal.SIGINT)
    )
    done = place.call("run", "tiny.yaml", "--seeds", "3")
    assert done.returncode == INTERRUPTED
    assert not place.report_dir.exists()
