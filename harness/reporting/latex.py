"""A table as LaTeX that needs the packages booktabs and siunitx, and nothing else."""

from __future__ import annotations

import re

from harness.reporting.cells import NUMBER, TEXT, Cell, Column, Row, Table

_NUMBER = re.compile(r"[+−-]?\d+(?:\.\d+)?")
LONGEST_ONE_LINER, WRAPPED = 32, "p{3.5cm}"
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
}
_PATTERN = re.compile("|".join(map(re.escape, _ESCAPES)))


def escape(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> print(escape("50%_x&y"))
    50\%\_x\&y
    """
    return _PATTERN.sub(lambda match: _ESCAPES[match.group()], text)


def to_latex(table: Table) -> str:
    r"""A `table` environment. A column's second lines become a column of their own."""
    columns = [
        (index, detail)
        for index, column in enumerate(table.columns)
        for detail in ((False, True) if table.has_detail(index) else (False,))
    ]
    caption = f"{table.title}. {table.caption}" if table.title else table.caption
    heads = [_head(table.columns[index], detail) for index, detail in columns]
    lines = [
        "% needs \\usepackage{booktabs,siunitx}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{escape(caption)}}}",
        f"  \\label{{tab:{re.sub('[^A-Za-z0-9:.-]', '-', table.key)}}}",
        "  \\sisetup{retain-explicit-plus}",
        f"  \\begin{{tabular}}{{{''.join(_spec(table, *column) for column in columns)}}}",
        "    \\toprule",
        f"    {' & '.join(heads)} \\\\",
        "    \\midrule",
        *_body(table, columns),
        "    \\bottomrule",
        "  \\end{tabular}",
        *(f"  \\par\\smallskip\\footnotesize {escape(note)}" for note in table.notes),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _head(column: Column, detail: bool) -> str:
    title = column.detail_title[:1].upper() + column.detail_title[1:] if detail else column.title
    return f"{{{escape(title)}}}"


def _body(table: Table, columns: list[tuple[int, bool]]) -> list[str]:
    lines = []
    for place, (group, rows) in enumerate(table.groups()):
        if group:
            lines += ["    \\addlinespace"] * bool(place)
            lines.append(f"    \\multicolumn{{{len(columns)}}}{{l}}{{{escape(group)}}} \\\\")
        lines += [f"    {_row(table, row, columns)} \\\\" for row in rows]
    return lines


def _row(table: Table, row: Row, columns: list[tuple[int, bool]]) -> str:
    texts = [_cell(row.cells[index], table.columns[index], detail) for index, detail in columns]
    # a row that starts with [ would be read as the optional argument of the \\ before it
    return " & ".join(["{}" + texts[0] if texts[0].startswith("[") else texts[0], *texts[1:]])


def _cell(cell: Cell, column: Column, detail: bool) -> str:
    text = cell.detail if detail else cell.text
    if column.kind == NUMBER and not detail:
        return text.replace("−", "-") if _NUMBER.fullmatch(text) else f"{{{escape(text)}}}"
    return escape(text)


def _spec(table: Table, index: int, detail: bool) -> str:
    r"""`l` for text (a paragraph where it is long), `S` for numbers, `r` for composed numbers.

    `S` is given the widest number of the column. A number with a footnote mark is no number to siunitx: it is
    set in braces, as text.
    """
    column = table.columns[index]
    if column.kind == TEXT or (detail and column.kind == NUMBER):
        texts = [row.cells[index].detail if detail else row.cells[index].text for row in table.rows]
        return "l" if max(map(len, texts), default=0) <= LONGEST_ONE_LINER else WRAPPED
    found = [_NUMBER.fullmatch(row.cells[index].text) for row in table.rows]
    numbers = [match.group() for match in found if match]
    if detail or column.kind != NUMBER or not numbers:
        return "r"
    whole = max(len(text.lstrip("+−-").partition(".")[0]) for text in numbers)
    decimals = max(len(text.partition(".")[2]) for text in numbers)
    sign = "+" if any(text[0] in "+−-" for text in numbers) else ""
    return f"S[table-format={sign}{whole}.{decimals}]"
