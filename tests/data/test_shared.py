"""Decoded images of a small set in shared memory: the same bits, once for all processes, within a bound."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data import DATASETS, contents, loading, pixels
from harness.data.augment import View, evaluation_images, training_batch
from harness.data.entry import DataSet, Files
from harness.data.imagefolder import load_folder
from harness.data.loading import load_cached, open_all
from harness.data.packed import Pack, PackSettings
from harness.errors import share_of_memory
from harness.spec import AugmentSpec

VIEW = View(size=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), seed=5)
TRAIN, TEST = 6 + 2 * (20 + 24 + 28) * 36 * 3, 2 + 2 * 20 * 36 * 3  # bytes: marks and pixels
WHICH = torch.tensor([5, 0, 3, 1, 2, 4])


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of the machine's; where files lie once something is shared."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "RACY_NS", -(10**18))  # files that were just written count as old
    monkeypatch.setattr(loading, "_loaded", {})
    monkeypatch.setattr(loading, "IN_MEMORY", tmp_path / "shm")
    (tmp_path / "shm").mkdir()
    return tmp_path / "shm" / f"harness-{os.getuid()}"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Six training and two test images, a turned one and a PNG among them; their headers are read."""
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
    look(tmp_path)
    return tmp_path


def look(data_dir: Path) -> None:
    """As `harness run` looks before its runs start: hashes and headers."""
    source = load_folder(data_dir / "pets")
    for part in (source.train, source.test):
        assert isinstance(part, Files)
        contents.fingerprint(part)
        assert open_all(part) == []


def loaded(data_dir: Path, name: str = "imagefolder", folder: str = "pets") -> DataSet:
    """As a new process loads it."""
    entry = replace(DATASETS[name])
    return load_cached(entry, {**entry.args, "folder": folder}, (None, None), data_dir)


def seen(data: DataSet, epoch: int = 0) -> list[torch.Tensor]:
    """What an epoch and an evaluation see."""
    view = replace(VIEW, epoch=epoch)
    train, _ = training_batch(data.train, WHICH, spec=AugmentSpec(), view=view)
    return [train, evaluation_images(data.test, torch.tensor([1, 0]), eval_crop=0.875, view=view)]


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


def unshared(data_dir: Path, *epochs: int, **which: str) -> list[list[torch.Tensor]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_SHARED_MEMORY", "0")
        data = loaded(data_dir, **which)
        return [seen(data, epoch) for epoch in epochs]


@contextmanager
def nothing_decoded() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "decode_array", lambda *given: pytest.fail("decoded"))
        patch.setattr(pixels, "decode_jpeg", lambda *given: pytest.fail("decoded"))
        yield


@pytest.mark.parametrize("which", [{}, {"name": "packed", "folder": "small"}])
def test_images_are_decoded_once_for_all_processes_with_the_same_bits(
    which: dict[str, str], data_dir: Path, memory: Path
) -> None:
    Pack(load_folder(data_dir / "pets"), data_dir / "small", PackSettings(of="pets", jpeg=95, side=24)).run()
    want = unshared(data_dir, 0, 1, **which)
    assert not memory.exists()
    first = loaded(data_dir, **which)
    assert_same(seen(first), want[0])
    with nothing_decoded():
        assert_same(seen(first, 1), want[1])
        assert_same(seen(loaded(data_dir, **which), 1), want[1])
    train, test = sorted(memory.iterdir(), key=lambda path: -path.stat().st_size)
    if not which:
        assert (train.stat().st_size, test.stat().st_size) == (TRAIN, TEST)
    assert {path.stat().st_mode & 0o777 for path in (train, test)} == {0o600}


def test_raw_pixels_are_in_the_page_cache_already(data_dir: Path, memory: Path) -> None:
    Pack(load_folder(data_dir / "pets"), data_dir / "raw", PackSettings(of="pets")).run()
    seen(loaded(data_dir, "packed", "raw"))
    assert not memory.exists()


def test_other_bytes_are_other_pixels(data_dir: Path, memory: Path) -> None:
    seen(loaded(data_dir))
    Image.new("RGB", (36, 20)).save(data_dir / "pets" / "train" / "cat" / "0.jpg")
    look(data_dir)
    want = unshared(data_dir, 0)
    assert_same(seen(loaded(data_dir)), want[0])


def test_a_set_whose_headers_were_not_read_is_not_shared(
    data_dir: Path, memory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "another"))
    seen(loaded(data_dir))
    assert not memory.exists()


