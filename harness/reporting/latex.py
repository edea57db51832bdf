r"""A table as LaTeX that needs the packages booktabs and siunitx, and nothing else.

siunitx loads the package array, whose `>{...}` sets wrapped columns ragged.
"""

from __future__ import annotations

import re
from dataclasses import replace

from harness.reporting.cells import NUMBER, TEXT, Row, Table
from harness.reporting.latex_layout import (
    COLUMN_GAP_PT,
    LINE_WIDTH_PT,
    Layout,
    head_lines,
    in_cell,
    is_interval,
    lay_out,
    line_counts,
    rows_room,
    shows_detail,
)

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
    "≠": r"$\neq$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "‘": "`",
    "’": "'",
}
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi  pi rho  sigma tau "
_GREEK += "upsilon phi chi psi omega"
_ESCAPES |= {chr(0x3B1 + place): f"$\\{name}$" for place, name in enumerate(_GREEK.split(" ")) if name}
GLYPHS = tuple("?▲▼≈≠✓✗—")
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


def to_latex(table: Table) -> str:
    r"""`table` environments that fit into \linewidth: several where one page is too short for all rows.

    Long remarks become notes below the table, marked with letters.
    """
    layout = lay_out(table)
    parts = _parts(table, layout)
    return "".join(_environment(replace(table, rows=rows), layout, n > 0) for n, rows in enumerate(parts))


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


def _parts(table: Table, layout: Layout) -> list[tuple[Row, ...]]:
    """The rows, cut where a page is full."""
    parts: list[list[Row]] = [[]]
    used, room = 0, rows_room(table, layout)
    for row, lines in zip(table.rows, line_counts(table, layout), strict=True):
        if used + lines > room and parts[-1]:
            parts.append([])
            used = 0
        parts[-1].append(row)
        used += lines
    return [tuple(part) for part in parts]


def _environment(table: Table, layout: Layout, continued: bool) -> str:
    notes, columns = _Notes(), range(len(table.columns))
    title = f"{table.title}. {table.caption}" if table.title else table.caption
    label = f"\\label{{tab:{re.sub('[^A-Za-z0-9:.-]', '-', table.key)}}}"
    caption = f"{escape(table.title or title)} (continued)" if continued else f"{escape(title)}"
    body = _body(table, layout, notes)
    said = [f"\\textsuperscript{{{letter}}} {escape(text)}" for text, letter in notes.letters.items()]
    said += [escape(note) for note in table.notes]
    lines = [
        "% needs \\usepackage{booktabs,siunitx}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{caption}}}",
        *([] if continued else [f"  {label}"]),
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


def _head(table: Table, layout: Layout) -> list[str]:
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


def _body(table: Table, layout: Layout, notes: _Notes) -> list[str]:
    lines = []
    for place, (group, rows) in enumerate(table.groups()):
        if group:
            lines += ["    \\addlinespace"] * bool(place)
            lines.append(f"    \\multicolumn{{{len(table.columns)}}}{{@{{}}l}}{{{escape(group)}}} \\\\")
        lines += [f"    {_row(table, row, layout, notes)} \\\\" for row in rows]
    return lines


def _row(table: Table, row: Row, layout: Layout, notes: _Notes) -> str:
    texts = [_cell(table, row, index, (layout, notes)) for index in range(len(table.columns))]
    # a row that starts with [ would be read as the optional argument of the \\ before it
    return " & ".join(["{}" + texts[0] if texts[0].startswith("[") else texts[0], *texts[1:]])


def _cell(table: Table, row: Row, index: int, how: tuple[Layout, _Notes]) -> str:
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


def _spec(table: Table, index: int, layout: Layout) -> str:
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
