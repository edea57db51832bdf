"""Networks of timm and torchvision as models of a study: architectures alone, and in words what is wrong."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
import torch

from harness.data.torchvision_import import torchvision
from harness.models import MODELS, VARIANTS, build_model, find, resolve, validate_model, zoo
from harness.models.blocks import Outputs
from harness.models.costs import lookup, measure
from harness.models.zoo import is_zoo_name, zoo_model

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


@pytest.mark.parametrize("name", [pytest.param("timm/resnet18", marks=needs_timm), "torchvision/resnet18"])
def test_a_library_s_network_is_a_model_without_arguments(name):
    model = find(name)
    assert (model.name, model.args, model.own_initialisation) == (name, {}, True)
    assert resolve(name, {}) == (name, {})
    validate_model(name, {})
    with pytest.raises(ValueError, match=f"{name}: unknown argument 'width'"):
        validate_model(name, {"width": 0.5})
    assert measure(name, {}, resolution=224, classes=1000) == (11_689_512, 1_814_073_344)
    assert build_model(name, {}, classes=7).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_it_keeps_its_own_initial_weights_whatever_the_recipe_says():
    torch.manual_seed(0)
    expected = torchvision.models.squeezenet1_1(weights=None, num_classes=5).state_dict()
    torch.manual_seed(0)
    found = build_model("torchvision/squeezenet1_1", {}, classes=5, initialisation="gaussian").state_dict()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


def test_nothing_asks_for_pretrained_weights(monkeypatch):
    def no_download(*_args, **_more):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_download)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_download)
    with torch.device("meta"):
        build_model("torchvision/mobilenet_v2", {}, classes=3)
        if importlib.util.find_spec("timm") is not None:
            build_model("timm/mobilenetv2_100", {}, classes=3)


@pytest.mark.parametrize(
    ("name", "side", "heads"), [("torchvision/googlenet", 96, 2), ("torchvision/inception_v3", 299, 1)]
)
def test_auxiliary_heads_are_answered_in_training_alone_and_cost_nothing(name, side, heads):
    with torch.device("meta"):
        net = build_model(name, {}, classes=4)
        images = torch.empty(2, 3, side, side)
    answer = net.train()(images)
    assert isinstance(answer, Outputs)
    assert [head.shape for head in (answer.logits, *answer.auxiliary)] == [(2, 4)] * (1 + heads)
    assert net.eval()(images).shape == (2, 4)
    params, _ = measure(name, {}, resolution=side, classes=4)
    heads_alone = [p.numel() for key, p in net.named_parameters() if key.lower().startswith("aux")]
    assert params + sum(heads_alone) == sum(p.numel() for p in net.parameters())
    assert heads_alone


def test_the_first_auxiliary_head_is_the_one_nearer_to_the_image():
    net = build_model("torchvision/googlenet", {}, classes=4).train()
    net.aux1.fc2.weight.data.zero_()
    net.aux1.fc2.bias.data.fill_(3.0)
    assert torch.equal(net(torch.randn(2, 3, 64, 64)).auxiliary[0], torch.full((2, 4), 3.0))


def test_the_googlenet_of_the_reference_table_is_torchvisions():
    assert VARIANTS["googlenet_torchvision"] == ("torchvision/googlenet", {})
    assert find("googlenet_torchvision").paper == "szegedy2015going"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param(
            "timm/resnet5O",
            r"unknown model 'timm/resnet5O'; did you mean 'timm/resnet50'\? timm has \d+, among them timm/",
            marks=needs_timm,
        ),
        (
            "torchvision/resnet51",
            r"unknown model 'torchvision/resnet51'; did you mean 'torchvision/resnet50'\?",
        ),
        (
            "torchvision/",
            r"unknown model 'torchvision/'\. torchvision has \d+, among them torchvision/alexnet, ",
        ),
    ],
)
def test_an_unknown_network_gets_the_nearest_and_a_few_names_never_all(name, message):
    for check in (
        zoo_model,
        find,
        lambda each: validate_model(each, {}),
        lambda each: build_model(each, {}, classes=2),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            check(name)
        assert len(str(caught.value)) < 300


@needs_timm
def test_pretrained_tags_and_remote_names_are_no_networks():
    for name in ("timm/resnet50.a1_in1k", "timm/hf-hub:timm/resnet50", "timm/hf_hub:timm/resnet50"):
        with pytest.raises(ValueError, match="unknown model"):
            find(name)


def test_without_timm_the_message_says_what_to_install(monkeypatch):
    zoo._names.cache_clear()
    monkeypatch.setattr(zoo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError) as caught:
        find("timm/resnet18")
    assert str(caught.value) == (
        "timm/resnet18: timm is not installed; install it with pip install 'ablation-harness[timm]'"
    )


@pytest.mark.parametrize("name", ["resnet50", "timm", "tim/resnet50", "nets/timm/resnet50"])
def test_other_names_are_not_a_library_s(name):
    assert not is_zoo_name(name)
    with pytest.raises(ValueError, match=r"is not a network of a library: timm/<name> or torchvision/<name>"):
        zoo_model(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("torchvision/vit_b_16", "Wrong image height! Expected 224 but got 64!"),
        ("torchvision/inception_v3", "Given input size: "),
    ],
)
def test_images_that_do_not_fit_are_refused_in_words_when_the_cost_is_asked(name, reason):
    with pytest.raises(ValueError, match=f"{name}: cannot take images of 64 x 64 pixels .{reason}"):
        lookup(name, {}, resolution=64, classes=10)


def test_images_that_fit_at_evaluation_but_not_the_auxiliary_head_are_refused_as_well():
    with pytest.raises(ValueError, match=r"torchvision/inception_v3: cannot take images of 96 x 96 pixels"):
        lookup("torchvision/inception_v3", {}, resolution=96, classes=10)


def test_grey_images_are_refused_where_the_library_has_no_argument_for_them():
    with pytest.raises(ValueError, match="torchvision/resnet18: takes images of 3 channels, not 1"):
        build_model("torchvision/resnet18", {}, classes=2, in_channels=1)


@pytest.mark.campaign
def test_torch_is_not_imported_before_such_a_name_is_used():
    code = (
        "import sys; from harness.models import MODELS, VARIANTS, find, zoo_model\n"
        "for name in (*MODELS, *VARIANTS): find(name)\n"
        "assert not {'torch', 'torchvision', 'timm'} & set(sys.modules)\n"
        "zoo_model('torchvision/resnet18'); assert 'torchvision' in sys.modules and 'timm' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert MODELS
