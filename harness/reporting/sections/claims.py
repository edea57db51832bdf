"""The paper's claims, one line each, and the steps to a target accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from harness.analysis.findings import (
    CANNOT_TEST,
    COMPARABLE,
    HELPS,
    HURTS,
    NO,
    NOT_OF_THAT_SIZE,
    NOT_RUN,
    NOT_SETTLED,
    OPPOSITE,
    OTHER_SIZE,
    SAME_DIRECTION,
    YES,
    ClaimFinding,
    Findings,
    SpeedFinding,
    SpeedPanel,
    SpeedRow,
)
from harness.analysis.verdicts import FEWEST_SEEDS, metric_name, size_text
from harness.reporting import document as doc
from harness.reporting import numbers as num
from harness.reporting.report_input import ReportInput

# The paper's claims, one line each: what was measured and whether it is settled.


ANSWER_GLYPHS = {
    YES: "✓", NO: "✗", NOT_SETTLED: "?", COMPARABLE: "✓", OTHER_SIZE: "✓", SAME_DIRECTION: "✓", OPPOSITE: "✗",
    NOT_OF_THAT_SIZE: "≈", CANNOT_TEST: "∅", NOT_RUN: "…",
}  # fmt: skip
BY_SIGN = (YES, NO, NOT_SETTLED)  # of reports of before there were floors
_TONES = {YES: HELPS, NO: HURTS, COMPARABLE: HELPS, OTHER_SIZE: HELPS, SAME_DIRECTION: HELPS, OPPOSITE: HURTS}
_COUNTED = {  # answer -> what follows its number in the headline
    COMPARABLE: "comparable", OTHER_SIZE: "of another size", SAME_DIRECTION: "in the same direction",
    OPPOSITE: "opposite", NOT_OF_THAT_SIZE: "none of the paper's size", NOT_SETTLED: "not settled",
}  # fmt: skip
STEPS = "steps_to_target"
_MEASURES = {"loss": "test loss", "train_loss": "training loss", STEPS: "steps to the target"}


def claims_section(report: ReportInput) -> doc.Section | None:
    """The table of claims; None where the study names none."""
    found = report.findings.claims
    if not found:
        return None
    return doc.Section(_title(report), (claims_table(report),))


def claims_method(report: ReportInput) -> doc.Section | None:
    """When a claim has which answer; None where the study names none."""
    if not report.findings.claims:
        return None
    return doc.Section("How claims are answered", (doc.Paragraph(_intro(report.findings)),))


def claims_tally(report: ReportInput) -> str:
    """For example "The paper's claims: 3 ✓ yes, 1 ? not settled."; "" without claims."""
    words = Counter(claim.answer for claim in report.findings.claims)
    if report.findings.competence is not None:
        return f"{_title(report)}: {headline(words)}." if words else ""
    counts = ", ".join(f"{words[word]} {ANSWER_GLYPHS[word]} {word}" for word in BY_SIGN if words[word])
    return f"{_title(report)}: {counts}." if counts else ""


def headline(words: Mapping[str, int]) -> str:
    """How many claims have which answer.

    >>> headline({COMPARABLE: 2, CANNOT_TEST: 3, NOT_SETTLED: 1})
    '3 testable of 6; 2 comparable, 1 not settled'
    >>> headline({COMPARABLE: 1, NOT_RUN: 5})
    '1 testable of 6, 5 not run yet; 1 comparable'
    """
    total, waiting = sum(words.values()), words.get(NOT_RUN, 0)
    testable = total - waiting - words.get(CANNOT_TEST, 0)
    found = ", ".join(f"{words[word]} {text}" for word, text in _COUNTED.items() if words.get(word))
    still = f", {waiting} {NOT_RUN}" if waiting else ""
    return f"{testable} testable of {total}{still}" + (f"; {found}" if found else "")


def claims_table(report: ReportInput) -> doc.TextTable:
    """One row per claim, in the study's order."""
    findings = report.findings
    columns = (
        doc.TextColumn(title="Claim", detail_title="source"),
        doc.TextColumn(title="Compared", kind=doc.TEXT, detail_title="expected"),
        doc.TextColumn(title="Difference", kind=doc.SPREAD, detail_title=_interval_title(findings)),
        doc.TextColumn(title="n", kind=doc.NUMBER),
        doc.TextColumn(title="Answer", kind=doc.TEXT, detail_title="what limits it"),
        doc.TextColumn(title="Paper", kind=doc.SPREAD, detail_title=_paper_title(findings)),
    )
    shown = [claim for claim in findings.claims if claim.paper is not None]
    kept = columns if shown else columns[:-1]
    rows = tuple(doc.TextRow(_claim_cells(claim)[: len(kept)]) for claim in findings.claims)
    notes: tuple[str, ...] = ()
    if any(claim.paper_status == "memory" for claim in shown):
        notes = ("† The paper's values from memory, not verified against the printed ones.",)
    caption = (
        "n: seeds in which both runs have a value. Difference: mean of the paired differences over seeds."
    )
    if findings.competence is not None and (shown or report.plan.header.get("paper")):
        caption += " Size: ours over the paper's, of accuracies as log-odds."
    return doc.TextTable(
        key="paper_claims", title="Claims", caption=caption, columns=kept, rows=rows, notes=notes
    )


