"""What a person reads: lines, tables, plans, listings. Labels are never taken for markup."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, cast

from harness.errors import DONE, USAGE_ERROR, counted, told, visible
from harness.spec import ACCURACIES

if TYPE_CHECKING:
    from harness.data.entry import Look
    from harness.study.plan import Cell, Plan, PlanTable, Union

# Lines: broken between words, set in columns, bold where a terminal shows it.


_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"
_NEVER_SHOWN = dict.fromkeys((7, 8, 11, 12, 13))  # bell, backspace, vertical tab, form feed, return
_WORD = re.compile(r"\s*\S+\s*")
# Characters that take one column each; of others rich knows how many they take.
_ONE_COLUMN = frozenset(
    chr(code)
    for first, last in ((0x20, 0x7E), (0xA0, 0xAC), (0xAE, 0x2FF), (0x370, 0x482), (0x2010, 0x2027))
    for code in range(first, last + 1)
)
TAB = 8


class Page:
    """The standard output as a person reads it. Labels are never taken for markup.

    rich does this too and takes a fifth of the time of `harness plan`. What is printed here is letter for
    letter what rich prints (tests/test_display.py).
    """

    def __init__(self, *, least: int = 1) -> None:
        """least: columns, also where the terminal has fewer and breaks the lines itself."""
        self.width = max(_terminal_width(), least)
        self._shows_bold = _is_terminal() and not _is_dumb()

    def print(self, text: str = "", *, bold: bool = False) -> None:
        """A text, broken into lines that fit."""
        for line in _as_shown(text).split("\n"):
            for piece in broken(line, self.width, fold=True):
                self._write(_cut(piece, self.width, ""), bold=bold)

    def print_whole(self, text: str, *, bold: bool = False) -> None:
        """A text whose lines the terminal breaks, so that they can be copied."""
        for line in _as_shown(text).split("\n"):
            self._write(line, bold=bold)

    def table(
        self,
        headings: Sequence[Heading],
        rows: Sequence[Sequence[str]],
        *,
        pads: tuple[int, int] = (1, 1),
        has_edges: bool = True,
        indent: int = 0,
    ) -> None:
        """Rows below their headings, in columns that fit.

        Args:
            rows: the cells of each; a row may have fewer than there are headings.
            pads: spaces on the left and on the right of every column.
            has_edges: whether the first column has those on the left, and the last one those on the right.
            indent: spaces in front of every line; with any, lines are filled up to the page's width.
        """
        blank = [""] * len(headings)
        texts = [[_as_shown(each.text) for each in headings]]
        texts += [[_as_shown(cell) for cell in [*row, *blank][: len(headings)]] for row in rows]
        space = _Space(headings, texts, self.width - indent, pads, has_edges)
        for number, row in enumerate(texts):
            for line in space.lines(row, is_heading=number == 0):
                shown = _cut(" " * indent + line, self.width, "")
                self._write(_padded(shown, self.width) if indent else shown, bold=number == 0)

    def _write(self, line: str, *, bold: bool) -> None:
        if not (bold and self._shows_bold):
            print(line)
            return
        # Past what escapes commands to the terminal; see `errors.Visible`.
        stream = getattr(sys.stdout, "rich_proxied_file", sys.stdout)
        stream.write(_BOLD)
        print(line, end="")
        stream.write(f"{_PLAIN}\n")


class Heading(NamedTuple):
    """A column of a table: what stands above it, and how its cells are set."""

    text: str
    is_right: bool = False  # its cells end at its right edge
    is_whole: bool = False  # its cells are cut where they are too long, not broken


class _Space:
    """How wide each column of a table is, the spaces around its cells among it."""

    def __init__(
        self,
        headings: Sequence[Heading],
        texts: Sequence[Sequence[str]],
        most: int,
        pads: tuple[int, int],
        has_edges: bool,
    ) -> None:
        self._headings = headings
        last = len(headings) - 1
        self._pads = [
            (pads[0] if has_edges or place else 0, pads[1] if has_edges or place < last else 0)
            for place in range(len(headings))
        ]
        own = [
            min(most, max(_longest(row[place]) for row in texts) + sum(self._pads[place])) or 1
            for place in range(len(headings))
        ]
        self._widths = own if sum(own) <= most else self._narrowed(own, most)

    def lines(self, row: Sequence[str], *, is_heading: bool) -> Iterator[str]:
        """The lines of a row, as many as its highest cell has."""
        cells = [
            self._cell(place, text, width)
            for place, (text, width) in enumerate(zip(row, self._widths, strict=True))
        ]
        height = max(1, *map(len, cells))
        for number in range(height):
            line = ""
            for cell, width in zip(cells, self._widths, strict=True):
                at = number - (height - len(cell)) if is_heading else number
                line += cell[at] if 0 <= at < len(cell) else " " * width
            yield line

    def _cell(self, place: int, text: str, whole_width: int) -> list[str]:
        (left, right), heading = self._pads[place], self._headings[place]
        width = whole_width - left - right
        if width < 1:
            return []
        found = []
        for line in text.split("\n"):
            for piece in [line] if heading.is_whole else broken(line, width, fold=False):
                if heading.is_right:
                    shown = _cut(piece.rstrip(), width, "…")
                    shown = " " * (width - columns_of(shown)) + shown
                else:
                    shown = _padded(_cut(piece, width, "…"), width)
                found.append(" " * left + shown + " " * right)
        return found

    def _narrowed(self, widths: list[int], most: int) -> list[int]:
        """The widest columns that may be broken are made as narrow as the next one, until the table fits;
        then all columns alike."""
        own = widths
        may_break = [not heading.is_whole for heading in self._headings]
        while sum(widths) > most and any(may_break):
            widest = max(width for width, may in zip(widths, may_break, strict=True) if may)
            is_widest = [may and width == widest for width, may in zip(widths, may_break, strict=True)]
            others = zip(widths, may_break, is_widest, strict=True)
            step = widest - max((width for width, may, is_it in others if may and not is_it), default=0)
            if not step:
                break
            excess = sum(widths) - most
            widths = _reduced(widths, excess, is_widest, [min(excess, step)] * len(widths))
        if sum(widths) > most:
            widths = _reduced(widths, sum(widths) - most, [True] * len(widths), widths)
        return [min(width, each) for width, each in zip(widths, own, strict=True)]


def _reduced(widths: list[int], total: int, shares: Sequence[bool], at_most: Sequence[int]) -> list[int]:
    """The widths with `total` columns less, taken alike from those that share, from none more than it may."""
    sharing = [shares[place] and at_most[place] > 0 for place in range(len(widths))]
    left = sum(sharing)
    reduced = []
    for width, is_sharing, most in zip(widths, sharing, at_most, strict=True):
        taken = 0
        if is_sharing:
            taken = min(most, round(total / left))
            total -= taken
            left -= 1
        reduced.append(width - taken)
    return reduced


def broken(line: str, width: int, *, fold: bool) -> list[str]:
    """The line in pieces of at most `width` columns, broken between words.

    fold: break words that are longer, too.

    >>> broken("one two three", 8, fold=True)
    ['one two ', 'three']
    """
    if len(line) <= width and _ONE_COLUMN.issuperset(line):
        return [line]
    starts, used = [0], 0
    for found in _WORD.finditer(line):
        word, start = found[0], found.start()
        size = columns_of(word.rstrip())
        if size <= width - used:
            used += columns_of(word)
        elif size > width and fold:
            for part in _folded(word, width):
                starts.append(start)
                start += len(part)
                used = columns_of(part)
        elif size > width or used:
            starts.append(start)
            used = columns_of(word)
    starts = list(dict.fromkeys(starts))  # the first word starts where the line does
    return [_without_blank_end(line[at:end], width) for at, end in pairwise([*starts, len(line)])] or [line]


def _without_blank_end(piece: str, width: int) -> str:
    """Without the spaces at its end that are beyond the width."""
    excess = min(len(piece) - width, len(piece) - len(piece.rstrip()))
    return piece[:-excess] if excess > 0 else piece


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes.

    >>> columns_of("76.2†"), columns_of("漢字")
    (5, 4)
    """
    if _ONE_COLUMN.issuperset(text):
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _longest(text: str) -> int:
    return max(map(columns_of, text.splitlines()), default=0)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns_of(text))


