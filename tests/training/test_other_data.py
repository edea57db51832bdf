"""A run whose data change, and one that meets an image that cannot be read: nothing mixed, nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.data import loading
from harness.runs.folder import RunFolder, write_json
from harness.runs.provenance import OTHER_DATA, put_back, set_aside
from harness.spec import DataSpec, RunSpec
from harness.training.setup import TeacherError
from tests.training.runs import assert_same_bits, folder_of, results, stop_after, tiny_spec, train

IMAGES = 8  # per class and part; batches of 8: two steps an epoch
OWN = DataSpec(name="imagefolder", resolution=32, args={"folder": "own", "side": None})


@pytest.fixture(autouse=True)
def _loads_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run finds the files as they are, as in a process of its own."""
    real = loading.load_cached

    def load_anew(*given: Any) -> Any:
        loading._loaded.clear()
        return real(*given)

    monkeypatch.setattr(loading, "load_cached", load_anew)


def write_images(root: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for part in ("train", "val"):
        for label, name in enumerate(("dark", "light")):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(IMAGES):
                pixels = rng.integers(0, 100, (20, 20, 3), dtype=np.uint8) + np.uint8(100 * label)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")


def cut_off(path: Path) -> bytes:
    """The file's bytes, of which it has lost the last third."""
    whole = path.read_bytes()
    path.write_bytes(whole[: 2 * len(whole) // 3])
    return whole


def own_spec(*tricks: str, **changes: Any) -> RunSpec:
    return tiny_spec(*tricks, **{"data": OWN, **changes})


@pytest.mark.parametrize("read_out", ["last_epoch", "median_of_last_5"])
def test_a_run_that_met_a_cut_off_image_evaluates_after_the_mend_and_does_not_train_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_out: str
) -> None:
    spec, bad = (
        own_spec(epochs=3, read_out=read_out),
        tmp_path / "b" / "data" / "own" / "val" / "dark" / "5.png",
    )
    for each in "ab":
        write_images(tmp_path / each / "data" / "own")
    assert train(spec, tmp_path / "a") == "finished"
    whole = cut_off(bad)
    with pytest.raises(ValueError, match=r"val/dark/5\.png"):
        train(spec, tmp_path / "b")
    folder = folder_of(spec, tmp_path / "b")
    assert folder.checkpoint.exists()
    assert not folder.summary.exists()
    bad.write_bytes(whole)
    folder.append_event("failed", message="an image that cannot be read")
    steps_before = [each["step"] for each in folder.read_events() if each["kind"] == "checkpoint"][-1]
    assert train(spec, tmp_path / "b") == "finished"
    attempts = [each for each in folder.read_events() if each["kind"] == "attempt"]
    assert [each["resumed_from_step"] for each in attempts] == [0, steps_before]
    assert_same_bits(results(folder), results(folder_of(spec, tmp_path / "a")))


def test_a_run_that_failed_in_its_last_evaluation_makes_no_further_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "data" / "own")
    spec = own_spec()
    monkeypatch.setattr("harness.training.record.read_out", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(spec, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("harness.training.feed.Feed._images", lambda *given: pytest.fail("it trains again"))
    assert train(spec, tmp_path) == "finished"
    assert folder_of(spec, tmp_path).read_summary()["steps"] == 4


def test_a_stopped_run_whose_data_changed_begins_anew_and_mixes_nothing(tmp_path: Path) -> None:
    spec = own_spec(epochs=3)
    write_images(tmp_path / "a" / "data" / "own")
    assert train(spec, tmp_path / "a", stop_after(3)) == "interrupted"
    folder = folder_of(spec, tmp_path / "a")
    before = folder.events.read_bytes()
    for each in "ab":
        write_images(tmp_path / each / "data" / "own", seed=1)
        assert train(spec, tmp_path / each) == "finished"
    assert_same_bits(results(folder), results(folder_of(spec, tmp_path / "b")))
    (aside,) = (folder.path / OTHER_DATA).iterdir()
    assert (aside / "events.jsonl").read_bytes() == before
    assert (aside / "checkpoint.pt").exists()


def test_a_student_and_its_teacher_never_saw_different_data(tmp_path: Path) -> None:
    teacher = own_spec()
    student = tiny_spec("distillation", data=OWN, teacher=teacher.arm.arm_id)
    write_images(tmp_path / "data" / "own")
    train(teacher, tmp_path)
    assert train(student, tmp_path) == "finished"
    seen = folder_of(teacher, tmp_path).read_summary()["data_fingerprint"]
    assert folder_of(student, tmp_path).read_summary()["built_on"] == f"{teacher.run_id}={seen}"
    write_images(tmp_path / "data" / "own", seed=1)
    other = tiny_spec("distillation", data=OWN, teacher=teacher.arm.arm_id, seed=0, lr=0.01)
    with pytest.raises(TeacherError, match=rf"{teacher.run_id} saw other data .* trains it again"):
        train(other, tmp_path)


def test_a_record_is_set_aside_whole_and_put_back(tmp_path: Path) -> None:
    write_images(tmp_path / "data" / "own")
    spec = own_spec()
    train(spec, tmp_path)
    folder = folder_of(spec, tmp_path)
    files = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    seen = folder.read_summary()["data_fingerprint"]
    set_aside(folder, seen)
    assert {path.name for path in folder.path.iterdir()} == {"lock", "spec.json", OTHER_DATA}
    assert folder.read_summary() is None
    assert put_back(folder, seen)
    assert {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()} == files
    assert not put_back(folder, seen)


@pytest.mark.parametrize("moved", range(1, 5))
def test_setting_aside_that_was_killed_is_done_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    folder = RunFolder(tmp_path / "run")
    for name in ("env.json", "events.jsonl", "weights.pt", "predictions.bin", "summary.json"):
        write_json(folder.path / name, {"name": name})
    from harness.runs import provenance

    real, count = provenance._move, iter(range(moved))

    def move_some(*given: Path) -> None:
        if next(count, None) is None:
            raise KeyboardInterrupt
        real(*given)

    monkeypatch.setattr(provenance, "_move", move_some)
    with pytest.raises(KeyboardInterrupt):
        set_aside(folder, "f" * 64)
    assert folder.summary.exists()  # it is an ended run on other data until all of it was moved
    monkeypatch.undo()
    set_aside(folder, "f" * 64)
    assert len(list((folder.path / OTHER_DATA / ("f" * 16)).iterdir())) == 5
    assert not folder.summary.exists()
