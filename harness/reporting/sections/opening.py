"""What a reader sees first: what was asked, how much was run, what is missing, undecided or changed."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from harness.analysis.findings import (
    CANNOT_TEST,
    GLYPHS,
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    NOT_EVALUABLE,
    UNDECIDED,
    CellFinding,
    TableFinding,
    usable,
)
from harness.analysis.verdicts import no_value, size_text
from harness.reporting import document as doc
from harness.reporting import numbers as num
from harness.reporting.report_input import ReportInput, from_file, places
from harness.reporting.sections.claims import claims_tally
from harness.reporting.sections.results import (
    banner_of_file,
    banner_of_script,
    missing_of_file,
    scope_of_file,
)
from harness.runs.provenance import data_name
from harness.spec import FINISHED
from harness.study import conditions
from harness.study.declaration import (
    HASH_SHOWN,
    amendments,
    declaration_of,
    declared_before_results,
    plan_hash,
)
from harness.study.schema import ALL

# What a reader sees first: what this is not, what was asked, how much was run, and the answer.


NAMES = {"imagenet": "ImageNet", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "mnist": "MNIST"}
_NEGATIVE = re.compile(r"(?<=[\s\[(])-(?=\d)")  # the hyphen of a negative number, not that of a name


def banner(report: ReportInput) -> str:
    """The first line: whether it is under way, of which part it is, which runs are left out, and that this is
    not the paper's experiment. Empty where there is nothing of these to say."""
    says = [str(text) for text in (report.left_out or {}).get("says", ())]
    first = [str(each["says"]) for each in (report.under_way, report.part) if each]
    changes = report.plan.header.get("set") or ()
    if changes:
        said = ", ".join(f"`{each}`" for each in changes)
        first.append(f"Exploratory: {said} was set on the command line and is not what the study says.")
    return " ".join([*first, *says, *_setting(report)])


def _setting(report: ReportInput) -> list[str]:
    findings = report.findings
    if findings.settings.comparable_to_paper:
        return []
    if (found := from_file(report.plan)) is not None:
        return [banner_of_file(found)]
    if report.plan.scripts:
        return [banner_of_script(report)]
    size = "" if findings.size == ALL else f"`{findings.size}` "
    where = f"This is a {size}run on {', '.join(data_names(report))}"
    if not report.plan.header.get("paper"):
        return [f"{where}."]
    data = NAMES.get(name := str(report.plan.header.get("paper_data", "imagenet")), name)
    return [f"{where}: it is not a reproduction of the paper's {data} numbers."]


def question(report: ReportInput) -> str:
    """The study's question, as its file states it."""
    return str(report.plan.header.get("question") or "")


def scope(report: ReportInput) -> str:
    """One line: how much was planned and run, on what."""
    plan, findings = report.plan, report.findings
    if (found := from_file(plan)) is not None:
        return scope_of_file(report, found)
    if plan.scripts:
        return " · ".join([*_runs(report), *_scope_of_runs(report)])
    rows = sum(len(table.cells) for table in findings.tables)
    models = sorted({arm.recipe.model.name for arm in plan.arms.values()})
    parts = [
        f"{num.count(rows, 'row')} in {num.count(len(findings.tables), 'table')}",
        f"{num.count(sum(not arm.observes for arm in plan.arms.values()), 'distinct recipe')}",
        *_runs(report),
        f"data: {', '.join(places(plan))}",
        f"model: {', '.join(models)}",
    ]
    return " · ".join([*parts, *_scope_of_runs(report)])


def _scope_of_runs(report: ReportInput) -> list[str]:
    """Where they ran, and how long."""
    parts = []
    if device := doc.flatten(report.provenance).get("device"):
        parts.append(f"device: {device}")
    if "train_time_s" in report.records:
        times = [float(t) for t in report.records["train_time_s"] if num.is_number(t)]
        parts.append(f"training time, summed over runs: {num.duration(sum(times))}")
    return parts


def _runs(report: ReportInput) -> list[str]:
    """Trainings of the rows, further ones for ensembles, evaluations of trained networks."""
    plan = report.plan
    observing = {arm_id for arm_id, arm in plan.arms.items() if arm.observes}
    trainings = [run for run in plan.runs if run.arm_id not in observing]
    own = sum(run.seed in plan.seeds for run in trainings)
    evaluations = len(plan.runs) - len(trainings)
    parts = [f"{num.count(own, 'run')} ({doc.seeds_planned(plan)} each)"]
    if own < len(trainings):
        parts.append(f"{num.count(len(trainings) - own, 'further training')} for ensembles")
    if evaluations:
        parts.append(f"{num.count(evaluations, 'evaluation')} of trained networks")
    return parts