def _title(report: ReportInput) -> str:
    return "The paper's claims" if report.plan.header.get("paper") else "Claims"


def _interval_title(findings: Findings) -> str:
    return "95 % CI of this claim" if findings.competence is None else "CI after Holm"


def _paper_title(findings: Findings) -> str:
    return "" if findings.competence is None else "size"


def _by_size(findings: Findings) -> str:
    delta = size_text(findings.settings.smallest_effect_pp, findings.settings)
    text = (
        f"Answers hold for the size “{findings.size}” and its data alone, after Holm's correction over all "
        "claims; the noise is that of all rows of a table, and of the test images where the answer to every "
        "image is there. Same direction: the interval lies wholly on the side that the paper expects; its "
        "size is comparable where the ratio of ours to the paper's may lie between 1/3 and 3, and is not "
        "compared where the paper's own difference is within its noise (.15 points a run, where it prints "
        f"none). Opposite: beyond {delta} on the other side. No effect of the paper's size: less than a "
        "third of the paper's, or than what its own experiment could have seen. Cannot be tested here: one "
        "of the conditions of “What can be tested” does not hold."
    )
    if any(claim.answer == NOT_RUN for claim in findings.claims):
        text += f" Not run yet: fewer than {FEWEST_SEEDS} seeds have both runs, and more are planned."
    if not findings.settings.comparable_to_paper:
        return text
    sizes = [claim.size.predicted for claim in findings.claims if claim.size is not None]
    inside, known = sum(each is True for each in sizes), sum(each is not None for each in sizes)
    return f"{text} {inside} of {known} differences lie in the prediction interval of the paper's."


def _intro(findings: Findings) -> str:
    if findings.competence is not None:
        return _by_size(findings)
    n = len(findings.claims)
    changed = sum(claim.answer != claim.answer_holm for claim in findings.claims)
    text = (
        f"Answers hold for the size “{findings.size}” and its data alone. Yes: the 95 % interval of the "
        "paired differences lies wholly on the side that the paper expects; no: wholly on the other side; "
        "not settled: everything else. Only the claim's own runs are used; the verdicts of the tables know "
        "the noise of all their rows, and may settle more."
    )
    if n < 2:
        return text
    holm = (
        f"{num.count(changed, 'answer')} would not be settled any more, which is said beside it"
        if changed
        else "no answer would change"
    )
    return (
        f"{text} The intervals are per claim and not corrected for their number ({n}); after Holm's "
        f"correction over all of them {holm}."
    )


def _claim_cells(claim: ClaimFinding) -> tuple[doc.TextCell, ...]:
    return (
        doc.TextCell(claim.claim.says, claim.claim.source),
        doc.TextCell(_compared(claim), f"expected: {claim.claim.expect}"),
        difference_cell(claim),
        doc.TextCell(str(claim.n)),
        _answer(claim),
        doc.TextCell(_paper(claim), _ratio(claim)),
    )


