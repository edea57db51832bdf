"""A packed set is the set it was made of, or says what is wrong with it."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness import cli
from harness.data import DATASETS, contents, load, loading, look_at_data, missing_data, packed
from harness.data.augment import View, draw, flip, jitter, normalise, training_batch
from harness.data.entry import DataSet, Entry, Files, Packed, Source
from harness.data.imagefolder import load_folder
from harness.data.loading import PackedImages, load_cached
from harness.data.packed import INDEX, Pack, PackSettings, load_packed
from harness.spec import AugmentSpec
from tests.timing import PATIENCE_S

VIEW = View(size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), seed=5, epoch=3)
RAW, JPEG = PackSettings(of="pets"), PackSettings(of="pets", jpeg=95)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "RACY_NS", -(10**18))  # files that were just written count as old
    monkeypatch.setattr(packed, "SHARD", 4)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Six training and two test images of several sizes: JPEG, a turned one and a PNG among them."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 1)):
        for label in ("cat", "dog"):
            folder = tmp_path / "pets" / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                picture = rng.integers(0, 256, (20 + 4 * number, 36, 3), dtype=np.uint8)
                exif = Image.Exif()
                exif[0x0112] = 6 if number == 1 else 1
                kind = "png" if number == 2 else "jpg"
                Image.fromarray(picture).save(folder / f"{number}.{kind}", exif=exif)
    return tmp_path / "pets"


def make(pets: Path, settings: PackSettings = RAW, name: str = "packed") -> Path:
    Pack(load_folder(pets), pets.parent / name, settings).run()
    return pets.parent / name


def loaded(name: str, folder: Path) -> DataSet:
    """As a new process loads it."""
    entry = replace(DATASETS[name])
    return load_cached(entry, {**entry.args, "folder": folder.name}, (None, None), folder.parent)


def batch(data: DataSet) -> tuple[torch.Tensor, torch.Tensor]:
    return training_batch(data.train, torch.tensor([5, 0, 3, 1, 2]), spec=AugmentSpec(), view=VIEW)


def test_raw_pixels_at_their_own_size_train_as_the_files_do_to_the_bit(pets: Path) -> None:
    ours, files = loaded("packed", make(pets)), loaded("imagefolder", pets)
    for one, other in zip(batch(ours), batch(files), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(ours.test.labels, files.test.labels)
    assert (
        ours.train.images.sizes(torch.arange(6)).tolist()
        == files.train.images.sizes(torch.arange(6)).tolist()
    )
    assert ours.fingerprint != files.fingerprint


@pytest.mark.parametrize("of", [{}, {"jitter": 0.0}, {"jitter": 0.0, "pca_noise": 0.0, "flip": 0.0}])
@pytest.mark.parametrize("size", [16, 227])
def test_crops_that_are_mirrored_as_bytes_are_those_mirrored_as_numbers(
    of: dict[str, float], size: int, pets: Path
) -> None:
    data, spec, view = loaded("packed", make(pets)), replace(AugmentSpec(), **of), replace(VIEW, size=size)
    which = torch.tensor([5, 0, 3, 1, 2])
    drawn = draw(data.train.images, which, spec=spec, view=view)
    numbers = (drawn["crops"].float() / 255).permute(0, 3, 1, 2).contiguous()
    if spec.flip:
        assert 0 < drawn["mirrored"].sum() < len(which)
        numbers = flip(numbers, drawn["mirrored"])
    want = normalise(jitter(numbers, drawn["jitter"]) if spec.jitter else numbers, view, drawn["shift"])
    assert torch.equal(training_batch(data.train, which, spec=spec, view=view)[0], want)


def test_a_jpeg_that_is_not_resized_is_kept_as_it_is(pets: Path) -> None:
    folder = make(pets, JPEG)
    source, content = load_packed(folder), (folder / "train-00000.bin").read_bytes()
    assert isinstance(source.train, Packed)
    _, start, length, height, width = source.train.rows[0].tolist()
    assert content[start : start + length] == (pets / "train" / "cat" / "0.jpg").read_bytes()
    assert (height, width) == (20, 36)
    assert not content[source.train.rows[1, 1] :].startswith((pets / "train" / "cat" / "1.jpg").read_bytes())
    ours, files = batch(loaded("packed", folder))[0], batch(loaded("imagefolder", pets))[0]
    same = [torch.equal(one, other) for one, other in zip(ours, files, strict=True)]
    assert same == [False, True, True, False, False]  # images 0 and 3 of 5, 0, 3, 1, 2


@pytest.mark.parametrize("settings", [RAW, JPEG])
def test_the_shorter_side_becomes_what_is_asked_and_nothing_grows(settings: PackSettings, pets: Path) -> None:
    folder = make(pets, replace(settings, side=24))
    sizes = loaded("packed", folder).train.images.sizes(torch.arange(3)).tolist()
    assert sizes == [[20, 36], [36, 24], [24, 31]]  # turned; 28 x 36 made smaller
    form = "JPEG of quality 95" if settings.jpeg else "raw pixels"
    says = f"the shorter side resized to 24 pixels in 2 of them (bicubic), as {form}"
    (note,) = look_at_data("packed", {"folder": "packed"}, folder.parent).notes
    assert note == load_packed(folder).left_out[-1]  # of plan and report
    assert says in note


def test_form_and_size_belong_to_the_data_and_the_place_does_not(pets: Path) -> None:
    packs = {
        name: make(pets, settings, name)
        for name, settings in {
            "raw": RAW,
            "again": RAW,
            "small": replace(RAW, side=16),
            "jpeg": JPEG,
            "worse": replace(JPEG, jpeg=50, side=16),
        }.items()
    }
    prints = {name: loaded("packed", folder).fingerprint for name, folder in packs.items()}
    assert prints["raw"] == prints.pop("again")
    assert len(set(prints.values())) == 4
    some = load("packed", {"folder": "raw"}, train_images=4, test_images=None, data_dir=pets.parent)
    assert some.train.labels.tolist() == [0, 0, 1, 1]
    assert some.fingerprint != prints["raw"]


class Stopped(BaseException):
    pass


def test_packing_goes_on_where_it_was_stopped(pets: Path) -> None:
    whole, begun = make(pets, JPEG, "whole"), pets.parent / "begun"

    def stop(part: str, done: int, of: int) -> None:
        if done == 6:
            raise Stopped

    with pytest.raises(Stopped):
        Pack(load_folder(pets), begun, JPEG, stop).run()
    assert sorted(path.name for path in begun.iterdir()) == [".lock", "train-00000.bin", "train-00000.npz"]
    message = missing_data("packed", {"folder": "begun"}, pets.parent)
    assert message is not None
    assert "is not complete (1 files are there)" in message
    first = (begun / "train-00000.bin").stat().st_ino
    (begun / ".train-00001.bin.draft").write_bytes(b"of a packer that was killed")
    make(pets, JPEG, "begun")
    assert (begun / "train-00000.bin").stat().st_ino == first
    assert {path.name: path.read_bytes() for path in begun.glob("*.bin")} == {
        path.name: path.read_bytes() for path in whole.glob("*.bin")
    }
    assert json.loads((begun / INDEX).read_bytes()) == json.loads((whole / INDEX).read_bytes())


def test_a_changed_original_is_packed_again_and_nothing_else(pets: Path) -> None:
    folder = make(pets)
    before, inode = loaded("packed", folder), (folder / "train-00000.bin").stat().st_ino
    old = batch(before)[0]
    Image.new("RGB", (36, 20)).save(pets / "train" / "dog" / "1.jpg")  # the fifth
    assert (
        loaded("packed", folder).fingerprint == before.fingerprint
    )  # a copy: it does not look at the originals
    make(pets)
    assert loaded("packed", folder).fingerprint != before.fingerprint
    assert (folder / "train-00000.bin").stat().st_ino == inode
    assert torch.equal(batch(before)[0], old)  # whoever reads meanwhile reads what was there
    unread = loaded("packed", folder)
    (pets / "train" / "dog" / "2.png").unlink()
    (pets / "train" / "dog" / "1.jpg").unlink()
    Image.new("RGB", (36, 20)).save(pets / "train" / "cat" / "0.jpg")
    make(pets)
    with pytest.raises(ValueError, match=r"train-00000\.bin was packed again or cut short after this run"):
        unread.train.images.pixels(0)
    assert sorted(path.name for path in folder.glob("*.bin")) == ["test-00000.bin", "train-00000.bin"]
    assert len(loaded("packed", folder).train.labels) == 4


def cut(folder: Path) -> None:
    os.truncate(folder / "train-00000.bin", 100)


def change(folder: Path) -> None:
    content = bytearray((folder / "train-00001.bin").read_bytes())
    content[50] ^= 1
    (folder / "train-00001.bin").write_bytes(content)


def lose(folder: Path) -> None:
    (folder / "test-00000.bin").unlink()


def lose_list(folder: Path) -> None:
    (folder / "train-00000.npz").write_bytes(b"PK")


def other_list(folder: Path) -> None:
    (folder / "train-00000.npz").write_bytes((folder / "train-00001.npz").read_bytes())


def spoil_index(folder: Path) -> None:
    (folder / INDEX).write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            cut,
            r"train-00000\.bin has 100 of [\d,]+ bytes; copy it again, or the same `harness pack` mends it",
        ),
        (change, r"train-00001\.bin was changed after it was packed; the same `harness pack` mends it"),
        (lose, r"test-00000\.bin: No such file or directory; the same `harness pack` makes it again"),
        (lose_list, r"train-00000\.npz is damaged"),
        (other_list, r"train-00000\.npz is of another packing than .*index\.json; pack again"),
        (spoil_index, r"index\.json is damaged; pack again"),
    ],
)
def test_damage_is_said_and_mended_by_packing_again(
    spoil: Callable[[Path], None], words: str, pets: Path
) -> None:
    folder = make(pets)
    before = batch(loaded("packed", folder))[0]
    spoil(folder)
    with pytest.raises(ValueError, match=words):
        loaded("packed", folder)
    if spoil in (cut, lose, spoil_index):  # what a plan sees without reading
        (problem,) = look_at_data("packed", {"folder": "packed"}, folder.parent).problems
        assert re.search(words, problem)
    make(pets)
    assert torch.equal(batch(loaded("packed", folder))[0], before)


def test_a_file_that_is_cut_short_while_it_is_read_is_said(pets: Path) -> None:
    data, unread = (loaded("packed", make(pets)) for _ in range(2))
    batch(data)
    cut(pets.parent / "packed")
    with pytest.raises(ValueError, match=r"train-00000\.bin was packed again or cut short"):
        batch(unread)
    with pytest.raises(
        ValueError, match=r"train-00000\.bin: the image at byte [\d,]+ is not there: .* cut short"
    ):
        batch(data)


def test_threads_that_open_a_file_at_once_do_not_close_it_for_each_other(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = loaded("packed", make(pets)).train.images
    assert isinstance(images, PackedImages)
    opened, late, again = threading.Barrier(2), threading.Barrier(2), threading.Event()
    version, read, number = loading._version, os.preadv, itertools.count(1)

    def both_opened(found: os.stat_result) -> tuple[int, ...]:
        # The slower thread goes on when the other is about to read for the second time.
        if opened.wait(PATIENCE_S):
            again.wait(PATIENCE_S)
        return version(found)

    def read_late(*args: Any) -> int:
        if (which := next(number)) == 2:
            again.set()
        if which in (2, 3):
            late.wait(PATIENCE_S)
        return read(*args)

    monkeypatch.setattr(loading, "_version", both_opened)
    monkeypatch.setattr(os, "preadv", read_late)
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda some: [images.pixels(index) for index in some], ((0, 1), (1, 0)))
    one, other = found
    assert all(map(np.array_equal, one, reversed(other)))


def test_a_full_disk_leaves_what_is_whole_and_nothing_else(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(packed.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        make(pets)
    folder = pets.parent / "packed"
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "train-00000.bin", "train-00000.npz"]
    make(pets)
    assert torch.equal(batch(loaded("packed", folder))[0], batch(loaded("imagefolder", pets))[0])


def test_two_packers_do_not_write_into_one_folder(pets: Path) -> None:
    folder = pets.parent / "packed"

    def second(part: str, done: int, of: int) -> None:
        with pytest.raises(ValueError, match=r"another process packs into .*packed; wait"):
            make(pets)
        assert missing_data("packed", {"folder": "packed"}, folder.parent)  # nor does anybody read

    Pack(load_folder(pets), folder, RAW, second).run()
    assert loaded("packed", folder).classes == 2


def test_what_cannot_be_packed_is_said(pets: Path) -> None:
    make(pets)
    with pytest.raises(ValueError, match="holds pets packed in another way; pack elsewhere"):
        make(pets, JPEG)
    with pytest.raises(ValueError, match="holds something else, for example train"):
        Pack(load_folder(pets), pets, RAW).run()
    digits = DATASETS["fashion_mnist"]
    with pytest.raises(ValueError, match="pets is no set of image files"):
        Pack(digits.load(digits.args, pets), pets.parent / "digits", RAW).run()
    (pets / "train" / "cat" / "0.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"cannot read the image file .*cat/0\.jpg: it is not an image"):
        make(pets, name="other")


def test_a_plugin_that_gives_paths_is_packed_with_its_own_normalisation(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = Files(root=pets, paths=tuple(sorted(pets.rglob("*.jpg"))), labels=np.array([0, 1, 2, 0, 1, 2]))
    source = Source(train=files, test=files, classes=3)
    own: Entry = replace(
        DATASETS["generated"], name="lab", args={}, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5),
        missing=lambda args, data_dir: None, load=lambda args, data_dir: source,
    )  # fmt: skip
    monkeypatch.setitem(DATASETS, "lab", own)
    assert cli.main(["pack", "lab", "--side", "24", "--jpeg", "90", "--data", str(pets.parent)]) == 0
    assert "data: {packed: {folder: lab-24-jpeg90}}" in capsys.readouterr().out
    data = loaded("packed", pets.parent / "lab-24-jpeg90")
    assert (data.mean, data.std, data.classes) == (own.mean, own.std, 3)
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_places365_is_packed_under_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (9, 8)).save(tmp_path / "a.jpg")
    for part in ("train", "val"):
        for number in range(365):
            folder = tmp_path / "places365" / part / f"{number:03}"
            folder.mkdir(parents=True)
            os.link(tmp_path / "a.jpg", folder / "a.jpg")
    monkeypatch.setattr(packed, "SHARD", 400)
    assert cli.main(["pack", "places365", "--side", "256", "--data", str(tmp_path)]) == 0
    assert "packed from places365: 730 images" in capsys.readouterr().out
    assert loaded("packed", tmp_path / "places365-256-jpeg95").classes == 365


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothing"], "unknown data set 'nothing'"),
        (["fashion_mnist"], "fashion_mnist is no set of image files"),
        (["pets", "--side", "4"], r"--side must be in 8\.\.4096 pixels, not 4"),
        (["pets", "--jpeg", "101"], r"--jpeg must be a quality in 1\.\.100, not 101"),
        (["imagenet"], "imagenet needs"),
        (
            ["pets", "--to", "{pets}/train/cat/0.jpg"],
            "is no folder; name one that can be written to with --to",
        ),
    ],
)
def test_the_command_says_in_one_sentence_why_not(
    words: list[str], says: str, pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(pets=pets) for word in words]
    assert cli.main(["pack", *words, "--data", str(pets.parent)]) == 2
    message, ending = capsys.readouterr().err.splitlines()
    assert re.search(says, message)
    assert "the same command goes on" in ending


def test_a_read_only_data_folder_is_said_and_another_one_taken(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, elsewhere = pets.parent, pets.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != data)
    assert cli.main(["pack", "pets", "--raw", "--data", str(data)]) == 2
    assert "cannot be written to; name another folder with --to DIR" in capsys.readouterr().err
    assert cli.main(["pack", "pets", "--raw", "--data", str(data), "--to", str(elsewhere / "pets")]) == 0
    assert loaded("packed", elsewhere / "pets").classes == 2


def test_the_pace_and_the_rest_are_said() -> None:
    said: list[str] = []
    progress = packed.Pace(said.append, every_s=0.0)
    progress("train", 10, 100)
    while not said:
        progress("train", 30, 100)
    assert said[-1].startswith("packing train: 30 of 100 images, ")
