"""The card of a trick, read from the docstring of its module: the docs page and the reports use it.

A card is a summary line, then lines that start with the five labels below; a longer text goes on in indented
lines. "(memory)" after a section, an equation or a value means that it was not read in the paper itself.
"""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass

from harness.tricks.base import Trick, require

LABELS = ("Paper", "Equation", "Acts on", "Defaults", "Differs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a reader must know about a trick, in one line of text each."""

    summary: str
    paper: str  # bibliography keys, arXiv ids, sections
    equation: str
    acts_on: (
        str  # the hooks without "edit_", each with what it changes there in brackets; none (what it is for)
    )
    defaults: str  # every option with its default and where it comes from
    differs: str  # every deviation from the paper

    @property
    def citations(self) -> tuple[str, ...]:
        """The bibliography keys in `paper`, in the order of mention."""
        return tuple(dict.fromkeys(re.findall(r"\b[a-z]+\d{4}[a-z]+\b", self.paper)))


def parse(docstring: str) -> dict[str, str]:
    """Split a module docstring into "Summary" and the five labels, each value on one line.

    Raises:
        ValueError: a label is missing, empty or there twice.

    >>> parse("S\\n\\nPaper: p\\nEquation: e\\n f\\nActs on: loss\\nDefaults: no\\nDiffers: no")["Equation"]
    'e f'
    """
    summary, _, body = inspect.cleandoc(docstring).partition("\n\n")
    parts = re.split(rf"^({'|'.join(LABELS)}):", body, flags=re.MULTILINE)[1:]
    labels, texts = parts[::2], [" ".join(text.split()) for text in parts[1::2]]
    found = dict(zip(labels, texts, strict=True))
    missing = [label for label in LABELS if not found.get(label)]
    require(not missing, f"the card lacks a text for: {', '.join(missing)}")
    require(len(labels) == len(found), "the card has a label twice")
    return {"Summary": " ".join(summary.split()), **found}


def card(trick: Trick | type[Trick]) -> Card:
    """The card of a trick.

    Raises:
        ValueError: the docstring of its module is not a complete card.
    """
    cls = trick if isinstance(trick, type) else type(trick)
    try:
        fields = parse(sys.modules[cls.__module__].__doc__ or "")
    except ValueError as error:
        raise ValueError(f"{cls.name}: {error}") from None
    return Card(
        summary=fields["Summary"],
        paper=fields["Paper"],
        equation=fields["Equation"],
        acts_on=fields["Acts on"],
        defaults=fields["Defaults"],
        differs=fields["Differs"],
    )
