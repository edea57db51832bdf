"""Fonts for characters that the harness's own fonts lack, from what is installed on this machine.

Libertinus (pages) and DejaVu (figures) come with typst and matplotlib and have the Latin, Greek and Cyrillic
letters; DejaVu has the Hebrew and Arabic ones too. Other scripts need a font of the system. Where none has a
character, the page shows U+FFFD and the figure an empty box in its place, and one sentence says so.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from harness.study.plan import Plan

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
            f"no font here has {named}{others}: report.pdf shows {REPLACEMENT} and the figures a box in their"
            " place; install a font that has them, such as Noto Sans (for Chinese, Japanese and Korean: Noto"
            " Sans CJK), and write the report again. The other formats have every character"
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
    """Every file that typst needs beside its own: DejaVu Sans, then those of the system."""
    return (_own_file(), *fonts.files)


def register(fonts: Fonts) -> None:
    """Let matplotlib find them by family."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in fonts.files:
        if str(path) not in known:
            font_manager.fontManager.addfont(path)


def _own_file() -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


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
        font = FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _family(path: Path) -> str:
    return str(FT2Font(path).family_name)


def all_text(value: object) -> Iterable[str]:
    """Every text in plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from all_text(key)
            yield from all_text(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from all_text(item)


def text_of(plan: Plan) -> str:
    """Whatever a figure may show of a study: its labels, titles, tricks and data sets."""
    shown = [plan.header, plan.arm_labels, *map(asdict, plan.tables), *map(asdict, plan.arms.values())]
    return "".join(all_text(shown))
