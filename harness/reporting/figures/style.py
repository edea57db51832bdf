"""One look for every figure: width, fonts, colours that survive colour-blindness and grey printing."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from harness.analysis.findings import HELPS, HURTS
from harness.reporting.fonts import OWN, fonts_for, register

WIDTH_IN = 6.9  # the text width of an A4 page
PNG_DPI = 160
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#5F5F5F"
INK, FAINT = "#1A1A1A", "#D9D9D9"

# Okabe and Ito's palette without its yellow (too light on white), and a line style for each colour
LINES = ("#000000", BLUE, VERMILLION, "#007A5A", "#B0568A", "#B87700", "#3B8FC2", "#777777")
STYLES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (3, 1)), (0, (1, 1)), (0, (8, 2)))

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
    "svg.fonttype": "path",
    "path.simplify": True,
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
}
_HASHED = re.compile(r'(?<=[#"])([A-Za-z](?:[0-9a-f]+_[0-9a-f]+_[a-z]?)?)[0-9a-f]{10}(?=[")])')
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
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # `Fonts.sentence` says it
        yield


def new_figure(height_in: float) -> Figure:
    """An empty figure of the common width whose parts are kept from overlapping."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def right_labels(
    ax: Axes, positions: list[float], labels: list[str], limits: tuple[float, float] | None = None
) -> Axes:
    """Texts at the right edge, one per height (by default in data units); the layout keeps room for them."""
    twin = ax.twinx()
    twin.set_ylim(limits or ax.get_ylim())
    twin.set_yticks(positions, labels)
    twin.tick_params(axis="y", length=0)
    twin.spines[:].set_visible(False)
    return twin


def verdict_colour(verdict: str) -> str:
    """Blue helps, vermillion hurts, grey everything else."""
    return {HELPS: BLUE, HURTS: VERMILLION}.get(verdict, GREY)


def settle(figure: Figure) -> None:
    """Find the layout once, so that no format has to find it again."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")


# Both by the canvas's own method: `savefig` draws every figure twice, the first time for the layout alone.


def to_svg(figure: Figure) -> bytes:
    """A settled figure as SVG, without a date."""
    buffer = io.BytesIO()
    dpi = figure.get_dpi()
    FigureCanvasSVG(figure).print_svg(buffer, metadata=_NO_METADATA)
    figure.set_dpi(dpi)
    return numbered_ids(buffer.getvalue().decode()).encode()


def numbered_ids(svg: str) -> str:
    """matplotlib names clip paths, markers and collections after a hash of their full coordinates, whose last
    digits another CPU computes otherwise. They are numbered instead, in the order in which they are drawn.

    >>> numbered_ids('<path id="mab12ab12ab"/><use xlink:href="#mab12ab12ab"/>')
    '<path id="m1"/><use xlink:href="#m1"/>'
    """
    numbers: dict[str, int] = {}
    return _HASHED.sub(lambda found: f"{found[1]}{numbers.setdefault(found[0], len(numbers) + 1)}", svg)


def to_png(figure: Figure) -> bytes:
    """A settled figure as PNG, without the name of the program that wrote it."""
    buffer = io.BytesIO()
    figure.set_dpi(PNG_DPI)
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
