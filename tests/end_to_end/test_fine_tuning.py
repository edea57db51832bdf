"""From trained weights and photos to a report, as docs/fine_tuning.md shows it; and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.commands.workspace import plan_of
from harness.errors import StudyError
from harness.models import build_model, zoo
from harness.models.zoo import find_file, pretrained_file
from harness.study.expand import ExpandOptions
from harness.study.plan import Plan
from harness.tracking.content import parameters
from tests.end_to_end.workplace import ROOT, Workplace

PAGE = ROOT / "docs" / "fine_tuning.md"
SMALL = "{width: 0.0625, depth: [1, 1, 1, 1]}"
ROWS = ("from scratch", "fine-tuned", "backbone frozen", "backbone at a tenth of the rate")


def blocks(language: str) -> list[str]:
    """The fenced blocks of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def the_study() -> str:
    """The page's, on a network and for a time that a test can wait for."""
    text = blocks("yaml")[0].replace("epochs: 30", "epochs: 0.5").replace("seeds: 3", "seeds: 2")
    text = text.replace("resolution: 64", "resolution: 32").replace(
        "model: resnet18}", f"model: {{resnet18: {SMALL}}}}}"
    )
    return text.replace("weights: net.safetensors}", f"weights: net.pt, {SMALL[1:]}")


def photos(folder: Path, images: int = 300, classes: int = 3) -> None:
    rng = np.random.default_rng(0)
    for number in range(images):
        label = number % classes
        pixels = rng.integers(0, 60, (24, 30, 3), np.uint8)
        pixels[:, :, label % 3] += 120
        path = folder / "photos" / f"class{label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def net(file: Path, classes: int = 10) -> None:
    torch.manual_seed(1)
    args = {"width": 0.0625, "depth": (1, 1, 1, 1)}
    torch.save(build_model("resnet18", args, classes=classes).state_dict(), file)


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    photos(tmp_path)
    net(tmp_path / "net.pt")
    (tmp_path / "photos.yaml").write_text(the_study())
    return Workplace(tmp_path)


def test_photos_and_weights_become_a_report_in_two_commands(place: Workplace) -> None:
    commands = [line.split()[1:] for line in blocks("sh")[0].splitlines()]
    plan, run = (place.call(*each) for each in commands)
    assert (plan.returncode, run.returncode) == (0, 0), plan.stderr + run.stderr
    assert "training starts from net.pt (sha256 " in " ".join(plan.stdout.split())
    report = json.loads((place.path / "reports" / "photos" / "report.json").read_text())
    (table,) = report["findings"]["tables"]
    assert [cell["row"] for cell in table["cells"]] == list(ROWS)
    assert all(0 <= cell["level"]["mean"] <= 100 for cell in table["cells"])
    assert report["findings"]["settings"]["percent"] is True
    said = (place.path / "reports" / "photos" / "details.md").read_text()
    assert "model.weights: not set → file of sha256 " in said
    assert "freeze: not set → backbone" in said
    assert "lr_scale.backbone: not set → 0.1" in said
    records = [folder.read_summary() or {} for folder in place.folders()]
    assert all({"f1", "auroc", "balanced_accuracy"} <= set(each["metrics"]) for each in records)
    assert (
        sorted(str(each.get("initialised")) for each in records) == ["None"] * 2 + ["fc.weight, fc.bias"] * 6
    )
    specs = [json.loads(folder.spec.read_text()) for folder in place.folders()]
    assert {parameters(spec).get("lr_scale") for spec in specs} == {None, "backbone x 0.1"}


# What is refused before anything is trained.

BASE = """study: tuned
question: Q?
baseline:
  model: MODEL
  recipe: fine_tuning
  set: {data: fashion_mnist, resolution: 28, epochs: 1}
arms: {other: {model: resnet18}}
tables:
  t:
    title: T
    design: rows
    rows:
      - ROW
"""
LINE = {"MODEL": 4, "ROW": 13}


def planned(folder: Path, model: str, row: str = "{label: a}", name: str = "tuned.yaml") -> Plan:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(BASE.replace("MODEL", model).replace("ROW", row))
    return plan_of(path, folder, ExpandOptions())


