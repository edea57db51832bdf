"""A campaign of random image files: each decodes to its right pixels within one level, or is refused by name.

Kind x size x orientation x damage, from one seed. The suite runs a short form; the 500 are marked `slow`.
"""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data.pixels import decode, header
from tests.data.pictures import KINDS, Kind, suffix_of

SHORT, LONG = 40, 500
MOST_PIXELS = 500_000  # of one image; a side has up to 2,000
RIGHT, REFUSED = "right", "refused by name"


def draw_shape(rng: np.random.Generator, most_side: int) -> tuple[int, int]:
    """Sides of 1 to `most_side` pixels, small ones as often as large ones."""
    height = round(most_side ** rng.uniform(0, 1))
    width = round(min(most_side, MOST_PIXELS / height) ** rng.uniform(0, 1))
    return max(height, 1), max(width, 1)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut off anywhere, mostly near the end; or with bytes that do not belong there behind it."""
    if rng.uniform() < 0.2:
        return content + rng.bytes(50)
    kept = len(content) * rng.uniform() if rng.uniform() < 0.5 else len(content) - rng.integers(1, 40)
    return content[: max(0, int(kept))]


def outcome(path: Path, right: np.ndarray | None, whole: bool) -> str:
    """`RIGHT`, `REFUSED`, or what is wrong."""
    try:
        size = header(path)[:2]
        shown = np.asarray(decode(path)).astype(float)
    except ValueError as error:
        named = f"image file {path}: " in str(error) and "\n" not in str(error)
        if not named:
            return f"refused without its name: {error}"
        return f"refused although it is whole: {error}" if whole and right is not None else REFUSED
    if right is None:
        return "read although nothing says what its numbers mean"
    if shown.shape != right.shape or size != (right.shape[1], right.shape[0]):
        return f"of the form {shown.shape} and size {size}, not {right.shape}"
    off = np.abs(shown - right).max()
    return RIGHT if off <= 1 else f"{off:.1f} levels off"


def campaign(folder: Path, files: int, most_side: int, seed: int) -> tuple[Counter[str], list[str]]:
    """How the files ended, and a line for each that ended wrong."""
    rng, ended, wrong = np.random.default_rng(seed), Counter[str](), []
    order = [KINDS[place] for place in rng.permutation(len(KINDS))]
    for number in range(files):
        kind: Kind = order[number % len(order)]
        shape = draw_shape(rng, most_side)
        orientation = int(rng.integers(1, 9)) if kind.turns and rng.uniform() < 0.6 else 1
        content, right = kind.make(rng, shape, orientation)
        hurt = bool(rng.uniform() < 0.3)
        path = folder / f"{number}{suffix_of(kind)}"
        path.write_bytes(damaged(content, rng) if hurt else content)
        found = outcome(path, right, whole=not hurt)
        ended[found if found in (RIGHT, REFUSED) else "wrong"] += 1
        if found not in (RIGHT, REFUSED):
            wrong.append(f"{number}: {kind.name} {shape} turned {orientation}, damaged {hurt}: {found}")
        path.unlink()
    return ended, wrong


@pytest.mark.parametrize(
    ("files", "most_side"),
    [(SHORT, 120), pytest.param(LONG, 2000, marks=pytest.mark.slow)],
    ids=["40 files", "500 files"],
)
def test_every_file_of_a_campaign_is_right_or_refused_by_name(
    files: int, most_side: int, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about the damage
        ended, wrong = campaign(tmp_path, files, most_side, seed=20261129)
    assert wrong == []
    assert ended[RIGHT] > files / 2
    assert ended[REFUSED] > files / 10


def test_the_campaign_sees_a_decoder_that_only_converts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `Image.convert("RGB")` alone does: 16 bits are white, hidden colours show, photos lie."""

    def convert_only(path: Path) -> Image.Image:
        try:
            return Image.open(path).convert("RGB")
        except Exception as error:
            raise ValueError(f"cannot decode the image file {path}: {error}") from None

    monkeypatch.setattr("tests.data.test_pixel_campaign.decode", convert_only)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, wrong = campaign(tmp_path, len(KINDS), 60, seed=1)
    seen = " ".join(wrong)
    assert len(wrong) > len(KINDS) / 4
    assert all(kind in seen for kind in ("I;16", "RGBA", "16 bits", "turned"))