def data_names(report: ReportInput) -> list[str]:
    """The data sets of the plan, sorted."""
    return sorted({data_name(arm.recipe.data) for arm in report.plan.arms.values()})


def answer(report: ReportInput, figures: Sequence[doc.Block] = ()) -> doc.Section:
    """The answer in at most three sentences, the scoreboard, how much was run."""
    said = [_tally(report.findings.tables), *filter(None, [claims_tally(report), _outlook(report)])]
    blocks: list[doc.Block] = [doc.Paragraph(" ".join(said)), *figures, doc.Note(scope(report))]
    return doc.Section("Answer", tuple(blocks))


def expected(report: ReportInput) -> doc.Section | None:
    """What the study said before its first run; None where it said nothing."""
    items = doc.as_sentences(report.plan.header.get("expect"))
    return doc.Section("Expected before the first run", (doc.Bullets(items),)) if items else None


def _outlook(report: ReportInput) -> str:
    """Why rows cannot be tested or, where more are open, what would settle those; "" where none is either."""
    effects = [cell.effect for table in report.findings.tables for cell in table.cells if cell.effect]
    untested = [effect for effect in effects if effect.verdict == CANNOT_TEST]
    undecided = [effect for effect in effects if effect.verdict == UNDECIDED]
    if len(untested) > len(undecided):
        why = Counter(conditions.in_short(effect.qualifier) or CANNOT_TEST for effect in untested)
        reason, rows = why.most_common(1)[0]
        floor = "the floor: what a simple classifier reaches on the same images"
        if len(untested) == 1:
            return f"Why one row cannot be tested: {reason}" + f" ({floor})" * ("floor" in reason) + "."
        if 2 * rows > len(untested):
            of = f"{rows} of {num.count(len(untested), 'row')}" + f"; {floor}" * ("floor" in reason)
            return f"Why most rows cannot be tested: {reason} ({of})."
        each = ", ".join(f"{reason} ({rows})" for reason, rows in why.most_common())
        return f"Why rows cannot be tested: {each}" + f"; {floor}" * ("floor" in each) + "."
    more = sorted(effect.more_seeds for effect in undecided if effect.more_seeds)
    if not more:
        return ""
    if len(more) == 1:
        return f"About {num.count(more[0], 'more seed')} would settle the open row."
    return (
        f"About {num.count(more[0], 'more seed')} would settle the first of the open rows, "
        f"{more[(len(more) - 1) // 2]:,} half of them."
    )


def sentences(table: TableFinding, title: str) -> doc.ClaimList:
    """One sentence per row of a table."""
    return doc.ClaimList(title, tuple(_claim(cell) for cell in doc.ordered(table)))


def _tally(tables: tuple[TableFinding, ...]) -> str:
    words = Counter(cell.effect.verdict for table in tables for cell in table.cells if cell.effect)
    order = (HELPS, HURTS, NO_DIFFERENCE, UNDECIDED, NOT_EVALUABLE, CANNOT_TEST)
    counts = ", ".join(f"{words[word]} {GLYPHS[word]} {word}" for word in order if words[word])
    if not counts:
        return "Nothing is compared yet: no row has an effect."
    effects = [cell.effect for table in tables for cell in table.cells if cell.effect]
    late = sum(effect.exploratory for effect in effects)
    tail = f" ({late} of them exploratory: not declared before results were there)" if late else ""
    return f"Verdicts on {num.count(sum(words.values()), 'comparison')}: {counts}{tail}."


def _claim(cell: CellFinding) -> doc.ClaimLine:
    sentence = with_minus(cell.sentence)
    if cell.effect is None:
        return doc.ClaimLine("·", sentence, "")
    glyph, word = GLYPHS.get(cell.effect.verdict, ""), cell.effect.verdict
    return doc.ClaimLine(glyph if word in sentence else f"{glyph} {word}", sentence, word)


def with_minus(text: str) -> str:
    """A sentence of the analysis with true minus signs.

    >>> with_minus("x-y: -0.31 pp [-0.5, 0.1]")
    'x-y: −0.31 pp [−0.5, 0.1]'
    """
    return _NEGATIVE.sub(num.MINUS, text)


# What is missing or failed, what was replaced, and what the paper leaves out.


NOT_RUN = "not run"
ERROR_CHARS = 120


