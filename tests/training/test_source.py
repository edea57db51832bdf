"""Fine-tuning: which weights are taken over, and what cannot be a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.spec import Arm, DataSpec, ModelSpec, RunSpec
from harness.training.setup import SourceError, build
from tests.training.runs import (
    DATA_ARGS,
    assert_same_bits,
    folder_of,
    load,
    machine_in,
    results,
    stop_after,
    tiny_recipe,
    tiny_spec,
    train,
)

THREE = DataSpec(name="generated", resolution=32, args={**DATA_ARGS, "classes": 3})


def tuned(source: RunSpec, **changes: Any) -> RunSpec:
    return RunSpec(arm=Arm(recipe=tiny_recipe(**changes), source=source.arm.arm_id), seed=0)


def start(spec: RunSpec, tmp_path: Path) -> dict[str, torch.Tensor]:
    return dict(build(spec, machine_in(tmp_path)).model.state_dict())


@pytest.fixture
def source(tmp_path: Path) -> RunSpec:
    spec = tiny_spec(epochs=1, lr=0.1)
    train(spec, tmp_path)
    return spec


def test_with_the_same_classes_every_weight_is_taken_over(source: RunSpec, tmp_path: Path) -> None:
    assert_same_bits(start(tuned(source), tmp_path), load(folder_of(source, tmp_path).weights))


def test_with_other_classes_the_last_layer_alone_is_new(source: RunSpec, tmp_path: Path) -> None:
    weights, theirs = start(tuned(source, data=THREE), tmp_path), load(folder_of(source, tmp_path).weights)
    fresh = start(tiny_spec(data=THREE), tmp_path)
    new = {name for name in weights if weights[name].shape != theirs[name].shape}
    assert new == {"fc.weight", "fc.bias"}
    for name, value in weights.items():
        assert torch.equal(value, fresh[name] if name in new else theirs[name])
    assert not torch.equal(weights["conv1.weight"], fresh["conv1.weight"])


def test_the_averaged_network_is_the_source_where_that_was_evaluated(tmp_path: Path) -> None:
    averaged = tiny_spec("ema", epochs=1)
    train(averaged, tmp_path)
    weights, folder = start(tuned(averaged), tmp_path), folder_of(averaged, tmp_path)
    assert_same_bits(weights, load(folder.weights))
    assert not torch.equal(weights["conv1.weight"], load(folder.raw_weights)["conv1.weight"])


def test_it_trains_on_and_resumes_in_the_same_bits(source: RunSpec, tmp_path: Path) -> None:
    spec = tuned(source, data=THREE, epochs=1)
    while train(spec, tmp_path, stop_after(2)) == "interrupted":
        pass
    stopped = results(folder_of(spec, tmp_path))
    for path in folder_of(spec, tmp_path).path.iterdir():
        path.unlink()
    train(spec, tmp_path)
    assert_same_bits(stopped, results(folder_of(spec, tmp_path)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            ModelSpec(name="resnet18", args={"depth": (2, 1, 1, 1), "width": 1 / 16}),
            r"\(resnet18\) has no layer 'layer1\.1\.conv1\.weight', which this network has \(resnet18\)$",
        ),
        (
            ModelSpec(name="resnet18", args={"depth": (1, 1, 1, 1), "width": 1 / 8}),
            r"differs from this network in 'conv1\.weight': \(4, 3, 7, 7\) of float32 there, \(8, 3, 7, 7\)",
        ),
    ],
)
def test_another_network_cannot_be_a_source(
    model: ModelSpec, message: str, source: RunSpec, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=message):
        train(tuned(source, model=model), tmp_path)


def test_a_source_that_has_not_ended_says_so(source: RunSpec, tmp_path: Path) -> None:
    folder_of(source, tmp_path).summary.unlink()
    with pytest.raises(SourceError, match=r"source run .* has not ended"):
        train(tuned(source), tmp_path)
