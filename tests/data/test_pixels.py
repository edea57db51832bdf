"""One rule for every mode and format: each row of docs/data.md as a file, read back."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data import pixels
from harness.data.entry import Reading
from harness.data.pixels import TURNS, FileImages, decode, decode_array, header, resized, samples
from tests.data.pictures import KINDS, Kind, jpeg, png_bytes, save, smooth, tiff_bytes, turned, write

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
OWN_TESTS = {"cut off", "too large"}  # rows that are no kind of file


def read(path: Path, **reading: object) -> np.ndarray:
    """The pixels, which both ways of decoding agree about; or the sentence of both."""
    rule = Reading(**reading)  # type: ignore[arg-type]
    try:
        shown = np.asarray(decode(path, rule))
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            decode_array(path, rule)
        raise
    assert np.array_equal(decode_array(path, rule), shown)
    return shown.astype(float)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_of_file_gives_its_right_pixels_or_is_refused_by_name(kind: Kind, tmp_path: Path) -> None:
    for orientation in (1, *TURNS) if kind.turns else (1,):
        path, right = write(kind, tmp_path, (13, 17), orientation)
        if right is None:
            with pytest.raises(ValueError, match=f"image file {re.escape(str(path))}: "):
                decode(path)
            return
        shown = read(path)
        assert shown.shape == right.shape
        assert np.abs(shown - right).max() <= 1, orientation
        assert header(path)[:2] == (right.shape[1], right.shape[0])


def test_every_row_of_the_page_is_a_kind_that_is_written_and_read() -> None:
    rows = re.findall(r"^\| ([^|]+?) \| [^|]+ \| [^|]+ \| [^|]+ \|$", PAGE.read_text(), re.M)[1:]
    assert {row for row in rows if not row.startswith("-")} == {kind.row for kind in KINDS} | OWN_TESTS


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_a_16_bit_ramp_has_the_mean_of_an_8_bit_ramp(format: str, tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "ramp", format)
    shown = read(tmp_path / "ramp")
    assert shown.mean() == pytest.approx(127.5, abs=0.1)
    assert (shown[0, 0].tolist(), shown[-1, -1].tolist()) == ([0.0] * 3, [255.0] * 3)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.uint32, np.float32])
def test_a_declared_range_says_what_is_black_and_what_is_white(dtype: type, tmp_path: Path) -> None:
    values = np.array([[0, 1000], [2000, 4000], [4095, 30000]]).astype(dtype)
    (tmp_path / "scan.tif").write_bytes(tiff_bytes(values, 1))
    shown = read(tmp_path / "scan.tif", range=(0, 4000))
    assert shown[..., 0].tolist() == [[0, 64], [128, 255], [255, 255]]
    assert samples(tmp_path / "scan.tif").tolist() == values.tolist()


def test_unsigned_numbers_above_the_signed_ones_are_not_negative(tmp_path: Path) -> None:
    (tmp_path / "scan.tif").write_bytes(tiff_bytes(np.array([[0, 2**32 - 1]], np.uint32), 1))
    assert read(tmp_path / "scan.tif", range=(0, 2**32 - 1))[0, :, 0].tolist() == [0, 255]


def test_the_background_under_transparent_pixels_is_white_or_what_is_declared(tmp_path: Path) -> None:
    hidden_red = np.zeros((4, 4, 4), np.uint8)
    hidden_red[..., 0] = 255
    Image.fromarray(hidden_red).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png_bytes(np.full((4, 4), 9), 8, 0, (b"tRNS", b"\0\x09")))
    for name in ("a.png", "b.png"):
        assert (read(tmp_path / name) == 255).all()
        assert (read(tmp_path / name, background=(1, 2, 3)) == (1, 2, 3)).all()


def test_16_bit_neighbours_of_a_transparent_colour_stay(tmp_path: Path) -> None:
    """They differ in the lower byte, which Pillow alone does not see."""
    values = np.array([[[512, 512, 512], [513, 512, 512]]], np.uint16)
    (tmp_path / "a.png").write_bytes(png_bytes(values, 16, 2, (b"tRNS", b"\2\0\2\0\2\0")))
    assert read(tmp_path / "a.png").tolist() == [[[255, 255, 255], [2, 2, 2]]]


@pytest.mark.parametrize("orientation", TURNS)
def test_crops_of_a_turned_photo_lie_where_they_are_shown(orientation: int, tmp_path: Path) -> None:
    pixels = smooth((20, 40), np.random.default_rng(0))
    (tmp_path / "a.png").write_bytes(save(Image.fromarray(pixels), "PNG", orientation))
    images = FileImages([tmp_path / "a.png"])
    shown = turned(pixels, orientation)
    assert images.sizes(torch.tensor([0])).tolist() == [list(shown.shape[:2])]
    height, width = shown.shape[:2]
    corner = images.crop_resize(torch.tensor([0]), torch.tensor([[height - 8, width - 8, 8, 8]]), 8)[0]
    assert (corner * 255).round().permute(1, 2, 0).tolist() == shown[-8:, -8:].tolist()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_ordinary_files_keep_the_bits_of_pillow(format: str, mode: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(tmp_path / "a", format)
    with Image.open(tmp_path / "a") as image:
        assert np.array_equal(read(tmp_path / "a"), np.asarray(image.convert("RGB")))


@pytest.mark.skipif(pixels.simplejpeg is None, reason="simplejpeg has no wheel for this machine")
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (48, 64), (65, 47)])
def test_libjpeg_gives_the_bits_of_pillow_for_every_layout(
    shape: tuple[int, int], mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).convert(mode)
    layouts = [
        {"subsampling": subsampling, "progressive": progressive, "quality": quality, **restart}
        for subsampling in (("4:4:4", "4:2:2", "4:2:0") if mode == "RGB" else (-1,))
        for progressive in (False, True)
        for quality in (5, 75, 100)
        for restart in ({}, {"restart_marker_blocks": 1})
    ]
    if mode == "RGB":
        layouts.append({"keep_rgb": True})
    wanted = []
    for number, layout in enumerate(layouts):
        for turn in (1, 6):
            (tmp_path / f"{number}_{turn}").write_bytes(save(picture, "JPEG", turn, **layout))
            wanted.append(np.asarray(decode(tmp_path / f"{number}_{turn}")))
    monkeypatch.setattr(pixels, "_decoded", None)  # Pillow is not asked
    for number in range(len(layouts)):
        for turn in (1, 6):
            assert np.array_equal(decode_array(tmp_path / f"{number}_{turn}"), wanted.pop(0)), layouts[number]


def test_a_machine_without_simplejpeg_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, right = jpeg("RGB", quality=90)(np.random.default_rng(0), (40, 30), 6)
    (tmp_path / "a").write_bytes(content)
    monkeypatch.setattr(pixels, "simplejpeg", None)
    assert np.abs(decode_array(tmp_path / "a") - right).max() <= 1


@pytest.mark.parametrize("size", [8, 24, 64])
def test_crops_of_files_are_pillows_within_a_level(size: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    for top, left, height, width in ((0, 0, 37, 53), (5, 7, 9, 40), (30, 50, 7, 3), (36, 0, 1, 1)):
        crop = Image.fromarray(picture).crop((left, top, left + width, top + height))
        want = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
        got = resized(picture, (top, left, height, width), size)
        assert np.abs(got - want).max() <= 1
        assert (got != want).mean() < 0.1


@contextmanager
def suppress_named(path: Path) -> Iterator[None]:
    """A ValueError that names the file is as good as the right pixels; anything else is not."""
    try:
        yield
    except ValueError as error:
        if f"image file {path}: " not in str(error):
            raise


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
def test_a_file_that_is_cut_off_is_refused_or_was_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in KINDS:
        content, right = kind.make(rng, (24, 24), 1)
        for kept in (0, 10, len(content) // 2, len(content) - 3):
            path = tmp_path / "cut"
            path.write_bytes(content[:kept])
            with suppress_named(path):
                shown = read(path)
                assert right is not None
                assert np.abs(shown - right).max() <= 1, (kind.name, kept, len(content))


def test_a_tiff_or_png_that_lost_its_last_tags_is_refused(tmp_path: Path) -> None:
    """Pillow reads what is left: a signed TIFF as an unsigned one, a turned PNG as it lies."""
    signed = tiff_bytes(np.full((4, 4), -1, np.int16), 1)
    late = next(kind for kind in KINDS if kind.name == "PNG with EXIF behind its pixels")
    png, _ = late.make(np.random.default_rng(0), (4, 4), 6)
    for content, kept in ((signed, -10), (png, -13), (png, png.index(b"eXIf") - 4)):
        (tmp_path / "cut").write_bytes(content[:kept])
        with pytest.raises(ValueError, match="cut: the file is cut off"):
            decode(tmp_path / "cut")


def test_too_many_pixels_are_refused_with_both_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_bytes(np.zeros((1, 1), np.uint8), 8, 0))
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = (20_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content)
    for reader in (header, decode):
        with pytest.raises(ValueError, match=r"a\.png: .*400000000 pixels.* limit of 178956970 pixels"):
            reader(tmp_path / "a.png")


def test_what_is_no_file_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "annex.jpg").symlink_to("/nowhere/annex/objects/xx")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, words in {
        "folder.jpg": "it is a folder",
        "annex.jpg": "it is a link to /nowhere/annex/objects/xx, which does not exist",
        "pipe.jpg": "it is no plain file",
        "gone.jpg": "it does not exist",
    }.items():
        with pytest.raises(ValueError, match=f"{name}: {words}"):
            decode(tmp_path / name)


def test_an_image_in_memory_is_read_by_the_same_rules() -> None:
    content, right = jpeg("RGB", quality=90)(np.random.default_rng(0), (9, 7), 6)
    assert np.abs(np.asarray(decode(content)) - right).max() <= 1
    assert header(content)[:2] == (9, 7)
    with pytest.raises(ValueError, match="an image in memory"):
        decode(b"text")
