"""Runs that use a plugin: its trick, model, metric or training function, from the store beside the runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.plugins.install import METRICS, TRAINERS, save
from harness.plugins.load import Plugin, PluginError
from harness.runs.folder import RunFolder
from harness.scheduling.workers import attempt
from harness.spec import Machine, ModelSpec, RunSpec
from harness.training.run import check_answer, run_one
from harness.tricks import TRICKS
from tests.plugins.sources import METRIC, MODEL, TRAINER, TRICK, loaded
from tests.training.runs import tiny_spec

TEST_IMAGES = 30  # of the tiny spec's data


def spec_with(plugin: Plugin, *tricks: str, seed: int = 0, **changes: Any) -> RunSpec:
    spec = tiny_spec(*tricks, seed=seed, **changes)
    return dataclasses.replace(spec, arm=dataclasses.replace(spec.arm, plugins={plugin.name: plugin.sha256}))


def run(spec: RunSpec, runs: Path, stop: Callable[[], bool] = lambda: False) -> str:
    return run_one(spec, RunFolder(runs / spec.run_id), Machine(runs_dir=runs, data_dir=runs), stop)


def summary(spec: RunSpec, runs: Path) -> dict[str, Any]:
    found = RunFolder(runs / spec.run_id).read_summary()
    assert found is not None
    return found


@pytest.mark.campaign
def test_a_run_uses_the_stored_trick_model_and_metric_and_leaves_no_trace(tmp_path: Path) -> None:
    plugin = loaded(tmp_path, TRICK + MODEL + METRIC)
    save(plugin, tmp_path)
    model = ModelSpec(name="tiny_net", args={"width": 1.0})
    spec = spec_with(plugin, "halves", model=model, metrics=("confidence",), epochs=1, milestones=())
    assert run(spec, tmp_path) == "finished"
    assert 0 < summary(spec, tmp_path)["metrics"]["confidence"] <= 1
    assert ("halves" in TRICKS, "confidence" in METRICS) == (False, False)


def test_a_run_without_the_plugin_has_the_same_bits_before_and_after_one_with_it(tmp_path: Path) -> None:
    """A warm worker trains both."""
    plugin = loaded(tmp_path, TRICK)
    save(plugin, tmp_path)
    plain = tiny_spec(epochs=1, milestones=())
    with_it = spec_with(plugin, "halves", epochs=1, milestones=())
    assert run(plain, tmp_path / "before") == "finished"
    assert run(with_it, tmp_path) == "finished"
    assert run(plain, tmp_path / "after") == "finished"
    before, after = (RunFolder(tmp_path / each / plain.run_id) for each in ("before", "after"))
    assert before.weights.read_bytes() == after.weights.read_bytes()
    assert before.weights.read_bytes() != RunFolder(tmp_path / with_it.run_id).weights.read_bytes()


def test_a_run_without_its_plugin_in_the_store_fails_in_words(tmp_path: Path) -> None:
    spec = spec_with(loaded(tmp_path, TRICK), "halves")
    machine = Machine(runs_dir=tmp_path, data_dir=tmp_path)
    assert attempt(run_one, spec, machine, lambda: False) == "failed"
    event = RunFolder(tmp_path / spec.run_id).read_events()[-1]
    assert "my_lab.py: is not in the store of the runs folder" in event["message"]


LOGGING = """
import json


def train(spec, run):
    data = run.data()
    place = run.folder / "state.json"
    epoch = json.loads(place.read_text()) if place.exists() else 0
    while epoch < 4:
        if run.should_stop():
            place.write_text(json.dumps(epoch))
            return None
        epoch += 1
        run.log(step=10 * epoch, epoch=epoch, val_top1=20 * epoch, train_loss=1 / epoch)
    import torch
    right = torch.rand(len(data.test.labels)) < 0.5
    return {"top1": 100 * right.float().mean(), "top5": 99.0, "loss": 0.5, "correct": right}