def _cut(text: str, width: int, mark: str) -> str:
    """The text, or where it is longer as much of it as fits before the mark."""
    if columns_of(text) <= width:
        return text
    most = max(0, width - len(mark))
    if _ONE_COLUMN.issuperset(text):
        return text[:most] + mark
    from rich.cells import set_cell_size

    return set_cell_size(text, most) + mark


def _folded(word: str, width: int) -> list[str]:
    if _ONE_COLUMN.issuperset(word):
        return [word[at : at + width] for at in range(0, len(word), width)]
    from rich.cells import chop_cells

    return chop_cells(word, width)


def _as_shown(text: str) -> str:
    text = visible(text.translate(_NEVER_SHOWN))
    return text.expandtabs(TAB) if "\t" in text else text


def _terminal_width() -> int:
    """As the environment says, else that of the terminal of any standard stream."""
    said = os.environ.get("COLUMNS", "")
    if said.isdigit() and int(said):
        return int(said)
    for descriptor in () if _is_dumb() else (0, 1, 2):
        try:
            return os.get_terminal_size(descriptor).columns or 80
        except (ValueError, OSError):
            continue
    return 80


def _is_terminal() -> bool:
    """Whether the standard output understands styles, or is said to (https://force-color.org)."""
    compatible, forced = os.environ.get("TTY_COMPATIBLE", ""), os.environ.get("FORCE_COLOR")
    if compatible in ("0", "1"):
        return compatible == "1"
    return sys.stdout.isatty() if forced is None else forced != ""


