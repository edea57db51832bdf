"""From findings to a report: Markdown, HTML, PDF, JSON, CSV, LaTeX and figures."""

from __future__ import annotations

from harness.reporting.inputs import ReportInput
from harness.reporting.render import render

__all__ = ["ReportInput", "render"]