TRAINERS = {"mine": train}
"""


def custom(tmp_path: Path, text: str, **changes: Any) -> RunSpec:
    plugin = loaded(tmp_path, text)
    save(plugin, tmp_path)
    return spec_with(plugin, trainer=next(iter(plugin.tables.trainers)), **changes)


def test_a_training_function_leaves_the_record_of_a_run(tmp_path: Path) -> None:
    spec = custom(tmp_path, LOGGING)
    assert run(spec, tmp_path) == "finished"
    found = summary(spec, tmp_path)
    folder = RunFolder(tmp_path / spec.run_id)
    right = np.unpackbits(np.frombuffer(folder.predictions.read_bytes(), np.uint8))[:TEST_IMAGES]
    assert found["metrics"]["top1"] == pytest.approx(100 * right.mean())
    assert (found["metrics"]["top5"], found["metrics"]["loss"]) == (99.0, 0.5)
    assert (found["steps"], found["images_seen"], found["images_per_s"]) == (0, 0, None)
    assert found["train_loss"] == 0.25
    plain = tiny_spec(epochs=1, milestones=())
    run(plain, tmp_path)
    assert set(found) == set(summary(plain, tmp_path))
    curve = [event for event in folder.read_events() if event["kind"] == "epoch"]
    assert [(event["step"], event["epoch"], event["val_top1"]) for event in curve] == [
        (10, 1, 20), (20, 2, 40), (30, 3, 60), (40, 4, 80),
    ]  # fmt: skip
    assert TRAINERS == {}


def test_torchs_generator_is_seeded_from_the_runs_seed(tmp_path: Path) -> None:
    one, other = custom(tmp_path, LOGGING), custom(tmp_path, LOGGING, seed=1)
    for folder in ("a", "b"):
        for spec in (one, other):
            (tmp_path / folder).mkdir(exist_ok=True)
            save(loaded(tmp_path, LOGGING), tmp_path / folder)
            run(spec, tmp_path / folder)
    bits = [
        RunFolder(tmp_path / folder / spec.run_id).predictions.read_bytes()
        for spec in (one, other)
        for folder in ("a", "b")
    ]
    assert bits[0] == bits[1]
    assert bits[2] == bits[3]
    assert bits[0] != bits[2]


def test_an_interrupted_function_goes_on_with_its_own_files(tmp_path: Path) -> None:
    spec = custom(tmp_path, LOGGING)
    asked = iter([False, False, True, True])
    assert run(spec, tmp_path, lambda: next(asked)) == "interrupted"
    folder = RunFolder(tmp_path / spec.run_id)
    assert folder.read_summary() is None
    assert json.loads((folder.path / "trainer" / "state.json").read_text()) == 2
    assert run(spec, tmp_path) == "finished"
    curve = [event["step"] for event in folder.read_events() if event["kind"] == "epoch"]
    assert curve == [10, 20, 30, 40]
    assert summary(spec, tmp_path)["attempts"] == 2


def test_a_function_that_ends_although_it_was_asked_to_stop_has_ended(tmp_path: Path) -> None:
    text = TRAINER.replace("    return {", "    run.should_stop()\n    return {")
    spec = custom(tmp_path, text)
    assert run(spec, tmp_path, lambda: True) == "finished"


def test_an_exception_in_the_function_is_a_failed_run_with_its_line(tmp_path: Path) -> None:
    text = (
        "def train(spec, run):\n    import json\n    return json.loads('{')\n\n\nTRAINERS = {'mine': train}\n"
    )
    spec = custom(tmp_path, text)
    machine = Machine(runs_dir=tmp_path, data_dir=tmp_path)
    assert attempt(run_one, spec, machine, lambda: False) == "failed"
    event = RunFolder(tmp_path / spec.run_id).read_events()[-1]
    assert "my_lab.py:3: trainer 'mine' failed: JSONDecodeError" in event["message"]
    with pytest.raises(PluginError):
        run(spec, tmp_path)


def test_a_trainer_that_no_plugin_of_the_run_has_is_named(tmp_path: Path) -> None:
    plugin = loaded(tmp_path, TRAINER)
    save(plugin, tmp_path)
    with pytest.raises(ValueError, match="unknown trainer 'gues'; did you mean 'guess'"):
        run(spec_with(plugin, trainer="gues"), tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "it returned None, although it was not asked to stop"),
        (71.3, "must return a dict with 'top1' in percent; it returned 71.3"),
        ({"accuracy": 0.7}, "must return a dict with 'top1'"),
        ({"top1": 101}, "top1 must be a percentage from 0 to 100, got 101"),
        ({"top1": float("nan")}, "top1 must be a percentage"),
        ({"top1": "high"}, "top1 must be a percentage"),
        ({"top1": 50, "top6": 60}, "unknown key 'top6'; did you mean 'top5'?"),
        ({"top1": 50, "loss": float("inf")}, "loss must be a finite number"),
        ({"top1": 50, "correct": [True]}, "correct must have one truth value for each of the 4 test images"),
        ({"top1": 50, "correct": [0, 1, 0, 1]}, "of type int64"),
        ({"top1": 80, "correct": [True, False, True, False]}, "top1 is 80, but correct says 50 percent"),
    ],
)
def test_answers_that_are_no_results_are_refused(given: Any, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_answer(given, "mine", images=4)
    assert words in str(caught.value)


def test_answers_may_leave_out_what_they_do_not_know() -> None:
    found = check_answer({"top1": np.float32(75), "top5": None}, "mine", images=4)
    assert (found.metrics, found.predictions) == ({"top1": 75.0}, None)
    rounded = {"top1": 33.3, "correct": np.array([True, False, False])}
    assert check_answer(rounded, "mine", images=3).predictions == b"\x80"


def test_a_metric_that_the_study_asks_for_must_be_returned() -> None:
    assert check_answer({"top1": 1, "ece": 0.1}, "mine", images=4, extra=("ece",)).metrics["ece"] == 0.1
    with pytest.raises(ValueError, match="did not return the study's metric 'ece'"):
        check_answer({"top1": 1}, "mine", images=4, extra=("ece",))


LOGITS = """
import torch

def train(spec, run):
    labels = run.data().test.labels
    logits = torch.nn.functional.one_hot(labels, 4).float() * 3
    logits[:6] = -logits[:6]
    return {"logits": logits FURTHER}

def confidence(logits, labels):
    return logits.softmax(1).amax(1).mean()

TRAINERS = {"mine": train}
METRICS = {"confidence": confidence}
"""


def test_logits_are_measured_by_the_harness_with_the_studys_metrics(tmp_path: Path) -> None:
    spec = custom(tmp_path, LOGITS.replace(" FURTHER", ""), metrics=("confidence",))
    assert run(spec, tmp_path) == "finished"
    found = summary(spec, tmp_path)["metrics"]
    assert found["top1"] == 100 * 24 / 30
    assert found["top5"] == 100
    assert set(found) == {"top1", "top5", "loss", "confidence"}


@pytest.mark.parametrize("further", [", 'top1': 50", "[:5]", ".argmax(1)"])
def test_logits_of_another_form_are_refused(tmp_path: Path, further: str) -> None:
    spec = custom(tmp_path, LOGITS.replace(" FURTHER", further))
    with pytest.raises(ValueError, match=r"logits must be alone and of shape \(30, classes\)"):
        run(spec, tmp_path)