def statuses(report: ReportInput) -> dict[str, str]:
    """run_id -> status, for every run of the plan."""
    known = dict(zip(report.records["run_id"], report.records["status"], strict=True))
    return {run.run_id: str(known.get(run.run_id, NOT_RUN)) for run in report.plan.runs}


def shortfalls(report: ReportInput) -> doc.Section:
    """Runs without a result, substitutions at this size, and the gaps of the paper."""
    blocks: list[doc.Block] = []
    bad = _unfinished(report)
    total = len(report.plan.runs)
    if from_file(report.plan) is not None:
        blocks = [*missing_of_file(report), *([bad] if bad else [])]
        return doc.Section("Missing and failed", tuple(blocks))
    if bad is None:
        blocks.append(doc.Paragraph(f"All {num.count(total, 'planned run')} finished."))
    else:
        lost = len(bad.rows)
        blocks += [
            doc.Paragraph(f"{num.count(lost, 'run')} of {total} did not finish with a value."),
            bad,
        ]
    has_paper = bool(report.plan.header.get("paper"))
    size = "What differs from the paper at this size:" if has_paper else "What this size changes:"
    for title, items in (
        ("Of the command:" if report.plan.scripts else size, report.plan.notes),
        ("Deviations:", doc.as_sentences(report.plan.header.get("deviations"))),
        (
            "What the paper leaves out:" if has_paper else "What is left open:",
            doc.as_sentences(report.plan.header.get("unknown")),
        ),
    ):
        if items:
            blocks += [doc.Paragraph(title), doc.Bullets(tuple(items))]
    return doc.Section("Missing, failed, replaced", tuple(blocks))


def _unfinished(report: ReportInput) -> doc.TextTable | None:
    attempts, errors, status_of = _column(report, "attempts"), _column(report, "error"), statuses(report)
    rows = [
        [
            doc.run_name(report.plan, run),
            str(run.seed),
            status_of[run.run_id],
            attempts.get(run.run_id, num.missing("none")),
            _first_line(errors.get(run.run_id, "")),
        ]
        for run in report.plan.runs
        if status_of[run.run_id] != FINISHED
    ]
    metric = report.findings.settings.metric
    lacking = _lacking(report, metric)
    rows += [
        [
            doc.run_name(report.plan, run),
            str(run.seed),
            FINISHED,
            attempts.get(run.run_id, num.missing("none")),
            no_value(metric),
        ]
        for run in report.plan.runs
        if run.run_id in lacking
    ]
    if not rows:
        return None
    titles = {
        "Run": doc.TEXT,
        "Seed": doc.NUMBER,
        "Status": doc.TEXT,
        "Attempts": doc.NUMBER,
        "Error": doc.TEXT,
    }
    return doc.plain_table("unfinished", "Planned runs without a value.", titles, rows)


def _lacking(report: ReportInput, metric: str) -> frozenset[str]:
    """The finished runs without a value of the metric that the analysis takes for one."""
    if metric not in report.records:
        return frozenset()
    runs = zip(report.records["run_id"], report.records["status"], strict=True)
    values = usable(metric, report.records[metric])
    return frozenset(
        str(run)
        for (run, status), value in zip(runs, values, strict=True)
        if status == FINISHED and value is None
    )


def _column(report: ReportInput, name: str) -> dict[str, str]:
    """run_id -> the value of a column as text, where there is one."""
    if name not in report.records:
        return {}
    pairs = zip(report.records["run_id"], report.records[name], strict=True)
    return {str(run): str(value) for run, value in pairs if value is not None and value == value}


def _first_line(error: str) -> str:
    lines = error.strip().splitlines()
    return (
        textwrap.shorten(lines[0], ERROR_CHARS, placeholder=" ...") if lines else num.missing("none recorded")
    )


# What is undecided, and what it would cost to settle it.


