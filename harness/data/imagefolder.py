"""The user's own images: one folder per class.

    <data folder>/<folder>/train/<class>/*.jpg
    <data folder>/<folder>/val/<class>/*.jpg      (or `test`)

Classes are numbered by their sorted names. With `side: N` every image is cut to its central square and
resized to N x N once, into a file beside the images that all processes map; without it, files are decoded
when read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.entry import IMAGENET_MEAN, IMAGENET_STD, Entry, Files, Pixels, Source

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
TEST_NAMES = ("val", "test")
LARGEST_SIDE = 1024


def class_names(root: Path) -> list[str]:
    """The class folders of `root`/train, sorted.

    Raises:
        ValueError: fewer than two of them.
    """
    names = _subfolders(root / "train")
    if len(names) < 2:
        raise ValueError(f"{root / 'train'} has {len(names)} class folders; a classifier needs at least 2")
    return names


def list_images(part: Path, classes: Sequence[str], root: Path) -> Files:
    """The image files of every class folder of `part`, sorted by class and name.

    Raises:
        ValueError: a class folder is missing, empty or not in `classes`; the message names it.
    """
    import numpy as np

    extra = sorted(set(_subfolders(part)) - set(classes))
    if extra:
        raise ValueError(f"{part} has classes that are not in {root / 'train'}: {', '.join(extra)}")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        folder = part / name
        found = sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in SUFFIXES)
        if not found:
            state = "has no image files" if folder.is_dir() else "does not exist"
            raise ValueError(f"class '{name}': {folder} {state}")
        paths += found
        labels += [label] * len(found)
    return Files(root=root, paths=tuple(paths), labels=np.array(labels, np.int64))


def load_folder(root: Path, side: int | None = None) -> Source:
    """Both parts of an image folder (see the module's docstring)."""
    classes = class_names(root)
    train = list_images(root / "train", classes, root)
    test = list_images(evaluation_folder(root), classes, root)
    if side is None:
        return Source(train=train, test=test, classes=len(classes))
    return Source(train=_at_side(train, side), test=_at_side(test, side), classes=len(classes))


def load_all_classes(root: Path, title: str, classes: int) -> Source:
    """Both parts of a published set, called `title`, which is there as a whole.

    Raises:
        ValueError: it has another number of class folders.
    """
    source = load_folder(root)
    if source.classes != classes:
        raise ValueError(
            f"{root / 'train'} has {source.classes} class folders, {title} has {classes}; "
            "for a part of it use the data set imagefolder"
        )
    return source


def evaluation_folder(root: Path) -> Path:
    """The first of `val` and `test` that exists."""
    return next((root / name for name in TEST_NAMES if (root / name).is_dir()), root / TEST_NAMES[0])


def missing_folder(root: Path, name: str) -> str | None:
    """None where `root` has the two parts, else what to put where."""
    if (root / "train").is_dir() and evaluation_folder(root).is_dir():
        return None
    return (
        f"{name} needs one folder per class in {root / 'train'} and in {root / 'val'} (or 'test'), "
        f"for example {root / 'train' / 'cat' / '0001.jpg'}"
    )


def _at_side(files: Files, side: int) -> Pixels:
    """Decode once, threaded, to the central square at side x side; keyed by the bytes of the files and by
    how they are read."""
    from harness.data.arrays import decoded_once
    from harness.data.contents import decoding_key

    cache = files.root / ".decoded" / f"{decoding_key(files)[:32]}_{side}.npy"
    images = decoded_once(cache, lambda: _decode_squares(files, side))
    return Pixels(images=images, labels=files.labels, origin=files)


def _decode_squares(files: Files, side: int) -> np.ndarray:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    from PIL import Image, ImageOps

    from harness.data.files import THREADS
    from harness.data.pixels import decode

    def square(path: Path) -> np.ndarray | str:
        try:
            image = decode(path, files.reading)
        except ValueError as error:
            return str(error)
        short = min(image.size)
        central = ImageOps.fit(image, (short, short))
        return np.asarray(central.resize((side, side), Image.Resampling.BILINEAR))

    out = np.empty((len(files.paths), side, side, 3), np.uint8)
    wrong: list[str] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for index, pixels in enumerate(pool.map(square, files.paths)):
            if isinstance(pixels, str):
                wrong.append(pixels)
            else:
                out[index] = pixels
    if wrong:
        raise ValueError(f"{wrong[0]} (of {len(files.paths)} files {len(wrong)} cannot be read)")
    return out


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _validate(args: Mapping[str, Any]) -> None:
    folder, side = args["folder"], args["side"]
    if not isinstance(folder, str) or not folder:
        raise ValueError("imagefolder: folder must name a folder of the data folder, e.g. folder: imagenette")
    if Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise ValueError(f"imagefolder: folder must lie inside the data folder, '{folder}' does not")
    whole = isinstance(side, int) and not isinstance(side, bool)
    if side is not None and not (whole and 8 <= side <= LARGEST_SIDE):
        raise ValueError(
            f"imagefolder: side must be null or a number of pixels in 8..{LARGEST_SIDE}, not {side!r}"
        )


ENTRY = Entry(
    name="imagefolder",
    args={"folder": "", "side": None},
    channels=3,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    missing=lambda args, data_dir: missing_folder(data_dir / args["folder"], f"imagefolder {args['folder']}"),
    load=lambda args, data_dir: load_folder(data_dir / args["folder"], args["side"]),
    validate=_validate,
    count_classes=lambda args, data_dir: len(class_names(data_dir / args["folder"])),
    listed=lambda args, data_dir: load_folder(data_dir / args["folder"]),
)
