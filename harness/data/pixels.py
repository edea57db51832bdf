"""From an image file to RGB: one rule for every mode and format (docs/data.md), when a batch needs it."""

from __future__ import annotations

import ctypes
import io
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageChops, UnidentifiedImageError
from torch import Tensor

from harness.data.augment import flip, send
from harness.data.entry import PLAIN, Reading

try:
    import simplejpeg
except ImportError:  # no wheel for this machine: Pillow gives the same pixels, in more time
    simplejpeg = None

# From an image file to RGB: one rule for every mode and format that Pillow reads (docs/data.md, "Pixels").
#
# Every place that opens an image goes through `header` (its size as it is shown, nothing decoded) and
# `decode`. What has no rule is refused by name. 8-bit RGB and grey give the bytes that Pillow's
# `convert("RGB")` gives.


RULES = 1  # grows when `decode` gives other pixels for a file that it read before
ORIENTATION = 0x0112  # of EXIF 2.32, Table 4: 1 as stored, 2..8 mirrored or turned
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = frozenset({5, 6, 7, 8})
OPAQUE = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
SIXTEEN_BITS = (0.0, 65535.0)
OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if np.little_endian else "L"}
TIFF_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # others: 1
TIFF_PIXEL_TAGS = frozenset({258, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339})
GREY_BITS = {"L;2": 85, "L;4": 17}  # what one step of a 2- or 4-bit sample is in 8 bits


class Header(NamedTuple):
    """What a file says of itself before it is decoded. Width and height in pixels, as it is shown."""

    width: int
    height: int
    mode: str
    format: str
    orientation: int

    @property
    def deep(self) -> bool:
        """Whether a pixel is one number of more than 8 bits, so that a range decides what is white."""
        return is_deep(self.mode)


def is_deep(mode: str) -> bool:
    """Pillow's I, I;16 in any byte order, and F."""
    return mode[0] in "IF"


def header(source: Path | bytes) -> Header:
    """Size, mode and format of an image; decodes nothing, but for a PNG with EXIF behind its pixels.

    Raises:
        ValueError: it is not an image that Pillow can read; the message names the file.
    """
    with _named(source, "read"), _open(source) as image:
        turn = _orientation(image)
        width, height = image.size
        if image.format == "TIFF":  # which releases of Pillow turn the size differ; the tags do not
            width, height = int(image.tag_v2[256]), int(image.tag_v2[257])
        if turn in SIDEWAYS:
            width, height = height, width
        return Header(width, height, image.mode, image.format or "?", turn)


def decode(source: Path | bytes, reading: Reading = PLAIN) -> Image.Image:
    """Decode the whole image to 8-bit RGB, turned as it is shown. Of several frames the first.

    Raises:
        ValueError: it is not an image that Pillow can read, it is cut off, or its numbers have no fixed
            meaning and `reading` gives none; the message names the file.
    """
    with _named(source, "read"), _open(source) as image, _named(source, "decode"):
        return _decoded(image, source, reading)


def decode_array(source: Path | bytes, reading: Reading = PLAIN) -> np.ndarray:
    """The pixels of `decode`, (H, W, 3) uint8, the same bits: of an ordinary JPEG file by libjpeg-turbo
    without Pillow's copies. Raises as `decode`."""
    with _named(source, "read"), _open(source) as image, _named(source, "decode"):
        found = _by_libjpeg(image)
        return np.array(_decoded(image, source, reading)) if found is None else found


def _decoded(image: Any, source: Path | bytes, reading: Reading) -> Image.Image:
    if image.format == "PNG" and not _walk_png(image.fp)[1]:  # what says how it is turned may be lost
        raise ValueError("the file is cut off: it has no end mark")
    layout = _layout(image)
    image.load()
    turn = _orientation(image)  # of a PNG it may stand behind the pixels; a TIFF is turned by Pillow
    shown = _to_rgb(image, source, layout, reading)
    return shown.transpose(TURNS[turn]) if turn in TURNS else shown


