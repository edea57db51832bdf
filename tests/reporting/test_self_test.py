"""The A/A self-test is a line of the method section where it was made, and nothing where it was not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from harness.reporting import ReportInput, render
from harness.reporting.frames import read_extra
from harness.reporting.sections.method import method

STORED = {"runs": 400, "recipe": "“r” (m on d)", "tables": 10_000, "arms": 9, "seeds": 3, "schema": 1}
STORED |= {"rate": 0.031, "rate_upper": 0.035, "alpha": 0.05}


def test_the_badge_is_in_the_report_and_its_numbers_are_kept_beside_it(report: ReportInput, tmp_path: Path):
    assert "self-test" not in str(method(report))
    tested = dataclasses.replace(report, calibration=STORED)
    assert "false alarms 3.1 % (upper bound 3.5 %) at nominal 5 %." in str(method(tested))
    render(tested, tmp_path)
    assert "400 identical trainings of “r” (m on d)" in (tmp_path / "details.md").read_text()
    assert read_extra(tmp_path)["calibration"] == STORED
