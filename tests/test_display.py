"""What a person sees: readable tables at any width, and the progress of a run on and off a terminal."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from harness.commands.display import Heading, Page, plan_line, show_listing, show_plan
from harness.commands.overview import Overview, QueueView
from harness.commands.progress import ProgressDisplay
from harness.commands.status import show_status
from harness.data.entry import Look
from harness.runs.folder import RunFolder
from harness.runs.state import RunView
from harness.scheduling.base import INTERRUPTED, Progress
from harness.spec import FAILED, FINISHED
from harness.study.plan import Plan
from tests.conftest import mostly_campaign
from tests.ended import end
from tests.study.fakes import HEAD, plan_of

STUDY = f"""{HEAD}
tables:
  t1:
    title: Tweaks of [the] network
    design: rows
    columns:
      BS=256: {{set: {{batch_size: 256}}}}
      BS=1024: {{set: {{batch_size: 1024}}}}
    rows:
      - label: Baseline
        paper:
          BS=256: {{top1: 75.87, top5: 92.7, status: memory}}
          BS=1024: {{top1: 75.3, status: verified}}
      - label: "[/b] + cosine decay :fire:"
        add: cosine
        paper: {{BS=256: {{top1: 76, top5: 93.08, status: {{top1: verified, top5: memory}}}}}}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_of(tmp_path, STUDY)


def show_states(plan: Plan, states: dict[str, str]) -> None:
    """The status of a plan whose runs are in these states, where nothing is queued."""
    views = {run_id: RunView(state=state) for run_id, state in states.items()}
    show_status(Overview(plan, views, QueueView()), [])


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_the_plan_shows_every_row_with_its_paper_values_and_marks_those_from_memory(
    plan, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "100")
    show_plan(plan, Look(problems=("cifar10 needs a folder",)))
    lines = printed(capsys)
    assert lines[0] == "t1: Tweaks of [the] network"
    arms = [cell.arm_id[:8] for cell in plan.tables[0].cells]
    words = [line.split() for line in lines[2:6]]
    assert words[0] == ["Baseline", "BS=256", arms[0], "75.87†", "92.70†"]
    assert words[1] == ["Baseline", "BS=1024", arms[1], "75.30"]
    label = ["[/b]", "+", "cosine", "decay", ":fire:"]
    assert words[2] == [*label, "BS=256", arms[2], "Baseline", "76.00", "93.08†"]
    assert words[3] == [*label, "BS=1024", arms[3], "Baseline"]
    assert "† from memory: no available source showed it (docs/references.md)" in lines
    assert "missing data: cifar10 needs a folder" in lines
    assert " ".join(lines).endswith(plan_line(plan))


def test_a_plan_without_values_from_memory_has_no_footnote_and_without_columns_no_empty_column(
    tmp_path, capsys
):
    tables = (
        "tables:\n  t1: {title: T, design: rows, rows: [{label: A, paper: {top1: 76, status: verified}}]}\n"
    )
    show_plan(plan_of(tmp_path, HEAD + tables), Look())
    lines = printed(capsys)
    assert "column" not in lines[1].split()
    assert "†" not in "".join(lines)


