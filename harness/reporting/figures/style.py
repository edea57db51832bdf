"""One look for every figure: width, fonts, colours that survive grey printing; and its bytes."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import re
import threading
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from html import unescape
from itertools import chain, groupby
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib import font_manager, rc_context, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath, TextToPath

from harness.analysis.findings import HELPS, HURTS
from harness.reporting.document import all_text
from harness.reporting.frames import csv_text
from harness.study.plan import Plan

# Fonts for characters that the harness's own fonts lack, from what is installed on this machine.
#
# Libertinus (pages) and DejaVu (figures) come with typst and matplotlib and have the Latin, Greek and
# Cyrillic letters; DejaVu has the Hebrew and Arabic ones too. Other scripts need a font of the system.
# Where none has a character, the pages of the PDF and their figures show U+FFFD in its place, a PNG an empty
# box, and one sentence says so. A figure's SVG has its words as text, for the fonts of who reads it.


REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
OWN = "DejaVu Sans"
MOST_NAMED = 12  # characters in a sentence
_STYLES = ("bold", "italic", "oblique", "black", "light", "thin", "condensed", "mono", "medium")
_KNOWN = ("noto", "sourcehan", "wqy", "droid", "unifont")  # families with many scripts, looked at first


@dataclass(frozen=True, slots=True)
class Fonts:
    """Font files beside the harness's own, in the order in which they are asked, and what none has."""

    files: tuple[Path, ...] = ()
    missing: str = ""

    @property
    def families(self) -> tuple[str, ...]:
        """The names by which typst and matplotlib know them."""
        return tuple(_family(path) for path in self.files)

    def replaced(self, text: str) -> str:
        """The text with U+FFFD in place of each missing character."""
        return text.translate(dict.fromkeys(map(ord, self.missing), REPLACEMENT))

    def sentence(self) -> str:
        """What a reader of pages and figures must know; "" where nothing is missing."""
        if not self.missing:
            return ""
        named = " ".join(f"{each} (U+{ord(each):04X})" for each in self.missing[:MOST_NAMED])
        more = len(self.missing) - MOST_NAMED
        others = f" and {more} more" if more > 0 else ""
        return (
            f"no font here has {named}{others}: report.pdf shows {REPLACEMENT} in their place; install a font"
            " that has them, such as Noto Sans (for Chinese, Japanese and Korean: Noto Sans CJK), and write"
            " the report again. The other formats have every character"
        )


def fonts_for(text: str) -> Fonts:
    """The fonts of this machine that show what matplotlib's DejaVu Sans does not; no search where it does."""
    own = _characters(_own_file())
    lacking = {each for each in set(text) if ord(each) not in own and _is_drawn(each)}
    files: list[Path] = []
    for path in _system_fonts() if lacking else ():
        found = {each for each in lacking if ord(each) in _characters(path)}
        if found:
            files.append(path)
            lacking -= found
        if not lacking:
            break
    return Fonts(tuple(files), "".join(sorted(lacking)))


def files_of(fonts: Fonts) -> tuple[Path, ...]:
    """Every file that typst needs beside its own: DejaVu Sans, regular and bold; those of the system."""
    return (_own_file(), _own_file("-Bold"), *fonts.files)


