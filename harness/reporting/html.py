"""A document as one HTML file: figures and styles inside, nothing loaded from anywhere.

Its only script sorts tables by their column headings. It is this package's own, and the page's policy lets a
browser run no other: neither one that a label smuggled in, nor one from elsewhere. Without it nothing is
missing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.analysis.findings import CANNOT_TEST, NOT_EVALUABLE
from harness.reporting import document as doc
from harness.reporting import numbers as num
from harness.reporting.latex import paper_to_latex

TEMPLATES = Path(__file__).parent / "templates"
_KINDS: dict[type, str] = {
    doc.Paragraph: "paragraph",
    doc.Bullets: "bullets",
    doc.Definitions: "definitions",
    doc.ClaimList: "claims",
    doc.TextTable: "table",
    doc.FigureBlock: "figure",
    doc.Note: "note",
    doc.RunsBlock: "runs",
}
_ID = re.compile(r'\bid="([^"]+)"')
_LEADING = re.compile(rf"[+{num.MINUS}-]?\d[\d,]*(?:\.\d+)?")  # the number that a text starts with
_REFERENCE = re.compile(r'href="#|url\(#')
# A ">" within a value or a word is written as "&gt;".
_TAG = re.compile(r"<[^>]*>")


def to_html(document: doc.Document, svgs: dict[str, bytes]) -> str:
    """The whole report. `svgs` maps a figure's key to its SVG file."""
    boards = {
        b.key for s in document.sections for b in s.blocks if isinstance(b, doc.FigureBlock) and b.board
    }
    inline = {key: inline_svg(svg.decode(), key) for key, svg in svgs.items() if key not in boards}
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    own = Markup(script)  # noqa: S704 - a file of this package
    page = _environment().get_template("report.html")
    return page.render(document=document, svgs=inline, script=own, policy=policy(script))


def policy(script: str) -> str:
    """What a browser may do with the page: show it, and run just this script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def sort_value(cell: doc.TextCell, column: doc.TextColumn) -> Markup:
    """The attribute by which a cell of a column of numbers is sorted; "" where it has no number.

    >>> str(sort_value(doc.TextCell("−0.3 ± 0.1"), doc.TextColumn(title="x", kind="spread")))
    ' data-value="-0.3"'
    """
    value = cell.value
    found = _LEADING.match(cell.text) if value is None and column.kind != doc.TEXT else None
    if found:
        value = float(found.group().replace(num.MINUS, "-").replace(",", ""))
    return Markup("") if value is None else Markup(' data-value="{:.10g}"').format(value)


def sparks(curves: Sequence[Sequence[float]]) -> list[str]:
    """The points of small curves on one scale, 60 wide and 14 high; "" of one with fewer than two points.

    >>> sparks([(50.0, 75.0, 100.0), (60.0,)])
    ['0,14 30,7 60,0', '']
    """
    values = [value for curve in curves for value in curve]
    low, high = min(values, default=0.0), max(values, default=1.0)
    size = high - low or 1.0
    return [
        " ".join(
            f"{round(60 * place / (len(curve) - 1), 1):g},{round(14 - 14 * (value - low) / size, 1):g}"
            for place, value in enumerate(curve)
        )
        if len(curve) > 1
        else ""
        for curve in curves
    ]


def percent_of(board: doc.Board, value: float) -> str:
    """Where a value lies on the axis of the scoreboard, as SVG has it."""
    return f"{100 * board.share(value):.1f}%"


def width_of(board: doc.Board, value: float) -> str:
    """How wide a distance is on the axis of the scoreboard."""
    return f"{100 * min(value / (board.high - board.low), 1.0):.1f}%"


def ticks(board: doc.Board) -> list[float]:
    """Round numbers of the axis, where there is room for their digits."""
    room = 0.06 * (board.high - board.low)
    step = next(
        (
            each * 10.0**power
            for power in range(-6, 7)
            for each in (1, 2, 5)
            if each * 10.0**power >= 3.2 * room
        ),
        board.high,
    )
    found = [step * k for k in range(-4, 5)]
    return [tick for tick in found if board.low + room <= tick <= board.high - room or tick == 0]


def tick_text(value: float) -> str:
    """A number of the axis.

    >>> tick_text(-5.0), tick_text(0.0)
    ('−5', '0')
    """
    return num.signed(value, None)


def is_greyed(verdict: str) -> bool:
    """Whether a row has no verdict because nothing can be said of it."""
    return verdict in (CANNOT_TEST, NOT_EVALUABLE)


def curve_text(curve: Sequence[float]) -> str:
    """Where a curve begins and ends."""
    return f"{num.number(curve[0], 1)} → {num.number(curve[-1], 1)} % in {num.count(len(curve), 'point')}"


def inline_svg(svg: str, key: str) -> Markup:
    """The <svg> element alone, its ids made unique to this figure. Words stay as they are."""

    def renamed(found: re.Match[str]) -> str:
        tag = found[0].replace("xlink:href", "href")
        return _REFERENCE.sub(rf"\g<0>{key}-", _ID.sub(rf'id="{key}-\1"', tag))

    body = _TAG.sub(renamed, svg[svg.index("<svg ") :])
    return Markup(body.strip())  # noqa: S704 - drawn by this package, not by a user


def tone_class(tone: str) -> str:
    """A verdict word as a CSS class.

    >>> tone_class("no detectable difference")
    'tone-no-detectable-difference'
    """
    return f"tone-{doc.as_slug(tone)}" if tone else ""


def block_kind(block: doc.Block) -> str:
    """The name under which the templates know this kind of block."""
    return _KINDS[type(block)]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "kind": block_kind,
        "slug": doc.as_slug,
        "tone": tone_class,
        "code_spans": doc.code_spans,
    }
    environment.filters |= {
        "sort_value": sort_value,
        "sparks": sparks,
        "curve_text": curve_text,
        "percent_of": percent_of,
        "width_of": width_of,
        "ticks": ticks,
        "tick_text": tick_text,
        "greyed": is_greyed,
        "latex": paper_to_latex,
    }
    return environment
