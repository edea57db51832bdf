"""What a person reads in a terminal: plans, states, listings. Labels are never taken for markup."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table

from harness.commands.checks.base import Finding
from harness.data.entry import Look
from harness.study.grow import runs_at_most
from harness.study.paper import METRICS
from harness.study.plan import Cell, Plan, PlanTable
from harness.study.problems import visible
from harness.study.union import Union

MEMORY_MARK = "†"
MEMORY_FOOTNOTE = f"{MEMORY_MARK} from memory: no available source showed it (docs/references.md)"
NARROWEST = 72  # columns; below it the terminal breaks lines, rather than whole columns of a table vanish
ALSO_PRINTED = {  # further printed numbers of a row -> heading
    "top1_std": "std",
    "params_m": "params M",
    "gflops": "GMACs",
    "cost": "cost",
    "cost_bn_ops": "Bn ops",
    "epoch_minutes": "min/epoch",
    "steps_to_target_m": "M steps",
}
MOST_CLASSES_SHOWN = 20
LISTED = {  # listing -> the columns a person sees; `--json` has everything
    "tricks": ("name", "what", "paper"),
    "models": ("name", "params", "macs", "paper"),
    "data": ("name", "classes", "train_images", "test_images", "missing"),
    "studies": ("file", "study", "question", "runs", "error"),
}


class HouseConsole(Console):
    """A console whose texts, whoever wrote them, cannot command the terminal: only its own styles do."""

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: a label such as `[3, 4, 6]` is not markup."""
    return HouseConsole(stderr=stderr, markup=False, emoji=False, highlight=False)


def listing_console() -> Console:
    console = plain_console()
    console.width = max(console.width, NARROWEST)
    return console


def show_plan(plan: Plan, data: Look) -> None:
    """Every row with its paper cells, then the runs, what is shared and the cost."""
    console = listing_console()
    for table in plan.tables:
        console.print(f"{table.key}: {table.title}", style="bold")
        console.print(Padding(_rows(table), (0, 0, 1, 1)))
    printed = (value for table in plan.tables for cell in table.cells for value in cell.paper.values())
    if any(value.status != "verified" for value in printed):
        console.print(f"{MEMORY_FOOTNOTE}\n")
    for note in plan.notes:
        console.print(f"note: {note}")
    _show_data(console, data)
    console.print(plan_line(plan))


def _show_data(console: Console, data: Look) -> None:
    for text in data.notes:
        console.print(f"data: {text}")
    for text in data.problems:
        console.print(f"missing data: {text}")


def _rows(table: PlanTable) -> Table:
    has_columns = any(cell.column for cell in table.cells)
    view = Table(box=None, header_style="bold", pad_edge=False)
    view.add_column("row")
    if has_columns:
        view.add_column("column")
    view.add_column("arm", no_wrap=True)
    view.add_column("compared with")
    printed = {name for cell in table.cells for name in cell.paper}
    shown = {"top1": "paper top-1", "top5": "paper top-5"}
    shown |= {name: heading for name, heading in ALSO_PRINTED.items() if name in printed}
    for heading in shown.values():
        view.add_column(heading, justify="right", no_wrap=True)
    for cell in table.cells:
        arm = cell.arm_id[:8] if cell.arm_id else "quoted"
        column = [cell.column or ""] if has_columns else []
        view.add_row(cell.row, *column, arm, cell.versus or "", *(_paper(cell, name) for name in shown))
    return view


def _paper(cell: Cell, metric: str) -> str:
    printed = cell.paper.get(metric)
    if printed is None:
        return ""
    digits = f"{printed.value:.2f}" if metric in METRICS else f"{printed.value:g}"
    return digits + (" " if printed.status == "verified" else MEMORY_MARK)


def plan_line(plan: Plan, *, hint: bool = True) -> str:
    """One line: how many rows, arms and runs, what is done, what the rest costs.

    hint: say when seconds will be known, where they are not.
    """
    cells = [cell for table in plan.tables for cell in table.cells if cell.arm_id]
    todo = [run for run in plan.runs if not run.done]
    further = len(plan.runs) - sum(len(plan.seeds_of(arm_id)) for arm_id in plan.arms)
    line = (
        f"{plan.study} ({plan.size}): {len(cells)} rows, {len(plan.arms)} arms x {_seeds(plan)}"
        + (f" + {further} further members of ensembles" if further else "")
        + f" = {len(plan.runs)} runs, {len(plan.runs) - len(todo)} done"
    )
    if not todo:
        return line + "; nothing to train"
    times = [run.time_s for run in todo if run.time_s is not None]
    time_s = sum(times) if len(times) == len(todo) else None
    return line + f"; to train: {_work(len(todo), sum(run.macs for run in todo), time_s, hint=hint)}"


def _seeds(plan: Plan) -> str:
    """How many, and of an adaptive study at which look."""
    if not plan.is_adaptive:
        return f"{len(plan.seeds)} seeds"
    fewest = min(plan.arm_seeds.values(), default=len(plan.seeds))
    span = f"{fewest} to {len(plan.seeds)}" if fewest < len(plan.seeds) else f"{fewest}"
    most = f"at most {plan.looks[-1]}, {runs_at_most(plan)} runs"
    return f"{span} seeds at look {plan.look} of {len(plan.looks)} ({most})"