def register(fonts: Fonts) -> None:
    """Let matplotlib find them by family."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in fonts.files:
        if str(path) not in known:
            font_manager.fontManager.addfont(path)


def _own_file(cut: str = "") -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{cut}.ttf"


def _is_drawn(each: str) -> bool:
    """Whether a glyph is needed: not for spaces, marks of direction and joiners."""
    return unicodedata.category(each)[0] not in "CZ" and not 0xFE00 <= ord(each) <= 0xFE0F


@cache
def _system_fonts() -> tuple[Path, ...]:
    """Every font file with outlines in an upright, regular style; families with many scripts come first."""
    paths = [Path(name) for name in font_manager.findSystemFonts()]
    regular = [path for path in paths if not any(style in path.name.lower() for style in _STYLES)]

    def rank(path: Path) -> tuple[bool, str, str]:
        name = path.name.lower()
        return not any(known in name.replace("-", "") for known in _KNOWN), name, str(path)

    return tuple(sorted(regular, key=rank))


@cache
def _characters(path: Path) -> frozenset[int]:
    """The code points of a font; none of one that cannot be read or has pictures in place of outlines."""
    try:
        # A path itself is taken from matplotlib 3.11 on.
        font = FT2Font(str(path))
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _family(path: Path) -> str:
    return str(FT2Font(str(path)).family_name)


def text_of(plan: Plan) -> str:
    """Whatever a figure may show of a study: its labels, titles, tricks and data sets."""
    return "".join(all_text(plan.header, plan.arm_labels, plan.tables, plan.all_arms))


# One look for every figure: width, fonts, colours that survive colour-blindness and grey printing.


# Of what is drawn, in any format; up with every change, so that `harness verify` compares the words alone of
# a report of before. 1: letters were outlines. 2: words are text. 3: the scoreboard comes first, then tables
# in the paper's shape: of reports before `FIRST_IN_THIS_SHAPE` `harness verify` compares the numbers alone.
# 4: told apart in grey print: a name beside a line has a piece of that line, greyed rows are dashed.
STYLE, FIRST_IN_THIS_SHAPE = 4, 3
WIDTH_IN = 6.9  # the text width of an A4 page
PNG_DPI = 160
_PNG_PAGE = b'#set page(width: auto, height: auto, margin: 0pt)\n#image(bytes(sys.inputs.svg), format: "svg")'
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#5F5F5F"
INK, FAINT = "#1A1A1A", "#D9D9D9"

# Okabe and Ito's palette without its yellow (too light on white), and a line style for each colour
LINES = ("#000000", BLUE, VERMILLION, "#007A5A", "#B0568A", "#B87700", "#3B8FC2", "#777777")
STYLES: tuple[Any, ...] = (
    *("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5))),
    *((0, (10, 2.5)), (0, (1, 3)), (0, (10, 2, 4, 2))),
)

_RC: dict[Any, Any] = {
    "font.family": OWN,
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "svg.hashsalt": "harness",
    "svg.fonttype": "none",
    "path.simplify": True,
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
}
_HASHED = re.compile(r"\b([A-Za-z](?:[0-9a-f]+_[0-9a-f]+_[a-z]?)?)[0-9a-f]{10}\b")
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@contextmanager
def house_style(text: str = "") -> Iterator[None]:
    """Draw inside this context; matplotlib's settings are as before afterwards.

    text: whatever will be drawn; fonts of this machine are used for what DejaVu Sans lacks of it.
    """
    fonts = fonts_for(text)
    register(fonts)
    family = [OWN, *fonts.families] if fonts.files else OWN
    with rc_context({**_RC, "font.family": family}), warnings.catch_warnings():
        # `Fonts.sentence` says it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        # A font of the system is taken in its regular weight, also where a heading is bold.
        log = logging.getLogger("matplotlib.font_manager")
        log.addFilter(_is_no_weight)
        try:
            yield
        finally:
            log.removeFilter(_is_no_weight)


def _is_no_weight(record: logging.LogRecord) -> bool:
    return "Failed to find font weight" not in record.getMessage()


def new_figure(height_in: float) -> Figure:
    """An empty figure of the common width whose parts are kept from overlapping."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def verdict_colour(verdict: str, other: str = GREY) -> str:
    """Blue helps, vermillion hurts; `other`: everything else."""
    return {HELPS: BLUE, HURTS: VERMILLION}.get(verdict, other)