def _compared(claim: ClaimFinding) -> str:
    said = claim.claim
    names = [
        f"{row} ({column})" if column is not None else row
        for row, column in ((said.row, claim.column), (said.versus, claim.versus_column))
    ]
    relation = "over" if said.measure == STEPS else "minus"
    measure = _MEASURES.get(said.measure, metric_name(said.measure))
    return f"{measure}, {doc.short_name(said.table)}: {names[0]} {relation} {names[1]}"


def difference_cell(claim: ClaimFinding) -> doc.TextCell:
    """The estimate with its interval in the measure's own unit; steps as "2.1 times fewer"."""
    if claim.estimate is None:
        return doc.TextCell(num.DASH, "(no value)")
    if claim.claim.measure == STEPS:
        return _factor_cell(claim.estimate, claim.low, claim.high)
    digits = _digits(claim)
    unit = " pp" if claim.claim.measure.startswith("top") else ""
    return doc.TextCell(
        num.signed(claim.estimate, digits) + unit, num.interval(claim.low, claim.high, digits)
    )


def _digits(claim: ClaimFinding) -> num.Digits:
    if not claim.claim.measure.startswith("top"):
        return None
    if claim.low is None or claim.high is None:
        return num.digits_for(None)
    return num.digits_for((claim.high - claim.low) / 4)


def _factor_cell(ratio: float, low: float | None, high: float | None) -> doc.TextCell:
    if ratio > 1:
        return doc.TextCell(
            f"{num.number(ratio, _factor_digits(ratio))} times more", _factor_interval(low, high)
        )
    flipped = (1 / high, 1 / low) if low and high else (None, None)
    return doc.TextCell(
        f"{num.number(1 / ratio, _factor_digits(1 / ratio))} times fewer", _factor_interval(*flipped)
    )


def _factor_interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return f"[{num.number(low, _factor_digits(low))}, {num.number(high, _factor_digits(high))}]"


def _factor_digits(factor: float) -> int:
    return 1 if factor >= 10 else 2


def _answer(claim: ClaimFinding) -> doc.TextCell:
    details = [claim.why.replace(" -", f" {num.MINUS}")] if claim.why else []
    if claim.answer != claim.answer_holm:
        details.append(f"{claim.answer_holm} after Holm's correction")
    return doc.TextCell(
        f"{ANSWER_GLYPHS[claim.answer]} {claim.answer}", "; ".join(details), _TONES.get(claim.answer, "")
    )


def _ratio(claim: ClaimFinding) -> str:
    """For example "× 1.4 [0.6, 2.9]"; "" where sizes are not compared."""
    size = claim.size
    if size is None or size.ratio is None:
        return ""
    digits = _factor_digits(abs(size.ratio))
    within = "" if size.ratio_low is None else f" {num.interval(size.ratio_low, size.ratio_high, digits)}"
    outside = "; outside its prediction interval" if size.predicted is False else ""
    return f"× {num.number(size.ratio, digits)}{within}{outside}"


def _paper(claim: ClaimFinding) -> str:
    if claim.paper is None:
        return num.missing("no values")
    if claim.claim.measure == STEPS:
        return _factor_cell(claim.paper, None, None).text + doc.mark(claim.paper_status)
    return (
        num.signed(claim.paper) + " pp" * claim.claim.measure.startswith("top") + doc.mark(claim.paper_status)
    )


# Steps to the target accuracy, for tables that name one.


TITLE = "Steps to the target accuracy"


def speed_section(report: ReportInput, figures: dict[str, doc.FigureBlock]) -> doc.Section | None:
    """A paragraph, a table and a figure per table with a target. `figures`: table key -> picture."""
    if not report.findings.speed:
        return None
    blocks: list[doc.Block] = []
    for speed in report.findings.speed:
        blocks += [doc.Paragraph(_target(speed)), speed_table(speed, report)]
        if speed.table in figures:
            blocks.append(figures[speed.table])
    return doc.Section(TITLE, tuple(blocks))