@pytest.mark.parametrize("columns", [1, 2, 10, 40, 80, 100, 300])
def test_no_width_of_the_terminal_ends_in_an_error_or_loses_a_row(plan, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    states = {run.run_id: FINISHED for run in plan.runs}
    show_plan(plan, Look())
    show_states(plan, states)
    show_listing("data", [{"name": "cifar10", "classes": 10, "missing": "put it into data/cifar10"}])
    output = capsys.readouterr().out
    for word in ("Baseline", *(arm_id[:8] for arm_id in plan.arms), "75.87†", FINISHED, "cifar10"):
        assert word in output


def test_status_names_the_state_of_each_seed_and_counts_where_there_are_many(tmp_path, capsys):
    for seeds, expected in ((2, "finished  missing"), (8, "1 finished, 7 missing")):
        plan = plan_of(tmp_path, STUDY, seeds=seeds)
        show_states(plan, {run.run_id: "finished" if run.seed == 0 else "missing" for run in plan.runs})
        lines = printed(capsys)
        assert sum(line.endswith(expected) for line in lines) == 4
        assert f"4 finished, {len(plan.runs) - 4} missing" in lines


ENSEMBLE = f"""{HEAD}
tables:
  t1:
    title: T
    design: rows
    rows:
      - {{label: one, paper: {{top1: 70.6, gflops: 0.569, params_m: 4.2, status: verified}}}}
      - {{label: three, add: {{ensemble: {{members: 3}}}}, paper: {{top1_std: 0.12, status: memory}}}}
"""


def test_further_printed_numbers_have_a_column_where_a_table_has_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    show_plan(plan_of(tmp_path, ENSEMBLE), Look())
    lines = printed(capsys)
    headings = ["paper", "top-1", "paper", "top-5", "std", "params", "M", "GMACs"]
    assert lines[1].split()[-8:] == headings
    assert lines[2].split()[-3:] == ["70.60", "4.2", "0.569"]
    assert lines[3].split()[-1] == "0.12†"


def test_further_members_of_ensembles_are_counted_apart_from_the_seeds(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    plan = plan_of(tmp_path, ENSEMBLE)
    assert plan_line(plan).startswith(
        "small (mini): 2 rows, 2 arms x 2 seeds + 4 further members of ensembles = 8 runs, 0 done"
    )
    states = {run.run_id: "finished" if run.seed < 1000 else "missing" for run in plan.runs}
    show_states(plan, states)
    lines = printed(capsys)
    assert lines[1].split() == ["row", "seed", "0", "seed", "1", "further", "members"]
    assert lines[2].split() == ["one", "finished", "finished", "4", "missing"]
    assert lines[3].split() == ["three", "finished", "finished"]
    many = plan_of(tmp_path, ENSEMBLE, seeds=8)
    show_states(many, {run.run_id: "missing" for run in many.runs})
    lines = printed(capsys)
    assert lines[1].split() == ["row", "runs"]
    assert lines[2].split() == ["one", "24", "missing"]


def test_a_status_wider_than_the_terminal_breaks_within_its_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    label = "a label of a row that is much longer than a line of the terminal, as that of a whole sentence"
    tables = f"tables:\n  t1: {{title: T, design: rows, rows: [{{label: '{label}'}}]}}\n"
    plan = plan_of(tmp_path, HEAD + tables)
    show_states(plan, {run.run_id: "missing" for run in plan.runs})
    lines = printed(capsys)
    assert max(len(line) for line in lines) <= 80
    assert lines[2].endswith("missing  missing")
    assert "sentence" in "".join(lines[3:])


def test_status_shows_columns_quoted_rows_and_what_no_row_shows(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    tables = """arms: {teacher: {add: mixup}}
tables:
  t1:
    title: T
    design: rows
    columns: {A: {}, B: {set: {batch_size: 128}}}
    rows:
      - {label: one}
      - {label: same}
      - {label: student, add: {distillation: {teacher: teacher}}}
      - {label: from elsewhere, cite: true, paper: {A: {top1: 70, status: verified}}}
"""
    plan = plan_of(tmp_path, HEAD + tables)
    show_states(plan, {run.run_id: "missing" for run in plan.runs})
    lines = printed(capsys)
    assert lines[1].split() == ["row", "column", "seed", "0", "seed", "1"]
    assert lines[2].split() == ["one", "A", "missing", "missing"]
    assert lines[4].split() == ["same", "A", "as", "t1", "/", "one", "/", "A"]
    assert next(line.split() for line in lines if "elsewhere" in line)[-1] == "quoted"
    assert "in no table" in lines
    assert [line.split()[0] for line in lines[lines.index("in no table") + 2 :] if "teacher" in line] == [
        "teacher"
    ]


def test_a_listing_leaves_out_columns_that_nothing_fills_and_groups_digits(capsys):
    show_listing("models", [{"name": "resnet50", "params": 25557032, "macs": None, "paper": "he2016deep"}])
    heading, row = printed(capsys)
    assert heading.split() == ["name", "params", "paper"]
    assert row.split() == ["resnet50", "25,557,032", "he2016deep"]
    show_listing("studies", [])
    assert printed(capsys) == ["no studies"]


class Session:
    """A display with a clock that the test moves, and a console that keeps what is printed."""

    def __init__(self, plan: Plan, runs_dir: Path, *, terminal: bool = False, width: int = 80, gpus: int = 0):
        self.now_s = 1000.0
        self.runs_dir = runs_dir
        self.text = io.StringIO()
        self.plan, self.ids = plan, [run.run_id for run in plan.runs]
        self.ended: dict[str, str] = {}
        console = Console(file=self.text, width=width, force_terminal=terminal, _environ={"TERM": "xterm"})
        self.display = ProgressDisplay(
            plan, self.folder, gpus=gpus, console=console, clock=lambda: self.now_s
        )

    def folder(self, run_id: str) -> RunFolder:
        return RunFolder(self.runs_dir / run_id)

    def tell(self, running: list[int], *, after_s: float = 0.0, note: str = "") -> None:
        self.now_s += after_s
        ids = tuple(self.ids[index] for index in running)
        waiting = len(self.ids) - len(ids) - len(self.ended)
        self.display.watch(Progress(waiting=waiting, running=ids, ended=dict(self.ended), note=note))

    def end(self, index: int, status: str = FINISHED, **about: object) -> None:
        folder = self.folder(self.ids[index])
        folder.path.mkdir(parents=True)
        if status == FINISHED:
            end(folder, self.plan.spec(self.plan.runs[index]), **about)
        elif status == FAILED:
            folder.append_event(FAILED, **about)
        self.ended[self.ids[index]] = status

    @property
    def lines(self) -> list[str]:
        return self.text.getvalue().splitlines()


@pytest.fixture
def session(plan: Plan, tmp_path: Path) -> Callable[..., Session]:
    return lambda **options: Session(plan, tmp_path / "runs", **options)


def test_without_a_terminal_a_line_says_what_starts_then_one_every_15_seconds_then_what_came_of_it(session):
    quiet = session()
    with quiet.display:
        assert quiet.lines == ["starting workers for 8 runs; a line follows every 15 s"]
        quiet.tell([0, 1], after_s=1)
        quiet.tell([0, 1], after_s=13)
        assert len(quiet.lines) == 1
        quiet.tell([0, 1], after_s=1)
        assert quiet.lines[1:] == [
            "0 of 8 runs ended; 2 running, 6 waiting; 15 s so far, 28 s of worker time"
        ]
        quiet.tell([0, 1], after_s=14)
        assert len(quiet.lines) == 2
        for index in range(8):
            quiet.end(index)
        quiet.tell([], after_s=0)
    assert quiet.lines[2:] == ["8 runs: 8 finished; 29 s so far, 56 s of worker time"]


def test_throughput_is_the_running_workers_times_the_median_speed_of_the_runs_that_finished_last(session):
    quiet = session()
    quiet.tell([0, 1])
    assert "img/s" not in quiet.display.line(Progress(waiting=0, running=()))
    for index, speed in enumerate((1000, 1400, 9000)):
        quiet.end(index, images_per_s=speed)
    quiet.tell([3, 4], after_s=15)
    assert "; 2,800 img/s; " in quiet.lines[-1]


def test_the_time_left_is_what_finished_runs_took_per_multiply_add_over_the_workers(plan, session):
    for run, macs in zip(plan.runs, (1e9, 1e9, 2e9, 2e9, 1e9, 1e9, 1e9, 1e9), strict=True):
        run.macs = macs
    quiet = session()
    quiet.tell([0, 1])
    assert "left" not in quiet.display.line(Progress(waiting=6, running=()))
    quiet.end(0)
    quiet.end(1)
    quiet.tell([2, 3], after_s=20)  # 1e9 in 20 s; left: 2 x 40 s and 4 x 20 s on two workers
    assert "; about 1 min 20 s left; " in quiet.lines[-1]
    quiet.tell([2, 3], after_s=15)  # 15 s of both are done
    assert "; about 1 min 5 s left; " in quiet.lines[-1]


def test_nothing_is_foretold_of_runs_whose_images_nobody_has_counted(plan, session):
    plan.runs[0].macs = 1e9
    for run in plan.runs[1:]:
        run.macs = 0.0
    quiet = session()
    quiet.tell([0, 1])
    quiet.end(0)
    quiet.tell([1, 2], after_s=16)
    assert "left" not in quiet.lines[-1]


def test_until_a_run_has_finished_the_time_left_is_the_plans_estimate(plan, session):
    for run in plan.runs:
        run.time_s = 30.0
    quiet = session()
    quiet.tell([0, 1])
    quiet.tell([0, 1], after_s=16)
    assert "; about 1 min 44 s left; " in quiet.lines[-1]  # (8 x 30 s - 2 x 16 s) / 2 workers


def test_the_last_run_is_not_shared_among_workers(plan, session):
    for run in plan.runs:
        run.macs, run.time_s = 1e9, 10.0
    plan.runs[7].macs = 8e9
    quiet = session()
    quiet.tell([0, 1, 2, 3])
    for index in range(7):
        quiet.end(index)
    quiet.tell([7], after_s=10)
    quiet.tell([7], after_s=10)
    assert "; about 1 min 10 s left; " in quiet.lines[-1]


def test_runs_that_share_a_gpu_cost_the_time_of_one_gpu(session):
    quiet = session(gpus=1)
    quiet.tell([0, 1, 2])
    quiet.tell([0, 1, 2], after_s=20)
    assert quiet.lines[-1].endswith("; 20 s so far, 20 s of GPU time")


def test_the_reason_of_a_failure_is_printed_once_and_at_once_and_those_that_share_it_are_named_at_the_end(
    plan, session
):
    quiet = session()
    labels = [f"{plan.arm_labels[run.arm_id]}, seed {run.seed}" for run in plan.runs]
    reason = "ValueError: no [/such] thing, said at some length: " + "x" * 100
    with quiet.display:
        quiet.tell([0, 1])
        quiet.end(0, FAILED, message=reason)
        quiet.tell([1, 2], after_s=1, note=f"a worker was lost\n{reason}")
        events = quiet.folder(quiet.ids[0]).events
        assert quiet.lines[1:] == [f"failed: {labels[0]}: {reason}", f"  {events}", "a worker was lost"]
        quiet.end(1, FAILED, message=reason)
        quiet.end(2)
        quiet.tell([], after_s=1)
        assert len(quiet.lines) == 4
        quiet.tell([3], after_s=15)
        assert quiet.lines[-1].startswith("3 of 8 runs ended (2 failed); 1 running, 4 waiting; ")
    assert quiet.lines[-2] == f"failed for the same reason ({reason}): {labels[1]}"
    assert quiet.lines[-1].startswith("8 runs: 2 failed, 1 finished, 5 to go on with; ")


def test_runs_that_were_interrupted_have_not_ended(session):
    quiet = session()
    with quiet.display:
        quiet.tell([0, 1])
        quiet.end(0)
        for index in range(1, 8):
            quiet.end(index, INTERRUPTED)
        quiet.tell([], after_s=1)
    assert quiet.lines[-1].startswith("8 runs: 1 finished, 7 to go on with; ")


@pytest.mark.parametrize("width", [1, 5, 20, 100])
def test_on_a_terminal_a_status_names_what_is_running_and_no_width_ends_in_an_error(plan, session, width):
    live = session(terminal=True, width=width)
    with live.display:
        live.tell([0, 1, 2, 3, 4])
        live.tell([0, 1, 2, 3, 4], after_s=100, note="a note")
    shown = live.text.getvalue()
    assert "\x1b[" in shown
    assert "a note" in shown
    if width == 100:
        assert "0 of 8 runs ended; 5 running, 3 waiting" in shown
        assert f"{plan.arm_labels[plan.runs[0].arm_id]}, seed 0" in shown
        assert "and 1 more" in shown


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(plan, tmp_path):
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, _environ={"TERM": "dumb"})
    with ProgressDisplay(plan, lambda run_id: RunFolder(tmp_path / run_id), console=console):
        pass
    assert text.getvalue().startswith("starting workers for 8 runs")


def test_by_default_progress_goes_to_stderr_and_only_missing_runs_count(plan, tmp_path, capsys):
    plan.runs[0] = dataclasses.replace(plan.runs[0], done=True)
    with ProgressDisplay(plan, lambda run_id: RunFolder(tmp_path / run_id)):
        pass
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("starting workers for 7 runs")


# Lines and tables stand as rich sets them, at any width, and command no terminal.

WORDS = (
    "a",
    "ResNet-50-D",
    "+ cosine decay",
    "76.21†",
    "漢字",
    "e\u0301",
    "(temperature=20,",
    "arXiv:1512.00567;",
)
TEXTS = (
    "",
    " ",
    "  indented",
    "ends in spaces   ",
    "two\nlines",
    "tab\there",
    "x" * 90,
    "漢" * 50,
    "👩\u200d🔬 works",
)
WIDTHS = (72, 80, 81, 100, 131, 300)


def sentence(random: Random) -> str:
    if random.random() < 0.2:
        return random.choice(TEXTS)
    return " ".join(random.choices(WORDS, k=random.choice((1, 1, 2, 3, 5, 12, 40))))


def page_of(width: int, monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.setenv("COLUMNS", str(width))
    return Page()


def by_rich(width: int, *renderables: object) -> str:
    console = Console(width=width, file=io.StringIO(), markup=False, emoji=False, highlight=False)
    for each in renderables:
        console.print(each)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [20, *WIDTHS])
def test_a_text_is_broken_as_rich_breaks_it(width: int, monkeypatch, capsys):
    random = Random(width)
    texts = [sentence(random) for _ in range(300)]
    page = page_of(width, monkeypatch)
    for text in texts:
        page.print(text)
    assert capsys.readouterr().out == by_rich(width, *texts)


@pytest.mark.parametrize("tables", mostly_campaign([10, 60], 10))
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "how",
    [{}, {"has_edges": False, "pads": (0, 2)}, {"has_edges": False, "indent": 1}],
    ids=["as a listing", "as a status", "as a plan"],
)
def test_a_table_is_set_as_rich_sets_it(tables: int, width: int, how: dict, monkeypatch, capsys):
    random = Random(width)
    for _ in range(tables):
        headings = [
            Heading(random.choice(WORDS), is_right=random.random() < 0.3, is_whole=random.random() < 0.3)
            for _ in range(random.randint(1, 6))
        ]
        count = random.randint(1, len(headings))
        counts = [random.choice((count, len(headings))) for _ in range(5)]
        # In a table rich takes a tab for no column, and then loses what follows.
        rows = [[sentence(random).replace("\t", " ") for _ in range(each)] for each in counts]
        page_of(width, monkeypatch).table(headings, rows, **how)
        assert capsys.readouterr().out == by_rich(width, *rich_table(headings, rows, **how))


def rich_table(headings, rows, *, pads=(1, 1), has_edges=True, indent=0):
    view = Table(box=None, pad_edge=has_edges, padding=(0, pads[1], 0, pads[0]))
    for each in headings:
        view.add_column(each.text, justify="right" if each.is_right else "left", no_wrap=each.is_whole)
    for row in rows:
        view.add_row(*row)
    return [Padding(view, (0, 0, 0, indent)) if indent else view]


def test_a_line_that_is_not_broken_may_be_longer_than_the_page(monkeypatch, capsys):
    page_of(80, monkeypatch).print_whole("x y " * 100)
    assert capsys.readouterr().out == "x y " * 100 + "\n"


def test_what_would_command_a_terminal_is_shown(monkeypatch, capsys):
    page = page_of(80, monkeypatch)
    page.print("a\x1b[31mb")
    page.print_whole("a\x1b[31mb\rc")
    page.table([Heading("\x1b[2J")], [["\u202ex"]])
    assert capsys.readouterr().out.split() == ["a\\x1b[31mb", "a\\x1b[31mbc", "\\x1b[2J", "\\u202ex"]


@pytest.mark.parametrize(
    ("environment", "is_bold"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True),
        ({"FORCE_COLOR": ""}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False),
        ({"TTY_COMPATIBLE": "1"}, True),
        ({"TTY_COMPATIBLE": "0", "FORCE_COLOR": "1"}, False),
    ],
    ids=str,
)
def test_titles_are_bold_where_rich_would_show_it(environment, is_bold, monkeypatch, capsys):
    for name in ("TERM", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    page_of(80, monkeypatch).print("title", bold=True)
    assert capsys.readouterr().out == ("\x1b[1mtitle\x1b[0m\n" if is_bold else "title\n")
    Console(width=80).print("title", style="bold")
    assert capsys.readouterr().out == ("\x1b[1mtitle\x1b[0m\n" if is_bold else "title\n")


def test_a_table_that_is_set_otherwise_would_be_seen(monkeypatch, capsys):
    page_of(80, monkeypatch).table([Heading("a")], [["b " * 60]])
    assert capsys.readouterr().out != by_rich(79, *rich_table([Heading("a")], [["b " * 60]]))


def test_tables_say_which_rows_are_complete_and_their_effects_so_far_before_the_line(plan, session):
    quiet = session()
    [table] = plan.tables
    runs = {(run.arm_id, run.seed): index for index, run in enumerate(plan.runs)}
    cell = next(cell for cell in table.cells if cell.versus is not None and cell.arm_id is not None)
    name = f"{cell.row} ({cell.column})"
    versus = next(each for each in table.cells if (each.row, each.column) == (cell.versus, cell.column))
    for seed in plan.seeds:
        quiet.end(runs[versus.arm_id, seed], metrics={"top1": 60.0})
    quiet.end(runs[cell.arm_id, 0], metrics={"top1": 61.0})
    quiet.tell([], after_s=15)
    assert quiet.lines[-2] == f"{table.key}: 1 of 4 rows complete"
    quiet.end(runs[cell.arm_id, 1], metrics={"top1": 62.5})
    quiet.tell([], after_s=15)
    assert quiet.lines[-2] == f"{table.key}: 2 of 4 rows complete; provisional effects: {name} +1.75"
    said = len(quiet.lines)
    quiet.tell([], after_s=15)
    assert len(quiet.lines) == said + 1, "nothing is new"


def test_a_line_says_what_is_left_of_a_budget(session):
    quiet = session()
    quiet.display.more = lambda: "3 min 20 s of 11min budget left"
    assert "; 3 min 20 s of 11min budget left; " in quiet.display.line(Progress(waiting=0, running=()))
