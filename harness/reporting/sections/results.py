"""What a report says of results that were not trained here, in place of what it says of a study's runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.analysis.findings import CellFinding, Effect, Settings
from harness.analysis.intervals import holm
from harness.analysis.verdicts import metric_name, size_text
from harness.reporting import document as doc
from harness.reporting import numbers as num
from harness.reporting.report_input import ReportInput
from harness.reporting.sections.tables import effect_cell, n_cell, spread_cell
from harness.spec import DIVERGED, FINISHED

DIGITS = 12  # of a fingerprint
COLUMNS = {  # what a column of the file was read as -> how that is said
    "rows": "row",
    "seed": "seed",
    "metric": "metric",
    "table": "table",
    "column": "column",
    "paper": "printed value",
    "images": "files of answers",
    "state": "how a run ended",
}


def banner_of_file(found: Mapping[str, Any]) -> str:
    """The first line of the report."""
    lines = num.count(found["lines"], "line")
    return f"Written from {found['file']} ({lines}): nothing here was trained by the harness."


def scope_of_file(report: ReportInput, found: Mapping[str, Any]) -> str:
    """One line: how much there is."""
    findings = report.findings
    rows = sum(len(table.cells) for table in findings.tables)
    runs = f"{num.count(len(report.plan.runs), 'run')} ({doc.seeds_planned(report.plan)} each)"
    if "seed" not in found["columns"]:
        runs = runs.replace("seed", "run")
    tables = f"{num.count(rows, 'row')} in {num.count(len(findings.tables), 'table')}"
    return " · ".join([tables, runs, f"file: {found['file']}"])


def method_of_file(report: ReportInput, noise: str) -> str:
    """The protocol in words. `noise`: what is known of the noise between runs."""
    settings, found = report.findings.settings, report.plan.header["results"]
    less = ", of which less is better" * settings.lower_is_better
    return (
        f"Metric: {metric_name(settings.metric)}{less}, as the file has it ({_unit(found, settings)}). "
        f"{noise} "
        f"{_fit(settings)} Intervals are t intervals over runs; the degrees of freedom follow Welch and "
        f"Satterthwaite. Verdicts hold at a family-wise error rate of {settings.alpha:g} per table (Holm). "
        "Lines whose metric is not finite are runs that diverged: they are counted beside n. Lines without a "
        "metric, or of runs that did not end well, are missing runs. “±” is always the standard deviation "
        "(sd) "
        "over runs. What a run was trained with, and when its result was read, is not known here."
    )


def _unit(found: Mapping[str, Any], settings: Settings) -> str:
    return {
        "percent": "said to be in percent",
        "fraction": "said to be a fraction, shown in percent",
        "plain": "in its own unit",
    }[found["unit"]]


def _fit(settings: Settings) -> str:
    if not settings.seeds_shared:
        return (
            "Rows share no seeds that could pair them: each effect is a difference of two means, with "
            "Welch's "
            "test, in which each row has its own variance."
        )
    return (
        "Each effect is a difference of two row means from a randomised-block fit over the rows of its "
        "column "
        "(the seed is the block; of two rows alone, and of rows that no shared seeds link, Welch's test). "
        "A row "
        "whose residuals are noisier than the others' gets a share of its own variance, up to all of it, "
        "in place "
        "of the pooled one (variance guard)."
    )


def chosen_when(report: ReportInput) -> str:
    """What is known of when the comparisons were chosen."""
    settings, found = report.findings.settings, report.plan.header["results"]
    versus = "the row above" if found["versus"] == "previous" else f"“{found['versus']}”"
    return (
        f"Every row is compared with {versus}; the smallest effect of interest is "
        f"{size_text(settings.smallest_effect_pp, settings)}. Both were said when the results were there: "
        "nothing "
        "here shows that they were declared before them, nor how many other rows and runs were tried."
    )


def checklist_of_file(report: ReportInput) -> tuple[tuple[str, str], ...]:
    """Question -> answer, as far as a file of results has one."""
    status = Counter(report.records["status"])
    shown = ", ".join(f"{number} {word}" for word, number in status.most_common())
    return (
        (
            "Error bars",
            "“±” is the standard deviation over runs; intervals are 95 % t intervals over re-training, which "
            "assume roughly normal noise. What varies from run to run is what the seed of the script "
            "changes.",
        ),
        ("Seeds", f"{doc.seeds_planned(report.plan)} per row, as the file has them."),
        (
            "Selection",
            f"No line was picked: all {len(report.plan.runs):,} are counted ({shown}). Whether runs were "
            "left "
            "out of the file is not known here.",
        ),
    )


def facts_of_file(report: ReportInput) -> doc.Definitions:
    """Where the numbers come from."""
    found, made = report.plan.header["results"], report.provenance
    columns = "; ".join(
        f"{said}: {found['columns'][name]}" for name, said in COLUMNS.items() if name in found["columns"]
    )
    facts = [("File", f"{found['file']} ({found['kind']}, {num.count(found['lines'], 'line')})")]
    facts += [("File (sha256)", found["sha256"])] if found["sha256"] else []
    facts += [
        ("Columns", columns),
        ("Report written by harness", str(made["harness"])),
        ("Figures and PDF drawn with", doc.setting_text(made["drawn_with"])),
        ("Hash of data/", str(made["records"])),
        ("Runs", "each with line, seed, status and result in report.json, and in data/records.zip"),
    ]
    return doc.Definitions(tuple(facts))


def missing_of_file(report: ReportInput) -> list[doc.Block]:
    """How many lines gave no number, and how the rows were compared."""
    plan, status = report.plan, list(report.records["status"])
    lost, diverged = len(status) - status.count(FINISHED), status.count(DIVERGED)
    text = "Every line has a value."
    if lost:
        text = f"{num.count(lost, 'line')} of {len(plan.runs):,} gave no value ({diverged} of them diverged)."
    blocks: list[doc.Block] = [doc.Paragraph(text)]
    return [*blocks, doc.Bullets(plan.notes)] if plan.notes else blocks


# The same rows on the images of single classes.


CLASS_COLUMNS = (
    *("row", "column", "class", "versus", "n", "mean", "sd", "effect", "low", "high", "p", "p_holm"),
)


@dataclass(frozen=True, slots=True)
class ClassEffect:
    """One row on one class. `p_holm`: over all rows and classes of the table."""

    name: str
    cell: CellFinding
    effect: Effect
    p_holm: float | None

    def values(self) -> list[Any]:
        """Those of `CLASS_COLUMNS`."""
        cell, level, effect = self.cell, self.cell.level, self.effect
        of_level = (None, None, None) if level is None else (level.n, level.mean, level.sd)
        of_effect = (effect.estimate, effect.low, effect.high, effect.p, self.p_holm)
        return [cell.row, cell.column, self.name, effect.versus, *of_level, *of_effect]


def class_effects(report: ReportInput, place: int) -> list[ClassEffect]:
    """Of the table at this place, row by row."""
    found = [
        (name, cell, cell.effect)
        for cells in zip(*(each.tables[place].cells for each in report.by_class.values()), strict=True)
        for name, cell in zip(report.by_class, cells, strict=True)
        if cell.effect is not None
    ]
    raw = [1.0 if effect.p is None else effect.p for _, _, effect in found]
    adjusted = holm(raw, report.findings.settings.alpha).p.tolist() if raw else []
    return [
        ClassEffect(*each, None if each[2].p is None else p) for each, p in zip(found, adjusted, strict=True)
    ]


def classes_json(report: ReportInput) -> list[dict[str, Any]]:
    """The same of every table, as plain data."""
    return [
        {"table": table.key, **dict(zip(CLASS_COLUMNS, each.values(), strict=True))}
        for place, table in enumerate(report.findings.tables)
        for each in class_effects(report, place)
    ]


def classes_table(report: ReportInput, place: int) -> doc.TextTable:
    """What each row changes on each class, and how many comparisons that are."""
    settings, table = report.findings.settings, report.findings.tables[place]
    effects = class_effects(report, place)
    rows = [
        doc.TextRow(
            (
                doc.TextCell(each.name),
                n_cell(each.cell.level),
                spread_cell(each.cell.level, settings),
                effect_cell(each.effect, settings),
                _p_cell(each.p_holm, settings),
            ),
            doc.cell_name(each.cell),
        )
        for each in effects
    ]
    return doc.TextTable(
        key=f"{table.key}_classes",
        title=f"{doc.short_name(table.key)} by class",
        caption=f"The same rows on the images of each class: {num.count(len(rows), 'comparison')} with 95 % "
        f"intervals that are not adjusted, so that about {len(rows) / 20:.0f} of them miss by chance. "
        f"p: after Holm's correction over all of them (* at most {settings.alpha:g}). "
        "No verdicts are given.",
        columns=(
            doc.TextColumn(title="Class"),
            doc.TextColumn(title="n", kind=doc.NUMBER, detail_title="remarks"),
            doc.TextColumn(title=f"Mean ± sd{doc.level_suffix(settings)}", kind=doc.SPREAD),
            doc.TextColumn(
                title=f"Effect{doc.effect_suffix(settings)}", kind=doc.SPREAD, detail_title="95 % CI"
            ),
            doc.TextColumn(title="p (Holm)", kind=doc.NUMBER),
        ),
        rows=tuple(rows),
    )


def _p_cell(p: float | None, settings: Settings) -> doc.TextCell:
    return doc.TextCell(num.DASH) if p is None else doc.TextCell(f"{p:.3f}" + " *" * (p <= settings.alpha))


# The same of a study whose runs are commands of the user's.


def banner_of_script(report: ReportInput) -> str:
    """The first line of the report."""
    return (
        f"Runs of the study's own command ({report.plan.header['script']['run']}): the harness started it "
        "and read its results; what it trains, and on what, is not known here."
    )


def metric_of_script(report: ReportInput) -> str:
    """What is read, from where and when."""
    settings, said = report.findings.settings, report.plan.header["script"]
    less = ", of which less is better" * settings.lower_is_better
    where = said["results"][settings.metric]
    return (
        f"Metric: {metric_name(settings.metric)}{less}, read from “{where}” of each run after the end of its "
        "command, as the study file says. At which epoch, and on which images, it is measured is not "
        "known here. No floor was computed, because the data are not known; no condition of training was "
        "checked."
    )


def error_bars_of_script(metric: str) -> str:
    """What varies from run to run, as far as it is known."""
    return (
        f"“±” is the standard deviation of {metric} over seeds; intervals are 95 % t intervals over "
        "re-training, which assume roughly normal noise. What varies from seed to seed is what the command "
        "makes of the seed that it is given."
    )


def commands_of_script(report: ReportInput) -> list[doc.Block]:
    """The commands of all rows, where their results are, and the code that they name."""
    scripts, said = report.plan.scripts, report.plan.header["script"]
    rows = [[doc.arm_name(report.plan, arm_id), arm.line] for arm_id, arm in scripts.items()]
    titles = {"Row": doc.TEXT, "Command": doc.TEXT}
    read = [f"{name}: {where}" for name, where in said["results"].items()]
    hashes = {name: digest for arm in scripts.values() for name, digest in arm.files.items()}
    tracked = sorted({arm.repository for arm in scripts.values() if arm.repository is not None})
    facts = [(f"{name.strip('{}')} (sha256)", digest) for name, digest in hashes.items()]
    facts += [("Files that its repository tracks (sha256)", digest) for digest in tracked]
    text = "{seed}, {folder} and {data} stand for what differs from run to run, or from machine to machine."
    return [
        doc.Paragraph(f"The commands as they were executed. {text} Read after their end: {'; '.join(read)}."),
        doc.plain_table("commands", "The command of every row.", titles, rows),
        doc.Definitions(tuple(facts)),
    ]