def decode_jpeg(content: bytes | np.ndarray) -> np.ndarray:
    """An RGB or grey JPEG file as it lies, (H, W, 3) uint8, by simplejpeg where it is installed.

    Raises:
        ValueError: it is damaged.
    """
    if simplejpeg is None:
        return np.array(decode(bytes(content)))
    found: np.ndarray = simplejpeg.decode_jpeg(content, "RGB", fastdct=False, fastupsample=False, strict=True)
    return found


def _by_libjpeg(image: Any) -> np.ndarray | None:
    """None where Pillow must say: no RGB or grey JPEG, damage, or no simplejpeg on this machine.

    Pillow's library with Pillow's settings: the exact inverse transform, chroma interpolated.
    """
    if simplejpeg is None or image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    image.fp.seek(0)
    try:
        found = decode_jpeg(image.fp.read())
    except ValueError:
        return None
    turn = _orientation(image)
    return found if turn not in TURNS else np.array(Image.fromarray(found).transpose(TURNS[turn]))


def samples(source: Path | bytes) -> np.ndarray:
    """The numbers of an image with one number of more than 8 bits per pixel, (H, W), black lowest.

    Raises:
        ValueError: it cannot be read, or holds a number that is not finite; the message names the file.
    """
    with _named(source, "read"), _open(source) as image, _named(source, "decode"):
        image.load()
        return _samples(image)


def range_of(source: Path | bytes) -> tuple[float, float]:
    """Least and largest of `samples`."""
    values = samples(source)
    return float(values.min()), float(values.max())


def count_frames(source: Path | bytes) -> int:
    """Frames or pages of the file; the first one is what `decode` gives.

    Raises:
        ValueError: it cannot be read; the message names the file.
    """
    with _named(source, "read"), _open(source) as image:
        return int(getattr(image, "n_frames", 1))


@contextmanager
def _open(source: Path | bytes) -> Iterator[Any]:
    """Through an open file: of a path, Pillow maps some TIFF files, and does not turn those."""
    if isinstance(source, bytes):
        file: Any = io.BytesIO(source)
    elif not source.is_file():  # a named pipe would be waited for
        raise ValueError(why_no_file(source))
    else:
        file = source.open("rb")
    with file, Image.open(file) as image:
        if image.format == "TIFF":
            _refuse_cut_tags(file)
        yield image