@pytest.mark.parametrize(
    ("share", "free", "kept"),
    [
        ("0.25", 4 * (TRAIN + TEST), [TEST, TRAIN]),
        ("0.25", 4 * (TRAIN + TEST) - 4, [TRAIN]),  # the others count
        ("1", TRAIN - 1, [TEST]),
        ("1", TEST - 1, []),
    ],
)
def test_all_sets_together_get_a_share_of_the_memory(
    share: str, free: int, kept: list[int], data_dir: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want, said = unshared(data_dir, 0, 1), []
    monkeypatch.setattr(loading, "decided", said.append)
    monkeypatch.setattr(loading, "free_memory", lambda: free)
    monkeypatch.setenv("HARNESS_SHARED_MEMORY", share)
    data = loaded(data_dir)
    assert [torch.equal(seen(data, epoch)[0], want[epoch][0]) for epoch in (0, 1)] == [True, True]
    assert sorted(path.stat().st_size for path in memory.iterdir()) == kept
    assert sum("are not shared" in line for line in said) == 2 - len(kept)


def test_the_limit_of_a_cgroup_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CGROUPS", tmp_path)
    read = Path.read_text
    texts = {
        "/proc/self/cgroup": "0::/job/step\n",
        "/proc/meminfo": "MemFree: 1 kB\nMemAvailable:   4096 kB\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda self: texts.get(str(self)) or read(self))
    assert loading.free_memory() == 4096 * 1024
    (tmp_path / "job" / "step").mkdir(parents=True)
    (tmp_path / "job" / "step" / "memory.max").write_text("max\n")
    (tmp_path / "job" / "memory.max").write_text("70000\n")
    assert loading.free_memory() == 70000


@pytest.mark.parametrize("short", [False, True])
def test_without_space_in_shared_memory_files_are_read_with_the_same_bits(
    short: bool, data_dir: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want, calls, said, write = unshared(data_dir, 0, 1), [], [], os.pwrite

    def full(handle: int, content: Any, place: int) -> int:
        calls.append(place)
        if len(calls) < 4:
            return write(handle, content, place)
        if short:
            return write(handle, content[: len(content) // 2], place)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(loading, "decided", said.append)
    monkeypatch.setattr(pixels, "count_threads", lambda *given, **named: 1)
    data = loaded(data_dir)
    assert_same(seen(data), want[0])
    assert_same(seen(data, 1), want[1])
    assert sum("not shared: No space left" in line for line in said) == 2  # of each part once
    assert sum(path.read_bytes()[:6].count(1) for path in memory.iterdir()) in (1, 2)


def test_what_somebody_cut_short_is_read_from_files(data_dir: Path, memory: Path) -> None:
    data = loaded(data_dir)
    want = seen(data)
    for path in memory.iterdir():
        os.truncate(path, 7)
    assert_same(seen(data), want)


@pytest.mark.parametrize("spoil", ["open to all", "a link", "a file"])
def test_a_folder_that_is_not_this_users_alone_is_not_used(
    spoil: str, data_dir: Path, memory: Path, tmp_path: Path
) -> None:
    if spoil == "a file":
        memory.write_text("")
    elif spoil == "a link":
        (tmp_path / "else").mkdir()
        memory.symlink_to(tmp_path / "else")
    else:
        memory.mkdir()
        memory.chmod(0o777)
    seen(loaded(data_dir))
    assert not memory.is_dir() or not list(memory.iterdir())


def test_what_nobody_uses_is_removed_and_what_is_used_stays(data_dir: Path, memory: Path) -> None:
    memory.mkdir(mode=0o700)
    for name in ("killed", "used"):
        (memory / name).write_bytes(b"0")
    with (memory / "used").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        data = loaded(data_dir)
        seen(data)
        names = {path.name for path in memory.iterdir()}
        assert len(names) == 3
        assert "used" in names
        assert "killed" not in names
    loading._loaded.clear()
    del data
    assert {path.name for path in memory.iterdir()} == {"used"}  # both parts went with the last to use them


@pytest.mark.parametrize("killed", [False, True])
def test_a_worker_that_ends_leaves_nothing_and_one_that_is_killed_leaves_it_to_the_next(
    killed: bool, data_dir: Path, memory: Path
) -> None:
    def work() -> None:
        seen(loaded(data_dir))
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)

    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    worker.join()
    assert worker.exitcode == (-signal.SIGKILL if killed else 0)
    assert len(list(memory.iterdir())) == (2 if killed else 0)
    with nothing_decoded() if killed else unlocked():
        data = loaded(data_dir)
        seen(data)
    loading._loaded.clear()
    del data
    assert not list(memory.iterdir())


@contextmanager
def unlocked() -> Iterator[None]:
    yield


@pytest.mark.parametrize("said", ["much", "-1", "2", "nan"])
def test_a_share_that_is_none_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_SHARED_MEMORY", said)
    with pytest.raises(ValueError, match=rf"HARNESS_SHARED_MEMORY must be a share .* not '{said}'"):
        share_of_memory()
