"""A table as LaTeX: in the paper's shape with booktabs and tabularx, all others with booktabs and siunitx.

siunitx loads the package array, whose `>{...}` sets wrapped columns ragged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from harness.reporting.document import NUMBER, TEXT, TextCell, TextColumn, TextRow, TextTable

# How wide the columns of a LaTeX table are, so that it fits into \linewidth of an article.


LINE_WIDTH_PT, PAGE_HEIGHT_PT = 345.0, 480.0  # of \documentclass{article}, less what a float keeps free
COLUMN_GAP_PT = 7.0  # twice \tabcolsep
FEWEST_LINES = 12  # of rows on a page, whatever the notes need
# of Computer Modern at 10 pt, in em: what is not listed here is a lower-case letter
_WIDTHS = (("0123456789", 0.5), ("−±+=×≈→", 0.78), (".,:;'il|", 0.28), ("()[]-ftrIj/ ", 0.4), ("—", 1.0),
           ("mwMW%▲▼", 0.83))  # fmt: skip
_EM = {character: em for characters, em in _WIDTHS for character in characters}
LOWER_EM, UPPER_EM = 0.53, 0.72
MOST_KEPT = 2**15  # texts of which the width is kept: each is asked for in every style
BOLD_EXTRA = 1.03  # safety: kerning and rounding
MOST_LINES = 4  # of one row, where another style can do better
LONGEST_DETAIL = 14  # characters of a remark inside a cell; longer ones become notes


@dataclass(frozen=True, slots=True)
class Style:
    """A type size, and whether intervals stand below their estimates."""

    size: str
    points: float  # of an em of Computer Modern at this size: small sizes are relatively wider
    line_pt: float
    stacked: bool


STYLES = (
    Style("small", 9.25, 11.0, False),
    Style("footnotesize", 8.5, 9.5, False),
    Style("footnotesize", 8.5, 9.5, True),
    Style("scriptsize", 8.0, 8.0, True),
)
NOTES = STYLES[1]


@dataclass(frozen=True, slots=True)
class Layout:
    """The first style in which the table fits, and the width of every column in points."""

    style: Style
    widths: tuple[float, ...]
    wraps: tuple[bool, ...]


def text_width(text: str, style: Style) -> float:
    """About how wide a text is set, in points."""
    return _em(text) * style.points * BOLD_EXTRA


@lru_cache(maxsize=MOST_KEPT)
def _em(text: str) -> float:
    return sum(_EM.get(char, UPPER_EM if char.isupper() else LOWER_EM) for char in text)


def is_interval(text: str) -> bool:
    """Whether a second line is (or starts with) an interval."""
    return text.startswith("[")


def in_cell(cell: TextCell, column: TextColumn, *, first: bool) -> str:
    """What of the second line is shown in the cell; the rest is a note, as are words below numbers."""
    short = first or is_interval(cell.detail) or len(cell.detail) <= LONGEST_DETAIL
    if column.kind == NUMBER and not re.match(r"\(.*\d|\[", cell.detail):
        return ""
    return cell.detail if short else ""


def lay_out(table: TextTable) -> Layout:
    """The first style in which the table fits and no row gets too tall; the last where it fits in none."""
    candidates = [_laid_out(table, style) for style in STYLES]
    fitting = [each for each in candidates if sum(each.widths) <= _room(table)] or candidates[-1:]
    tallest = [max(line_counts(table, each), default=1) for each in fitting]
    enough = max(min(tallest), MOST_LINES)
    return next(each for each, lines in zip(fitting, tallest, strict=True) if lines <= enough)


def _laid_out(table: TextTable, style: Style) -> Layout:
    widths = _widths(table, style)
    natural = [_natural(table, index, style) for index in range(len(table.columns))]
    return Layout(style, tuple(widths), tuple(w < n - 0.5 for w, n in zip(widths, natural, strict=True)))


def head_lines(column: TextColumn, shown_detail: bool, width: float, style: Style) -> list[str]:
    """A column's title in lines that are no wider than the column, as far as words allow."""
    title = f"{column.title} ({column.detail_title})" if shown_detail else column.title
    lines: list[str] = []
    for word in re.split(r" (?!%|CI)", title):
        if lines and text_width(f"{lines[-1]} {word}", style) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def shows_detail(table: TextTable, index: int) -> bool:
    """Whether any cell of the column shows its second line in the cell, and the title should name it."""
    column = table.columns[index]
    details = (in_cell(row.cells[index], column, first=index == 0) for row in table.rows)
    return bool(column.detail_title) and any(text and not text.startswith("(") for text in details)


