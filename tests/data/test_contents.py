"""Content identifies data: names, sizes and times do not (docs/data.md, "What identifies data")."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data import DATASETS, contents, folders, load, pixels
from harness.data.arrays import class_shares
from harness.data.contents import Contents, fingerprints
from harness.data.entry import DataSet, Entry, Files, Pixels, Source
from harness.data.imagefolder import load_folder
from harness.data.loading import decode_all, load_cached, open_all
from tests.conftest import mostly_campaign
from tests.data.sets import write_classes


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


def loaded(data_dir: Path, **args: object) -> DataSet:
    """As a new process loads the folder `pets`."""
    entry = replace(DATASETS["imagefolder"])  # another entry is loaded anew
    return load_cached(entry, {**entry.args, "folder": "pets", **args}, (None, None), data_dir)


def overwrite(path: Path, level: int) -> None:
    """Other pixels, and everything else as it was: name, size in bytes, time of modification."""
    before = path.stat()
    Image.new("RGB", (24, 24), (level,) * 3).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def put_another_in_its_place(path: Path, level: int) -> None:
    """As rsync -t and cp -p do: a file with the old time, renamed into place."""
    before, draft = path.stat(), path.with_suffix(".part")
    Image.new("RGB", (24, 24), (level,) * 3).save(draft, "BMP")
    os.utime(draft, ns=(before.st_atime_ns, before.st_mtime_ns))
    draft.replace(path)


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written count as old, so that their hashes are taken from the cache."""
    monkeypatch.setattr(contents, "RACY_NS", -(10**18))


@pytest.mark.parametrize("replaced_by", [overwrite, put_another_in_its_place])
@pytest.mark.parametrize("settled", [True, False])
def test_pixels_replaced_under_the_same_name_size_and_time_are_other_data(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replaced_by: Callable[[Path, int], None],
    settled: bool,
) -> None:
    if settled:
        settle(monkeypatch)
    write_classes(tmp_path / "pets", {"dark": 40, "light": 200})
    before = loaded(tmp_path, side=16)
    assert before.train.images.array[0].mean() == 40
    replaced_by(tmp_path / "pets" / "train" / "dark" / "0.bmp", 120)
    after = loaded(tmp_path, side=16)
    assert after.train.images.array[0].mean() == 120  # not the decoded pixels of before
    assert after.fingerprint != before.fingerprint
    assert after.part_fingerprints[0] != before.part_fingerprints[0]
    assert after.part_fingerprints[1] == before.part_fingerprints[1]


def test_the_same_images_elsewhere_under_other_names_are_the_same_data(tmp_path: Path) -> None:
    write_classes(tmp_path / "pets", {"dark": 40, "light": 200})
    here = loaded(tmp_path)
    shutil.copytree(tmp_path / "pets", tmp_path / "there" / "pets")
    for path in sorted((tmp_path / "there").rglob("*.bmp")):
        path.rename(path.with_name(f"image-{path.name}"))
    there = loaded(tmp_path / "there")
    assert there.fingerprint == here.fingerprint == loaded(tmp_path, side=8).fingerprint


def test_a_label_and_the_order_belong_to_the_data(tmp_path: Path) -> None:
    pixels = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    labels = np.array([0, 1, 0, 1])
    part = Pixels(images=pixels, labels=labels)
    others = [
        Pixels(images=pixels, labels=labels[::-1]),
        Pixels(images=pixels[::-1], labels=labels),
        Pixels(images=pixels.reshape(4, 8, 24, 1), labels=labels),
    ]
    assert len({fingerprints(each, part).both for each in [part, *others]}) == 4


def test_the_arrays_and_the_files_of_a_plugin_are_identified_by_their_bytes(tmp_path: Path) -> None:
    path, pixels = tmp_path / "a.bmp", np.zeros((2, 8, 8, 3), np.uint8)
    Image.new("RGB", (24, 24)).save(path)
    labels = np.array([0, 1])

    def entry(of_files: bool) -> Entry:
        files = Files(root=tmp_path, paths=(path, path), labels=labels)
        part = files if of_files else Pixels(images=pixels.copy(), labels=labels)
        source = Source(train=part, test=part, classes=2)
        return replace(DATASETS["generated"], name="own", load=lambda args, data_dir: source)

    for of_files in (False, True):
        before = load_cached(entry(of_files), {}, (None, None), tmp_path)
        assert load_cached(entry(of_files), {}, (None, None), tmp_path).fingerprint == before.fingerprint
        pixels[1, 7, 7, 2] += 1
        overwrite(path, 9 + of_files)
        after = load_cached(entry(of_files), {}, (None, None), tmp_path)
        assert after.fingerprint != before.fingerprint


