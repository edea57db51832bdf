"""The last batch normalisation of each residual block starts at gamma = 0."""

import dataclasses

import pytest
import torch

from harness.models import MODELS, build_model
from harness.spec import ModelSpec
from harness.tricks.zero_gamma import ZeroGamma
from tests.tricks import tiny

SMALL = {"depth": (1, 2, 1, 1), "width": 0.25}


def test_it_sets_the_model_argument_and_nothing_else() -> None:
    before = tiny.recipe()
    expected = dataclasses.replace(before, model=before.model.with_args(zero_gamma=True))
    assert ZeroGamma().edit_recipe(before) == expected


def test_a_model_without_residual_blocks_is_refused() -> None:
    plain = dataclasses.replace(tiny.recipe(), model=ModelSpec(name="mobilenet", args={"width": 1.0}))
    with pytest.raises(ValueError, match="zero_gamma needs residual blocks: mobilenet has no argument 'zero"):
        ZeroGamma().edit_recipe(plain)


def test_the_network_starts_with_one_zero_gamma_per_block_and_is_blind_to_its_branches() -> None:
    """5 blocks: 5 batch normalisations at 0. Noise in a branch's first convolution then changes nothing."""
    args = ZeroGamma().edit_recipe(_recipe()).model.args
    torch.manual_seed(0)
    model = build_model("resnet50", args, classes=10).eval()
    zero = [name for name, p in model.named_parameters() if p.ndim == 1 and p.numel() and not p.any()]
    assert len([name for name in zero if name.endswith("weight")]) == 5
    images = torch.randn(2, 3, 32, 32)
    before = model(images)
    noisy = next(m for n, m in model.named_modules() if "layer2.1" in n and isinstance(m, torch.nn.Conv2d))
    with torch.no_grad():
        noisy.weight.add_(1.0)
    torch.testing.assert_close(model(images), before, rtol=0, atol=0)


def _recipe() -> object:
    args = {**MODELS["resnet50"].args, **SMALL}
    return dataclasses.replace(tiny.recipe(), model=ModelSpec(name="resnet50", args=args))