def settle(figure: Figure) -> None:
    """Find the layout once, so that no format has to find it again."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")


def to_svg(figure: Figure) -> bytes:
    """A settled figure as SVG, without a date."""
    buffer = io.BytesIO()
    dpi = figure.get_dpi()
    # By the canvas's own method: `savefig` draws every figure twice, the first time for the layout alone.
    FigureCanvasSVG(figure).print_svg(buffer, metadata=_NO_METADATA)
    figure.set_dpi(dpi)
    return compact(buffer.getvalue().decode())


def to_png(svg: bytes) -> bytes:
    """The picture of an SVG, `PNG_DPI` dots per inch."""
    import typst

    drawn = outlined(svg).decode()
    return bytes(typst.compile(_PNG_PAGE, format="png", ppi=PNG_DPI, sys_inputs={"svg": drawn}))


# matplotlib's SVG in fewer bytes. Words are text, in a font that the reader has and as wide as they were laid
# out; digits beyond what can be seen, names to which nothing refers and repeated styles are left out.


SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_USE, _GROUP, _DEFS, _PATH, _RECT, _TEXT = (
    f"{{{SVG}}}{tag}" for tag in ("use", "g", "defs", "path", "rect", "text")
)
_HREF = f"{{{XLINK}}}href"
# Of a point: four micrometres on paper.
DECIMALS = 2
# Where DejaVu Sans is not installed. Verdana has its widths.
ELSEWHERE = ("Verdana", "sans-serif")
_TOKEN = re.compile(r"[A-Za-z]|[-+]?[\d.]+(?:e[-+]?\d+)?")
_PLACE = re.compile(r"(?:translate\((\S+) (\S+)\))? ?(?:rotate\((\S+?)(?: \S+ \S+)?\))?")
_OPACITY = re.compile(r"(?:^|;)opacity:")
_WORD = re.compile(r"<text\b[^>]*>([^<]*)</text>")
_ANCHORS = ("start", "middle", "end")
# Of matplotlib's paths, beside `z`; and how many numbers follow each.
_COMMANDS = {"M": 2, "L": 2, "Q": 4, "C": 6}


def compact(svg: str) -> bytes:
    """The same drawing: words as text, coordinates as far as they can be seen, a style once for a run."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - drawn by this package
    _number_ids(root)
    _flatten(root)
    shared = {element.get("id", ""): _styles(element) for element in root.iter(_PATH) if element.get("id")}
    for element in root.iter():
        if element.tag == _TEXT:
            _shorten_text(element)
        else:
            _shorten(element, shared.get(element.get(_HREF, "")[1:], {}))
    _gather(root)
    for element in root.iter():
        element.tail = "\n"
    root.set("font-family", ",".join([*(f"'{family}'" for family in rcParams["font.family"]), *ELSEWHERE]))
    for prefix, uri in (("", SVG), ("xlink", XLINK)):
        ElementTree.register_namespace(prefix, uri)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def words_of(svg: bytes) -> list[str]:
    """Every text of a drawing, in the order in which they are drawn."""
    return [unescape(word) for word in _WORD.findall(svg.decode("utf-8", "replace"))]


