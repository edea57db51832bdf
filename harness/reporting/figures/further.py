"""The figures of the appendix, each drawn only where its data exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from harness.reporting.figures.budget import budget_sketches
from harness.reporting.figures.flips import flip_sketches
from harness.reporting.figures.gains import gain_sketches
from harness.reporting.figures.picture import Picture, Sketch, finish
from harness.reporting.figures.resolvable import resolvable_sketch
from harness.reporting.figures.seeds import seed_sketches
from harness.reporting.figures.trace import trace_sketches
from harness.reporting.inputs import ReportInput


def further_parts(report: ReportInput) -> list[Callable[[], list[Picture]]]:
    """What draws them, kind by kind, in the order of the appendix."""
    findings = report.findings
    curves = report.curves[report.curves["seed"].isin(report.plan.seeds)]
    kinds = (
        lambda: budget_sketches(report),
        lambda: filter(None, [resolvable_sketch(findings)]),
        lambda: trace_sketches(findings),
        lambda: seed_sketches(findings),
        lambda: gain_sketches(findings, curves),
        lambda: flip_sketches(findings),
    )
    return [partial(_drawn, kind) for kind in kinds]


def _drawn(sketches: Callable[[], Iterable[Sketch]]) -> list[Picture]:
    return [_finished(sketch) for sketch in sketches()]


def _finished(sketch: Sketch) -> Picture:
    picture = finish(sketch.key, None, sketch.figure, (sketch.caption, sketch.alt))
    return replace(picture, further=True, data=sketch.data)
