"""A report before it has a format: sections of paragraphs, lists, claims, tables and figures.

Every text is plain and is escaped by the format that prints it. Only the banner may hold `code` in backticks.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.reporting.cells import Table


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Definitions:
    """Pairs of a term and what it says."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of the answer, marked with the glyph (and the word, unless the sentence has it)."""

    mark: str
    text: str
    tone: str  # the verdict word, or "" for a row without a verdict


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of one table."""

    title: str
    items: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class FigureBlock:
    """A picture under figures/<key>.svg and .png. `alt` says what a reader who cannot see it must know."""

    key: str
    caption: str
    alt: str


Block = Paragraph | Bullets | Definitions | Claims | Table | FigureBlock


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    blocks: tuple[Block, ...]
    level: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """`banner` is the first line of every format, where there is one."""

    banner: str
    title: str
    question: str
    scope: str
    sections: tuple[Section, ...]


def code_spans(text: str) -> list[tuple[str, bool]]:
    """Split at backticks into (text, is code).

    >>> code_spans("a `mini` run")
    [('a ', False), ('mini', True), (' run', False)]
    """
    return [(part, index % 2 == 1) for index, part in enumerate(text.split("`")) if part]