def _room(table: TextTable) -> float:
    return LINE_WIDTH_PT - COLUMN_GAP_PT * (len(table.columns) - 1)


def _widths(table: TextTable, style: Style) -> list[float]:
    """Numbers as wide as they are; texts share what is left, at least as wide as their longest word."""
    columns = range(len(table.columns))
    widths = [_natural(table, index, style) for index in columns]
    texts = [index for index in columns if table.columns[index].kind == TEXT]
    least = {index: _least(table, index, style) for index in texts}
    left = _room(table) - sum(width for index, width in enumerate(widths) if index not in least)
    shared = dict.fromkeys(texts, 0.0)
    free = set(texts)
    while free:  # a column that needs less than its share, or more for a word, leaves the sharing
        roots = {index: widths[index] ** 0.75 for index in free}
        shared |= {index: left * roots[index] / sum(roots.values()) for index in free}
        fixed = {i for i in free if shared[i] >= widths[i]} or {i for i in free if shared[i] < least[i]}
        if not fixed:
            break
        for index in fixed:
            shared[index] = min(widths[index], max(shared[index], least[index]))
            left -= shared[index]
        free -= fixed
    return [shared.get(index, width) for index, width in enumerate(widths)]


def _natural(table: TextTable, index: int, style: Style) -> float:
    column = table.columns[index]
    words = max(text_width(word, style) for word in re.split(r" (?!%|CI)", column.title))
    texts = (text for row in table.rows for text in _lines(row.cells[index], column, index, style.stacked))
    return max([words, *(text_width(text, style) for text in texts)])


def _lines(cell: TextCell, column: TextColumn, index: int, stacked: bool) -> Iterator[str]:
    detail = in_cell(cell, column, first=index == 0)
    mark = "a" * (detail != cell.detail)
    if stacked and column.kind != TEXT:
        yield from (cell.text + mark, detail)
    else:
        yield f"{cell.text} {detail}".strip() + mark


def _least(table: TextTable, index: int, style: Style) -> float:
    column = table.columns[index]
    texts = [
        column.title,
        *(f"{r.cells[index].text} {in_cell(r.cells[index], column, first=index == 0)}" for r in table.rows),
    ]
    words = (word for text in texts for word in re.split(r"(?<=[-/])|(?<![?▲▼≈≠✓✗—∅])\s", text) if word)
    return max((text_width(word, style) for word in words), default=0.0) + style.points / 2


