"""How the verdicts were made and where every number comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from harness.analysis.calibration import badge
from harness.analysis.findings import (
    CANNOT_TEST,
    GLYPHS,
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    NOT_EVALUABLE,
    UNDECIDED,
    ArmCompetence,
    CellFinding,
    Competence,
    Effect,
    Findings,
    Settings,
    TableFinding,
)
from harness.analysis.verdicts import metric_name, size_text
from harness.reporting import document as doc
from harness.reporting import numbers as num
from harness.reporting.frames import ARCHIVE, patch_path
from harness.reporting.report_input import ReportInput, RunCost, arm_costs, from_file, study_cost
from harness.reporting.sections.opening import declared_text, statuses
from harness.reporting.sections.recipes import last_quarter
from harness.reporting.sections.results import (
    checklist_of_file,
    chosen_when,
    commands_of_script,
    error_bars_of_script,
    facts_of_file,
    method_of_file,
    metric_of_script,
)
from harness.reporting.sections.tables import effect_digits, observed, observer_blocks
from harness.spec import ACCURACIES, DIVERGED, ENDED, Arm, ModelSpec, as_plain
from harness.study import conditions

# Answers to the questions of a paper checklist, each from the inputs of this report.
#
# Questions: NeurIPS Paper Checklist (2024), "Experiment statistical significance" (error bars: what varies,
# how they are computed), "Experiments compute resources" (type of compute, amount per run and in total),
# "Experimental setting" (seeds), "Open access to data and code".


NOT_MEASURED = "not measured"
DIGITS = 12  # of a fingerprint
_OWN_TRAINERS = " Rows that a plugin's own function trains vary in what that function draws from the seed."


def checklist(report: ReportInput) -> list[doc.Block]:
    """One answer per question."""
    answers = (
        ("Error bars", _error_bars(report)),
        ("Seeds", _seeds_answer(report)),
        ("Selection", _selection(report)),
        ("Compute", _compute(report)),
        ("Code and data", _sources(report)),
    )
    return [
        doc.Paragraph("Answers to a paper checklist, written from the records:"),
        doc.Definitions(answers),
    ]


def cost_text(cost: RunCost) -> str:
    """For example "41.2 GPU-hours (measured energy: 1,200 kJ)"."""
    hours = "device-hours not known"
    if cost.device_hours is not None:
        digits = 1 if cost.device_hours >= 1 else 3
        hours = f"{num.number(cost.device_hours, digits)} {cost.unit}"
    return f"{hours}; energy: {energy_text(cost)}"


def energy_text(cost: RunCost) -> str:
    return NOT_MEASURED if cost.energy_kj is None else f"{num.number(cost.energy_kj, 1)} kJ"


def _error_bars(report: ReportInput) -> str:
    metric, arms = metric_name(report.findings.settings.metric), report.plan.arms.values()
    if not any(cell.level and cell.level.sd is not None for t in report.findings.tables for cell in t.cells):
        return "None: no row has two seeds with a value."
    if report.plan.scripts:
        return error_bars_of_script(metric)
    own_trainers = any(arm.recipe.trainer != "harness" for arm in arms)
    return (
        f"“±” is the standard deviation of {metric} over seeds; intervals are 95 % t intervals over "
        "re-training, which assume roughly normal noise. What varies from seed to seed: initial weights, "
        "order of the images, augmentation and every other random draw of training. What does not: the split "
        "into training and test images." + _OWN_TRAINERS * own_trainers
    )


def _seeds_answer(report: ReportInput) -> str:
    plan = report.plan
    arms = [arm_id for arm_id in plan.all_arms if arm_id in {c.arm_id for t in plan.tables for c in t.cells}]
    counts = {len(plan.seeds_of(arm_id)) for arm_id in arms} or {len(plan.seeds)}
    first, last = min(plan.seeds), max(plan.seeds)
    which = f"{first} to {last}" if last > first else str(first)
    if len(counts) == 1:
        return f"{num.count(counts.pop(), 'seed')} for every row ({which}), the same for all rows."
    return f"{min(counts)} to {max(counts)} per row, each row the first of {which}."


def _selection(report: ReportInput) -> str:
    status = list(report.records["status"])
    ended = sum(each in ENDED for each in status)
    diverged = status.count(DIVERGED)
    return (
        f"No run was picked: {ended} of {num.count(len(report.plan.runs), 'planned run')} ended"
        + (f", {diverged} of them diverged," if diverged else "")
        + " and all of them are counted. No hyper-parameter was tuned on these results by the harness."
    )


def _compute(report: ReportInput) -> str:
    cost = study_cost(report.records)
    on = _machine(report)
    if not cost.runs:
        return f"{on}No run has ended."
    observing = {arm_id for arm_id, arm in report.plan.arms.items() if arm.observes}
    trained = [arm_id not in observing for arm_id in report.records["arm_id"]]
    time_s = study_cost(report.records[trained]).time_s
    mean = "not recorded" if time_s is None else f"{num.duration(time_s)}"
    return (
        f"{on}Training time of one run, mean: {mean}. All {num.count(cost.runs, 'run')}: {cost_text(cost)}."
    )


def _machine(report: ReportInput) -> str:
    found = report.provenance
    if not found.get("device"):
        return "Device not recorded. "
    cores, memory_gb = found.get("cores"), found.get("memory_gb")
    beside = [f"{doc.setting_text(cores)} CPU cores"] if cores else []
    beside += [f"{doc.setting_text(memory_gb)} GB memory"] if memory_gb else []
    return doc.setting_text(found["device"]) + (f" ({', '.join(beside)})" if beside else "") + ". "


def _sources(report: ReportInput) -> str:
    found = report.provenance
    parts = []
    for name, title in (("code", "Code"), ("commit", "Commit"), ("data_fingerprint", "Data fingerprint")):
        if found.get(name):
            values = found[name] if isinstance(found[name], list) else [found[name]]
            shown = [str(each)[:DIGITS] if name == "data_fingerprint" else str(each) for each in values]
            parts.append(f"{title}: {doc.setting_text(shown)}.")
    return " ".join(parts) or "Not recorded."


# How the verdicts were made, in words, from the declared settings.


_READ_OUTS = {
    "last_epoch": "at the last epoch (never at the best epoch on the test set)",
    "median_of_last_5": "as the median over the last five epochs",
}


def method(report: ReportInput) -> doc.Section:
    """The protocol, and what each verdict word means."""
    settings = report.findings.settings
    if from_file(report.plan) is not None:
        return _method_of_file(report)
    read_outs = sorted({arm.recipe.read_out for arm in report.plan.arms.values()})
    worst = "chance accuracy" if settings.in_percent else "the worst value of the table"
    read = " and ".join(_READ_OUTS.get(name, name.replace("_", " ")) for name in read_outs)
    how = (
        f"Metric: {metric_name(settings.metric)}{' accuracy' * (settings.metric in ACCURACIES)} on the test "
        f"set, read {read}, as the study file says."
    )
    text = (
        f"{metric_of_script(report) if report.plan.scripts else how} {_seeds(report)} {_noise(report)} "
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
        doc.Paragraph(declared_text(report)),
        doc.Paragraph(text),
        doc.Definitions(_words(report.findings)),
        *observer_blocks(report.plan),
        *_self_test(report),
        *checklist(report),
    )
    return doc.Section("Method", blocks)


def _method_of_file(report: ReportInput) -> doc.Section:
    """The same of results that were not trained here."""
    blocks = (
        doc.Paragraph(chosen_when(report)),
        doc.Paragraph(method_of_file(report, _noise(report))),
        doc.Definitions(_words(report.findings)),
        doc.Paragraph("Answers to a paper checklist, written from the file:"),
        doc.Definitions(checklist_of_file(report)),
    )
    return doc.Section("Method", blocks)


def _self_test(report: ReportInput) -> tuple[doc.Paragraph, ...]:
    """What `harness calibrate` measured on this machine; nothing where it was not run."""
    return () if report.calibration is None else (doc.Paragraph(f"{badge(report.calibration)}."),)


def _seeds(report: ReportInput) -> str:
    """How many per recipe, and when it was decided."""
    plan = report.plan
    if not plan.is_adaptive:
        return f"Every recipe is trained with the same {num.count(len(report.findings.seeds), 'seed')}."
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
    unit, digits = (" pp", num.MOST_DIGITS) if settings.in_percent else ("", None)
    low, high = num.number(min(sds), digits), num.number(max(sds), digits)
    spread = f"{low}{unit}" if low == high else f"{low} to {high}{unit}, depending on the table"
    return f"The noise between seeds (pooled sd) is {spread}."


def _words(findings: Findings) -> tuple[tuple[str, str], ...]:
    settings = findings.settings
    delta = size_text(settings.smallest_effect_pp, settings)
    less = settings.lower_is_better
    side, other, beyond = ("below", "above", f"−{delta}") if less else ("above", "below", delta)
    texts = {
        HELPS: f"the Holm-adjusted interval lies {side} 0; “by at least {delta}” if it lies {side} {beyond}.",
        HURTS: f"the Holm-adjusted interval lies {other} 0; the qualifiers mirror those of “helps”.",
        NO_DIFFERENCE: f"neither, and the 90 % interval lies within ±{delta} (equivalence test).",
        UNDECIDED: "none of these: the data allow effects that matter in either direction, or none.",
        NOT_EVALUABLE: "too few finished runs, or more than one training failure among at most ten seeds.",
    }
    if findings.competence is not None:
        texts[NO_DIFFERENCE] += (
            f" And the table could have seen one: its control was detected, or an effect of {delta} would be "
            "found with 80 % power."
        )
        texts[CANNOT_TEST] = (
            "a condition does not hold without which the numbers mean nothing, and which one is said: see "
            f"“{COMPETENCE}”. It takes the place of every other word."
        )
    words = tuple((f"{GLYPHS[word]} {word}", text) for word, text in texts.items())
    return (
        *words,
        ("fragile", "dropping one seed, or counting diverged runs as chance, changes the verdict."),
    )


# What must hold before a comparison is given a word, and which rows fall short of it.


COMPETENCE = "What can be tested"


def competence_section(report: ReportInput) -> doc.Section | None:
    """The conditions, the floors, the controls and the rows that cannot stand in a comparison."""
    found = report.findings.competence
    if found is None:
        return None
    settings = report.findings.settings
    room = size_text(conditions.HEADROOM * settings.smallest_effect_pp, settings)
    blocks: list[doc.Block] = [doc.Paragraph(conditions.in_words(room))]
    if found.no_floor:
        blocks.append(doc.Paragraph(f"No floor was computed: {found.no_floor}."))
    if found.floors:
        blocks.append(_floors_table(found))
    blocks += last_quarter(report)
    if found.controls:
        blocks.append(
            doc.Bullets(tuple(f"{doc.short_name(each.table)}: {each.says}." for each in found.controls))
        )
    if any(arm.fault for arm in found.arms):
        blocks.append(_faults_table(found, report))
    else:
        blocks.append(doc.Paragraph("No row falls short of a condition of its own."))
    return doc.Section(COMPETENCE, tuple(blocks))


def _floors_table(found: Competence) -> doc.TextTable:
    arms = {arm.arm_id: arm for arm in found.arms}
    rows = []
    for floor in found.floors:
        below = sum(_is_below(arms[arm_id]) for arm_id in floor.arms)
        name = f"{floor.data}, {floor.resolution} pixels"
        if floor.train_images is not None:
            name += f", {floor.train_images:,} training images"
        if floor.problem is not None:
            rows.append(
                [
                    name,
                    *[num.missing(floor.problem)] * 4,
                    str(len(floor.arms)),
                    num.missing("not known"),
                ]
            )
            continue
        values = (floor.linear, floor.neighbours, floor.guessing, floor.value)
        shown = [num.missing("none") if value is None else num.number(value) for value in values]
        rows.append([name, *shown, str(len(floor.arms)), str(below)])
    titles = {
        "Data": doc.TEXT,
        "Logistic regression": doc.NUMBER,
        "5 nearest": doc.NUMBER,
        "Guessing": doc.NUMBER,
    }
    titles |= {"Floor": doc.NUMBER, "Recipes": doc.NUMBER, "Below it": doc.NUMBER}
    return doc.plain_table("floors", "What simple classifiers reach, % of the test images.", titles, rows)


def _is_below(arm: ArmCompetence) -> bool:
    reached = arm.top1 if arm.lower is None else arm.lower
    return arm.floor is not None and reached is not None and reached < arm.floor


def _faults_table(found: Competence, report: ReportInput) -> doc.TextTable:
    rows = [
        [doc.arm_name(report.plan, arm.arm_id), arm.fault[0].upper() + arm.fault[1:] + "."]
        for arm in found.arms
        if arm.fault
    ]
    text = "Recipes that no comparison can be tested with."
    return doc.plain_table("cannot_be_tested", text, {"Recipe": doc.TEXT, "Why": doc.TEXT}, rows)


# Where every number comes from: versions, data, what distinguishes the recipes, and each run.


RUN_ID_DIGITS = 12  # shown; report.json has all of them
NOT_RECORDED = "not recorded"
_ENERGY = (
    "of the devices, from their own counters, summed; not measured where a counter cannot be read or "
    "something else used the device."
)
TITLES = {  # key of report.provenance -> what a reader calls it, in the order of the report
    "code": "Code of the runs",
    "harness": "Report written by harness",
    "data": "Data set",
    "data_fingerprint": "Data fingerprint (sha256)",
    "data_left_out": "What the data leaves out or changes",
    "device": "Device",
    "device_memory_gb": "Device memory, GB",
    "cpu": "CPU",
    "cores": "CPU cores a run could use",
    "memory_gb": "Memory, GB",
    "driver": "NVIDIA driver",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "os": "Operating system",
    "platform": "Kernel and C library",
    "hostname": "Hosts",
    "python": "Python",
    "torch": "PyTorch",
    "torchvision": "torchvision",
    "numpy": "NumPy",
    "threads": "Threads per process",
    "processes": "Processes per run",
    "determinism": "Determinism",
    "drawn_with": "Figures and PDF drawn with",
    "inputs": "Hash of the plan and of every summary",
    "records": "Hash of data/",
}


def provenance(report: ReportInput) -> doc.Section:
    """Versions and fingerprints, the recipes and the runs."""
    if from_file(report.plan) is not None:
        return doc.Section("Provenance", (facts_of_file(report),))
    blocks: list[doc.Block] = [_facts(report)]
    if report.plan.arms:
        baseline = baseline_arm(report)
        text = f"The recipes as trained here. The baseline is “{doc.arm_name(report.plan, baseline)}”."
        blocks += [
            doc.Paragraph(text),
            _baseline_table(report, baseline),
            _differences_table(report, baseline),
        ]
    if report.plan.scripts:
        blocks += commands_of_script(report)
    costs = _costs_table(report)
    return doc.Section("Provenance", (*blocks, *([costs] if costs else [])))


def baseline_arm(report: ReportInput) -> str:
    """The first arm in reading order that is trained."""
    arms = report.plan.arms
    shown = (cell.arm_id for table in report.plan.tables for cell in table.cells if cell.arm_id)
    return next((arm_id for arm_id in (*shown, *arms) if not arms[arm_id].observes), next(iter(arms)))


def _flat_arm(arm: Arm) -> dict[str, str]:
    flat = doc.flatten(as_plain(arm.recipe))
    if "model.weights" in flat:
        flat["model.weights"] = f"file of sha256 {flat['model.weights'][:12]}"
    names = [trick.name + (f"({_options(trick.options)})" if trick.options else "") for trick in arm.tricks]
    return flat | {"tricks in training": ", ".join(names) or "none"}


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={doc.setting_text(value)}" for key, value in options.items())


def _baseline_table(report: ReportInput, baseline: str) -> doc.TextTable:
    rows = [[key, value] for key, value in _flat_arm(report.plan.arms[baseline]).items()]
    return doc.plain_table(
        "baseline", "Every setting of the baseline.", {"Setting": doc.TEXT, "Value": doc.TEXT}, rows
    )


def _differences_table(report: ReportInput, baseline: str) -> doc.TextTable:
    plan = report.plan
    base = _flat_arm(plan.arms[baseline])
    rows = []
    for arm_id, arm in plan.arms.items():
        flat = _flat_arm(arm)
        keys = dict.fromkeys([*base, *flat])
        other_model = arm.recipe.model.name != plan.arms[baseline].recipe.model.name
        changes = [
            f"{key}: {base.get(key, 'not set')} → {flat.get(key, 'not set')}"
            for key in keys
            if base.get(key) != flat.get(key) and not (other_model and key.startswith("model."))
        ]
        if other_model:
            changes.insert(0, _model_change(plan.arms[baseline].recipe.model, arm.recipe.model))
        if arm.teacher:
            changes.append(f"teacher: {doc.arm_name(plan, arm.teacher)}")
        if arm.source:
            changes.append(f"starts from the weights of: {doc.arm_name(plan, arm.source)}")
        if arm.observes:
            changes.append(f"trains nothing, evaluates: {observed(plan, arm)}")
        changes += [f"plugin {name}: sha256 {digest[:12]}" for name, digest in sorted(arm.plugins.items())]
        rows.append([doc.arm_name(plan, arm_id), "; ".join(changes) or "the baseline"])
    titles = {"Recipe": doc.TEXT, "Differs from the baseline in": doc.TEXT}
    return doc.plain_table("recipes", "What each recipe changes.", titles, rows)


def _model_change(old: ModelSpec, new: ModelSpec) -> str:
    """Another architecture has other arguments: all of them, not the differences."""
    start = f", from the file of weights of sha256 {new.weights[:12]}" if new.weights else ""
    return f"model: {old.name} → {new.name}" + (f" with {_options(new.args)}" if new.args else "") + start


def _facts(report: ReportInput) -> doc.Definitions:
    """What the report was made from, in a fixed order; a list that is empty was not recorded."""
    found = doc.flatten(report.provenance)
    if found.get("cpu") == found.get("device"):
        found.pop("cpu", None)
    absent = [name for name in found if report.provenance.get(name) == []]
    names = [*(name for name in TITLES if name in found), *sorted(found.keys() - TITLES.keys())]
    facts = [(TITLES.get(name, name), found[name]) for name in names if name not in absent]
    if report.changes:
        patches = ", ".join(patch_path(digest) for digest in sorted(report.changes))
        facts.insert(1, ("Changed files", f"{patches} in {ARCHIVE}"))
    facts += [*_runs(report), ("Cost", cost_text(study_cost(report.records)))]
    if absent:
        titles = [title for name, title in TITLES.items() if name in absent]
        facts.append(("Not recorded by any run", "; ".join(titles)))
    return doc.Definitions(tuple(facts))


def _runs(report: ReportInput) -> list[tuple[str, str]]:
    """How many runs there are, and when they were made; each of them stands in the files."""
    runs, status_of = report.plan.runs, statuses(report)
    counts = Counter(status_of[run.run_id] for run in runs)
    said = ", ".join(f"{number} {status}" for status, number in counts.most_common())
    text = f"{num.count(len(runs), 'run')} ({said})"
    if runs:
        text += f", ids {min(run.run_id for run in runs)[:RUN_ID_DIGITS]} ... "
        text += f"{max(run.run_id for run in runs)[:RUN_ID_DIGITS]}"
    text += f"; each with seed, status, result and time in report.json, and in runs.jsonl of {ARCHIVE}"
    return [("Runs", text), ("Trained", _period(report))]


def _period(report: ReportInput) -> str:
    if not {"started_s", "ended_s"} <= set(report.records):
        return NOT_RECORDED
    starts = [value for value in report.records["started_s"] if num.is_number(value)]
    ends = [value for value in report.records["ended_s"] if num.is_number(value)]
    if not starts or not ends:
        return NOT_RECORDED
    first, last = (datetime.fromtimestamp(value, UTC) for value in (min(starts), max(ends)))
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def _costs_table(report: ReportInput) -> doc.TextTable | None:
    """Per recipe; None where no run has ended."""
    costs = arm_costs(report.records)
    units = {cost.unit for cost in costs.values()}
    unit = units.pop() if len(units) == 1 else None
    measured = any(cost.energy_kj is not None for cost in costs.values())
    rows = []
    for arm_id in report.plan.all_arms:
        if arm_id not in costs:
            continue
        cost = costs[arm_id]
        hours = num.missing(NOT_RECORDED)
        if cost.device_hours is not None:
            hours = num.number(cost.device_hours, 4 if cost.device_hours < 1 else 1)
        time = num.missing(NOT_RECORDED) if cost.time_s is None else num.duration(cost.time_s)
        energy = num.missing(NOT_MEASURED) if cost.energy_kj is None else num.number(cost.energy_kj, 1)
        rows.append([doc.arm_name(report.plan, arm_id), str(cost.runs), time, hours, *([energy] * measured)])
    titles = {"Recipe": doc.TEXT, "Runs": doc.NUMBER, "Training of one, mean": doc.NUMBER}
    titles |= {unit or "Device-hours": doc.NUMBER} | ({"Energy, kJ": doc.NUMBER} if measured else {})
    caption = (
        "What each recipe cost. Device-hours: GPUs, or CPU cores, that a run held times its wall time, "
        "summed over its runs; a GPU that several runs share counts for each. Energy: "
    ) + (_ENERGY if measured else "not measured.")
    return doc.plain_table("costs", caption, titles, rows) if rows else None


# Every number behind a verdict, for the reader who wants to check it.


def _columns(settings: Settings) -> tuple[doc.TextColumn, ...]:
    unit = doc.effect_suffix(settings)
    return (
        doc.TextColumn(title="Row"),
        doc.TextColumn(title="n", kind=doc.NUMBER),
        doc.TextColumn(title=f"Effect{unit}: Holm-adjusted interval", kind=doc.SPREAD),
        doc.TextColumn(title="p (Holm)", kind=doc.NUMBER),
        doc.TextColumn(title="df", kind=doc.NUMBER),
        doc.TextColumn(title=f"Detectable effect{unit}", kind=doc.NUMBER),
    )


def evidence(report: ReportInput) -> doc.Section | None:
    """One table per study table that has effects; None where nothing is compared."""
    tables = [
        _table(table, report.findings.settings) for table in report.findings.tables if _with_effect(table)
    ]
    if not tables:
        return None
    intro = (
        "Verdicts use the Holm-adjusted intervals. “Detectable effect” is the smallest true effect that this "
        "n would find with probability 0.8."
    )
    return doc.Section("Evidence for each verdict", (doc.Paragraph(intro), *tables))


def _with_effect(table: TableFinding) -> list[tuple[CellFinding, Effect]]:
    return [
        (cell, cell.effect) for cell in doc.ordered(table) if cell.effect and cell.effect.estimate is not None
    ]


def _table(table: TableFinding, settings: Settings) -> doc.TextTable:
    cells = _with_effect(table)
    noise = [f"Comparisons in the Holm family: {table.contrasts}."]
    if table.pooled_sd is not None:
        sd = f"{num.number(table.pooled_sd)} pp" if settings.in_percent else num.number(table.pooled_sd, None)
        noise.append(f"Pooled sd between seeds: {sd}.")
    if table.seed_correlation is not None:
        noise.append(f"Share of the variance that runs with the same seed have in common: "
                     f"{num.number(table.seed_correlation)}.")  # fmt: skip
    guarded = [cell.row for cell, effect in cells if effect.flagged]
    if guarded:
        noise.append(f"Mostly own variance instead of the pooled one (variance guard): {', '.join(guarded)}.")
    return doc.TextTable(
        key=f"{table.key}_evidence",
        caption=f"{doc.table_name(table)}: the numbers behind the verdicts.",
        columns=_columns(settings),
        rows=tuple(doc.TextRow(_row(cell, effect, settings), cell.column or "") for cell, effect in cells),
        notes=(" ".join(noise),),
    )


def _row(cell: CellFinding, effect: Effect, settings: Settings) -> tuple[doc.TextCell, ...]:
    digits = effect_digits(effect, settings)
    texts = (
        cell.row,
        str(effect.n),
        num.interval(effect.adjusted_low, effect.adjusted_high, digits),
        "" if effect.p_holm is None else num.probability(effect.p_holm),
        "" if effect.df is None else num.number(effect.df, 1),
        "" if effect.detectable is None else num.number(effect.detectable, digits),
    )
    why = "(same run)" if effect.estimate == 0.0 and effect.p is None else "(no spread known)"
    return tuple(doc.TextCell(text) if text else doc.TextCell(num.DASH, why) for text in texts)
