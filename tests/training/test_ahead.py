"""Batches made ahead of the step: the same bits, errors where they belong, and no thread left behind."""

from __future__ import annotations

import gc
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image

from harness.data import contents, loading
from harness.data.entry import Files
from harness.data.imagefolder import load_folder
from harness.data.loading import open_all
from harness.data.packed import Pack, PackSettings
from harness.training import feed, setup
from tests.timing import PATIENCE_S, wait_until
from tests.training.runs import (
    assert_same_bits,
    folder_of,
    machine_in,
    results,
    stop_after,
    tiny_spec,
    train,
)
from tests.training.test_other_data import OWN, cut_off, own_spec, write_images
from tests.training.test_other_data import _loads_anew as _loads_anew

MIXED = own_spec("mixup", epochs=3)


def threads() -> list[str]:
    """Of the pipeline; a thread that was told to end may take a moment."""

    def found() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name.startswith("batches")]

    return [] if wait_until(lambda: not found()) else found()


def test_runs_with_and_without_batches_ahead_have_the_same_bits_stopped_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in "abc":
        write_images(tmp_path / each / "data" / "own")
    assert train(MIXED, tmp_path / "a") == "finished"
    while train(MIXED, tmp_path / "b", stop_after(2)) == "interrupted":
        assert not threads()
    monkeypatch.setattr(feed, "AHEAD", 0)
    assert train(MIXED, tmp_path / "c") == "finished"
    whole = [results(folder_of(MIXED, tmp_path / each)) for each in "abc"]
    assert_same_bits(whole[0], whole[2])
    assert_same_bits(whole[1], whole[2])


def put_another_image(path: Path) -> bytes:
    whole = path.read_bytes()
    Image.new("RGB", (20, 20)).save(path)
    return whole


def lose(path: Path) -> bytes:
    whole = path.read_bytes()
    path.unlink()
    return whole


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_off, r"cannot decode the image file .*train/light/3\.png"),
        (lose, r"train/light/3\.png: it does not exist"),
        (put_another_image, r"train/light/3\.png changed since it was hashed"),
    ],
)
def test_what_happens_to_a_file_in_epoch_3_ends_the_run_by_name_and_once_mended_it_is_as_ever(
    damage: Callable[[Path], bytes], words: str, tmp_path: Path
) -> None:
    spec, steps, whole = own_spec(epochs=4), iter(range(100)), []
    write_images(tmp_path / "data" / "own")
    bad = tmp_path / "data" / "own" / "train" / "light" / "3.png"

    def in_epoch_3() -> bool:
        if next(steps) == 4:  # two steps an epoch
            whole.append(damage(bad))
        return False

    with pytest.raises(ValueError, match=words):
        train(spec, tmp_path, in_epoch_3)
    assert not threads()
    bad.write_bytes(whole[0])
    assert train(spec, tmp_path) == "finished"
    kept = results(folder_of(spec, tmp_path))
    shutil.rmtree(folder_of(spec, tmp_path).path)
    assert train(spec, tmp_path) == "finished"
    assert_same_bits(kept, results(folder_of(spec, tmp_path)))


