"""How the verdicts were made, in words, from the declared settings."""

from __future__ import annotations

from harness.analysis.calibration import badge
from harness.analysis.findings import (
    GLYPHS,
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    NOT_EVALUABLE,
    UNDECIDED,
    Settings,
)
from harness.analysis.units import metric_name, size_text
from harness.reporting.document import Definitions, Paragraph, Section
from harness.reporting.inputs import ReportInput
from harness.reporting.numbers import MOST_DIGITS, count, number
from harness.reporting.sections.amendments import declared_text
from harness.reporting.sections.checklist import checklist
from harness.reporting.sections.observers import observer_blocks

_READ_OUTS = {
    "last_epoch": "at the last epoch (never at the best epoch on the test set)",
    "median_of_last_5": "as the median over the last five epochs",
}


def method(report: ReportInput) -> Section:
    """The protocol, and what each verdict word means."""
    settings = report.findings.settings
    read_outs = sorted({arm.recipe.read_out for arm in report.plan.arms.values()})
    worst = "chance accuracy" if settings.in_percent else "the worst value of the table"
    read = " and ".join(_READ_OUTS.get(name, name.replace("_", " ")) for name in read_outs)
    text = (
        f"Metric: {metric_name(settings.metric)}{' accuracy' * settings.in_percent} on the test set, read "
        f"{read}, as the study file says. {_seeds(report)} {_noise(report)} "
        "Each effect is a difference of two recipe means from a randomised-block fit over the rows "
        "of its column (the seed is the block; a column of two rows is fitted with its table). A recipe "
        "whose residuals are noisier than the others' gets a share of its own variance, up to all of it, in "
        "place of the pooled one (variance guard). Intervals are t intervals over re-training; the degrees "
        "of freedom follow Welch and Satterthwaite. Verdicts hold at a family-wise error rate of "
        f"{settings.alpha:g} per table (Holm). Diverged runs are outcomes: they are counted beside n, and a "
        f"verdict that changes when they are counted as {worst} is marked fragile. “±” is always the "
        "standard deviation (sd) over seeds."
    )
    blocks = (
        Paragraph(declared_text(report)),
        Paragraph(text),
        Definitions(_words(settings)),
        *observer_blocks(report.plan),
        *_self_test(report),
        *checklist(report),
    )
    return Section("Method", blocks)


def _self_test(report: ReportInput) -> tuple[Paragraph, ...]:
    """What `harness calibrate` measured on this machine; nothing where it was not run."""
    return () if report.calibration is None else (Paragraph(f"{badge(report.calibration)}."),)


def _seeds(report: ReportInput) -> str:
    """How many per recipe, and when it was decided."""
    plan = report.plan
    if not plan.is_adaptive:
        return f"Every recipe is trained with the same {count(len(report.findings.seeds), 'seed')}."
    looks = ", ".join(str(seeds) for seeds in plan.looks)
    return (
        f"Seeds are adaptive: results were looked at after {looks} seeds per recipe at most, and a recipe "
        "got more only while a comparison that needs it was open; the recipes share their first seeds."
    )


def _noise(report: ReportInput) -> str:
    """The measured noise between seeds, per table, where it is known."""
    sds = [table.pooled_sd for table in report.findings.tables if table.pooled_sd is not None]
    if not sds:
        return "The noise between seeds could not be estimated."
    settings = report.findings.settings
    unit, digits = (" pp", MOST_DIGITS) if settings.in_percent else ("", None)
    low, high = number(min(sds), digits), number(max(sds), digits)
    spread = f"{low}{unit}" if low == high else f"{low} to {high}{unit}, depending on the table"
    return f"The noise between seeds (pooled sd) is {spread}."


def _words(settings: Settings) -> tuple[tuple[str, str], ...]:
    delta = size_text(settings.smallest_effect_pp, settings)
    texts = {
        HELPS: f"the Holm-adjusted interval lies above 0; “by at least {delta}” if it lies above {delta}.",
        HURTS: "the Holm-adjusted interval lies below 0; the qualifiers mirror those of “helps”.",
        NO_DIFFERENCE: f"neither, and the 90 % interval lies within ±{delta} (equivalence test).",
        UNDECIDED: "none of these: the data allow effects that matter in either direction, or none.",
        NOT_EVALUABLE: "too few finished runs, or more than one training failure among at most ten seeds.",
    }
    words = tuple((f"{GLYPHS[word]} {word}", text) for word, text in texts.items())
    return (
        *words,
        ("fragile", "dropping one seed, or counting diverged runs as chance, changes the verdict."),
    )