def settling(report: ReportInput) -> doc.Section:
    """Seeds, runs and training time for each open verdict, and for all of them together."""
    open_cells = [
        (table, cell)
        for table in report.findings.tables
        for cell in table.cells
        if cell.effect and cell.effect.verdict == UNDECIDED
    ]
    title = "Undecided, and what it would cost to settle"
    if not open_cells:
        return doc.Section(title, (doc.Paragraph("No comparison is undecided."),))
    times = mean_train_time(report)
    rows, wanted = [], dict[str, int]()
    for table, cell in open_cells:
        seeds = more_seeds(cell)
        runs = {arm: each * (seeds or 0) for arm, each in _arms(report, table, cell).items()}
        rows.append([doc.short_name(table.key), doc.cell_name(cell), *_cost(seeds, runs, times)])
        for arm, n in runs.items():
            wanted[arm] = max(wanted.get(arm, 0), n)
    titles = {
        "Table": doc.TEXT,
        "Row": doc.TEXT,
        "More seeds": doc.NUMBER,
        "Runs": doc.NUMBER,
        "Training time": doc.NUMBER,
    }
    table_of_costs = doc.plain_table("undecided", "The cost of a verdict on each open row.", titles, rows)
    settings = report.findings.settings
    delta = size_text(settings.smallest_effect_pp, settings)
    text = (
        f"Seeds are estimated for the smallest effect of interest ({delta}), not for the effect seen, "
        "with probability 0.8 of a verdict if the true effect has that size. Rows share runs: "
        f"{_total(wanted, times)}."
    )
    return doc.Section(title, (doc.Paragraph(text), table_of_costs))


def more_seeds(cell: CellFinding) -> int | None:
    """About how many further seeds per arm would settle the row, where that is known."""
    return cell.effect.more_seeds if cell.effect else None


def mean_train_time(report: ReportInput) -> dict[str, float]:
    """Arm -> mean training time of one run in seconds, for arms with a measured run."""
    if "train_time_s" not in report.records:
        return {}
    by_arm: dict[str, list[float]] = {}
    for arm, time_s in zip(report.records["arm_id"], report.records["train_time_s"], strict=True):
        if num.is_number(time_s):
            by_arm.setdefault(str(arm), []).append(float(time_s))
    return {arm: sum(times) / len(times) for arm, times in by_arm.items()}


def _arms(report: ReportInput, table: TableFinding, cell: CellFinding) -> dict[str, int]:
    """Arm -> runs per further seed: the row, the one it is compared with, and all that these need."""
    assert cell.effect is not None
    versus = next(
        (c.arm_id for c in table.cells if c.row == cell.effect.versus and c.column == cell.column), None
    )
    runs: dict[str, int] = {}
    for arm in (cell.arm_id, versus):
        if arm:
            _add_needs(report, arm, 1, runs)
    return runs


def _add_needs(report: ReportInput, arm_id: str, each: int, runs: dict[str, int]) -> None:
    """Count an arm, its teacher, the run it starts from and the networks that it evaluates.

    Rows share runs, so that the larger number of two needs counts, not their sum.
    """
    runs[arm_id] = max(runs.get(arm_id, 0), each)
    arm = report.plan.arms.get(arm_id)
    if arm is None:
        return
    for other in (arm.teacher, arm.source):
        if other:
            _add_needs(report, other, each, runs)
    for member in arm.observes:
        _add_needs(report, member.arm, member.runs, runs)


def _cost(seeds: int | None, runs: dict[str, int], times: dict[str, float]) -> list[str]:
    """Seeds, runs and time of one row, or dashes where the number of seeds is not known."""
    if not seeds:
        return [num.missing("not known")] * 3
    return [f"about {seeds}", str(sum(runs.values())), _time(runs, times)]


def _time(seeds: dict[str, int], times: dict[str, float]) -> str:
    if any(arm not in times for arm in seeds):
        return num.missing("not measured")
    return num.duration(sum(n * times[arm] for arm, n in seeds.items()))


def _total(wanted: dict[str, int], times: dict[str, float]) -> str:
    runs = sum(wanted.values())
    if not runs:
        return "no number of seeds is known yet"
    time_s = _time(wanted, times)
    return f"all open rows together need {num.count(runs, 'run')}, {time_s} of training one after another"


# When the plan was declared, and what was changed after that.


TITLE = "Amendments to the plan"
NOTHING_SHOWS = "nothing here shows that it was declared before the results"

Record = Mapping[str, Any]


def declared_text(report: ReportInput) -> str:
    """One or two sentences for the method box: when the plan was recorded, and what had ended by then."""
    records = _records(report)
    if report.declaration is None:
        return f"The plan was not recorded when its runs were started: {NOTHING_SHOWS}."
    damaged = report.declaration["problem"]
    if not records:
        return f"The record of the plan cannot be used ({damaged}): {NOTHING_SHOWS}."
    first = records[0]
    said = f"The plan (hash {_short(first)}) was recorded on {when(first)}"
    if not first["ended"]:
        text = f"{said}, before any of its {num.count(first['runs'], 'run')} had ended."
    elif first["ended"] == first["runs"]:
        text = f"{said}, when all of its {num.count(first['runs'], 'run')} had ended: {NOTHING_SHOWS}."
    else:
        text = f"{said}, when {first['ended']} of its {num.count(first['runs'], 'run')} had ended: for the "
        text += "results that were there by then, nothing here shows that it was declared before them."
    return text + (f" It was changed since: see “{TITLE}”." if amendments_section(report) else "")


