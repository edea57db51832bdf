"""The figures of the appendix, each drawn only where its data exist."""

from __future__ import annotations

from dataclasses import replace

from harness.reporting.figures.budget import budget_sketches
from harness.reporting.figures.flips import flip_sketches
from harness.reporting.figures.gains import gain_sketches
from harness.reporting.figures.picture import Picture, Sketch, finish
from harness.reporting.figures.resolvable import resolvable_sketch
from harness.reporting.figures.seeds import seed_sketches
from harness.reporting.figures.trace import trace_sketches
from harness.reporting.inputs import ReportInput


def further_pictures(report: ReportInput) -> list[Picture]:
    """In the order of the appendix."""
    findings = report.findings
    curves = report.curves[report.curves["seed"].isin(report.plan.seeds)]
    resolvable = resolvable_sketch(findings)
    sketches = [
        *budget_sketches(report),
        *([resolvable] if resolvable else []),
        *trace_sketches(findings),
        *seed_sketches(findings),
        *gain_sketches(findings, curves),
        *flip_sketches(findings),
    ]
    return [_finished(sketch) for sketch in sketches]


def _finished(sketch: Sketch) -> Picture:
    picture = finish(sketch.key, None, sketch.figure, (sketch.caption, sketch.alt))
    return replace(picture, further=True, data=sketch.data)
