"""What is undecided, and what it would cost to settle it."""

from __future__ import annotations

from harness.analysis.findings import UNDECIDED, CellFinding, TableFinding
from harness.analysis.units import size_text
from harness.reporting.cells import NUMBER, TEXT, plain_table
from harness.reporting.document import Paragraph, Section
from harness.reporting.inputs import ReportInput
from harness.reporting.names import cell_name, short_name
from harness.reporting.numbers import count, duration, is_number, missing


def settling(report: ReportInput) -> Section:
    """Seeds, runs and training time for each open verdict, and for all of them together."""
    open_cells = [
        (table, cell)
        for table in report.findings.tables
        for cell in table.cells
        if cell.effect and cell.effect.verdict == UNDECIDED
    ]
    title = "Undecided, and what it would cost to settle"
    if not open_cells:
        return Section(title, (Paragraph("No comparison is undecided."),))
    times = mean_train_time(report)
    rows, wanted = [], dict[str, int]()
    for table, cell in open_cells:
        seeds = more_seeds(cell)
        runs = {arm: each * (seeds or 0) for arm, each in _arms(report, table, cell).items()}
        rows.append([short_name(table.key), cell_name(cell), *_cost(seeds, runs, times)])
        for arm, n in runs.items():
            wanted[arm] = max(wanted.get(arm, 0), n)
    titles = {"Table": TEXT, "Row": TEXT, "More seeds": NUMBER, "Runs": NUMBER, "Training time": NUMBER}
    table_of_costs = plain_table("undecided", "The cost of a verdict on each open row.", titles, rows)
    settings = report.findings.settings
    delta = size_text(settings.smallest_effect_pp, settings)
    text = (
        f"Seeds are estimated for the smallest effect of interest ({delta}), not for the effect seen, "
        "with probability 0.8 of a verdict if the true effect has that size. Rows share runs: "
        f"{_total(wanted, times)}."
    )
    return Section(title, (Paragraph(text), table_of_costs))


def more_seeds(cell: CellFinding) -> int | None:
    """About how many further seeds per arm would settle the row, where that is known."""
    return cell.effect.more_seeds if cell.effect else None


def mean_train_time(report: ReportInput) -> dict[str, float]:
    """Arm -> mean training time of one run in seconds, for arms with a measured run."""
    if "train_time_s" not in report.records:
        return {}
    by_arm: dict[str, list[float]] = {}
    for arm, time_s in zip(report.records["arm_id"], report.records["train_time_s"], strict=True):
        if is_number(time_s):
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
        return [missing("not known")] * 3
    return [f"about {seeds}", str(sum(runs.values())), _time(runs, times)]


def _time(seeds: dict[str, int], times: dict[str, float]) -> str:
    if any(arm not in times for arm in seeds):
        return missing("not measured")
    return duration(sum(n * times[arm] for arm, n in seeds.items()))


def _total(wanted: dict[str, int], times: dict[str, float]) -> str:
    runs = sum(wanted.values())
    if not runs:
        return "no number of seeds is known yet"
    time_s = _time(wanted, times)
    return f"all open rows together need {count(runs, 'run')}, {time_s} of training one after another"