def outlined(svg: bytes) -> bytes:
    """The drawing with outlines in place of its words, for whatever cannot set them."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - drawn by this package
    with house_style("".join(words_of(svg))):
        for element in root.iter(_TEXT):
            has, word = element.attrib, element.text or ""
            prop = _font(has.pop("font-size"), has.pop("font-weight", ""))
            anchor = _ANCHORS.index(has.pop("text-anchor", "start")) / 2
            x = float(has.pop("x")) - anchor * float(has.pop("textLength"))
            turn = has.pop("transform", "")
            has["transform"] = f"{turn} translate({_rounded(str(x))} {has.pop('y')})".strip()
            has["d"] = short_path(_path_of(TextPath((0, 0), word, prop=prop)))
            element.tag, element.text = _PATH, None
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _path_of(outlines: TextPath) -> str:
    """Outlines, whose y grows upwards, as a path of an SVG."""
    names = {
        Outline.MOVETO: "M",
        Outline.LINETO: "L",
        Outline.CURVE3: "Q",
        Outline.CURVE4: "C",
        Outline.CLOSEPOLY: "z",
    }
    shown = []
    for points, code in outlines.iter_segments(simplify=False):
        numbers = (f"{-value if index % 2 else value:.4f}" for index, value in enumerate(points))
        shown.append(names[code] + (" ".join(numbers) if names[code] != "z" else ""))
    return " ".join(shown)


def _font(size: str, weight: str) -> FontProperties:
    return FontProperties(family=rcParams["font.family"], size=float(size), weight=weight or "normal")


def _number_ids(root: ElementTree.Element) -> None:
    """matplotlib names clip paths, markers and collections after a hash of their full coordinates, whose last
    digits another CPU computes otherwise. They are numbered instead, in the order in which they are drawn.
    """
    numbers: dict[str, int] = {}
    for element in root.iter():
        for name in element.attrib.keys() & {"id", _HREF, "clip-path"}:
            element.attrib[name] = _HASHED.sub(
                lambda found: f"{found[1]}{numbers.setdefault(found[0], len(numbers) + 1)}",
                element.attrib[name],
            )


def _flatten(parent: ElementTree.Element) -> None:
    """Take out groups that have a name and nothing else, and those without a child."""
    kept: list[ElementTree.Element] = []
    for child in parent:
        _flatten(child)
        if child.tag == _GROUP and set(child.attrib) <= {"id"}:
            kept += child
        elif len(child) or child.tag != _DEFS:
            kept.append(child)
    parent[:] = kept
    parent.text = parent.text if parent.tag == _TEXT else (parent.text or "").strip() or None


def _styles(element: ElementTree.Element) -> dict[str, str]:
    """The properties that an element sets, in their order."""
    pairs = (each.partition(":") for each in element.get("style", "").split(";") if each.strip())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _shorten_text(element: ElementTree.Element) -> None:
    """Where it begins, ends or has its middle, and how wide it is: another font is spaced to that width."""
    has, styles = element.attrib, _styles(element)
    size = styles.pop("font-size").removesuffix("px")
    weight = styles.pop("font-weight", "")
    anchor = styles.pop("text-anchor", "start")
    styles.pop("font-family", None)
    found = _PLACE.fullmatch(has.get("transform", ""))
    assert found
    x, y = (_rounded(has.get(name, found[index] or "0")) for index, name in enumerate("xy", start=1))
    turn = _rounded(found[3] or "0")
    prop = _font(size, weight)
    width = TextToPath().get_text_width_height_descent(element.text or "", prop, ismath=False)[0]
    style = ";".join(f"{name}:{value}" for name, value in styles.items())
    new = {
        "x": x,
        "y": y,
        "transform": f"rotate({turn} {x} {y})" if turn != "0" else "",
        "textLength": _rounded(str(width), 1),
        "font-size": size,
        "font-weight": weight,
        "text-anchor": anchor if anchor != "start" else "",
        "style": style,
    }
    has.clear()
    has |= {name: value for name, value in new.items() if value}


def _shorten(element: ElementTree.Element, shared: Mapping[str, str]) -> None:
    """Write the coordinates of one element in few characters; what it refers to has the `shared` style."""
    has = element.attrib
    if element.tag in (_USE, _RECT):
        has |= {name: _rounded(has[name]) for name in ("x", "y", "width", "height") if name in has}
    if "d" in has:
        has["d"] = short_path(has["d"])
    if "style" in has:
        own = (f"{name}:{value}" for name, value in _styles(element).items() if shared.get(name) != value)
        has["style"] = ";".join(own)
    if element.tag == _GROUP:
        has.pop("id", None)


def _gather(parent: ElementTree.Element) -> None:
    """Let neighbours that share clip path or style have it from a group around them.

    Not so with opacity: a group would be made transparent as a whole.
    """
    parent[:] = chain.from_iterable(_together(parent, "clip-path"))
    for child in parent:
        if child.tag not in (_DEFS, _TEXT):
            _gather(child)
    parent[:] = chain.from_iterable(_together(parent, "style"))
    only = parent[0] if len(parent) == 1 else None
    if (
        only is not None
        and only.tag == _GROUP == parent.tag
        and not parent.attrib.keys() & only.attrib.keys()
    ):
        parent.attrib.update(only.attrib)
        parent[:] = list(only)


def _together(parent: ElementTree.Element, name: str) -> Iterator[list[ElementTree.Element]]:
    """The children; a run of two and more with one value of the attribute `name` in a group that has it."""
    for value, run in groupby(list(parent), lambda child: child.get(name, "")):
        alike = list(run)
        if len(alike) == 1 or not value or _OPACITY.search(value):
            yield alike
            continue
        group = ElementTree.Element(_GROUP, {name: value})
        for child in alike:
            del child.attrib[name]
            group.extend(child if child.tag == _GROUP and not child.attrib else [child])
        yield [group]


def short_path(path: str, scale: float = 1.0, decimals: int = DECIMALS) -> str:
    """The path of `M`, `L`, `Q`, `C` and `z`, scaled; points rounded, each relative to the one before.

    >>> short_path("M 10.004 20 L 10 25.5 L 12.5 25.506 Q 13 26 14 26.25 z")
    'M10 20l0 5.5l2.5 .01q.5 .49 1.5 .74z'
    """
    tokens, shown, grid = iter(_TOKEN.findall(path)), [], 10**decimals
    start = here = (0, 0)
    for command in tokens:
        if command == "z":
            shown.append(command)
            here = start
            continue
        points = [round(float(next(tokens)) * scale * grid) for _ in range(_COMMANDS[command])]
        origin = (0, 0) if command == "M" else here
        steps = [value - origin[place % 2] for place, value in enumerate(points)]
        here = points[-2], points[-1]
        if command == "M":
            start = here
        name = command if command == "M" else command.lower()
        shown.append(name + " ".join(_decimal(step / grid) for step in steps).replace(" -", "-"))
    return "".join(shown)


def _rounded(number: str, decimals: int = DECIMALS) -> str:
    return _decimal(round(float(number), decimals))


def _decimal(value: float) -> str:
    """Without zeros that say nothing.

    >>> _decimal(-0.25), _decimal(10.0), _decimal(-0.0)
    ('-.25', '10', '0')
    """
    text = format(value or 0.0, ".10g")
    return re.sub(r"^(-?)0\.", r"\1.", text)


# A finished figure: its bytes, a caption, a text for those who cannot see it, and its numbers as a table.


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A finished figure. `table` is the key of the table it belongs to; None: the whole study."""

    key: str
    table: str | None
    caption: str
    alt: str
    svg: bytes
    further: bool = False  # stands in the appendix of figures
    data: str = ""  # CSV of the numbers drawn, written to figures/<key>.csv; "": they are in a table already

    @property
    def png(self) -> bytes:
        """The same as PNG, drawn when asked for: no file of a report shows it."""
        return to_png(self.svg)

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
    """The figure as it is printed; `text` is the caption and what to say to who cannot see it."""
    caption, alt = text
    settle(figure)
    return Picture(key=key, table=table, caption=caption, alt=alt, svg=to_svg(figure))


