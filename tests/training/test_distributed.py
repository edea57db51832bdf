"""Several processes train one run: the result of one process, repeatable, resumable, and written once."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.runs.folder import RunFolder, read_json
from harness.spec import Arm, Member, RunSpec, TrickSpec
from harness.training import optim, setup
from harness.training.evaluate import Evaluation, evaluate
from harness.training.parallel import World
from tests.conftest import mostly_campaign
from tests.timing import not_waited_out
from tests.training.runs import assert_same_bits, folder_of, results, stop_after, tiny_spec, train
from tests.training.several import Several, machine_of_rank, rank, state_of_rank, train_rank
from tests.training.test_auxiliary import Headed

GENTLE = {"lr": 0.01}  # at which rounding does not grow from step to step
EMA = TrickSpec(name="ema", options={"decay": 0.8})
SPECS = {
    "plain": tiny_spec(**GENTLE),
    "mixup": tiny_spec("mixup", **GENTLE),
    "label smoothing": tiny_spec("label_smoothing", **GENTLE),
    "groups of 4": tiny_spec(norm_images=4, **GENTLE),
    "groups of 2": tiny_spec(norm_images=2, lr=1e-5),  # +-1 on a map of one pixel: a change of sign is large
    "one group": tiny_spec(norm_images=8, epochs=1, **GENTLE),
    "ema": tiny_spec(EMA, **GENTLE),
    "clipped": tiny_spec(clip_value=0.1, clip_norm=0.5, lr=0.05),
    "adamw": tiny_spec(optimizer="adamw", lr=0.001, epochs=1),
    "frozen": tiny_spec(freeze=("conv1", "bn1", "layer1"), lr_scale={"layer4": 0.5}, norm_images=4, **GENTLE),
}
LEAST = 2e-5  # float32: sums in another order, over 10 steps; weights are about 0.1 and change by 0.01


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Any:
    group = Several(tmp_path_factory.mktemp("stores"))
    yield group
    group.close()


def assert_close(one: RunFolder, two: RunFolder, least: float) -> None:
    a, b = results(one), results(two)
    assert (a["status"], a["steps"], a["images_seen"]) == (b["status"], b["steps"], b["images_seen"])
    assert [point[:3] for point in a["curve"]] == [point[:3] for point in b["curve"]]
    losses = [(point[3], other[3]) for point, other in zip(a["curve"], b["curve"], strict=True)]
    losses += [(a["train_loss"], b["train_loss"]), (a["metrics"]["loss"], b["metrics"]["loss"])]
    assert all(abs(x - y) < least for x, y in losses), losses
    assert list(a["weights"]) == list(b["weights"])
    for name, weight in a["weights"].items():
        assert torch.allclose(weight, b["weights"][name], rtol=least, atol=least), name


@pytest.mark.parametrize("name", mostly_campaign(SPECS, "groups of 4"))
def test_two_processes_give_the_losses_and_weights_of_one(name: str, several: Any, tmp_path: Path) -> None:
    spec = SPECS[name]
    train(spec, tmp_path / "one")
    assert several(2, train_rank, spec, tmp_path / "two") == ["finished"] * 2
    assert_close(folder_of(spec, tmp_path / "one"), folder_of(spec, tmp_path / "two"), LEAST)


@pytest.mark.parametrize("precision", mostly_campaign(["bf16", "fp16"], "fp16"))
def test_in_half_precision_they_agree_to_its_rounding(precision: str, several: Any, tmp_path: Path) -> None:
    spec = tiny_spec(precision=precision, epochs=1, **GENTLE)
    train(spec, tmp_path / "one")
    assert several(2, train_rank, spec, tmp_path / "two") == ["finished"] * 2
    assert_close(folder_of(spec, tmp_path / "one"), folder_of(spec, tmp_path / "two"), 0.03)


@pytest.mark.campaign
def test_a_student_of_two_processes_learns_what_that_of_one_does(several: Any, tmp_path: Path) -> None:
    teacher = tiny_spec(epochs=0.4, lr=0.1)
    student = tiny_spec(
        "distillation", teacher=teacher.arm.arm_id, lr=0.001, epochs=1
    )  # the soft loss is 400 times T
    for folder in ("one", "two"):
        train(teacher, tmp_path / folder)
    train(student, tmp_path / "one")
    assert several(2, train_rank, student, tmp_path / "two") == ["finished"] * 2
    assert_close(folder_of(student, tmp_path / "one"), folder_of(student, tmp_path / "two"), LEAST)


def headed_state(spec: RunSpec, runs_dir: Path) -> dict[str, Any]:
    before = setup.build_model
    setup.build_model = lambda *_, **__: Headed()  # type: ignore[assignment]
    try:
        return state_of_rank(spec, runs_dir, 5)
    finally:
        setup.build_model = before


def test_auxiliary_heads_are_trained_alike(several: Any, tmp_path: Path) -> None:
    (one,) = several(1, headed_state, tiny_spec(**GENTLE), tmp_path)
    for state in several(2, headed_state, tiny_spec(**GENTLE), tmp_path):
        assert torch.allclose(state["loss_sum"], one["loss_sum"], atol=LEAST)
        for name, weight in one["model"].items():
            assert torch.allclose(state["model"][name], weight, atol=LEAST), name


STATEFUL = tiny_spec(EMA, "mixup", precision="fp16", norm_images=4, clip_norm=2.0)
THREE = tiny_spec(batch_size=9, optimizer_args={"momentum": 0.8})
BOTH = [(STATEFUL, 2), pytest.param(THREE, 3, marks=pytest.mark.campaign)]


@pytest.mark.parametrize(("spec", "processes"), BOTH)
def test_every_process_holds_the_same_bits(
    spec: RunSpec, processes: int, several: Any, tmp_path: Path
) -> None:
    first, *others = several(processes, state_of_rank, spec, tmp_path, 4)
    assert first["step"] == 4
    for other in others:
        assert_same_bits(first, other)


@pytest.mark.parametrize(("spec", "processes"), BOTH)
def test_straight_and_stopped_in_between_are_the_same_bits(
    spec: RunSpec, processes: int, several: Any, tmp_path: Path
) -> None:
    assert several(processes, train_rank, spec, tmp_path / "a") == ["finished"] * processes
    for steps in (3, 4):
        stopped = several(processes, train_rank, spec, tmp_path / "b", steps)
        assert stopped == ["interrupted"] * processes
    assert several(processes, train_rank, spec, tmp_path / "b") == ["finished"] * processes
    assert_same_bits(*(results(folder_of(spec, tmp_path / each)) for each in "ab"))
    resumed = [event["resumed_from_step"] for event in events(spec, tmp_path / "b", "attempt")]
    assert resumed == [0, 3, 7]
    assert not (tmp_path / "b" / "untouched").exists()


@pytest.mark.campaign
def test_another_number_of_processes_goes_on_from_the_checkpoint(several: Any, tmp_path: Path) -> None:
    spec = tiny_spec(**GENTLE)
    train(spec, tmp_path / "one")
    assert several(2, train_rank, spec, tmp_path / "mixed", 3) == ["interrupted"] * 2
    assert train(spec, tmp_path / "mixed", stop_after(3)) == "interrupted"
    assert several(2, train_rank, spec, tmp_path / "mixed") == ["finished"] * 2
    assert_close(folder_of(spec, tmp_path / "one"), folder_of(spec, tmp_path / "mixed"), LEAST)
    started = events(spec, tmp_path / "mixed", "attempt")
    assert [(each["processes"], each["resumed_from_step"]) for each in started] == [(2, 0), (1, 3), (2, 6)]


def events(spec: RunSpec, runs_dir: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in folder_of(spec, runs_dir).read_events() if event["kind"] == kind]


def test_only_the_first_process_writes_and_each_thing_once(several: Any, tmp_path: Path) -> None:
    spec = tiny_spec("mixup")
    several(2, train_rank, spec, tmp_path, checkpoint_every_s=0.0)
    folder = folder_of(spec, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {spec.run_id}  # not the folder that process 1 got
    assert {path.name for path in folder.path.iterdir()} == {
        "spec.json", "events.jsonl", "env.json", "weights.pt", "predictions.bin", "summary.json", "lock"
    }  # fmt: skip
    kinds = [event["kind"] for event in folder.read_events()]
    assert kinds.count("attempt") == kinds.count("end") == 1
    assert kinds.count("epoch") == 2
    assert kinds.count("checkpoint") == 10
    assert (read_json(folder.env) or {})["processes"] == 2
    before = folder.summary.stat().st_mtime_ns
    assert several(2, train_rank, spec, tmp_path) == ["finished"] * 2  # has ended: both leave
    assert folder.summary.stat().st_mtime_ns == before


def test_a_diverged_run_ends_in_all_processes(several: Any, tmp_path: Path) -> None:
    spec = tiny_spec(lr=1e30, schedule="constant")
    assert several(2, train_rank, spec, tmp_path) == ["diverged"] * 2
    assert folder_of(spec, tmp_path).has_ended()


def test_an_unusable_checkpoint_is_refused_by_all(several: Any, tmp_path: Path) -> None:
    spec = tiny_spec(epochs=0.6)
    assert train(spec, tmp_path, stop_after(2)) == "interrupted"
    folder_of(spec, tmp_path).checkpoint.write_bytes(b"")
    assert several(2, train_rank, spec, tmp_path) == ["finished"] * 2
    assert len(events(spec, tmp_path, "checkpoint_refused")) == 1
    assert [each["resumed_from_step"] for each in events(spec, tmp_path, "attempt")] == [0, 0]


def over_tcp(spec: RunSpec, runs_dir: Path, port: int) -> str:
    """The environment of torchrun."""
    store = os.environ.pop("HARNESS_STORE")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        return train_rank(spec, runs_dir)
    finally:
        os.environ["HARNESS_STORE"] = store


def test_they_meet_at_an_address_too(several: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert several(2, over_tcp, tiny_spec(epochs=0.2), tmp_path, port) == ["finished"] * 2


# Evaluation

LOGITS = torch.randn(1130, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(8, (1130,), generator=torch.Generator().manual_seed(1))
LOGITS[77], LOGITS[600, 3] = -0.0, torch.nan


def bits_of(logits: Tensor, labels: Tensor) -> float:
    """A metric that tells any two tables of logits apart."""
    numbers = torch.arange(1, logits.numel() + 1).view(logits.shape)
    return float((logits.contiguous().view(torch.int32).long() * numbers).sum() % 2**50)


def evaluate_rank(images: int) -> tuple[dict[str, Any], list[int]]:
    answered: list[int] = []

    def answers(indices: Tensor) -> Tensor:
        answered.extend(indices.tolist())
        return LOGITS[indices]

    with World.join(machine_of_rank(Path())) as world:
        indices = torch.arange(images).flip(0)
        result: Evaluation = evaluate(answers, LABELS, indices, {"bits": bits_of}, world=world)
    return result.state_dict(), answered


@pytest.mark.parametrize("images", [1130, 40])
def test_any_number_of_processes_evaluates_to_the_same_bits(images: int, several: Any) -> None:
    ((one, every),) = several(1, evaluate_rank, images)
    for processes in (2, 3):
        answers = several(processes, evaluate_rank, images)
        for result, _ in answers:
            assert repr(result["loss"]) == repr(one["loss"])
            assert_same_bits({**result, "loss": 0}, {**one, "loss": 0})
        assert [index for _, part in answers for index in part] == every  # each image by one process
        assert max(len(part) for _, part in answers) <= -(-5 // processes) * 250


def test_a_run_that_observes_is_made_by_the_first_process_alone(several: Any, tmp_path: Path) -> None:
    member = tiny_spec(epochs=0.4)
    observer = RunSpec(arm=Arm(recipe=member.arm.recipe, observes=(Member(arm=member.arm.arm_id),)), seed=0)
    for folder in ("one", "two"):
        train(member, tmp_path / folder)
    train(observer, tmp_path / "one")
    assert several(2, train_rank, observer, tmp_path / "two") == ["finished"] * 2
    one, two = (folder_of(observer, tmp_path / folder) for folder in ("one", "two"))
    assert (one.read_summary() or {})["metrics"] == (two.read_summary() or {})["metrics"]
    assert one.predictions.read_bytes() == two.predictions.read_bytes()


# What goes wrong


@pytest.mark.parametrize(
    ("processes", "changes", "message"),
    [
        (3, {}, "a batch of 8 images cannot be cut into 3 equal parts: use 1, 2, 4 or 8 processes, or batches"
                " of 6 or 9 images"),
        (4, {"norm_images": 4}, r"4 equal parts of whole groups of 4 images \(norm_images\): use 1 or 2 "
                                "processes, or batches of 16 images"),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_cut_is_refused(
    processes: int, changes: dict[str, Any], message: str, several: Any, tmp_path: Path
) -> None:
    answers = several(processes, train_rank, tiny_spec(**changes), tmp_path)
    for answer in answers:
        with pytest.raises(ValueError, match=message):
            raise ValueError(answer)
    assert answers[0].startswith("ValueError")


def fail_in_the_second(runs_dir: Path) -> None:
    with World.join(machine_of_rank(runs_dir)) as world, world.together():
        if rank() == 1:
            raise FileNotFoundError("no images in /data on this node")


def test_what_one_process_cannot_build_is_told_by_all(several: Any, tmp_path: Path) -> None:
    message = "FileNotFoundError: no images in /data on this node"
    assert several(2, fail_in_the_second, tmp_path) == [f"PeerError: process 1 of 2: {message}", message]


def die_in_the_last(spec: RunSpec, runs_dir: Path) -> str:
    before = optim.set_lr

    def set_lr(optimizer: Any, lr: float) -> None:
        if rank() == 2:
            os._exit(9)
        before(optimizer, lr)

    optim.set_lr = set_lr
    try:
        return train_rank(spec, runs_dir)
    finally:
        optim.set_lr = before


@pytest.mark.campaign
def test_a_process_that_dies_ends_the_others_at_once(several: Any, tmp_path: Path) -> None:
    with not_waited_out():
        first, second, third = several(3, die_in_the_last, THREE, tmp_path)
    assert third is None
    for answer in (first, second):
        assert "another process of this run is gone, or did not answer for 600 s" in answer
    assert several(3, train_rank, THREE, tmp_path) == ["finished"] * 3  # and the next attempt goes on


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "no number in 'RANK': start them with `harness run --processes 2`"),
        ({"RANK": "0", "WORLD_SIZE": "3"}, "says RANK 0 and WORLD_SIZE 3"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "says RANK 2 and WORLD_SIZE 2"),
    ],
)
def test_an_environment_of_no_group_is_refused(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    spec = tiny_spec()
    with pytest.raises(ValueError, match=message):
        train(spec, tmp_path, processes=2)
    assert not folder_of(spec, tmp_path).path.exists()