def line_counts(table: TextTable, layout: Layout) -> Sequence[int]:
    """About how many lines each row needs."""
    counts = []
    for row in table.rows:
        needs = [1]
        for index, column in enumerate(table.columns):
            texts = list(_lines(row.cells[index], column, index, layout.style.stacked))
            if layout.wraps[index]:
                needs.append(-int(-1.15 * text_width(texts[0], layout.style) // layout.widths[index]))
            needs.append(sum(bool(text) for text in texts))
        counts.append(max(needs))
    return counts


def rows_room(table: TextTable, layout: Layout) -> int:
    """How many lines of rows a page holds beside caption, notes and the lines between groups."""
    remarks = {row.cells[i].detail for row in table.rows for i in range(len(table.columns))}
    written = [text for text in remarks if len(text) > LONGEST_DETAIL and not is_interval(text)]
    paragraphs = [*written, *table.notes, f"{table.title}{table.caption}"]
    below = sum(1 + text_width(text, NOTES) // LINE_WIDTH_PT for text in paragraphs) * NOTES.line_pt
    between = 2 * len(table.groups()) + 4  # rules, groups and titles
    return max(int((PAGE_HEIGHT_PT - below) / layout.style.line_pt) - between, FEWEST_LINES)


_NUMBER = re.compile(r"[+−-]?\d+(?:\.\d+)?")
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "▲": r"$\uparrow$",
    "▼": r"$\downarrow$",
    "✓": r"$\surd$",
    "✗": r"$\times$",
    "†": r"\textsuperscript{$\dagger$}",
    "−": r"$-$",
    "—": "---",
    "–": "--",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "ο": "o",
    "Δ": r"$\Delta$",
    "Σ": r"$\Sigma$",
    "Ω": r"$\Omega$",
    "∅": r"$\emptyset$",
    "≠": r"$\neq$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "‘": "`",
    "’": "'",
}
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi  pi rho  sigma tau "
_GREEK += "upsilon phi chi psi omega"
_ESCAPES |= {chr(0x3B1 + place): f"$\\{name}$" for place, name in enumerate(_GREEK.split(" ")) if name}
GLYPHS = tuple("?▲▼≈≠✓✗—∅")
LAST_LATIN = "\u024f"  # the letters that LaTeX sets without further packages
_PATTERN = re.compile("|".join(map(re.escape, _ESCAPES)))


def escape(text: str) -> str:
    r"""Text that LaTeX prints as it is; a sign that it has no letter for becomes its number.

    >>> print(escape("50%_x&y"))
    50\%\_x\&y
    >>> print(escape("Zero γ, 中"))
    Zero $\gamma$, [U+4E2D]
    """
    known = _PATTERN.sub(lambda match: _ESCAPES[match.group()], text)
    return "".join(char if char <= LAST_LATIN else f"[U+{ord(char):04X}]" for char in known)


def to_latex(table: TextTable) -> str:
    r"""`table` environments that fit into \linewidth: several where one page is too short for all rows.

    Long remarks become notes below the table, marked with letters.
    """
    layout = lay_out(table)
    parts = _parts(table, layout)
    return "".join(_environment(replace(table, rows=rows), layout, n > 0) for n, rows in enumerate(parts))


LABEL_SHARE = 1.7  # of a column of values, for the labels of rows
LINES_OF_A_PAGE = 40  # of rows, in an article of one column
CELL_LINES = 3.2  # of a row: mean, sd and the paper's value, and what is left free below
COLUMNS_OF_A_COLUMN = 3  # of values, in one column of a two-column class


def paper_to_latex(table: TextTable) -> str:
    r"""A table in the paper's shape, as wide as the text: `tabularx`, so that cells wrap where it is narrow.

    Tables with many columns are `table*`: over both columns of a two-column class.
    """
    width = LABEL_SHARE * LINE_WIDTH_PT / len(table.columns) - 2 * COLUMN_GAP_PT
    notes = sum(2 + text_width(note, NOTES) // LINE_WIDTH_PT for note in table.notes)
    room = max(LINES_OF_A_PAGE - notes, FEWEST_LINES)
    parts: list[list[TextRow]] = [[]]
    used = 0.0
    for row in table.rows:
        lines = max(CELL_LINES, 1.3 * text_width(row.cells[0].text, NOTES) / width + 1)
        if used + lines > room and parts[-1]:
            parts.append([])
            used = 0.0
        parts[-1].append(row)
        used += lines
    cut = [replace(table, rows=tuple(rows)) for rows in parts]
    return "\n".join(_paper_environment(part, continued=n > 0) for n, part in enumerate(cut))


def _paper_environment(table: TextTable, *, continued: bool) -> str:
    values = len(table.columns) - 1
    name = "table*" if values > COLUMNS_OF_A_COLUMN else "table"
    title = f"{table.title} (continued)." if continued else f"{table.title}. {table.caption}"
    rest = (values + 1 - LABEL_SHARE) / max(values, 1)
    wide = f">{{\\raggedright\\arraybackslash\\hsize={LABEL_SHARE:.2f}\\hsize}}X"
    each = f">{{\\centering\\arraybackslash\\hsize={rest:.3f}\\hsize}}X"
    lines = [
        "% needs \\usepackage{booktabs,tabularx}",
        f"\\begin{{{name}}}",
        "  \\centering",
        f"  \\caption{{{escape(title)}}}",
        *([] if continued else [_label(table)]),
        "  \\footnotesize",
        "  \\setlength{\\tabcolsep}{2pt}",
        f"  \\begin{{tabularx}}{{\\linewidth}}{{@{{}}{wide}*{{{values}}}{{{each}}}@{{}}}}",
        "    \\toprule",
        *_paper_head(table),
        "    \\midrule",
        *(f"    {' & '.join(_paper_cells(row))} \\\\[2pt]" for row in table.rows),
        "    \\bottomrule",
        "  \\end{tabularx}",
        *(f"  \\par\\smallskip\\raggedright {escape(note)}" for note in table.notes),
        f"\\end{{{name}}}",
    ]
    return "\n".join(lines) + "\n"


def _paper_head(table: TextTable) -> Iterator[str]:
    """Networks above their metrics."""
    if table.spans:
        titles = [
            f"\\multicolumn{{{n}}}{{c}}{{{escape(title)}}}" if title else "" for title, n in table.spans
        ]
        yield f"    {' & '.join(titles)} \\\\"
        start = 1
        for title, columns in table.spans:
            if title:
                yield f"    \\cmidrule(lr){{{start}-{start + columns - 1}}}"
            start += columns
    yield f"    {' & '.join(escape(column.title) for column in table.columns)} \\\\"


def _paper_cells(row: TextRow) -> Iterator[str]:
    """Ours, which may break before its sd, and the paper's value on a line of its own."""
    first, *cells = row.cells
    label = escape(first.joined)
    yield f"{{}}{label}" if label.startswith("[") else label
    for cell in cells:
        mean, _, rest = cell.text.partition(" ")
        ours = escape(mean) + (f" {escape(rest).replace(' ', '~')}" if rest else "")
        yield f"{ours}\\newline {escape(cell.detail)}" if cell.detail else ours


def _label(table: TextTable) -> str:
    return f"  \\label{{tab:{re.sub('[^A-Za-z0-9:.-]', '-', table.key)}}}"


class _Notes:
    """Letters for remarks, the same letter for the same remark."""

    def __init__(self) -> None:
        self.letters: dict[str, str] = {}

    def mark(self, remark: str) -> str:
        return self.letters.setdefault(remark, _letters(len(self.letters)))


def _letters(place: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    first, last = divmod(place, 26)
    return (_letters(first - 1) if first else "") + chr(ord("a") + last)


def _parts(table: TextTable, layout: Layout) -> list[tuple[TextRow, ...]]:
    """The rows, cut where a page is full."""
    parts: list[list[TextRow]] = [[]]
    used, room = 0, rows_room(table, layout)
    for row, lines in zip(table.rows, line_counts(table, layout), strict=True):
        if used + lines > room and parts[-1]:
            parts.append([])
            used = 0
        parts[-1].append(row)
        used += lines
    return [tuple(part) for part in parts]


def _environment(table: TextTable, layout: Layout, continued: bool) -> str:
    notes, columns = _Notes(), range(len(table.columns))
    title = f"{table.title}. {table.caption}" if table.title else table.caption
    caption = f"{escape(table.title or title)} (continued)" if continued else f"{escape(title)}"
    body = _body(table, layout, notes)
    said = [f"\\textsuperscript{{{letter}}} {escape(text)}" for text, letter in notes.letters.items()]
    said += [escape(note) for note in table.notes]
    lines = [
        "% needs \\usepackage{booktabs,siunitx}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{caption}}}",
        *([] if continued else [_label(table)]),
        f"  \\{layout.style.size}",
        f"  \\setlength{{\\tabcolsep}}{{{COLUMN_GAP_PT / 2:g}pt}}",
        "  \\sisetup{retain-explicit-plus}",
        f"  \\begin{{tabular}}{{@{{}}{''.join(_spec(table, index, layout) for index in columns)}@{{}}}}",
        "    \\toprule",
        *_head(table, layout),
        "    \\midrule",
        *body,
        "    \\bottomrule",
        "  \\end{tabular}",
        *(["  \\par\\smallskip\\raggedright\\footnotesize"] if said else []),
        *(f"  {note}\\par" for note in said),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _head(table: TextTable, layout: Layout) -> list[str]:
    """Titles over as many lines as the longest needs, level with the first row at the bottom."""
    titles = [
        head_lines(column, shows_detail(table, index), layout.widths[index], layout.style)
        for index, column in enumerate(table.columns)
    ]
    most = max(map(len, titles))
    padded = [[""] * (most - len(lines)) + lines for lines in titles]
    return [
        f"    {' & '.join(f'{{{escape(text)}}}' for text in line)} \\\\" for line in zip(*padded, strict=True)
    ]


def _body(table: TextTable, layout: Layout, notes: _Notes) -> list[str]:
    lines = []
    for place, (group, rows) in enumerate(table.groups()):
        if group:
            lines += ["    \\addlinespace"] * bool(place)
            lines.append(f"    \\multicolumn{{{len(table.columns)}}}{{@{{}}l}}{{{escape(group)}}} \\\\")
        lines += [f"    {_row(table, row, layout, notes)} \\\\" for row in rows]
    return lines


def _row(table: TextTable, row: TextRow, layout: Layout, notes: _Notes) -> str:
    texts = [_cell(table, row, index, (layout, notes)) for index in range(len(table.columns))]
    # a row that starts with [ would be read as the optional argument of the \\ before it
    return " & ".join(["{}" + texts[0] if texts[0].startswith("[") else texts[0], *texts[1:]])


def _cell(table: TextTable, row: TextRow, index: int, how: tuple[Layout, _Notes]) -> str:
    cell, column = row.cells[index], table.columns[index]
    layout, notes = how
    detail = in_cell(cell, column, first=index == 0)
    mark = f"\\textsuperscript{{{notes.mark(cell.detail)}}}" if detail != cell.detail else ""
    if column.kind == NUMBER and _NUMBER.fullmatch(cell.text) and not detail and not mark:
        return cell.text.replace("−", "-")
    if detail and column.kind != TEXT and layout.style.stacked:
        lines = f"{escape(cell.text)}{mark} \\\\ {{}}{escape(detail)}"
        text = f"\\begin{{tabular}}[t]{{@{{}}r@{{}}}}{lines}\\end{{tabular}}"
    else:
        text = f"{escape(f'{cell.text} {detail}'.strip())}{mark}"
        if cell.text[:2].strip() in GLYPHS:  # stays on the line of its word
            text = text.replace(" ", "\\nobreakspace{}", 1)
        if layout.wraps[index] and is_interval(detail):
            text = f"{escape(cell.text)} \\mbox{{{escape(detail)}}}{mark}"
    return f"{{{text}}}" if column.kind == NUMBER else text


def _spec(table: TextTable, index: int, layout: Layout) -> str:
    r"""`l` for text (a ragged paragraph where it is wider than its share), `S` for numbers, `r` otherwise.

    `S` is given the widest number of the column. Anything else in it is set in braces, as text.
    """
    column = table.columns[index]
    if column.kind == TEXT:
        share = layout.widths[index] / LINE_WIDTH_PT
        return (
            f">{{\\raggedright\\arraybackslash}}p{{{share:.3f}\\linewidth}}" if layout.wraps[index] else "l"
        )
    found = [_NUMBER.fullmatch(row.cells[index].text) for row in table.rows if not row.cells[index].detail]
    numbers = [match.group() for match in found if match]
    if column.kind != NUMBER or not numbers:
        return "r"
    whole = max(len(text.lstrip("+−-").partition(".")[0]) for text in numbers)
    decimals = max(len(text.partition(".")[2]) for text in numbers)
    sign = "+" if any(text[0] in "+−-" for text in numbers) else ""
    return f"S[table-format={sign}{whole}.{decimals}]"