def twin(items: Iterable[Any]) -> str:
    """Dataclasses or mappings of one kind as CSV, a line for each: full precision, absent numbers empty."""
    lines = [item if isinstance(item, Mapping) else _fields(item) for item in items]
    if not lines:
        return ""
    return csv_text(lines[0], (line.values() for line in lines))


def _fields(item: Any) -> dict[str, Any]:
    return {each.name: getattr(item, each.name) for each in fields(item)}


# Figures drawn by two processes at a time: matplotlib uses one core, and most of a report's time is its.


Draw = Callable[[], list[Picture]]
PROCESSES = 2  # each further one would bring less, and holds another copy of the runs
WORTH_IT = 4  # parts from which on two processes are sooner done than one

_parts: Sequence[Draw] = ()  # what forked processes draw: they share it without a copy


def draw_side_by_side(parts: Sequence[Draw]) -> list[Picture]:
    """The pictures of all parts, in order. One process draws alone where forking would not be safe."""
    global _parts
    if len(parts) < WORTH_IT or not _may_fork():
        return [picture for part in parts for picture in part()]
    _parts = parts
    try:
        with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
            drawn = pool.map(_draw, range(len(parts)), chunksize=1)
    finally:
        _parts = ()
    return [picture for pictures in drawn for picture in pictures]


def _draw(place: int) -> list[Picture]:
    return _parts[place]()


def _may_fork() -> bool:
    """A fork has only the thread that called it: locks that others hold would stay locked in it."""
    return hasattr(os, "fork") and (os.cpu_count() or 1) > 1 and threading.active_count() == 1
