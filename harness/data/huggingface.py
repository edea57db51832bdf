"""Folders of Hugging Face's `datasets` on disk: what `save_to_disk` writes (Arrow), or Parquet files with the
name of their split in theirs.

A column holds image files as bytes, another one labels (ClassLabel, whole numbers or text). The bytes are
written into one file once, in `.decoded/` of that folder, and read from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.entry import Packed, Reading, Stored, cache_folder, named_in
from harness.data.imagefolder import reading_of
from harness.data.tables import IMAGES, LABELS, SHOWN, SPELT, WHOLE, ImageTable, entry_of, short
from harness.errors import decided, unknown

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

ROWS_AT_ONCE = 256
DEEP_KEPT = 16  # images of more than 8 bits a pixel, to see their range


@dataclass(frozen=True, slots=True)
class _Shard:
    """One Arrow or Parquet file."""

    path: Path

    def open(self, *columns: str) -> tuple[pyarrow.Schema, Iterator[pyarrow.RecordBatch]]:
        """
        Raises:
            ValueError: it cannot be read; it is named. (Batches raise what pyarrow raises.)
        """
        try:
            import pyarrow
            from pyarrow import ipc, parquet
        except ImportError:
            raise ValueError(f"{self.path} needs the package pyarrow to be read: install it") from None
        try:
            if self.path.suffix == ".parquet":
                file = parquet.ParquetFile(self.path, memory_map=True)
                names = list(columns) or None
                return file.schema_arrow, file.iter_batches(batch_size=ROWS_AT_ONCE, columns=names)
            mapped = pyarrow.memory_map(str(self.path))
            try:
                stream = ipc.open_stream(mapped)
            except pyarrow.ArrowInvalid:
                stream = ipc.open_file(mapped)
                batches = (stream.get_batch(each) for each in range(stream.num_record_batches))
                return stream.schema, (batch.select(list(columns)) for batch in batches)
            return stream.schema, (batch.select(list(columns)) for batch in stream)
        except (OSError, pyarrow.ArrowException) as error:
            says = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{self.path} cannot be read: {says}") from None


def shards_of(root: Path) -> dict[str, list[Path]]:
    """The files of every split, in their order.

    Raises:
        ValueError: files of one split lie in two folders, or some say a split and others do not.
    """
    if (root / "dataset_dict.json").is_file():
        splits = json.loads((root / "dataset_dict.json").read_bytes())["splits"]
        return {SPELT.get(name, name): _saved(root / name) for name in splits}
    if (root / "state.json").is_file():
        return {WHOLE: _saved(root)}
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.parquet")):
        inside = path.relative_to(root)
        if not any(part.startswith(".") for part in inside.parts):
            found.setdefault(_split_of(inside), []).append(path)
    for split, paths in found.items():
        folders = sorted({str(path.parent.relative_to(root)) for path in paths})
        if len(folders) > 1:
            both = " and in ".join(folders[:2])
            raise ValueError(f"{root}: files of the split {split} lie in {both}; `folder:` must name one")
    if WHOLE in found and len(found) > 1:
        raise ValueError(f"{found[WHOLE][0]} does not say its split in its name, and others do")
    return found


def _saved(folder: Path) -> list[Path]:
    state = json.loads((folder / "state.json").read_bytes())
    return [folder / each["filename"] for each in state["_data_files"]]


def _split_of(inside: Path) -> str:
    for part in reversed(inside.parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPELT:
                return SPELT[word]
    return WHOLE


def huggingface_table(args: Mapping[str, Any], data_dir: Path) -> ImageTable:
    """Reads the labels, and no image before one is taken.

    Raises:
        ValueError: a file cannot be read, a column is not there, or its labels are not one class an image.
        OSError: a file is not there.
    """
    import numpy as np

    root = named_in(data_dir, args["folder"])
    name = f"huggingface {args['folder']}"
    try:
        shards = {split: list(map(_Shard, paths)) for split, paths in shards_of(root).items()}
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"{root} is not as save_to_disk writes it: a .json file is damaged") from None
    image, label, names = _columns([each for found in shards.values() for each in found], args)
    columns = {split: [each for shard in found for each in _labels(shard, label)]
               for split, found in shards.items()}  # fmt: skip
    every = [each for found in columns.values() for each in found]
    if any(isinstance(each, str) for each in every):
        names = sorted({each for each in every if each is not None})
        numbers = {each: index for index, each in enumerate(names)}
        every = [numbers.get(each, -1) for each in every]
    labels = np.array([-1 if each is None else each for each in every], np.int64)
    names = names or [str(number) for number in range(1 + int(labels.max(initial=-1)))]
    if len(labels) and labels.max() >= len(names):
        raise ValueError(f"{name}: the label {labels.max()} is none of its {len(names)} classes")
    ends = np.cumsum([len(found) for found in columns.values()])
    starts = dict(zip(columns, [0, *ends[:-1].tolist()], strict=True))
    splits = {split: np.arange(starts[split], end) for split, end in zip(columns, ends, strict=True)}
    reading = reading_of(args, "huggingface")

    notes: list[str] = []

    def take(rows: np.ndarray, split: str) -> Packed:
        unpacked = _unpacked(root, split, shards[split], image)
        notes.extend(unpacked.deep_notes(reading))
        return unpacked.take(rows - starts[split], labels[rows], reading)

    return ImageTable(name=name, classes=names, labels=labels, splits=splits, take=take, notes=notes)


def _columns(shards: Sequence[_Shard], args: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    """The columns of images and of labels, and the names of the classes where they are said.

    Raises:
        ValueError: which column it is cannot be told, or files of one set disagree.
    """
    found = [_columns_of(shard, args) for shard in shards]
    for shard, each in zip(shards, found, strict=True):
        if each != found[0]:
            raise ValueError(f"{shard.path}: columns or classes are not those of {shards[0].path}")
    return found[0][:3]


def _columns_of(shard: _Shard, args: Mapping[str, Any]) -> tuple[str, str, list[str], str]:
    """The same of one file, and the type of its labels."""
    schema = shard.open()[0]
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    types = {field.name: str(field.type) for field in schema}
    called = {"image": "Image", "label": "ClassLabel"}
    found = []
    for what, known in (("image", IMAGES), ("label", LABELS)):
        fitting = [name for name in types if features.get(name, {}).get("_type") == called[what]]
        fitting = fitting or [name for name in types if short(name) in known]
        if args[what] is not None:
            fitting = [name for name in types if name == args[what]]
        if len(fitting) != 1:
            has = ", ".join(f"{name} ({of})" for name, of in types.items())
            several = f"{' and '.join(fitting)} may be" if fitting else "no column is"
            if args[what] is not None:
                raise ValueError(f"{shard.path}: {unknown('column', args[what], types)}")
            raise ValueError(f"{shard.path}: {several} the {what}: say which, `{what}: NAME`. Columns: {has}")
        found.append(fitting[0])
    image, label = found
    if "binary" not in types[image]:
        raise ValueError(f"{shard.path}: the column {image} is {types[image]}, not the bytes of image files")
    if not re.fullmatch(r"u?int\d+|(large_)?string|bool|dictionary<.*string.*>", types[label]):
        says = "one whole number or text an image is a label"
        raise ValueError(f"{shard.path}: the column {label} is {types[label]}; {says}")
    return image, label, list(features.get(label, {}).get("names") or []), types[label]


def _labels(shard: _Shard, column: str) -> list[Any]:
    _, batches = shard.open(column)
    return [value for batch in batches for value in batch.column(0).to_pylist()]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unpacked:
    """The image files of one split, one after the other in the file `content`."""

    title: str
    content: Path
    rows: np.ndarray  # (N, 4) int64: first byte, bytes, height, width as shown
    digests: np.ndarray  # (N, 32) uint8: sha256 of each
    deep: np.ndarray  # (M,) int64: some rows with more than 8 bits a pixel

    def deep_notes(self, reading: Reading) -> tuple[str, ...]:
        """Of 16-bit images that do not fill their range.

        Raises:
            ValueError: there are numbers without a range.
        """
        from harness.data.contents import depth_findings

        with self.content.open("rb") as file:
            deep = [Stored.of(os.pread(file.fileno(), self.rows[row, 1], self.rows[row, 0]),
                              f"{self.title}, row {row}") for row in self.deep.tolist()]  # fmt: skip
        found = depth_findings(deep, reading)
        if found.problems:
            raise ValueError(found.problems[0])
        return found.notes

    def take(self, chosen: np.ndarray, labels: np.ndarray, reading: Reading) -> Packed:
        """The images of the chosen rows (M,), with the labels (M,) that these have."""
        import numpy as np

        rows = np.column_stack([np.zeros(len(chosen), np.int64), self.rows[chosen], chosen])
        return Packed(
            raw=False, shards=(self.content,), rows=rows, labels=labels, digests=self.digests[chosen],
            reading=reading, title=self.title,
        )  # fmt: skip


def _unpacked(root: Path, split: str, shards: Sequence[_Shard], column: str) -> _Unpacked:
    """What is in the file already, or is written there now: keyed by the bytes of the shards.

    Raises:
        ValueError: a shard or an image in it cannot be read.
        OSError: there is no place to write to.
    """
    import numpy as np

    from harness.data.contents import Contents

    digests = Contents(root).digests([shard.path for shard in shards])
    key = hashlib.sha256(f"1 {column} ".encode() + digests.tobytes()).hexdigest()[:32]
    kept = cache_folder()
    folder = root / ".decoded" if os.access(root, os.W_OK) or kept is None else kept / "unpacked"
    content = folder / f"{split}-{key}.bin"
    decided(f"image files of {root.name}, {split}: unpacked in {content}")
    if not content.with_suffix(".npz").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _unpack(content, shards, column)
    with np.load(content.with_suffix(".npz"), allow_pickle=False) as found:
        arrays = {name: found[name] for name in ("rows", "digests", "deep")}
    if content.stat().st_size != arrays["rows"][:, 1].sum():
        content.with_suffix(".npz").unlink()
        return _unpacked(root, split, shards, column)
    return _Unpacked(title=f"{root.name}, {split}", content=content, **arrays)


def _unpack(content: Path, shards: Sequence[_Shard], column: str) -> None:
    import numpy as np

    from harness.data.pixels import header

    drafts = [
        path.with_name(f".{path.name}.{os.getpid()}.draft") for path in (content, content.with_suffix(".npz"))
    ]
    rows: list[tuple[int, int, int, int]] = []
    digests: list[bytes] = []
    deep: list[int] = []
    wrong: list[str] = []
    place = 0
    try:
        with drafts[0].open("wb") as out:
            for stored in _images(shards, column):
                try:
                    found = header(stored)
                except ValueError as error:
                    wrong.append(str(error))
                    continue
                deep += [len(rows)] if found.deep and len(deep) < DEEP_KEPT else []
                rows.append((place, len(stored), found.height, found.width))
                digests.append(hashlib.sha256(stored).digest())
                place += out.write(stored)
        if wrong:
            count = f"{len(wrong)} of {len(rows) + len(wrong)} images"
            raise ValueError(f"{count} cannot be read: {'; '.join(wrong[:SHOWN])}")
        with drafts[1].open("wb") as file:
            np.savez(file, rows=np.array(rows, np.int64).reshape(-1, 4), deep=np.array(deep, np.int64),
                     digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32))  # fmt: skip
        drafts[0].replace(content)
        drafts[1].replace(content.with_suffix(".npz"))
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def _images(shards: Sequence[_Shard], column: str) -> Iterator[Stored]:
    """The bytes of every image file, named by its shard and its row in it."""
    for shard in shards:
        row = 0
        for batch in shard.open(column)[1]:
            values = batch.column(0)
            for value in values.field("bytes") if hasattr(values, "field") else values:
                yield Stored.of(value.as_py() or b"", f"{shard.path}, row {row}")
                row += 1


def is_huggingface(root: Path) -> bool:
    """Whether a folder is of `datasets`."""
    saved = any((root / name).is_file() for name in ("dataset_dict.json", "state.json"))
    return saved or any(any(root.glob(where)) for where in ("*.parquet", "*/*.parquet", "*/*/*.parquet"))


def _missing(args: Mapping[str, Any], data_dir: Path) -> str | None:
    root = named_in(data_dir, args["folder"])
    if is_huggingface(root):
        return None
    return (
        f"huggingface {args['folder']} needs the folder {root} as `save_to_disk` of Hugging Face's datasets "
        f"writes it, or with Parquet files such as {root / 'data' / 'train-00000-of-00001.parquet'}"
    )


HUGGINGFACE = entry_of("huggingface", "folder", huggingface_table, _missing, {"image": None, "label": None})
