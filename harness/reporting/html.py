"""A document as one HTML file: figures and styles inside, no script, nothing loaded from anywhere."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.reporting.cells import Table
from harness.reporting.document import (
    Block,
    Bullets,
    Claims,
    Definitions,
    Document,
    FigureBlock,
    Paragraph,
    code_spans,
)
from harness.reporting.names import as_slug

TEMPLATES = Path(__file__).parent / "templates"
_KINDS: dict[type, str] = {
    Paragraph: "paragraph",
    Bullets: "bullets",
    Definitions: "definitions",
    Claims: "claims",
    Table: "table",
    FigureBlock: "figure",
}
_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(xlink:href="#|url\(#)')


def to_html(document: Document, svgs: dict[str, bytes]) -> str:
    """The whole report. `svgs` maps a figure's key to its SVG file."""
    inline = {key: inline_svg(svg.decode(), key) for key, svg in svgs.items()}
    return _environment().get_template("report.html").render(document=document, svgs=inline)


def inline_svg(svg: str, key: str) -> Markup:
    """The <svg> element alone, its ids made unique to this figure."""
    body = svg[svg.index("<svg ") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = _ID.sub(rf'id="{key}-\1"', body)
    body = _REFERENCE.sub(rf"\g<1>{key}-", body)
    return Markup(body.strip())  # noqa: S704 - drawn by this package, not by a user


def tone_class(tone: str) -> str:
    """A verdict word as a CSS class.

    >>> tone_class("no detectable difference")
    'tone-no-detectable-difference'
    """
    return f"tone-{as_slug(tone)}" if tone else ""


def block_kind(block: Block) -> str:
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
    environment.filters |= {"kind": block_kind, "slug": as_slug, "tone": tone_class, "code_spans": code_spans}
    return environment
