"""What a reader sees first: what this is not, what was asked, how much was run, and the answer."""

from __future__ import annotations

import re
from collections import Counter

from harness.analysis.findings import (
    GLYPHS,
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    NOT_EVALUABLE,
    UNDECIDED,
    CellFinding,
    TableFinding,
)
from harness.reporting.document import Block, Bullets, Claim, Claims, Paragraph, Section
from harness.reporting.inputs import ReportInput
from harness.reporting.names import as_sentences, flatten, ordered, seeds_planned, table_name
from harness.reporting.numbers import MINUS, count, duration, is_number
from harness.reporting.places import places
from harness.reporting.sections.claims import claims_tally

MOST_SENTENCES = 40  # in the answer: about a page
_NEGATIVE = re.compile(r"(?<=[\s\[(])-(?=\d)")  # the hyphen of a negative number, not that of a name


def banner(report: ReportInput) -> str:
    """The first line: which runs are left out, and that this is not the paper's experiment. Empty where none
    is and data and size are the paper's."""
    says = [str(text) for text in (report.left_out or {}).get("says", ())]
    return " ".join([*says, *_setting(report)])


def _setting(report: ReportInput) -> list[str]:
    findings = report.findings
    if findings.settings.comparable_to_paper:
        return []
    where = f"This is a `{findings.size}` run on {', '.join(data_names(report))}"
    if not report.plan.header.get("paper"):
        return [f"{where}."]
    data = report.plan.header.get("paper_data", "ImageNet")
    return [f"{where}: it is not a reproduction of the paper's {data} numbers."]


def question(report: ReportInput) -> str:
    """The study's question, as its file states it."""
    return str(report.plan.header.get("question") or "")


def scope(report: ReportInput) -> str:
    """One line: how much was planned and run, on what."""
    plan, findings = report.plan, report.findings
    rows = sum(len(table.cells) for table in findings.tables)
    models = sorted({arm.recipe.model.name for arm in plan.arms.values()})
    parts = [
        f"{count(rows, 'row')} in {count(len(findings.tables), 'table')}",
        f"{count(sum(not arm.observes for arm in plan.arms.values()), 'distinct recipe')}",
        *_runs(report),
        f"data: {', '.join(places(plan))}",
        f"model: {', '.join(models)}",
    ]
    if device := flatten(report.provenance).get("device"):
        parts.append(f"device: {device}")
    if "train_time_s" in report.records:
        times = [float(t) for t in report.records["train_time_s"] if is_number(t)]
        parts.append(f"training time, summed over runs: {duration(sum(times))}")
    return " · ".join(parts)


def _runs(report: ReportInput) -> list[str]:
    """Trainings of the rows, further ones for ensembles, evaluations of trained networks."""
    plan = report.plan
    trainings = [run for run in plan.runs if not plan.arms[run.arm_id].observes]
    own = sum(run.seed in plan.seeds for run in trainings)
    evaluations = len(plan.runs) - len(trainings)
    parts = [f"{count(own, 'run')} ({seeds_planned(plan)} each)"]
    if own < len(trainings):
        parts.append(f"{count(len(trainings) - own, 'further training')} for ensembles")
    if evaluations:
        parts.append(f"{count(evaluations, 'evaluation')} of trained networks")
    return parts


def data_names(report: ReportInput) -> list[str]:
    """The data sets of the plan, sorted."""
    return sorted({arm.recipe.data.name for arm in report.plan.arms.values()})


def answer(report: ReportInput) -> Section:
    """The counts of verdicts, one sentence per row (of many rows: per settled one, and counts per table), and
    what had been expected."""
    blocks: list[Block] = [Paragraph(_tally(report.findings.tables))]
    if said := claims_tally(report):
        blocks.append(Paragraph(said))
    tables = report.findings.tables
    if has_sentences(report):
        blocks += [sentences(table, table_name(table)) for table in tables]
    else:
        blocks += _settled(tables)
        blocks += [
            Paragraph("Table by table; each has all its rows in words:"),
            Bullets(tuple(f"{table_name(table)}. {_tally((table,))}" for table in tables)),
        ]
    if expected := as_sentences(report.plan.header.get("expect")):
        blocks += [Paragraph("Expected before the first run:"), Bullets(expected)]
    return Section("Answer", tuple(blocks))


def _settled(tables: tuple[TableFinding, ...]) -> list[Block]:
    """The rows that help, hurt or make no difference, where they are not too many to be read."""
    found = [(table, tuple(cell for cell in ordered(table) if _is_settled(cell))) for table in tables]
    if sum(len(cells) for _, cells in found) > MOST_SENTENCES:
        return []
    return [Claims(table_name(table), tuple(map(_claim, cells))) for table, cells in found if cells]


def _is_settled(cell: CellFinding) -> bool:
    effect = cell.effect
    return effect is not None and effect.p is not None and effect.verdict in (HELPS, HURTS, NO_DIFFERENCE)


def has_sentences(report: ReportInput) -> bool:
    """Whether the answer has a sentence per row; in a study with many rows they stand with the tables."""
    return sum(len(table.cells) for table in report.findings.tables) <= MOST_SENTENCES


def sentences(table: TableFinding, title: str) -> Claims:
    """One sentence per row of a table."""
    return Claims(title, tuple(_claim(cell) for cell in ordered(table)))


def _tally(tables: tuple[TableFinding, ...]) -> str:
    words = Counter(cell.effect.verdict for table in tables for cell in table.cells if cell.effect)
    order = (HELPS, HURTS, NO_DIFFERENCE, UNDECIDED, NOT_EVALUABLE)
    counts = ", ".join(f"{words[word]} {GLYPHS[word]} {word}" for word in order if words[word])
    if not counts:
        return "Nothing is compared yet: no row has an effect."
    effects = [cell.effect for table in tables for cell in table.cells if cell.effect]
    late = sum(effect.exploratory for effect in effects)
    tail = f" {late} of them exploratory: not declared before results were there." if late else ""
    return f"Verdicts on {count(sum(words.values()), 'comparison')}: {counts}.{tail}"


def _claim(cell: CellFinding) -> Claim:
    sentence = with_minus(cell.sentence)
    if cell.effect is None:
        return Claim("·", sentence, "")
    glyph, word = GLYPHS.get(cell.effect.verdict, ""), cell.effect.verdict
    return Claim(glyph if word in sentence else f"{glyph} {word}", sentence, word)


def with_minus(text: str) -> str:
    """A sentence of the analysis with true minus signs.

    >>> with_minus("x-y: -0.31 pp [-0.5, 0.1]")
    'x-y: −0.31 pp [−0.5, 0.1]'
    """
    return _NEGATIVE.sub(MINUS, text)
