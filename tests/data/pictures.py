"""Image files with known pixels: every kind that the table of docs/data.md names, and what RGB it stands for.

The right values are computed here from the numbers that were written, with numpy alone. Kinds that Pillow
cannot write are put together byte by byte.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

Rng = np.random.Generator
Shape = tuple[int, int]  # height, width
Draw = Callable[[Rng, Shape], np.ndarray]
EXIF_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


class Kind(NamedTuple):
    """One kind of file. `make` gives its bytes and the right RGB, (H, W, 3) float; None: refused."""

    row: str  # of the table in docs/data.md
    name: str
    make: Callable[[Rng, Shape, int], tuple[bytes, np.ndarray | None]]  # of an EXIF orientation, too
    turns: bool = False  # whether its format takes an orientation
    smallest: int = 1  # pixels of a side


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, 3) as it is shown: EXIF 2.32, Table 4, "the 0th row is ..., the 0th column is ..."."""
    swapped = pixels.transpose(1, 0, 2)
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: swapped,
        6: swapped[:, ::-1],
        7: swapped[::-1, ::-1],
        8: swapped[::-1],
    }[orientation]


def grey(values: np.ndarray) -> np.ndarray:
    """(H, W) of 0..255 to (H, W, 3) float."""
    return np.repeat(np.asarray(values, float)[..., None], 3, 2)


def over(
    colour: np.ndarray, alpha: np.ndarray, background: tuple[float, ...] = (255, 255, 255)
) -> np.ndarray:
    """Colour (H, W, 3) of 0..255 with alpha (H, W) of 0..1 on the background."""
    return colour * alpha[..., None] + np.array(background) * (1 - alpha[..., None])


def levels(shape: Shape, rng: Rng, channels: int = 0, most: int = 256, dtype: Any = np.uint8) -> np.ndarray:
    return rng.integers(0, most, (*shape, channels) if channels else shape).astype(dtype)


def smooth(shape: Shape, rng: Rng, channels: int = 3) -> np.ndarray:
    """What a lossy format keeps: a ramp in two directions, (H, W, C) uint8."""
    down, right = np.mgrid[0 : shape[0], 0 : shape[1]]
    slopes = rng.uniform(20, 120, (2, channels))
    ramp = down[..., None] / shape[0] * slopes[0] + right[..., None] / shape[1] * slopes[1]
    return (ramp + rng.uniform(0, 15, channels)).astype(np.uint8)


def save(image: Image.Image, format: str, orientation: int = 1, **options: Any) -> bytes:
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def plain(
    mode: str, row: str, format: str, draw: Draw, right: Callable[..., np.ndarray], **options: Any
) -> Kind:
    """An array as Pillow writes it without loss; `right` of the array is the RGB."""

    def make(rng: Rng, shape: Shape, orientation: int) -> tuple[bytes, np.ndarray]:
        array = draw(rng, shape)
        content = save(Image.fromarray(array), format, orientation, **options)
        return content, turned(right(array), orientation)

    extra = "".join(f" {key}={value}" for key, value in options.items())
    return Kind(row, f"{mode} {format}{extra}", make, turns=format in EXIF_FORMATS)


def crafted(
    row: str, name: str, make: Callable[[Rng, Shape], tuple[bytes, np.ndarray | None]], **more: Any
) -> Kind:
    return Kind(row, name, lambda rng, shape, orientation: make(rng, shape), **more)


