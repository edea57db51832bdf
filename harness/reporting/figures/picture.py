"""A finished figure: its bytes, a caption, a text for those who cannot see it, and its numbers as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from matplotlib.figure import Figure

from harness.reporting.csv_tables import csv_text
from harness.reporting.figures.style import settle, to_png, to_svg


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A finished figure. `table` is the key of the table it belongs to; None: the whole study."""

    key: str
    table: str | None
    caption: str
    alt: str
    svg: bytes
    png: bytes
    further: bool = False  # stands in the appendix of figures
    data: str = ""  # CSV of the numbers drawn, written to figures/<key>.csv; "": they are in a table already

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return self.png

    def __repr__(self) -> str:
        return f"<figure {self.key}: {self.alt}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """A drawn figure of the appendix with its words, before it is turned into bytes."""

    key: str
    figure: Figure
    caption: str
    alt: str
    data: str = ""


def finish(key: str, table: str | None, figure: Figure, text: tuple[str, str]) -> Picture:
    """The figure in both formats; `text` is the caption and what to say to who cannot see it."""
    caption, alt = text
    settle(figure)
    svg = to_svg(figure)
    return Picture(key=key, table=table, caption=caption, alt=alt, svg=svg, png=to_png(figure))


def twin(items: Iterable[Any]) -> str:
    """Dataclasses or mappings of one kind as CSV, a line for each: full precision, absent numbers empty."""
    lines = [item if isinstance(item, Mapping) else _fields(item) for item in items]
    if not lines:
        return ""
    return csv_text(lines[0], (line.values() for line in lines))


def _fields(item: Any) -> dict[str, Any]:
    return {each.name: getattr(item, each.name) for each in fields(item)}
