"""A table as every format sees it: columns with a kind, rows of text cells, notes below."""

from __future__ import annotations

from dataclasses import dataclass

TEXT, NUMBER, SPREAD = "text", "number", "spread"  # SPREAD: a number with its sd, or otherwise composed


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`detail_title` names the second line of the column's cells, where they have one."""

    title: str
    kind: str = TEXT
    detail_title: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is shown: a main text, a smaller second line, and a tone (a verdict word) for colour.

    `value` is what a sortable table sorts by, where that is not the number that the text starts with.
    """

    text: str
    detail: str = ""
    tone: str = ""
    value: float | None = None

    @property
    def joined(self) -> str:
        """Both lines as one."""
        return f"{self.text} {self.detail}".strip()


@dataclass(frozen=True, slots=True)
class Row:
    """The first cell is the row's header. Rows with the same `group` follow each other."""

    cells: tuple[Cell, ...]
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`title` says what the table is where no heading does; the caption says what the numbers are.

    `notes` are footnotes.
    """

    key: str
    title: str = ""
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"table {self.key}: {len(row.cells)} cells for {len(self.columns)} columns")

    def groups(self) -> list[tuple[str, list[Row]]]:
        """The rows in order, split where the group changes."""
        parts: list[tuple[str, list[Row]]] = []
        for row in self.rows:
            if not parts or parts[-1][0] != row.group:
                parts.append((row.group, []))
            parts[-1][1].append(row)
        return parts

    def has_detail(self, index: int) -> bool:
        """Whether any cell of this column has a second line."""
        return any(row.cells[index].detail for row in self.rows)


def plain_table(key: str, caption: str, titles: dict[str, str], rows: list[list[str]]) -> Table:
    """A table of single-line cells. `titles` maps each column's title to its kind."""
    return Table(
        key=key,
        caption=caption,
        columns=tuple(Column(title=title, kind=kind) for title, kind in titles.items()),
        rows=tuple(Row(tuple(Cell(text) for text in row)) for row in rows),
    )
