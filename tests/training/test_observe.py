"""Runs that train nothing: what they evaluate, by hand, and the record they leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.data.augment import View, crop_boxes, normalise
from harness.models.costs import lookup
from harness.runs.folder import RunFolder
from harness.spec import Arm, DataSpec, Member, RunSpec, TrickSpec
from harness.training import evaluate
from harness.training.evaluate import Answerer, Viewing, make_answers
from harness.training.setup import MemberError, build_network, load_data, make_tricks
from tests.training.runs import (
    DATA_ARGS,
    folder_of,
    load,
    machine_in,
    stop_after,
    tiny_recipe,
    tiny_spec,
    train,
)
from tests.training.test_run import SUMMARY_KEYS

TEACH = {"epochs": 2, "lr": 0.1}


def observer(*members: Member, **changes: Any) -> RunSpec:
    return RunSpec(arm=Arm(recipe=tiny_recipe(**TEACH, **changes), observes=members), seed=0)


def of(spec: RunSpec, runs: int = 1) -> Member:
    return Member(arm=spec.arm.arm_id, runs=runs)


def trained(tmp_path: Path, *specs: RunSpec) -> None:
    for spec in specs:
        assert train(spec, tmp_path) == "finished"


def probabilities(spec: RunSpec, runs_dir: Path, crops: int = 1) -> Tensor:
    """Mean softmax over crops of one trained run, every test image at once, straight from its files."""
    data = load_data(spec.arm.recipe, machine_in(runs_dir))
    model = build_network(spec, make_tricks(spec), classes=data.classes)
    model.load_state_dict(load(folder_of(spec, runs_dir).weights))
    view = View(size=spec.arm.recipe.data.resolution, mean=data.mean, std=data.std)
    every = torch.arange(len(data.test.labels))
    answers = []
    for box in crop_boxes(data.test.images.sizes(every).numpy(), crops, eval_crop=0.875):
        images = normalise(data.test.images.crop_resize(every, torch.from_numpy(box), view.size), view)
        for seen in (images, images.flip(3))[: 1 if crops == 1 else 2]:
            with torch.no_grad():
                answers.append(model.eval()(seen).double().softmax(1))
    return torch.stack(answers).mean(0)


def assert_result_is(probability: Tensor, folder: RunFolder, spec: RunSpec, runs_dir: Path) -> None:
    summary = folder.read_summary()
    assert summary is not None
    labels = load_data(spec.arm.recipe, machine_in(runs_dir)).test.labels
    right = probability.argmax(1) == labels
    bits = np.unpackbits(np.frombuffer(folder.predictions.read_bytes(), np.uint8), count=len(labels))
    assert bits.astype(bool).tolist() == right.tolist()
    assert summary["metrics"]["top1"] == pytest.approx(100 * float(right.double().mean()))
    loss = -probability[torch.arange(len(labels)), labels].log().mean()
    assert summary["metrics"]["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_an_ensemble_of_two_answers_with_the_mean_of_their_probabilities(tmp_path: Path) -> None:
    first, second = tiny_spec(**TEACH), tiny_spec(**TEACH, seed=1000)
    both = observer(of(first, runs=2))
    assert both.member_run_ids == (first.run_id, second.run_id)
    trained(tmp_path, first, second, both)
    mean = (probabilities(first, tmp_path) + probabilities(second, tmp_path)) / 2
    assert_result_is(mean, folder_of(both, tmp_path), both, tmp_path)
    losses = [folder_of(spec, tmp_path).read_summary()["metrics"]["loss"] for spec in (first, second, both)]
    assert len(set(losses)) == 3


def test_the_answer_is_the_logarithm_of_a_probability(tmp_path: Path) -> None:
    """Which metrics beside accuracy and loss may need: two constant networks, 10 crops."""
    data = load_data(tiny_recipe(), machine_in(tmp_path))
    look = Viewing(resolution=16, eval_crop=0.875)
    scores = (torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([9.0, 0.0, 0.0, 0.0]))
    answerers = [Answerer(predict=lambda x, z=z: z.repeat(len(x), 1), look=look) for z in scores]
    logits = make_answers(answerers, data, crops=10, device=torch.device("cpu"))(torch.tensor([3, 5]))
    mean = sum(z.softmax(0) for z in scores) / 2
    assert torch.allclose(logits.exp(), mean.repeat(2, 1), atol=1e-6)


@pytest.mark.campaign
def test_members_of_two_arms_each_see_the_images_as_their_own_recipe_says(tmp_path: Path) -> None:
    small = DataSpec(name="generated", resolution=24, args=DATA_ARGS)
    first, other = tiny_spec(**TEACH), tiny_spec(**TEACH, data=small)
    both = observer(of(first), of(other))
    trained(tmp_path, first, other, both)
    mean = (probabilities(first, tmp_path) + probabilities(other, tmp_path)) / 2
    assert_result_is(mean, folder_of(both, tmp_path), both, tmp_path)


@pytest.mark.parametrize("crops", [10, 144])
def test_crops_answer_with_the_mean_of_their_probabilities(crops: int, tmp_path: Path) -> None:
    one = tiny_spec(**TEACH)
    many = observer(of(one), eval_crops=crops)
    trained(tmp_path, one, many)
    assert_result_is(probabilities(one, tmp_path, crops), folder_of(many, tmp_path), many, tmp_path)


def test_one_member_on_one_crop_is_its_own_result(tmp_path: Path) -> None:
    one = tiny_spec("ema", **TEACH, precision="bf16")
    alone = observer(of(one))
    trained(tmp_path, one, alone)
    assert results_of(alone, tmp_path) == results_of(one, tmp_path)


def results_of(spec: RunSpec, runs_dir: Path) -> tuple[Any, bytes]:
    folder = folder_of(spec, runs_dir)
    summary = folder.read_summary()
    assert summary is not None
    return summary["metrics"], folder.predictions.read_bytes()


def test_raw_weights_are_those_that_were_trained(tmp_path: Path) -> None:
    """Averaging does not touch the training, so they are the weights of a run without it."""
    plain = tiny_spec(**TEACH)
    averaged = tiny_spec(TrickSpec(name="ema", options={"decay": 0.999, "ramp": False}), **TEACH)
    raw, raw_of_plain = observer(of(averaged), eval_weights="raw"), observer(of(plain), eval_weights="raw")
    trained(tmp_path, plain, averaged, raw, raw_of_plain)
    assert results_of(raw, tmp_path) == results_of(raw_of_plain, tmp_path) == results_of(plain, tmp_path)
    assert results_of(raw, tmp_path) != results_of(averaged, tmp_path)
    assert not folder_of(plain, tmp_path).raw_weights.exists()


def test_the_record_is_that_of_a_run_of_no_steps(tmp_path: Path) -> None:
    first, second = tiny_spec(**TEACH), tiny_spec(**TEACH, seed=1000)
    both = observer(of(first, runs=2), eval_crops=10)
    trained(tmp_path, first, second, both)
    folder = folder_of(both, tmp_path)
    summary = folder.read_summary()
    assert summary is not None
    assert set(summary) == {*SUMMARY_KEYS, "built_on"}
    assert {path.name for path in folder.path.iterdir()} == {
        "spec.json", "events.jsonl", "env.json", "predictions.bin", "summary.json", "lock"
    }  # fmt: skip
    nothing = {"steps": 0, "images_seen": 0, "train_loss": None, "train_time_s": 0.0, "images_per_s": None}
    assert {key: summary[key] for key in nothing} == nothing
    recipe = both.arm.recipe
    params, macs = lookup(recipe.model.name, recipe.model.args, resolution=32, classes=4)
    assert (summary["params"], summary["macs"]) == (2 * params, 2 * 10 * macs)
    assert [event["kind"] for event in folder.read_events()] == ["attempt", "end"]


def test_it_stops_between_batches_and_evaluates_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "EVAL_BATCH", 10)  # three batches
    one = tiny_spec(**TEACH)
    many = observer(of(one), eval_crops=10)
    trained(tmp_path, one)
    assert train(many, tmp_path, stop_after(2), checkpoint_every_s=0.0) == "interrupted"
    assert folder_of(many, tmp_path).read_summary() is None
    assert train(many, tmp_path) == "finished"
    events = folder_of(many, tmp_path).read_events()
    assert [each["kind"] for each in events] == [
        "attempt", "evaluated", "evaluated", "stop", "attempt", "end"
    ]  # fmt: skip
    assert [(each["images"], each["of"]) for each in events[1:3]] == [(0, 30), (10, 30)]
    assert_result_is(probabilities(one, tmp_path, 10), folder_of(many, tmp_path), many, tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: folder.summary.unlink(), "member run .* has not ended"),
        (
            lambda folder: folder.weights.unlink(),
            r"member run .* has no weights\.pt; move .*summary\.json away",
        ),
        (
            lambda folder: folder.weights.write_bytes(b"PK"),
            r"weights\.pt that cannot be read \(it is damaged",
        ),
        (
            lambda folder: torch.save([1], folder.weights),
            r"weights\.pt that is damaged \(it holds no network",
        ),
        (lambda folder: folder.spec.unlink(), r"member run .* has a damaged summary\.json or spec\.json"),
    ],
)
def test_a_member_that_cannot_be_used_says_why(
    spoil: Callable[[RunFolder], None], message: str, tmp_path: Path
) -> None:
    one = tiny_spec(epochs=0.2)
    trained(tmp_path, one)
    spoil(folder_of(one, tmp_path))
    with pytest.raises(MemberError, match=message):
        train(observer(of(one)), tmp_path)


def test_missing_raw_weights_are_not_replaced_by_the_averaged_ones(tmp_path: Path) -> None:
    one = tiny_spec("ema", epochs=0.2)
    trained(tmp_path, one)
    folder_of(one, tmp_path).raw_weights.unlink()
    with pytest.raises(MemberError, match=r"no weights_raw\.pt"):
        train(observer(of(one), eval_weights="raw"), tmp_path)


@pytest.mark.campaign
def test_a_member_of_other_classes_is_refused(tmp_path: Path) -> None:
    one = tiny_spec(
        epochs=0.2, data=DataSpec(name="generated", resolution=32, args={**DATA_ARGS, "classes": 3})
    )
    trained(tmp_path, one)
    with pytest.raises(MemberError, match=r"member run .* knows 3 classes \(generated\), this run has 4"):
        train(observer(of(one)), tmp_path)
