"""The sample report, rendered once for all tests that only look at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.reporting import ReportInput, render
from tests.conftest import Once
from tests.reporting.sample import make_report


@pytest.fixture(scope="session")
def report() -> ReportInput:
    return make_report()


@pytest.fixture(scope="session")
def rendered(report: ReportInput, once: Once[Path]) -> Path:
    """The folder of the rendered sample."""

    def draw(folder: Path) -> Path:
        assert render(report, folder).failures == ()
        return folder

    return once("rendered", draw)