def png_bytes(samples: np.ndarray, bits: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of any depth. samples: (H, W) or (H, W, C); chunks stand before the pixels."""
    height, width = samples.shape[:2]
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    else:
        one = np.unpackbits(samples.reshape(height, -1, 1).astype(np.uint8), axis=2)[..., 8 - bits :]
        rows = [np.packbits(row.reshape(-1)).tobytes() for row in one]
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = ((b"IHDR", head), *chunks, (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tiff_bytes(samples: np.ndarray, photometric: int, *, order: str = "<", extra: int | None = None) -> bytes:
    """An uncompressed TIFF of one strip. samples: (H, W) or (H, W, C) of 1, 2 or 4 bytes each.

    photometric 0: white is zero, 1: black is zero, 2: RGB, 5: separated. extra: what a further channel is.
    """
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    body = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    bits = [8 * samples.dtype.itemsize] * channels
    tags = [(256, [width]), (257, [height]), (258, bits), (259, [1]), (262, [photometric]), (273, [8])]
    tags += [(277, [channels]), (278, [height]), (279, [len(body)]), (339, [kind] * channels)]
    tags += [] if extra is None else [(338, [extra])]
    tags.sort()
    after = 8 + len(body) + len(body) % 2 + 2 + 12 * len(tags) + 4
    entries, behind = b"", b""
    for tag, values in tags:
        form = "I" if tag in (256, 257, 273, 278, 279) else "H"
        packed = struct.pack(f"{order}{len(values)}{form}", *values)
        if len(packed) > 4:
            place, behind = after + len(behind), behind + packed
            packed = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, 4 if form == "I" else 3, len(values)) + packed.ljust(
            4, b"\0"
        )
    start = 8 + len(body) + len(body) % 2
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    table = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
    return head + body.ljust(start - 8, b"\0") + table + behind


def without_adobe(content: bytes) -> bytes:
    """A JPEG without its APP14 segment."""
    place = content.index(b"\xff\xee")
    length = struct.unpack(">H", content[place + 2 : place + 4])[0]
    return content[:place] + content[place + 2 + length :]


# --- how each kind is drawn, and what it stands for ---------------------------------------------------------


def rgb(rng: Rng, shape: Shape) -> np.ndarray:
    return levels(shape, rng, 3)


def one(rng: Rng, shape: Shape) -> np.ndarray:
    return levels(shape, rng)


def sixteen(rng: Rng, shape: Shape) -> np.ndarray:
    return levels(shape, rng, most=65536, dtype=np.uint16)


def bits(rng: Rng, shape: Shape) -> np.ndarray:
    return levels(shape, rng, most=2).astype(bool)


def rgba(rng: Rng, shape: Shape) -> np.ndarray:
    return levels(shape, rng, 4)


def grey_alpha(rng: Rng, shape: Shape) -> np.ndarray:
    return levels(shape, rng, 2)


def as_it_is(array: np.ndarray) -> np.ndarray:
    return array.astype(float)


def of_bits(array: np.ndarray) -> np.ndarray:
    return grey(255.0 * array)


def of_sixteen(array: np.ndarray) -> np.ndarray:
    return grey(array / 257)


def of_rgba(array: np.ndarray) -> np.ndarray:
    return over(array[..., :3].astype(float), array[..., 3] / 255)


def of_grey_alpha(array: np.ndarray) -> np.ndarray:
    return over(grey(array[..., 0]), array[..., 1] / 255)


def palette_kind(format: str, colours: int, see_through: str = "") -> Kind:
    """`see_through`: "" none, "one" entry, or "each" entry with its own alpha (PNG only)."""

    def make(rng: Rng, shape: Shape, orientation: int) -> tuple[bytes, np.ndarray]:
        entries = rng.permutation(256)[:colours, None] * np.array([[1, 0, 0]]) + levels(
            (colours,), rng, 3
        ) * [0, 1, 1]
        alpha = np.ones(colours)
        index = levels(shape, rng, most=colours)
        image = Image.fromarray(index).copy()
        image.putpalette(entries.astype(np.uint8).tobytes())
        options: dict[str, Any] = {"optimize": False} if format == "GIF" else {}
        if see_through == "one":
            alpha[colours // 2] = 0
            options["transparency"] = colours // 2
        elif see_through == "each":
            own = levels((colours,), rng)
            alpha, options["transparency"] = own / 255, own.tobytes()
        content = save(image, format, orientation, **options)
        return content, turned(over(entries[index].astype(float), alpha[index]), orientation)

    row = "palette with transparency" if see_through else "palette"
    name = f"P {format} {colours} colours{', transparent: ' + see_through if see_through else ''}"
    return Kind(row, name, make, turns=format in EXIF_FORMATS)


def palette_with_alpha(rng: Rng, shape: Shape) -> tuple[bytes, np.ndarray]:
    entries, index, alpha = levels((256,), rng, 3), one(rng, shape), one(rng, shape)
    image = Image.fromarray(index).copy()
    image.putpalette(entries.tobytes())
    image.putalpha(Image.fromarray(alpha))
    assert image.mode == "PA"
    return save(image, "TIFF"), over(entries[index].astype(float), alpha / 255)


def few_bits(depth: int, key: bool) -> Callable[[Rng, Shape], tuple[bytes, np.ndarray]]:
    most = 2**depth

    def make(rng: Rng, shape: Shape) -> tuple[bytes, np.ndarray]:
        values = levels(shape, rng, most=most)
        right = grey(values * (255 / (most - 1)))
        chunks = [(b"tRNS", struct.pack(">H", most // 2))] if key else []
        if key:
            right[values == most // 2] = 255
        return png_bytes(values, depth, 0, *chunks), right

    return make


def key_in(channels: int, depth: int) -> Callable[[Rng, Shape], tuple[bytes, np.ndarray]]:
    """PNG with one transparent colour, which the first pixel has."""

    def make(rng: Rng, shape: Shape) -> tuple[bytes, np.ndarray]:
        values = levels(shape, rng, channels, most=2**depth, dtype=np.uint16)
        right = values * (255 / (2**depth - 1))
        key = values[0, 0]
        right[(values == key).all(-1)] = 255
        # One of its colour's neighbours, which differs in the lower byte only, stays.
        chunks = (b"tRNS", struct.pack(f">{channels}H", *key))
        return png_bytes(values, depth, 0 if channels == 1 else 2, chunks), np.broadcast_to(
            right, (*shape, 3)
        )

    return make


def deep_png(channels: int) -> Callable[[Rng, Shape], tuple[bytes, np.ndarray]]:
    """16-bit LA, RGB or RGBA."""

    def make(rng: Rng, shape: Shape) -> tuple[bytes, np.ndarray]:
        values = levels(shape, rng, channels, most=65536, dtype=np.uint16)
        return png_bytes(values, 16, {2: 4, 3: 2, 4: 6}[channels]), of_deep(values)

    return make


def of_deep(values: np.ndarray) -> np.ndarray:
    channels = values.shape[-1]
    colour = values[..., :3] if channels > 2 else values[..., [0, 0, 0]]
    return colour / 257 if channels == 3 else over(colour / 257, values[..., -1] / 65535)


def deep_tiff(channels: int, order: str) -> Callable[[Rng, Shape], tuple[bytes, np.ndarray]]:
    def make(rng: Rng, shape: Shape) -> tuple[bytes, np.ndarray]:
        values = levels(shape, rng, channels, most=65536, dtype=np.uint16)
        return tiff_bytes(values, 2, order=order, extra=2 if channels == 4 else None), of_deep(values)

    return make


def white_is_zero(rng: Rng, shape: Shape) -> tuple[bytes, np.ndarray]:
    values = sixteen(rng, shape)
    return tiff_bytes(values, 0), grey((65535 - values) / 257)


def premultiplied(rng: Rng, shape: Shape) -> tuple[bytes, np.ndarray]:
    """TIFF with associated alpha: a colour is stored times its alpha."""
    alpha = one(rng, shape)
    stored = np.floor(levels(shape, rng, 3) * (alpha[..., None] / 255)).astype(np.uint8)
    values = np.concatenate([stored, alpha[..., None]], 2)
    return tiff_bytes(values, 2, extra=1), stored + (255.0 - alpha[..., None])


def unused_channel(rng: Rng, shape: Shape) -> tuple[bytes, np.ndarray]:
    values = rgba(rng, shape)
    return tiff_bytes(values, 2, extra=0), values[..., :3].astype(float)


def refused_tiff(values: Callable[[Rng, Shape], np.ndarray], photometric: int) -> Callable[[Rng, Shape], Any]:
    return lambda rng, shape: (tiff_bytes(values(rng, shape), photometric), None)


def not_finite(rng: Rng, shape: Shape) -> np.ndarray:
    values = rng.uniform(0, 1, shape).astype(np.float32)
    values[0, 0] = np.nan
    return values


def of_cmyk(values: np.ndarray) -> np.ndarray:
    """Ink of 0..255 on white paper: (1 - C)(1 - K) and so on."""
    ink = values / 255
    return 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])


def cmyk(rng: Rng, shape: Shape) -> Image.Image:
    return Image.merge("CMYK", [Image.fromarray(each) for each in np.moveaxis(smooth(shape, rng, 4), 2, 0)])


def cmyk_jpeg(adobe: bool) -> Callable[[Rng, Shape, int], tuple[bytes, np.ndarray]]:
    """JPEG's own loss is not what is judged: the right values come from what Pillow decodes."""

    def make(rng: Rng, shape: Shape, orientation: int) -> tuple[bytes, np.ndarray]:
        content = save(cmyk(rng, shape), "JPEG", orientation, quality=95)
        ink = np.asarray(Image.open(io.BytesIO(content)))
        if not adobe:  # the same numbers, now as they are stored, and not the other way round
            content, ink = without_adobe(content), 255 - ink
        return content, turned(of_cmyk(ink), orientation)

    return make


def cmyk_tiff(rng: Rng, shape: Shape, orientation: int) -> tuple[bytes, np.ndarray]:
    image = cmyk(rng, shape)
    return save(image, "TIFF", orientation), turned(of_cmyk(np.asarray(image)), orientation)


def jpeg(mode: str, **options: Any) -> Callable[[Rng, Shape, int], tuple[bytes, np.ndarray]]:
    def make(rng: Rng, shape: Shape, orientation: int) -> tuple[bytes, np.ndarray]:
        pixels = smooth(shape, rng)
        image = Image.fromarray(pixels if mode == "RGB" else pixels[..., 0])
        stored = np.asarray(Image.open(io.BytesIO(save(image, "JPEG", **options))))
        right = stored.astype(float) if mode == "RGB" else grey(stored)
        return save(image, "JPEG", orientation, **options), turned(right, orientation)

    return make


def ycbcr_tiff(rng: Rng, shape: Shape, orientation: int) -> tuple[bytes, np.ndarray]:
    pixels = smooth(shape, rng)
    image = Image.fromarray(pixels).convert("YCbCr")
    luma, blue, red = np.moveaxis(np.asarray(image).astype(float), 2, 0)  # JFIF 1.02, p. 3
    parts = (luma + 1.402 * (red - 128), luma - 0.34414 * (blue - 128) - 0.71414 * (red - 128))
    right = np.stack([*parts, luma + 1.772 * (blue - 128)], 2).clip(0, 255)
    return save(image, "TIFF", orientation), turned(right, orientation)


def lab_tiff(rng: Rng, shape: Shape) -> tuple[bytes, np.ndarray]:
    lightness, opponents = levels(shape, rng, 1), rng.integers(118, 138, (*shape, 2)).astype(np.uint8)
    values = np.concatenate([(lightness // 2 + 60), opponents], 2)
    bands = [Image.fromarray(band) for band in np.moveaxis(values, 2, 0)]
    return save(Image.merge("LAB", bands), "TIFF"), of_lab(values)


def of_lab(values: np.ndarray) -> np.ndarray:
    """CIE 15: L*a*b* under D50 to XYZ; Bradford's adaptation to D65 and IEC 61966-2-1 to sRGB."""
    lab = values.astype(float)
    middle = (lab[..., 0] * 100 / 255 + 16) / 116
    f = np.stack([middle + (lab[..., 1] - 128) / 500, middle, middle - (lab[..., 2] - 128) / 200], 2)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.9642, 1, 0.8249)
    matrix = [[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]]
    linear = (xyz @ np.array(matrix).T).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def several_frames(format: str, **options: Any) -> Callable[[Rng, Shape, int], tuple[bytes, np.ndarray]]:
    def make(rng: Rng, shape: Shape, orientation: int) -> tuple[bytes, np.ndarray]:
        flat = [levels((1, 1), rng, 3, most=200) + np.zeros((*shape, 1), np.uint8) + 20 * n for n in range(3)]
        frames = [Image.fromarray(each.astype(np.uint8)) for each in flat]
        content = save(frames[0], format, orientation, save_all=True, append_images=frames[1:], **options)
        return content, turned(flat[0].astype(float), orientation)

    return make


def late_exif(rng: Rng, shape: Shape, orientation: int) -> tuple[bytes, np.ndarray]:
    """A PNG whose EXIF stands behind its pixels, as the specification allows."""
    pixels = rgb(rng, shape)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = save(Image.fromarray(pixels), "PNG")
    end = chunk(b"IEND", b"")
    late = chunk(b"eXIf", exif.tobytes()[6:])
    return content[: -len(end)] + late + end, turned(as_it_is(pixels), orientation)


def pfm(rng: Rng, shape: Shape) -> tuple[bytes, None]:
    values = rng.uniform(0, 1, shape).astype("<f4")
    return b"Pf\n%d %d\n-1.0\n" % shape[::-1] + values.tobytes(), None


KINDS: tuple[Kind, ...] = (
    *(
        plain("RGB", "RGB, 8 bits", format, rgb, as_it_is)
        for format in ("PNG", "BMP", "TIFF", "PPM", "TGA", "QOI")
    ),
    plain("RGB", "RGB, 8 bits", "WEBP", rgb, as_it_is, lossless=True),
    plain("RGB", "RGB, 8 bits", "TIFF", rgb, as_it_is, compression="tiff_lzw"),
    plain("RGB", "RGB, 8 bits", "JPEG2000", rgb, as_it_is, irreversible=False),
    Kind("RGB, 8 bits", "RGB JPEG", jpeg("RGB", quality=90), turns=True),
    *(plain("L", "grey, 8 bits", format, one, grey) for format in ("PNG", "BMP", "TIFF", "PPM", "TGA")),
    Kind("grey, 8 bits", "L JPEG", jpeg("L", quality=90), turns=True),
    *(plain("1", "grey, 1, 2 or 4 bits", format, bits, of_bits) for format in ("PNG", "BMP", "TIFF", "PPM")),
    plain("1", "grey, 1, 2 or 4 bits", "TIFF", bits, of_bits, compression="group4"),
    *(crafted("grey, 1, 2 or 4 bits", f"L PNG of {n} bits", few_bits(n, key=False)) for n in (2, 4)),
    *(palette_kind(format, 256) for format in ("PNG", "BMP", "TIFF", "GIF")),
    *(palette_kind("PNG", colours) for colours in (2, 4, 16)),
    *(palette_kind(format, 16, "one") for format in ("PNG", "GIF")),
    palette_kind("PNG", 200, "each"),
    crafted("palette with transparency", "PA TIFF", palette_with_alpha),
    *(
        crafted("one transparent colour", f"L PNG of {n} bits, a key", few_bits(n, key=True))
        for n in (1, 2, 4)
    ),
    crafted("one transparent colour", "L PNG, a key", key_in(1, 8)),
    crafted("one transparent colour", "RGB PNG, a key", key_in(3, 8)),
    crafted("one transparent colour", "I;16 PNG, a key", key_in(1, 16)),
    crafted("one transparent colour", "RGB PNG of 16 bits, a key", key_in(3, 16)),
    *(plain("RGBA", "alpha", format, rgba, of_rgba) for format in ("PNG", "TIFF", "TGA", "QOI")),
    plain("RGBA", "alpha", "WEBP", rgba, of_rgba, lossless=True, exact=True),
    plain("RGBA", "alpha", "JPEG2000", rgba, of_rgba, irreversible=False),
    *(plain("LA", "alpha", format, grey_alpha, of_grey_alpha) for format in ("PNG", "TIFF", "TGA")),
    crafted("premultiplied alpha", "RGBa TIFF", premultiplied),
    crafted("a channel that is not used", "RGBX TIFF", unused_channel),
    *(plain("I;16", "grey, 16 bits", format, sixteen, of_sixteen) for format in ("PNG", "TIFF", "PPM")),
    plain("I;16", "grey, 16 bits", "TIFF", sixteen, of_sixteen, compression="tiff_deflate"),
    plain("I;16", "grey, 16 bits", "JPEG2000", sixteen, of_sixteen, irreversible=False),
    crafted(
        "grey, 16 bits",
        "I;16B TIFF",
        lambda rng, shape: (lambda v: (tiff_bytes(v, 1, order=">"), of_sixteen(v)))(sixteen(rng, shape)),
    ),
    crafted("grey, 16 bits, white is zero", "I;16 TIFF, white is zero", white_is_zero),
    crafted("RGB, 16 bits", "RGB PNG of 16 bits", deep_png(3)),
    *(
        crafted("RGB, 16 bits", f"RGB TIFF of 16 bits {n}", deep_tiff(3, o))
        for n, o in (("II", "<"), ("MM", ">"))
    ),
    *(crafted("alpha, 16 bits", f"{n} PNG of 16 bits", deep_png(c)) for n, c in (("LA", 2), ("RGBA", 4))),
    *(
        crafted("alpha, 16 bits", f"RGBA TIFF of 16 bits {n}", deep_tiff(4, o))
        for n, o in (("II", "<"), ("MM", ">"))
    ),
    crafted(
        "32-bit or signed integers", "I TIFF", refused_tiff(lambda r, s: levels(s, r).astype(np.int32), 1)
    ),
    crafted(
        "32-bit or signed integers",
        "I TIFF unsigned",
        refused_tiff(lambda r, s: levels(s, r).astype(np.uint32), 1),
    ),
    crafted(
        "32-bit or signed integers",
        "I TIFF 16 signed",
        refused_tiff(lambda r, s: levels(s, r).astype(np.int16), 1),
    ),
    crafted("floating point", "F TIFF", refused_tiff(lambda r, s: r.uniform(0, 1, s).astype(np.float32), 1)),
    crafted("floating point", "F PFM", pfm),
    crafted("not finite", "F TIFF with NaN", refused_tiff(not_finite, 1)),
    Kind("CMYK with Adobe's mark", "CMYK JPEG", cmyk_jpeg(adobe=True), turns=True),
    Kind("CMYK JPEG without it", "CMYK JPEG without Adobe's mark", cmyk_jpeg(adobe=False), turns=True),
    Kind("CMYK in TIFF", "CMYK TIFF", cmyk_tiff, turns=True),
    crafted(
        "CMYK of 16 bits",
        "CMYK TIFF of 16 bits",
        refused_tiff(lambda r, s: levels(s, r, 4).astype(np.uint16), 5),
    ),
    Kind("YCbCr", "YCbCr TIFF", ycbcr_tiff, turns=True),
    crafted("LAB", "LAB TIFF", lab_tiff),
    *(
        Kind("several frames", f"{f} of 3 frames", several_frames(f), turns=f != "GIF")
        for f in ("GIF", "PNG", "TIFF")
    ),
    Kind("several frames", "WEBP of 3 frames", several_frames("WEBP", lossless=True), turns=True),
    Kind("several frames", "MPO", several_frames("MPO", quality=100, subsampling=0), turns=True),
    Kind(
        "progressive or interlaced", "progressive JPEG", jpeg("RGB", progressive=True, quality=90), turns=True
    ),
    Kind("EXIF orientation", "PNG with EXIF behind its pixels", late_exif, turns=True),
)


def suffix_of(kind: Kind) -> str:
    """A file ending that fits, so that names say what a file is; Pillow reads the bytes only."""
    endings = {
        "JPEG2000": ".jp2",
        "JPEG": ".jpg",
        "PNG": ".png",
        "TIFF": ".tif",
        "WEBP": ".webp",
        "PPM": ".ppm",
    }
    return next((end for word, end in endings.items() if word in kind.name), ".bmp")


def write(kind: Kind, folder: Path, shape: Shape, orientation: int = 1, seed: int = 0) -> tuple[Path, Any]:
    """The file and its right pixels, or None where it must be refused."""
    content, right = kind.make(np.random.default_rng(seed), shape, orientation if kind.turns else 1)
    path = folder / f"{seed:04d}{suffix_of(kind)}"
    path.write_bytes(content)
    return path, right