def _refuse_cut_tags(file: Any) -> None:
    """Pillow reads a TIFF whose tags are cut off as if it had those that are left; a signed number is then
    an unsigned one. Layout: TIFF 6.0, Sec. 2, and BigTIFF. Leaves the file where it was.

    Raises:
        ValueError: the table, or a value that says what pixels mean, lies behind the end of the file.
    """
    place, end = file.tell(), file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(16)
    order, big = "<" if head[:2] == b"II" else ">", 43 in head[2:4]
    start = struct.unpack(f"{order}Q", head[8:16])[0] if big else struct.unpack(f"{order}I", head[4:8])[0]
    counted, entry, inside = ("Q", "HHQQ", 8) if big else ("H", "HHII", 4)
    file.seek(start)
    count = struct.unpack(f"{order}{counted}", file.read(struct.calcsize(f"={counted}")))[0]
    size = struct.calcsize(f"={entry}")
    table = file.read(min(count * size, end))
    file.seek(place)
    cut = len(table) < count * size
    for tag, kind, many, where in struct.iter_unpack(order + entry, table[: len(table) // size * size]):
        length = many * TIFF_BYTES.get(kind, 1)
        cut = cut or (tag in TIFF_PIXEL_TAGS and length > inside and where + length > end)
    if cut:
        raise ValueError("the file is cut off: its tags are not complete")


def why_no_file(path: Path) -> str:
    """Why `path` is not a file that can be read."""
    if path.is_symlink() and not path.exists():
        return f"it is a link to {path.readlink()}, which does not exist"
    if path.is_dir():
        return "it is a folder"
    return "it is no plain file" if path.exists() else "it does not exist"


class Named(ValueError):
    """A sentence with the name of the file in it."""


@contextmanager
def _named(source: Path | bytes, doing: str) -> Iterator[None]:
    """Whatever Pillow's many readers raise becomes one sentence with the file."""
    try:
        yield
    except Named:
        raise
    except Exception as error:
        what = "an image in memory" if type(source) is bytes else f"the image file {source!s}"
        says = str(error).strip().splitlines()[:1] or [type(error).__name__]
        if isinstance(error, UnidentifiedImageError):
            says = ["it is not an image in a format that can be read" + _pointer(source)]
        if isinstance(error, FileNotFoundError | PermissionError) and error.strerror:
            says = [error.strerror]
        raise Named(f"cannot {doing} {what}: {says[0]}") from error


def _pointer(source: Path | bytes) -> str:
    """What a file is that stands for an image elsewhere."""
    start = source[:40] if isinstance(source, bytes) else source.open("rb").read(40)
    if start.startswith(b"version https://git-lfs"):
        return ", but a pointer of Git LFS; `git lfs pull` brings the image"
    return "" if start else ": it is empty"


def _orientation(image: Any) -> int:
    """1..8 as in EXIF; 1 where none is said, or what is said cannot be read."""
    try:
        if image.format != "PNG":
            found = image.getexif().get(ORIENTATION, 1)
        elif "exif" in image.info or not image.tile or not _walk_png(image.fp)[0]:
            # Pillow's PNG reader would decode the image to look for EXIF behind it.
            found = Image.Image.getexif(image).get(ORIENTATION, 1)
        else:
            image.load()
            found = Image.Image.getexif(image).get(ORIENTATION, 1)
    except (SyntaxError, ValueError, struct.error, KeyError, IndexError, TypeError, OSError):
        return 1
    return found if isinstance(found, int) and found in TURNS else 1


def _walk_png(file: Any) -> tuple[bool, bool]:
    """Whether a PNG has EXIF or text behind its pixels, and its end mark; leaves the file where it was."""
    place = file.tell()
    file.seek(8)
    pixels = late = ended = False
    while not ended and len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        late = late or (pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"))
        pixels = pixels or kind == b"IDAT"
        ended = kind == b"IEND"
        file.seek(length + 4, io.SEEK_CUR)
    file.seek(place)
    return late, ended


def _layout(image: Any) -> str:
    """Pillow's name of how the pixels lie in the file, e.g. "RGB;16B"; empty where it does not say."""
    tile = image.tile[0] if image.tile else None
    args = tile[3] if tile is not None else ""
    return str(args[0] if isinstance(args, tuple) and args else args or "")


def _to_rgb(image: Any, source: Path | bytes, layout: str, reading: Reading) -> Image.Image:
    """The loaded image as RGB, as its pixels are stored (a TIFF is turned by Pillow)."""
    if is_deep(image.mode):
        return _deep_to_rgb(image, reading)
    if ";16" in layout or (image.format == "TIFF" and _bits(image.tag_v2) > 8):
        return _wide_to_rgb(image, source, layout, reading)
    if image.mode not in OPAQUE | WITH_ALPHA:
        raise ValueError(f"its mode {image.mode} has no rule (docs/data.md lists those that have one)")
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        # Pillow takes every CMYK JPEG for Adobe's, which are inverted. One without the mark is not.
        image = ImageChops.invert(image)
    key = image.info.get("transparency")
    if image.mode in WITH_ALPHA or (image.mode == "P" and (key is not None or image.palette.mode == "RGBA")):
        return _over(image.convert("RGBA"), reading)
    rgb: Image.Image = _from_lab(image) if image.mode == "LAB" else image.convert("RGB")
    if key is None:
        return rgb
    return _without_key(rgb, _key_colour(key, image.mode, layout), reading)


def _from_lab(image: Image.Image) -> Image.Image:
    """Pillow's own conversion is 6 levels off: it lets LittleCMS shorten the calculation."""
    from PIL import ImageCms

    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    exact = ImageCms.buildTransform(lab, rgb, "LAB", "RGB", flags=ImageCms.Flags.NOOPTIMIZE)
    turned: Image.Image = exact.apply(image)
    return turned


def _over(rgba: Image.Image, reading: Reading) -> Image.Image:
    """Alpha over the background: (colour * alpha + background * (255 - alpha)) / 255, rounded."""
    shown = Image.new("RGB", rgba.size, reading.background)
    shown.paste(rgba, mask=rgba.getchannel("A"))
    return shown


def _key_colour(key: Any, mode: str, layout: str) -> tuple[int, ...]:
    """The one colour that a grey or RGB file declares to be transparent, in 8 bits."""
    if mode == "RGB":
        return tuple(int(each) for each in key)
    if not isinstance(key, int):
        raise ValueError(f"its transparent colour {key!r} is not one grey level")
    return (key * GREY_BITS.get(layout, 1),) * 3


def _without_key(rgb: Image.Image, key: tuple[int, ...], reading: Reading) -> Image.Image:
    pixels = np.array(rgb)
    pixels[(pixels == np.array(key)).all(-1)] = reading.background
    return Image.fromarray(pixels)


def _deep_to_rgb(image: Any, reading: Reading) -> Image.Image:
    """One number per pixel of more than 8 bits: the range [low, high] becomes 0..255, rounded; outside it
    black or white. 16-bit files have a range of their own, 0..65535: v / 257."""
    values = _samples(image)
    fixed = SIXTEEN_BITS if _is_sixteen(image) else None
    low, high = reading.range or fixed or (None, None)
    if low is None or high is None:
        kind = "floating-point" if image.mode == "F" else "32-bit or signed"
        seen = f"{values.min():g} to {values.max():g}"
        raise ValueError(
            f"it has {kind} pixels (mode {image.mode}), here {seen}, and nothing says which number is black "
            "and which is white; state it as `range: [BLACK, WHITE]` of the data set, or save 8 or 16 bits"
        )
    grey = np.clip((values.astype(np.float64) - low) * (255 / (high - low)), 0, 255)
    pixels = np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
    key = image.info.get("transparency")
    if isinstance(key, int):
        pixels[values == key] = reading.background
    return Image.fromarray(pixels)


def _is_sixteen(image: Any) -> bool:
    # A PGM's numbers are scaled to 0..65535 by Pillow; older releases give a 16-bit PNG mode I.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _bits(tags: Any) -> int:
    """Bits per number of a TIFF with these tags."""
    return int(tags.get(258, (1,))[0])


def _samples(image: Any) -> np.ndarray:
    values = np.asarray(image)
    tags = image.tag_v2 if image.format == "TIFF" else {}
    if values.dtype == np.int32 and _bits(tags) == 32 and tags.get(339, (1,))[0] == 1:
        values = values.view(np.uint32)  # Pillow has no mode for them
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are not finite numbers")
    white_is_zero = tags.get(262) == 0
    if white_is_zero and _is_sixteen(image):  # Pillow inverts 8 bits and fewer only
        return np.subtract(65535, values, dtype=np.int32)
    if white_is_zero:
        raise ValueError("in this TIFF white is zero, which has no meaning beside its kind of numbers")
    return values


def _wide_to_rgb(image: Any, source: Path | bytes, layout: str, reading: Reading) -> Image.Image:
    """Several numbers of 16 bits per pixel: exact, by a second look at the bytes that Pillow leaves out."""
    if image.mode not in ("RGB", "RGBA") or layout.startswith("RGBa") or ";16" not in layout:
        raise ValueError(f"16 bits per colour in this form ({layout}) have no rule; save it with 8")
    values = _two_bytes(image, source, layout)
    key = image.info.get("transparency")
    colour = values[..., :3].astype(np.float64)
    if image.mode == "RGBA":
        alpha = values[..., 3:].astype(np.float64) / 65535
        colour = colour * alpha + 257.0 * np.array(reading.background) * (1 - alpha)
    pixels = np.rint(colour / 257).astype(np.uint8)
    if image.mode == "RGB" and key is not None:
        pixels[(values[..., :3] == np.array(key)).all(-1)] = reading.background
    return Image.fromarray(pixels)


def _two_bytes(image: Any, source: Path | bytes, layout: str) -> np.ndarray:
    """(H, W, 3 or 4) uint16. `image` holds the upper bytes; the lower ones are the upper ones of a file in
    the other byte order."""
    with _open(source) as again:
        if layout == "LA;16B":  # read as four bytes per pixel: two of grey, two of alpha
            grey_and_alpha = _load_as(again, "RGBA").reshape(image.height, image.width, 2, 2) @ (256, 1)
            return np.asarray(grey_and_alpha[..., [0, 0, 0, 1]])
        other = layout[:-1] + OTHER_BYTE[layout[-1]]
        return np.asarray(image).astype(np.uint16) * 256 + _load_as(again, other)


def _load_as(image: Any, layout: str) -> np.ndarray:
    image.tile = [tile._replace(args=_in_layout(tile.args, layout)) for tile in image.tile]
    image.load()
    return np.asarray(image).astype(np.uint16)


def _in_layout(args: Any, layout: str) -> Any:
    return (layout, *args[1:]) if isinstance(args, tuple) else layout


# Images in files, decoded with Pillow when a batch needs them, by threads (Pillow releases the GIL).


MOST_THREADS = 16
TASKS_PER_THREAD = 4  # of a batch: handing over costs as much as a small image
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 2**30
MOST_LOOKED_AT = 20_000  # files, to count the unreadable ones once one was found


class CutImages:
    """`Images` that are decoded when they are read, by threads. Below it stands what decodes them."""

    channels = 3
    decodes = True
    _sizes: Tensor  # (N, 2) int64, height and width; zeros: not read yet

    def __init__(self) -> None:
        self._pools: dict[int, ThreadPoolExecutor] = {}
        # In place of `rows`: of images that are decoded once, and by whom.
        self.shared: Callable[[CutImages, int, int, int], np.ndarray] | None = None
        keep_freed_memory()

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def _pool(self) -> ThreadPoolExecutor:
        """This process's threads; those of the parent do not survive a fork."""
        # Of two threads that ask at once both get the one that stays: the other has not started any.
        return self._pools.get(os.getpid()) or self._pools.setdefault(
            os.getpid(), ThreadPoolExecutor(count_threads(), thread_name_prefix="decode")
        )

    def pixels(self, index: int) -> np.ndarray:
        """One whole image, (H, W, 3) uint8.

        Raises:
            ValueError: it cannot be decoded; the message names the file.
        """
        raise NotImplementedError

    def rows(self, index: int, top: int, height: int) -> np.ndarray:
        """Rows of an image, (height, W, 3) uint8, until this thread reads the next. Raises as `pixels`."""
        return self.pixels(index)[top : top + height]

    def sizes(self, indices: Tensor) -> Tensor:
        """See `harness.data.entry.Images.sizes`."""
        return self._sizes[indices]

    def crop_resize(self, indices: Tensor, boxes: Tensor, size: int, device: str = "cpu") -> Tensor:
        """See `harness.data.entry.Images.crop_resize`; each number is rounded to one of 256 levels. Raises as
        `pixels`."""
        return self.cut(send(self.read(indices, boxes, size, device), device), size, device)

    def read(self, indices: Tensor, boxes: Tensor, size: int, device: str) -> dict[str, Tensor]:
        """See `harness.data.entry.Images.read`: the finished crops, (B, size, size, 3) uint8. Raises as
        `pixels`."""
        crops = torch.empty(len(indices), size, size, 3, dtype=torch.uint8)
        wanted = list(zip(indices.tolist(), boxes.tolist(), crops.numpy(), strict=True))
        some = max(1, len(wanted) // (TASKS_PER_THREAD * count_threads()))
        tasks = [wanted[start : start + some] for start in range(0, len(wanted), some)]
        list(self._pool.map(self._read_some, tasks))
        return {"crops": crops}

    def _read_some(self, wanted: Sequence[tuple[int, Sequence[int], np.ndarray]]) -> None:
        rows = self.rows if self.shared is None else partial(self.shared, self)
        for index, (top, left, height, width), crop in wanted:
            crop[...] = resized(rows(index, top, height), (0, left, height, width), len(crop))

    def cut(self, sent: Mapping[str, Tensor], size: int, device: str, out: Tensor | None = None) -> Tensor:
        """See `harness.data.entry.Images.cut`. Mirrored and laid out as bytes, a quarter of the memory."""
        crops = sent["crops"].permute(0, 3, 1, 2)
        if out is None:
            out = torch.empty_like(crops, dtype=torch.float32)
        elif out.is_contiguous():
            crops = crops.contiguous()
        return out.copy_(flip(crops, sent["mirrored"]) if "mirrored" in sent else crops).div_(255)


class FileImages(CutImages):
    """`Images` over files of any size, mode and format, as `harness.data.pixels` makes them RGB."""

    def __init__(
        self,
        paths: Sequence[Path],
        reading: Reading = PLAIN,
        sizes: np.ndarray | None = None,
        require: Callable[[int, Path], None] = lambda index, path: None,
    ) -> None:
        """`sizes`: height and width as shown, (N, 2) int; zeros where they are not known. `require`:
        called with each file after it was decoded; raises where it is not what it was."""
        super().__init__()
        self.paths = paths
        self.reading = reading
        self._require = require
        known = np.zeros((len(paths), 2), np.int64) if sizes is None else sizes.astype(np.int64)
        self._sizes = torch.from_numpy(known)

    def pixels(self, index: int) -> np.ndarray:
        """See `CutImages.pixels`."""
        path = self.paths[index]
        found = decode_array(path, self.reading)
        self._require(index, path)
        return found

    def sizes(self, indices: Tensor) -> Tensor:
        """Height and width in pixels as shown, (B, 2) int64, from the files' headers; read once per file.

        Raises:
            ValueError: a file is not an image that Pillow can read; the message names it, and says how many
                others are like it.
        """
        unread = indices[self._sizes[indices, 0] == 0].unique().tolist()
        try:
            for index, size in zip(unread, self._pool.map(self._read_size, unread), strict=True):
                self._sizes[index] = torch.tensor(size)
        except ValueError as error:
            raise ValueError(f"{error} ({self._how_many()})") from None
        return self._sizes[indices]

    def _how_many(self) -> str:
        """Of the first files, how many cannot be opened: so that all are mended at once."""
        looked_at = self.paths[:MOST_LOOKED_AT]
        wrong = sum(self._pool.map(is_unreadable, looked_at))
        more = "" if len(looked_at) == len(self.paths) else " first"
        return f"of the{more} {len(looked_at)} files {wrong} cannot be read"

    def _read_size(self, index: int) -> tuple[int, int]:
        found = header(self.paths[index])
        return found.height, found.width


def keep_freed_memory() -> None:
    """Ask the C library to keep what is freed for the next batch: on a virtual machine a fresh page costs
    more than the pixels that are written to it. Where there is no glibc, nothing happens."""
    with suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            library.mallopt(option, KEPT_BYTES)


def resized(pixels: np.ndarray, box: Sequence[int], size: int) -> np.ndarray:
    """The box (top, left, height, width) of an image (H, W, 3) uint8, resized: (size, size, 3) uint8.

    torch's resampling of bytes, antialiased bilinear in whole numbers: the same bits on every CPU, at most
    one level off Pillow's, in a third of its time.
    """
    top, left, height, width = box
    cut = torch.from_numpy(pixels[top : top + height, left : left + width]).unsqueeze(0).permute(0, 3, 1, 2)
    crop = torch.nn.functional.interpolate(cut, (size, size), mode="bilinear", antialias=True)
    found: np.ndarray = crop.numpy()[0].transpose(1, 2, 0)
    return found


def count_threads(most: int = MOST_THREADS, *, per_core: int = 1) -> int:
    """How many threads read files: so many for each core that this process may use, which in a job or pinned
    to its cores is fewer than the machine has. Asked when they start, not when a module is imported."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    return min(most, per_core * cores)


def is_unreadable(path: Path) -> bool:
    """Whether the file's header is not that of an image."""
    try:
        header(path)
    except ValueError:
        return True
    return False
