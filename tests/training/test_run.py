"""One run, end to end: it learns, repeats itself, and leaves a complete record, whatever its outcome."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.runs.folder import RunFolder, read_json, write_json
from harness.spec import DataSpec, RunSpec, TrickSpec
from harness.training.setup import TeacherError
from tests.timing import paces
from tests.training.runs import (
    DATA_ARGS,
    STEPS_PER_EPOCH,
    assert_same_bits,
    folder_of,
    load,
    results,
    tiny_spec,
    train,
)

SUMMARY_KEYS = {
    "schema", "run_id", "arm_id", "seed", "status", "metrics", "read_out", "epochs", "steps",
    "images_seen", "train_time_s", "eval_time_s", "wall_time_s", "images_per_s", "params", "macs",
    "model", "precision", "batch_size", "data", "data_fingerprint", "train_loss", "attempts",
    "started_s", "ended_s", "device", "threads", "torch", "test_images", "classes",
    "predictions_sha256", "energy_j", "energy_source", "train_fingerprint", "test_fingerprint"
}  # fmt: skip


def test_a_run_learns_separable_data(tmp_path: Path) -> None:
    spec = tiny_spec(epochs=16, schedule="cosine", lr=0.1)
    train(spec, tmp_path)
    # Of 30 images in 4 classes; the last three or four depend on how a CPU rounds.
    assert folder_of(spec, tmp_path).read_summary()["metrics"]["top1"] > 80


def test_two_runs_of_one_spec_give_the_same_bits_and_another_seed_does_not(tmp_path: Path) -> None:
    spec, other = tiny_spec(), tiny_spec(seed=1)
    train(spec, tmp_path / "a")
    train(spec, tmp_path / "b")
    train(other, tmp_path / "a")
    first = results(folder_of(spec, tmp_path / "a"))
    assert_same_bits(first, results(folder_of(spec, tmp_path / "b")))
    assert results(folder_of(other, tmp_path / "a"))["train_loss"] != first["train_loss"]


def test_a_compiled_run_trains_what_torch_compiled_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, calls = tiny_spec(), []
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr(torch, "compile", lambda model: lambda images: calls.append(1) or model(images))
    train(spec, tmp_path / "compiled", compile=True)
    assert len(calls) == 2 * STEPS_PER_EPOCH
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "compiled")
    compiled = folder_of(spec, tmp_path / "compiled")
    assert (read_json(compiled.env) or {})["compile"] is True
    train(spec, tmp_path / "plain")
    assert_same_bits(results(compiled), results(folder_of(spec, tmp_path / "plain")))


def test_a_finished_run_leaves_a_complete_record(tmp_path: Path) -> None:
    spec = tiny_spec("mixup")
    start = time.time()
    assert train(spec, tmp_path) == "finished"
    folder = folder_of(spec, tmp_path)
    summary = folder.read_summary()
    assert summary is not None
    assert set(summary) == SUMMARY_KEYS
    assert {path.name for path in folder.path.iterdir()} == {
        "spec.json", "events.jsonl", "env.json", "weights.pt", "predictions.bin", "summary.json", "lock"
    }  # fmt: skip
    assert RunSpec.from_json(read_json(folder.spec) or {}) == spec
    assert (summary["run_id"], summary["arm_id"], summary["seed"]) == (spec.run_id, spec.arm.arm_id, 0)
    assert (summary["steps"], summary["images_seen"]) == (2 * STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH * 8)
    bits = folder.predictions.read_bytes()
    assert summary["predictions_sha256"] == hashlib.sha256(bits).hexdigest()
    right = np.unpackbits(np.frombuffer(bits, np.uint8), count=summary["test_images"]).mean()
    assert summary["metrics"]["top1"] == pytest.approx(100 * right)
    assert start <= summary["started_s"] <= summary["ended_s"] <= time.time()
    assert summary["train_time_s"] + summary["eval_time_s"] <= summary["wall_time_s"]
    assert summary["images_per_s"] == pytest.approx(summary["images_seen"] / summary["train_time_s"])
    weights = load(folder.weights)
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert summary["params"] == sum(v.numel() for k, v in weights.items() if not k.endswith(buffers))
    env = read_json(folder.env)
    assert env is not None
    assert (env["torch"], env["threads"], env["deterministic"]) == (torch.__version__, 1, True)


def test_events_tell_the_attempt_every_epoch_and_the_end(tmp_path: Path) -> None:
    spec = tiny_spec(epochs=1.6, schedule="constant")
    train(spec, tmp_path)
    attempt, first, last, end = folder_of(spec, tmp_path).read_events()
    assert (attempt["kind"], attempt["attempt"], attempt["resumed_from_step"]) == ("attempt", 1, 0)
    assert [(event["epoch"], event["step"]) for event in (first, last)] == [(1.0, 5), (1.6, 8)]
    assert first["lr"] == 0.05
    assert 0 <= first["val_top1"] <= 100
    assert min(first["train_loss"], first["images_per_s"]) > 0
    assert (end["kind"], end["status"], end["step"]) == ("end", "finished", 8)
    assert folder_of(spec, tmp_path).read_summary()["train_loss"] == last["train_loss"]


def test_the_read_out_is_the_last_epoch_of_the_whole_test_set(tmp_path: Path) -> None:
    """With 30 test images the curve reads all of them, so its last point is the read-out."""
    spec = tiny_spec()
    train(spec, tmp_path)
    curve = [event for event in folder_of(spec, tmp_path).read_events() if event["kind"] == "epoch"]
    summary = folder_of(spec, tmp_path).read_summary()
    assert summary["metrics"]["top1"] == curve[-1]["val_top1"]
    assert summary["test_images"] == 30


def test_a_diverged_run_is_an_outcome_without_metrics(tmp_path: Path) -> None:
    spec = tiny_spec(lr=1e30, schedule="constant")
    assert train(spec, tmp_path) == "diverged"
    folder = folder_of(spec, tmp_path)
    summary = folder.read_summary()
    assert set(summary) == SUMMARY_KEYS
    assert (summary["status"], summary["metrics"], summary["predictions_sha256"]) == ("diverged", {}, None)
    assert "diverged" in [event["kind"] for event in folder.read_events()]
    assert not folder.weights.exists()
    assert not folder.checkpoint.exists()
    assert "NaN" not in folder.summary.read_text()
    assert train(spec, tmp_path) == "diverged"  # not trained again
    assert [event["kind"] for event in folder.read_events()].count("attempt") == 1


def test_a_network_that_breaks_in_its_last_step_has_diverged_too(tmp_path: Path) -> None:
    """The loss of the only step is finite; the network it leaves behind answers NaN."""
    spec = tiny_spec(lr=1e38, schedule="constant", epochs=0.2)
    assert train(spec, tmp_path) == "diverged"
    assert folder_of(spec, tmp_path).read_summary()["steps"] == 1


def test_a_run_that_cannot_be_trained_raises_and_leaves_no_summary(tmp_path: Path) -> None:
    data = DataSpec(name="cifar10", resolution=32)
    spec = tiny_spec(data=data)
    with pytest.raises(FileNotFoundError):
        train(spec, tmp_path)
    folder = folder_of(spec, tmp_path)
    assert folder.read_summary() is None
    assert not folder.has_ended()


def test_ema_evaluates_and_saves_the_averaged_network(tmp_path: Path) -> None:
    """With decay 0 the average is the network; with a long one it stays near the initial weights."""
    plain, short, long = (
        tiny_spec(),
        tiny_spec(TrickSpec(name="ema", options={"decay": 0.0, "ramp": False})),
        tiny_spec(TrickSpec(name="ema", options={"decay": 0.999, "ramp": False})),
    )
    for spec in (plain, short, long):
        train(spec, tmp_path)
    weights = [load(folder_of(spec, tmp_path).weights)["fc.weight"] for spec in (plain, short, long)]
    assert torch.allclose(weights[0], weights[1], atol=1e-6)
    assert not torch.allclose(weights[0], weights[2], atol=1e-3)


def student_of(teacher: RunSpec) -> RunSpec:
    return tiny_spec("distillation", teacher=teacher.arm.arm_id)


def test_a_student_learns_from_the_finished_run_of_its_teacher(tmp_path: Path) -> None:
    teacher = tiny_spec(epochs=1, lr=0.1)
    student = student_of(teacher)
    assert student.teacher_run_id == teacher.run_id
    train(teacher, tmp_path)
    weights = load(folder_of(teacher, tmp_path).weights)
    assert train(student, tmp_path) == "finished"
    alone = tiny_spec()
    train(alone, tmp_path)
    losses = [folder_of(spec, tmp_path).read_summary()["train_loss"] for spec in (student, alone)]
    assert losses[0] != losses[1]
    assert_same_bits(weights, load(folder_of(teacher, tmp_path).weights))


def remove_summary(folder: RunFolder) -> None:
    folder.summary.unlink()


def remove_weights(folder: RunFolder) -> None:
    folder.weights.unlink()


def mark_diverged(folder: RunFolder) -> None:
    write_json(folder.summary, {**(folder.read_summary() or {}), "status": "diverged"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_summary, "has not ended"),
        (remove_weights, r"no weights\.pt"),
        (mark_diverged, "ended as 'diverged'"),
    ],
)
def test_a_student_without_a_usable_teacher_says_why(spoil, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    teacher = tiny_spec(epochs=0.2)
    train(teacher, tmp_path)
    spoil(folder_of(teacher, tmp_path))
    with pytest.raises(TeacherError, match=message):
        train(student_of(teacher), tmp_path)


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path) -> None:
    data = DataSpec(name="generated", resolution=32, args={**DATA_ARGS, "classes": 3})
    teacher = tiny_spec(epochs=0.2, data=data)
    train(teacher, tmp_path)
    with pytest.raises(TeacherError, match=r"knows 3 classes \(generated\), this run has 4"):
        train(student_of(teacher), tmp_path)


def test_an_epoch_line_costs_about_a_tenth_of_a_millisecond(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    line = {"epoch": 1.0, "step": 3, "lr": 0.1, "train_loss": 1.0, "val_top1": 50.0}
    assert paces(tmp_path, lambda: folder.append_event("epoch", **line)) < 1