def _is_dumb() -> bool:
    return _is_terminal() and os.environ.get("TERM", "").lower() in ("dumb", "unknown")


# Plans, listings, what a folder of images holds.


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
    "data": ("name", "classes", "train_images", "test_images"),
    "studies": ("file", "study", "question", "runs", "error"),
}


def listing_page() -> Page:
    return Page(least=NARROWEST)


def show_plan(plan: Plan, data: Look, more: str = "") -> None:
    """Every row with its paper cells, then the runs, what is shared and the cost; `more`: further words on
    that."""
    page = listing_page()
    has_paper = any(cell.paper for table in plan.tables for cell in table.cells)
    for table in plan.tables:
        page.print(f"{table.key}: {table.title}", bold=True)
        _show_rows(page, table, has_paper=has_paper)
        page.print(" " * page.width)
    printed = (value for table in plan.tables for cell in table.cells for value in cell.paper.values())
    if any(value.status != "verified" for value in printed):
        page.print(f"{MEMORY_FOOTNOTE}\n")
    for note in plan.notes:
        page.print(f"note: {note}")
    _show_data(page, data)
    page.print(plan_line(plan) + more)


def _show_data(page: Page, data: Look) -> None:
    for text in data.notes:
        page.print(f"data: {text}")
    for text in data.problems:
        page.print(f"missing data: {text}")


def _show_rows(page: Page, table: PlanTable, *, has_paper: bool) -> None:
    has_columns = any(cell.column for cell in table.cells)
    printed = {name for cell in table.cells for name in cell.paper}
    shown = {"top1": "paper top-1", "top5": "paper top-5"} if has_paper else {}
    shown |= {name: heading for name, heading in ALSO_PRINTED.items() if name in printed}
    headings = [
        Heading("row"),
        *([Heading("column")] if has_columns else []),
        Heading("arm", is_whole=True),
        Heading("compared with"),
        *(Heading(text, is_right=True, is_whole=True) for text in shown.values()),
    ]
    rows = []
    for cell in table.cells:
        arm = cell.arm_id[:8] if cell.arm_id else "quoted"
        column = [cell.column or ""] if has_columns else []
        rows.append([cell.row, *column, arm, cell.versus or "", *(_paper(cell, name) for name in shown)])
    page.table(headings, rows, has_edges=False, indent=1)


def _paper(cell: Cell, metric: str) -> str:
    printed = cell.paper.get(metric)
    if printed is None:
        return ""
    digits = f"{printed.value:.2f}" if metric in ACCURACIES else f"{printed.value:g}"
    return digits + (" " if printed.status == "verified" else MEMORY_MARK)