def test_the_embedded_set_has_the_fingerprint_of_the_committed_reports() -> None:
    whole = load("fashion_mnist", {}, train_images=None, test_images=None, data_dir=Path("nowhere"))
    part = load("fashion_mnist", {}, train_images=4000, test_images=5000, data_dir=Path("nowhere"))
    assert whole.fingerprint == "fe716e361b5f557a8a1183374245a2b24bf906dcd87bcf561b71c5f99d614889"
    assert part.fingerprint == "ee5a3e0283f6cc5918146fb99865924053ecc3d5a6ed72c7af2450765200c2f3"


def test_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)
    write_classes(tmp_path / "pets", {"dark": 40, "light": 200})
    first = loaded(tmp_path).fingerprint
    monkeypatch.setattr(contents, "_hash", lambda path: pytest.fail(f"{path} was read again"))
    assert loaded(tmp_path).fingerprint == first


def test_headers_that_were_read_before_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    write_classes(tmp_path / "pets", {"dark": 40, "light": 200})
    loaded(tmp_path)
    source = load_folder(tmp_path / "pets")
    assert isinstance(source.train, Files)
    assert open_all(source.train) == []
    path = tmp_path / "pets" / "train" / "dark" / "0.bmp"
    known = loaded(tmp_path).train.images
    monkeypatch.setattr(pixels, "header", lambda path: pytest.fail(f"{path} was opened"))
    assert known.sizes(torch.tensor([0, 1])).tolist() == [[24, 24], [24, 24]]
    monkeypatch.undo()
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    settle(monkeypatch)
    Image.new("RGB", (30, 20)).save(path)
    assert loaded(tmp_path).train.images.sizes(torch.tensor([0, 1])).tolist() == [[20, 30], [24, 24]]


def test_a_file_that_was_just_written_is_read_again(tmp_path: Path) -> None:
    """Two writes within one tick of the file system's clock may leave the same times and size."""
    write_classes(tmp_path / "pets", {"dark": 40, "light": 200})
    loaded(tmp_path)
    paths = sorted(tmp_path.rglob("*.bmp"))
    assert Contents(tmp_path / "pets").unknown(paths) == paths


@pytest.mark.parametrize("damage", [b"", b"PK", b"\0" * 5000])
def test_a_damaged_or_unwritable_cache_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    settle(monkeypatch)
    write_classes(tmp_path / "pets", {"dark": 40, "light": 200})
    first = loaded(tmp_path).fingerprint
    (kept,) = (tmp_path / "cache" / "contents").iterdir()
    kept.write_bytes(damage)
    assert loaded(tmp_path).fingerprint == first
    (tmp_path / "blocked").write_bytes(b"")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "blocked"))
    assert loaded(tmp_path).fingerprint == first


def test_every_file_is_opened_and_what_is_cut_off_is_found_by_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    write_classes(tmp_path / "pets", {"dark": 40, "light": 200}, images=3)
    cut, text = tmp_path / "pets" / "val" / "dark" / "2.bmp", tmp_path / "pets" / "val" / "light" / "0.bmp"
    cut.write_bytes(cut.read_bytes()[:-200])
    text.write_bytes(b"no image")
    files = DATASETS["imagefolder"].load({**DATASETS["imagefolder"].args, "folder": "pets"}, tmp_path).test
    assert isinstance(files, Files)
    fingerprints(files, files)
    assert [each.count(str(text)) for each in open_all(files)] == [1]
    assert [
        str(path) in each for path, each in zip([cut, text], decode_all(files, lambda: False), strict=True)
    ]
    assert sorted(Contents(files.root).not_decoded(files)) == [cut, text]
    Image.new("RGB", (24, 24)).save(text)
    Image.new("RGB", (24, 24)).save(cut)
    fingerprints(files, files)
    assert decode_all(files, lambda: False) == []
    assert Contents(files.root).not_decoded(files) == []


