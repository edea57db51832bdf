"""Every shipped study can be reported, whatever came of its runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.analysis import analyse
from harness.commands.report import settings_of
from harness.commands.workspace import build_catalogue
from harness.reporting import ReportInput
from harness.reporting.render import outline
from harness.study.expand import ExpandOptions, expand, load_study
from tests.analysis.plans import Noise, frames_of
from tests.conftest import mostly_campaign
from tests.reporting.edits import sections_of, whole_text

STUDIES = sorted((Path(__file__).resolve().parents[2] / "studies").glob("*.yaml"))


@pytest.mark.parametrize("lost", mostly_campaign([0.0, 0.3], 0.3))
@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_renders_with_every_row_and_claim(study: Path, lost: float, tmp_path: Path):
    catalogue = build_catalogue(tmp_path)
    plan = expand(load_study(study, catalogue), catalogue, ExpandOptions(size="mini"))
    levels = {arm_id: 70.0 + 2 * (place % 5) for place, arm_id in enumerate(plan.arms)}
    records, curves = frames_of(plan, levels, Noise(lost=lost, seed=1))
    findings = analyse(plan, records, curves, settings_of(plan))
    report = ReportInput(
        title=plan.study, findings=findings, plan=plan, records=records, curves=curves, provenance={}
    )
    document = outline(report, [])
    text = whole_text(report)
    assert not re.search(r"\b(None|nan|inf)\b", text.replace("none", ""))
    assert [len(t.cells) for t in findings.tables] == [len(t.cells) for t in plan.tables]
    assert len(findings.claims) == len(plan.claims)
    titles = [section.title for section in sections_of(document)]
    claims = "The paper's claims" if plan.header["paper"] else "Claims"
    assert (claims in titles) == bool(plan.claims)
    assert ("Steps to the target accuracy" in titles) == any(table.target for table in plan.tables)
    if not lost:
        assert all("not run" not in claim.why for claim in findings.claims)