@pytest.mark.parametrize("damage", [cut_off, lose, put_another_image])
def test_images_that_were_decoded_into_shared_memory_are_not_missed(
    damage: Callable[[Path], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "RACY_NS", -(10**18))
    spec, steps = own_spec("mixup", epochs=4), iter(range(100))
    for each in "ab":
        write_images(tmp_path / each / "data" / "own")
    assert train(spec, tmp_path / "a") == "finished"  # of which no header was read: nothing is shared
    monkeypatch.setattr(loading, "IN_MEMORY", tmp_path)
    source = load_folder(tmp_path / "b" / "data" / "own")
    for part in (source.train, source.test):
        assert isinstance(part, Files)
        contents.fingerprint(part)
        assert open_all(part) == []
    bad = tmp_path / "b" / "data" / "own" / "train" / "light" / "3.png"

    def in_epoch_3() -> bool:
        if next(steps) == 4:  # two steps an epoch
            damage(bad)
        return False

    assert train(spec, tmp_path / "b", in_epoch_3) == "finished"
    one, other = (results(folder_of(spec, tmp_path / each)) for each in "ab")
    assert_same_bits(one, other)


def test_runs_on_files_and_on_raw_pixels_packed_at_their_own_size_have_the_same_bits(tmp_path: Path) -> None:
    write_images(tmp_path / "data" / "own")
    source = load_folder(tmp_path / "data" / "own")
    Pack(source, tmp_path / "data" / "raw", PackSettings(of="own")).run()
    packed = replace(OWN, name="packed", args={"folder": "raw"})
    both = [MIXED, own_spec("mixup", epochs=3, data=packed)]
    assert [train(spec, tmp_path) for spec in both] == ["finished"] * 2
    assert_same_bits(*(results(folder_of(spec, tmp_path)) for spec in both))


def test_an_interrupt_in_the_middle_of_a_step_leaves_no_thread(tmp_path: Path) -> None:
    write_images(tmp_path / "data" / "own")

    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(own_spec(), tmp_path, interrupt)
    assert not threads()


def test_images_in_memory_are_made_by_the_step_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers: dict[str, set[str]] = {"array": set(), "files": set()}
    real = feed.Feed._images

    def seen(self: feed.Feed, step: int) -> Any:
        makers["files" if self.data.train.images.decodes else "array"].add(threading.current_thread().name)
        return real(self, step)

    monkeypatch.setattr(feed.Feed, "_images", seen)
    monkeypatch.setattr(feed, "count_threads", lambda: 2)
    write_images(tmp_path / "data" / "own")
    for spec in (tiny_spec(), own_spec()):
        assert train(spec, tmp_path) == "finished"
    assert makers["array"] == {threading.current_thread().name}
    assert makers["files"]
    assert makers["files"] <= {"batches_0", "batches_1"}


class Made:
    """What a step takes; those that are alive are counted."""

    alive: ClassVar[weakref.WeakSet[Made]] = weakref.WeakSet()
    most: ClassVar[int] = 0

    def __init__(self, step: int) -> None:
        self.step = step
        Made.alive.add(self)
        Made.most = max(Made.most, len(Made.alive))


@pytest.mark.parametrize(("ahead", "makers"), [(0, 1), (1, 1), (2, 1), (5, 1), (2, 2), (2, 16), (5, 3)])
def test_results_come_in_their_order_and_never_more_wait_than_were_asked_for(ahead: int, makers: int) -> None:
    Made.most = 0
    with closing(feed.in_turn(Made, range(20), ahead, makers)) as made:
        due = iter(range(20))
        for each in made:
            assert each.step == next(due)
            deadline_s, filled = time.monotonic() + PATIENCE_S, min(ahead + 1, 20 - each.step)
            while len(Made.alive) < filled:  # the thread fills up, and no further
                assert time.monotonic() < deadline_s
            del each
    gc.collect()
    assert Made.most <= ahead + 1
    assert not Made.alive
    assert not threads()


def test_one_batch_is_made_while_another_one_is_not_ready() -> None:
    second, late = threading.Event(), []

    def make(step: int) -> int:
        if step == 0:
            late.append(second.wait(PATIENCE_S))
        elif step == 1:
            second.set()
        return step

    assert list(feed.in_turn(make, range(6), 2, 2)) == list(range(6))
    assert late == [True]
    assert not threads()


def test_threads_that_meet_at_the_end_of_an_epoch_read_each_its_own_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "data" / "own")
    made = setup.build(own_spec(), machine_in(tmp_path)).feed
    want = {step: made._indices(step // 2, step % 2).tolist() for step in range(8)}
    real, both = feed.ORDERS["images"], threading.Barrier(2)

    def together(*given: int) -> torch.Tensor:
        both.wait(PATIENCE_S)
        return real(*given)

    monkeypatch.setattr(feed, "ORDERS", {"images": together})
    made._order = (-1, torch.empty(0, dtype=torch.int64))
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda step: made._indices(step // 2, step % 2).tolist(), (1, 6))
    assert list(found) == [want[1], want[6]]


def test_runs_with_one_maker_of_batches_and_with_two_have_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in "ab":
        write_images(tmp_path / each / "data" / "own")
    assert train(MIXED, tmp_path / "a") == "finished"
    real, asked = feed.in_turn, []

    def with_one(make: Any, steps: Any, ahead: int, makers: int) -> Any:
        asked.append(makers)
        return real(make, steps, ahead, 1)

    monkeypatch.setattr(feed, "in_turn", with_one)
    monkeypatch.setattr(feed, "count_threads", lambda: 2)
    assert train(MIXED, tmp_path / "b") == "finished"
    assert set(asked) == {2}
    assert_same_bits(*(results(folder_of(MIXED, tmp_path / each)) for each in "ab"))


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("makers", [1, 2])
def test_an_error_is_raised_at_its_turn_and_what_comes_after_it_is_not_made(ahead: int, makers: int) -> None:
    begun: list[int] = []

    def make(step: int) -> int:
        begun.append(step)
        if step == 3:
            raise ValueError("photo.jpg")
        return step

    taken: list[int] = []
    with pytest.raises(ValueError, match=r"photo\.jpg"):
        list(map(taken.append, feed.in_turn(make, range(20), ahead, makers)))
    assert taken == [0, 1, 2]
    assert max(begun) <= 3 + ahead
    assert not threads()


class FakeStream:
    """Of a GPU that is not there: writes down what is asked of it."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def wait_stream(self, other: FakeStream) -> None:
        self.calls.append(f"{self.name} waits for {other.name}")

    def record_event(self) -> str:
        self.calls.append(f"event on {self.name}")
        return "event"

    def wait_event(self, event: str) -> None:
        self.calls.append(f"{self.name} waits for {event}")


def test_on_a_gpu_copies_go_by_a_stream_of_their_own_and_the_step_waits_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    main, own = FakeStream("main", calls), FakeStream("own", calls)

    @contextmanager
    def on(stream: FakeStream) -> Iterator[None]:
        calls.append(f"on {stream.name}")
        yield
        calls.append(f"off {stream.name}")

    def make(step: int) -> Any:
        calls.append(f"made {step}")
        return torch.zeros(1), torch.zeros(1)

    def used(self: torch.Tensor, stream: FakeStream) -> None:
        calls.append(f"used by {stream.name}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: own)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.Tensor, "record_stream", used)
    copies = feed.CopyStream(torch.device("cuda:1"))
    copies.arrived(*copies.sent(make, 7))
    assert calls == [
        "own waits for main", "on own", "made 7", "event on own", "off own",
        "main waits for event", "used by main", "used by main",
    ]  # fmt: skip