def plan_line(plan: Plan, *, hint: bool = True) -> str:
    """One line: how many rows, arms and runs, what is done, what the rest costs.

    hint: say when seconds will be known, where they are not.
    """
    cells = [cell for table in plan.tables for cell in table.cells if cell.arm_id]
    todo = [run for run in plan.runs if not run.done]
    further = len(plan.runs) - sum(len(plan.seeds_of(arm_id)) for arm_id in plan.all_arms)
    line = (
        f"{plan.study} ({plan.size}): {len(cells)} rows, {len(plan.all_arms)} arms x {_seeds(plan)}"
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
    from harness.study.plan import runs_at_most

    if not plan.is_adaptive:
        return f"{len(plan.seeds)} seeds"
    fewest = min(plan.arm_seeds.values(), default=len(plan.seeds))
    span = f"{fewest} to {len(plan.seeds)}" if fewest < len(plan.seeds) else f"{fewest}"
    most = f"at most {plan.looks[-1]}, {runs_at_most(plan)} runs"
    return f"{span} seeds at look {plan.look} of {len(plan.looks)} ({most})"


def _work(runs: int, macs: float, time_s: float | None, *, hint: bool = True) -> str:
    text = counted(runs, "run") + (f", {macs:.2e} multiply-adds" if macs else "")
    if time_s is None:
        return text + (" (seconds are known once a run has finished here)" if hint else "")
    return text + f", about {duration(time_s)} of one worker"


def show_plans(plans: Sequence[Plan], together: Union, data: Look) -> None:
    """One line per study, then what they share and need together."""
    page = listing_page()
    for plan in plans:
        page.print(plan_line(plan, hint=False))
    page.print()
    _show_data(page, data)
    todo = together.runs - together.done
    page.print(
        f"together: {together.runs} runs, {together.shared} of them shared by more than one study,"
        f" {together.done} done; "
        + (f"to train: {_work(todo, together.macs, together.time_s)}" if todo else "nothing to train")
    )
    for studies, count in together.sharing:
        page.print(f"shared by {', '.join(studies)}: {counted(count, 'run')}")


def in_words(counts: Mapping[str, int]) -> str:
    """How many are in each state.

    >>> in_words({"finished": 5, "failed": 1})
    '5 finished, 1 failed'
    """
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def show_shortfalls(failures: Iterable[str], notes: Iterable[str]) -> None:
    """A line for every format of a report that could not be written, and for what shows a replacement."""
    for text in (*failures, *notes):
        print(text, file=sys.stderr)


def show_listing(kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per entry, without the columns that nothing fills; the JSON form has everything."""
    columns = [name for name in LISTED[kind] if any(row.get(name) is not None for row in rows)]
    if not columns:
        listing_page().print(f"no {kind}")
        return
    headings = []
    for name in columns:
        is_number = all(isinstance(row.get(name), int | None) for row in rows)
        headings.append(Heading(name, is_right=is_number, is_whole=is_number or name == columns[0]))
    page = listing_page()
    page.table(headings, [[_cell(row.get(name)) for name in columns] for row in rows])
    for row in rows:
        # It says where files belong: a column would cut the path.
        if row.get("missing"):
            page.print_whole(f"missing: {row['missing']}")


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
    """A folder of images as `harness.data.contents.examine` describes it."""
    page = Page()
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
        page.print_whole("\n".join(lines))
    for kind in ("notes", "problems"):
        for text in found[kind]:
            page.print_whole(f"{kind.removesuffix('s')}: {text}")
    if not found["problems"]:
        page.print("a study can train on it")


def _between(spread: Mapping[str, float]) -> str:
    """For example "20..64, median 32"; one number where all are the same."""
    if spread["least"] == spread["most"]:
        return f"{spread['least']:,}"
    return f"{spread['least']:,}..{spread['most']:,}, median {spread['median']:,g}"


# How much a command says: `--quiet` and `--verbose`.


MOST_HELD = 100_000  # characters of what a quiet command says
SAID_WHOLE = ("listing:completion", "runs:ui", "runs:clean")
ASKED_FOR = ("json", "dry_run", "short")  # options that ask for a whole text


class Withheld(io.TextIOBase):
    """Takes what a quiet command says, and keeps the end of it."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text = (self.text + text)[-MOST_HELD:]
        return len(text)


def quietly(call: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Only the last line of what it prints; what it says on stderr only where it does not end well. A text
    that was asked for, or that asks or waits, is printed whole."""
    out, err = Withheld(), Withheld()
    whole = any(getattr(args, name, False) for name in ASKED_FOR) or args.command in SAID_WHOLE
    code = USAGE_ERROR
    try:
        with redirect_stdout(sys.stdout if whole else cast(TextIO, out)), redirect_stderr(cast(TextIO, err)):
            code = call(args)
    finally:
        if code != DONE:
            sys.stderr.write(err.text)
        for line in out.text.splitlines()[-1:]:
            print(line, flush=True)
    return code


def verbosely(call: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """With what is decided on the way (`errors.decided`), on stderr."""
    stream = sys.stderr
    told.append(lambda text: print(f"decided: {text}", file=stream, flush=True))
    try:
        return call(args)
    finally:
        told.pop()