def amendments_section(report: ReportInput) -> doc.Section | None:
    """Every later declaration in words; None where the plan is the one that was declared first."""
    records = _records(report)
    blocks: list[doc.Block] = [*_unusable(report)]
    items = [_amendment(old, new) for old, new in pairwise(records)]
    if records and (text := _unrecorded(report, records[-1])):
        items.append(text)
    if items:
        intro = f"First declared on {when(records[0])}, plan hash {_short(records[0])}. Changed since:"
        blocks += [doc.Paragraph(intro), doc.Bullets(tuple(items)), *_consequences(report, records)]
    return doc.Section(TITLE, tuple(blocks)) if blocks else None


def when(record: Record) -> str:
    """For example "2026-11-22 17:31 UTC"."""
    return f"{record['time'][:16].replace('T', ' ')} UTC"


def declaration_json(report: ReportInput) -> dict[str, Any]:
    """The key `declaration` of report.json, as docs/json.md says."""
    records = _records(report)
    changes = [
        {**_head(new), "changes": amendments(old["declaration"], new["declaration"])}
        for old, new in pairwise(records)
    ]
    last = records[-1]["declaration"] if records else None
    return {
        "problem": report.declaration["problem"] if report.declaration else None,
        "first": _head(records[0]) if records else None,
        "amendments": changes,
        "not_recorded": amendments(last, declaration_of(report.declared_plan)) if last else [],
    }


def _head(record: Record) -> dict[str, Any]:
    return {name: record[name] for name in ("time", "plan_hash", "runs", "ended", "seen")}


def _records(report: ReportInput) -> Sequence[Record]:
    return report.declaration["declarations"] if report.declaration else ()


def _short(record: Record) -> str:
    return str(record["plan_hash"])[:HASH_SHOWN]


def _unusable(report: ReportInput) -> list[doc.Block]:
    problem = report.declaration["problem"] if report.declaration else None
    if problem is None:
        return []
    text = f"A record of the plan cannot be used: {problem}. What was declared from there on is not known."
    return [doc.Paragraph(text)]


def _amendment(old: Record, new: Record) -> str:
    changes = "; ".join(amendments(old["declaration"], new["declaration"])) or "nothing that the hash covers"
    return f"{when(new)}, plan hash {_short(new)}, {_ended(new)}: {changes}."


def _ended(record: Record) -> str:
    if not record["ended"] and not record["seen"]:
        return "before any run had ended"
    before = (
        f", and {num.count(record['seen'], 'further run')} of recipes declared before"
        if record["seen"]
        else ""
    )
    return f"when {record['ended']} of its {num.count(record['runs'], 'run')} had ended{before}"


def _unrecorded(report: ReportInput, newest: Record) -> str:
    """How this report's plan differs from the newest declaration; "" where it does not."""
    now = declaration_of(report.declared_plan)
    if plan_hash(now) == newest["plan_hash"]:
        return ""
    changes = "; ".join(amendments(newest["declaration"], now))
    return f"Not recorded, but so in this report (plan hash {plan_hash(now)[:HASH_SHOWN]}): {changes}."


def _consequences(report: ReportInput, records: Sequence[Record]) -> list[doc.Block]:
    rows = [
        f"{doc.short_name(table.key)} / {doc.cell_name(cell)}"
        for table in report.findings.tables
        for cell in table.cells
        if cell.effect and cell.effect.exploratory
    ]
    blocks: list[doc.Block] = []
    if rows:
        text = (
            f"{num.count(len(rows), 'verdict')} marked as exploratory, because the comparison, or the recipe "
            "of one of its sides, was not declared before results were there. They stay in the Holm family, "
            f"which is that of the plan as it is now: {', '.join(rows)}."
        )
        blocks.append(doc.Paragraph(text))
    base = declared_before_results(records)
    if base["declaration"]["looks"] != declaration_of(report.declared_plan)["looks"]:
        text = (
            "How many seeds there are was changed when results were there. The error rate of the verdicts "
            "holds for seeds, and looks at the results, that were declared before."
        )
        blocks.append(doc.Paragraph(text))
    return blocks