def speed_table(speed: SpeedFinding, report: ReportInput) -> doc.TextTable:
    """One row per row of the study's table, stacked by column."""
    printed = any(row.paper for panel in speed.panels for row in panel.rows)
    columns = [
        doc.TextColumn(title="Row"),
        doc.TextColumn(title="Reached by", kind=doc.SPREAD, detail_title="not counted"),
        doc.TextColumn(title="Steps: median", kind=doc.NUMBER, detail_title="lowest to highest seed"),
        doc.TextColumn(title=f"Times fewer than {speed.reference}", kind=doc.NUMBER),
    ]
    if printed:
        columns += [
            doc.TextColumn(title="Paper, million steps", kind=doc.NUMBER),
            doc.TextColumn(title="Paper: times fewer", kind=doc.NUMBER),
        ]
    batches = _batches(speed, report)
    rows = tuple(
        doc.TextRow(_speed_cells(row, batches)[: len(columns)], panel.column or "")
        for panel in speed.panels
        for row in panel.rows
    )
    memory = any(row.paper and doc.mark(row.paper.status) for panel in speed.panels for row in panel.rows)
    return doc.TextTable(
        key=f"{speed.table}_steps",
        title=f"{doc.short_name(speed.table)}: {speed.title}",
        caption="Optimizer steps until the learning curve first reaches the target. A run that ended below "
        "it counts as slower than every other one; a median needs more than half of the runs to get there.",
        columns=tuple(columns),
        rows=rows,
        notes=(doc.MEMORY_NOTE,) if memory else (),
    )


def _target(speed: SpeedFinding) -> str:
    levels = "; ".join(_level(panel) for panel in speed.panels)
    if speed.target_row is None:
        return f"{doc.short_name(speed.table)}: the target is {levels}, a fixed accuracy."
    return (
        f"{doc.short_name(speed.table)}: the target is {levels}: the mean accuracy with which "
        f"“{speed.target_row}” ends, or, where one of its runs never got there, the best value of that run. "
        "It is read from the learning curves (at most 1,000 test images, so it differs from the tables' "
        "values), and steps are known to the distance between two points of a curve."
    )


def _level(panel: SpeedPanel) -> str:
    level = "not known yet" if panel.target_top1 is None else f"{num.number(panel.target_top1)} % top-1"
    return level if panel.column is None else f"{panel.column} {level}"


def _batches(speed: SpeedFinding, report: ReportInput) -> dict[str, int]:
    """arm_id -> images per step, where rows of the table differ in it."""
    arms = [row.arm_id for panel in speed.panels for row in panel.rows if row.trained and row.arm_id]
    sizes = {arm: report.plan.arms[arm].recipe.batch_size for arm in arms if arm in report.plan.arms}
    return sizes if len(set(sizes.values())) > 1 else {}


def _speed_cells(row: SpeedRow, batches: dict[str, int]) -> tuple[doc.TextCell, ...]:
    batch = batches.get(row.arm_id or "")
    name = doc.TextCell(row.row, f"{batch} images per step" if batch else "")
    paper = doc.TextCell(
        f"{row.paper.value:g}{doc.mark(row.paper.status)}" if row.paper else num.missing("none")
    )
    paper_factor = doc.TextCell(
        num.missing("none") if row.paper_factor is None else _factor(row.paper_factor)
    )
    if not row.trained:
        what = "(quoted)" if row.arm_id is None else "(trains nothing)"
        return name, *(doc.TextCell(num.DASH, what) for _ in range(3)), paper, paper_factor
    reached = sum(step is not None for step in row.steps.values())
    left_out = [f"{row.diverged} diverged"] * bool(row.diverged)
    left_out += [f"{row.missing} missing"] * bool(row.missing)
    return (
        name,
        doc.TextCell(f"{reached} of {len(row.steps)}", ", ".join(left_out)),
        doc.TextCell(num.missing("no median") if row.median is None else f"{row.median:,.0f}", _range(row)),
        doc.TextCell(num.missing("no median") if row.factor is None else _factor(row.factor)),
        paper,
        paper_factor,
    )


def _range(row: SpeedRow) -> str:
    if row.low is None or row.high is None:
        return "(never)" if row.steps else ""
    return f"{row.low:,} to {row.high:,}"


def _factor(value: float) -> str:
    return num.number(value, 1 if value >= 10 else 2)
