"""From findings to a report: Markdown, HTML, PDF, JSON, CSV, LaTeX and figures."""

from __future__ import annotations

from harness.reporting.render import render
from harness.reporting.report_input import ReportInput

__all__ = ["ReportInput", "render"]