WITH = "{resnet18: {weights: net.pt}}"
TUNED = "{label: a, add: {fine_tuning: {source: other}}}"
MISTAKES = {
    "no such file": (
        "{resnet18: {weights: ne.pt}}",
        "",
        r"no file of weights ne\.pt; did you mean 'net\.pt'\? \S+ has net\.pt$",
    ),
    "no such folder": (
        "{resnet18: {weights: nets/net.pt}}",
        "",
        r"no file of weights net\.pt; no folder \S+/nets$",
    ),
    "no file of weights": (
        "{resnet18: {weights: tuned.yaml}}",
        "",
        r"ends in \.safetensors, .*got tuned\.yaml$",
    ),
    "no name": ("{resnet18: {weights: 3}}", "", "weights must be the name of a file, got 3"),
    "a misspelt option": (
        "{resnet18: {weigths: net.pt}}",
        "",
        r"unknown option 'weigths'; did you mean 'weights'\?",
    ),
    "two starts": (
        "{resnet18: {weights: net.pt, pretrained: true}}",
        "",
        "weights name a file, or pretrained is true",
    ),
    "pretrained of our own": (
        "{resnet18: {pretrained: true}}",
        "",
        r"resnet18 is the harness's own and has no .*\(torchvision/resnet18\)",
    ),
    "pretrained of no truth": (
        "{resnet18: {pretrained: 1.5}}",
        "",
        "pretrained must be true or false, got 1.5",
    ),
    "weights and a source": (WITH, TUNED, "from a file of weights and the trick from a source"),
    "weights and zero gamma": (WITH, "{label: a, add: zero_gamma}", "zero_gamma says how a training starts"),
    "the whole network frozen": (
        WITH,
        "{label: a, set: {freeze: [classifier, backbone]}}",
        "must leave something to learn",
    ),
    "a rate of 0": (
        WITH,
        "{label: a, set: {lr_scale: {backbone: 0}}}",
        r"lr_scale\.backbone must be greater than 0; a part .*'freeze'",
    ),
    "a negative rate": (
        WITH,
        "{label: a, set: {lr_scale: {backbone: -0.1}}}",
        r"lr_scale\.backbone must be greater than 0, got -0\.1",
    ),
    "a rate that is text": (WITH, "{label: a, set: {lr_scale: backbone}}", r"set\.lr_scale must be a map"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_sentence_with_its_line(what: str, tmp_path: Path) -> None:
    model, row, message = MISTAKES[what]
    net(tmp_path / "net.pt")
    with pytest.raises(StudyError) as caught:
        planned(tmp_path, model, row or "{label: a}")
    (problem,) = {(each.line, each.message) for each in caught.value.problems}
    assert re.search(message, problem[1])
    assert problem[0] == LINE["ROW" if row else "MODEL"]


def test_the_run_is_the_content_and_the_parts_not_their_order_or_place(tmp_path: Path) -> None:
    net(tmp_path / "net.pt")
    row = "{label: a, set: {freeze: [conv1, bn1], lr_scale: {fc: 1}}}"
    plan = planned(tmp_path, WITH, row)
    (tmp_path / "nets").mkdir()
    (tmp_path / "net.pt").rename(tmp_path / "nets" / "moved.pth")
    moved = planned(
        tmp_path,
        "{resnet18: {weights: ../nets/moved.pth}}",
        "{label: a, set: {freeze: [bn1, conv1]}}",
        "b/c.yaml",
    )
    assert [run.run_id for run in moved.runs] == [run.run_id for run in plan.runs]
    assert [Path(file).name for file in moved.weights.values()] == ["moved.pth"]
    net(tmp_path / "net.pt", classes=9)
    assert {run.run_id for run in planned(tmp_path, WITH, row).runs}.isdisjoint(
        run.run_id for run in plan.runs
    )


def test_weights_and_parts_that_are_not_the_network_s_are_said_before_anything_is_trained(
    place: Workplace,
) -> None:
    path = place.path / "photos.yaml"
    wider = the_study().replace("weights: net.pt, width: 0.0625", "weights: net.pt, width: 0.125")
    frozen = the_study().replace("freeze: backbone", "freeze: backbon")
    said = {
        wider: r"net\.pt differs from this network in 'conv1\.weight': \(4, 3, 7, 7\) .*\(resnet18\)",
        frozen: r"backbone frozen: unknown part of the network 'backbon'; did you mean 'backbone'\?",
    }
    for text, message in said.items():
        path.write_text(text)
        done = place.call("run", "photos.yaml", "--data", ".")
        assert done.returncode == 2
        assert re.search(message, done.stderr)
        assert "1 problem; nothing was started." in done.stderr
    assert place.folders() == []


# Files, and what libraries keep on this machine.


def test_an_entry_of_a_file_is_named_after_a_colon_unless_the_file_s_own_name_has_it(tmp_path: Path) -> None:
    for name in ("net.pt", "a:b.pt"):
        (tmp_path / name).touch()
    assert find_file("net.pt:model_ema", tmp_path) == (tmp_path / "net.pt", "model_ema")
    assert find_file("a:b.pt", tmp_path) == (tmp_path / "a:b.pt", "")


def test_pretrained_weights_are_those_in_the_library_s_cache_and_else_it_says_what_is_missing_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    with pytest.raises(
        ValueError,
        match=rf"resnet18-f37072fd\.pth is not in {tmp_path}/checkpoints, and nothing is downloaded",
    ):
        pretrained_file("torchvision/resnet18")
    file.parent.mkdir()
    file.touch()
    assert pretrained_file("torchvision/resnet18") == file
    monkeypatch.setattr(zoo._torchvision().models, "get_model_weights", lambda network: ())
    with pytest.raises(ValueError, match="torchvision has no pretrained weights of"):
        pretrained_file("torchvision/resnet18")


def test_timm_s_files_are_those_of_its_hub_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"model\.safetensors of timm/resnet18\.a1_in1k is not in .*hf download timm/"
    ):
        pretrained_file("timm/resnet18.a1_in1k")
    kept = tmp_path / "models--timm--resnet18.a1_in1k"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("1" * 40)
    (kept / "snapshots" / ("1" * 40)).mkdir(parents=True)
    file = kept / "snapshots" / ("1" * 40) / "model.safetensors"
    file.touch()
    assert pretrained_file("timm/resnet18.a1_in1k") == file