def _work(runs: int, macs: float, time_s: float | None, *, hint: bool = True) -> str:
    text = f"{runs} run{'s' if runs != 1 else ''}, {macs:.2e} multiply-adds"
    if time_s is None:
        return text + (" (seconds are known once a run has finished here)" if hint else "")
    return text + f", about {duration(time_s)} of one worker"


def show_plans(plans: Sequence[Plan], together: Union, data: Look) -> None:
    """One line per study, then what they share and need together."""
    console = listing_console()
    for plan in plans:
        console.print(plan_line(plan, hint=False))
    console.print()
    _show_data(console, data)
    todo = together.runs - together.done
    console.print(
        f"together: {together.runs} runs, {together.shared} of them shared by more than one study,"
        f" {together.done} done; "
        + (f"to train: {_work(todo, together.macs, together.time_s)}" if todo else "nothing to train")
    )
    for studies, count in together.sharing:
        console.print(f"shared by {', '.join(studies)}: {count} run{'s' if count != 1 else ''}")


def in_words(counts: Mapping[str, int]) -> str:
    """How many are in each state.

    >>> in_words({"finished": 5, "failed": 1})
    '5 finished, 1 failed'
    """
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def show_findings(findings: Iterable[Finding], levels: Mapping[str, str]) -> list[Finding]:
    """One line per finding, as it comes; then how many of each level. Returns the findings.

    levels: level -> the style of its word, from the best to the worst. The best needs no mend here.
    """
    best = next(iter(levels))
    console = plain_console()
    found = []
    for finding in findings:
        found.append(finding)
        console.print(f"{finding.level:<5}", style=levels[finding.level], end="")
        mend = f" -> {finding.mend}" if finding.mend and finding.level != best else ""
        console.print(f"{finding.name}: {finding.says}{mend}", soft_wrap=True)
    console.print(in_words({level: sum(each.level == level for each in found) for level in levels}))
    return found


def show_shortfalls(failures: Iterable[str], notes: Iterable[str]) -> None:
    """A line for every format of a report that could not be written, and for what shows a replacement."""
    for text in (*failures, *notes):
        print(text, file=sys.stderr)


def show_listing(kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per entry, without the columns that nothing fills; the JSON form has everything."""
    columns = [name for name in LISTED[kind] if any(row.get(name) is not None for row in rows)]
    if not columns:
        listing_console().print(f"no {kind}")
        return
    view = Table(box=None, header_style="bold")
    for name in columns:
        is_number = all(isinstance(row.get(name), int | None) for row in rows)
        first = name == columns[0]
        view.add_column(name, justify="right" if is_number else "left", no_wrap=is_number or first)
    for row in rows:
        view.add_row(*(_cell(row.get(name)) for name in columns))
    listing_console().print(view)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def duration(time_s: float) -> str:
    """Seconds in the words a person uses.

    >>> duration(42), duration(90), duration(5400)
    ('42 s', '1 min 30 s', '1 h 30 min')
    """
    seconds = round(time_s)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def show_folder(found: Mapping[str, Any]) -> None:
    """A folder of images as `harness.data.examine.examine` describes it."""
    console = plain_console()
    for name, part in found["parts"].items():
        per_class, counts = part["images_per_class"], part["classes"]
        spread = f" ({_between(per_class)} in a class)" if per_class else ""
        lines = [f"{name}: {part['images']:,} images in {len(counts)} classes{spread}"]
        lines.append(f"  decoded: {part['decoded']:,}")
        if part["width"]:
            lines.append(f"  pixels: width {_between(part['width'])}, height {_between(part['height'])}")
        for key in ("formats", "modes"):
            if part[key]:
                lines.append(
                    f"  {key}: {', '.join(f'{mode} {count:,}' for mode, count in part[key].items())}"
                )
        some = [key for key in ("turned_by_exif", "several_frames") if part[key]]
        lines += [f"  {key.replace('_', ' ')}: {part[key]:,}" for key in some]
        for reason, files in part["left_out"].items():
            lines.append(f"  left out: {files['files']:,} {reason}, for example {files['example']}")
        lines += [f"  cannot be read: {text}" for text in part["unreadable"]["examples"]]
        shown = [f"{label} {count:,}" for label, count in counts.items()][:MOST_CLASSES_SHOWN]
        more = f" and {len(counts) - len(shown):,} more" if len(counts) > len(shown) else ""
        lines.append(f"  classes: {', '.join(shown)}{more}")
        console.print("\n".join(lines), soft_wrap=True)
    for kind in ("notes", "problems"):
        for text in found[kind]:
            console.print(f"{kind.removesuffix('s')}: {text}", soft_wrap=True)
    if not found["problems"]:
        console.print("a study can train on it")


def _between(spread: Mapping[str, float]) -> str:
    """For example "20..64, median 32"; one number where all are the same."""
    if spread["least"] == spread["most"]:
        return f"{spread['least']:,}"
    return f"{spread['least']:,}..{spread['most']:,}, median {spread['median']:,g}"