@pytest.mark.parametrize(
    ("found", "count", "shares"),
    [
        ([100, 100, 100], 10, [4, 3, 3]),  # balanced: as before
        ([20, 20], 256, [20, 20]),  # fewer than wanted: all
        ([1] * 1000, 256, [1] * 1000),  # one per class
        ([500, 3, 500], 256, [127, 3, 126]),  # a rare class gives what it has
        ([9, 1, 2, 50], 40, [9, 1, 2, 28]),
        ([5, 0, 5], 4, [2, 0, 2]),
    ],
)
def test_a_subset_is_as_even_over_classes_as_they_allow(
    found: list[int], count: int, shares: list[int]
) -> None:
    assert class_shares(np.array(found), count).tolist() == shares


def read_all(data: DataSet) -> None:
    indices = torch.arange(len(data.train.labels))
    data.train.images.read(indices, torch.tensor([[0, 0, 24, 24]]).expand(len(indices), 4), 8, "cpu")


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set of more files than are looked at before a run; one that is not among them."""
    settle(monkeypatch)
    monkeypatch.setattr(contents, "LOOKED_AT", 1)
    monkeypatch.setattr(
        np.random, "default_rng", lambda: SimpleNamespace(choice=lambda *a, **b: np.array([0]))
    )
    write_classes(tmp_path / "pets", {"dark": 40, "light": 200})
    return tmp_path / "pets" / "train" / "light" / "0.bmp"


def test_a_changed_file_of_a_large_set_is_met_when_it_is_read_and_then_is_other_data(
    large: Path, tmp_path: Path
) -> None:
    before = loaded(tmp_path)
    overwrite(large, 120)
    unseen = loaded(tmp_path)
    assert unseen.fingerprint == before.fingerprint
    with pytest.raises(ValueError, match=r"light/0\.bmp changed since it was hashed; run again"):
        read_all(unseen)
    after = loaded(tmp_path)
    assert after.fingerprint != before.fingerprint
    read_all(after)


def test_a_changed_file_is_met_when_it_is_read_however_small_the_set(tmp_path: Path) -> None:
    write_classes(tmp_path / "pets", {"dark": 40, "light": 200})
    data = loaded(tmp_path)
    put_another_in_its_place(tmp_path / "pets" / "train" / "dark" / "0.bmp", 120)
    with pytest.raises(ValueError, match=r"dark/0\.bmp changed since it was hashed"):
        read_all(data)


def test_a_file_with_the_same_bytes_at_another_time_is_the_same_file(large: Path, tmp_path: Path) -> None:
    data = loaded(tmp_path)
    content = large.read_bytes()
    large.unlink()
    large.write_bytes(content)
    read_all(data)
    assert loaded(tmp_path).fingerprint == data.fingerprint


@pytest.mark.parametrize("files", mostly_campaign([600, 50_000], 600))
def test_the_second_start_asks_the_file_system_no_more_of_more_files(
    files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links to one file, each counted as hashed by its name."""
    for module in (contents, folders):
        monkeypatch.setattr(module, "RACY_NS", -(10**18))
    monkeypatch.setattr(contents, "LOOKED_AT", 100)
    monkeypatch.setattr(folders, "FEWEST_KEPT", 1)
    monkeypatch.setattr(
        contents, "_hash", lambda path: (contents._stat(os.stat(path)), time.time_ns(), bytes(32))
    )
    write_classes(tmp_path / "pets", {"dark": 40, "light": 200})
    for name in ("dark", "light"):
        folder = tmp_path / "pets" / "train" / name
        for number in range(files // 2):
            os.link(folder / "0.bmp", folder / f"link{number}.bmp")
    first = loaded(tmp_path)
    asked: list[object] = []
    for name in ("stat", "scandir"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda path, real=real, **more: (asked.append(path), real(path, **more))[1]
        )
    assert loaded(tmp_path).fingerprint == first.fingerprint
    assert len(first.train.labels) > files
    assert len(asked) < 100 + 60


def test_parts_in_any_order_and_names_that_begin_alike_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(monkeypatch)
    names = [tmp_path / each for each in ("a.png", "aa.png", "b/a.png", "b.png")]
    names[2].parent.mkdir()
    for number, path in enumerate(names):
        path.write_bytes(bytes([number]))
    known = Contents(tmp_path)
    every = known.digests(names)
    for some in ([0, 1], [1, 2, 3], [3, 0], [2], [0, 2], []):
        again = Contents(tmp_path)
        assert np.array_equal(again.digests([names[each] for each in some]), every[some])
    (tmp_path / "a.pn").write_bytes(b"another, whose name is the start of one")
    new = Contents(tmp_path).digests([tmp_path / "a.pn"])
    assert not (new == every).all(1).any()
