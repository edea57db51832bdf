"""torchvision imports beside a torch without its compiled operators; other errors are not swallowed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FAKE = {
    "needs_schema": """
import torch
@torch.library.register_fake("torchvision::nms")
def fake(dets, scores, iou_threshold): return dets
from torchvision import transforms
""",
    "other": "print('tried'); raise RuntimeError('some other failure')",
}


def run_with(tmp_path: Path, init: str) -> subprocess.CompletedProcess[str]:
    """Import through the cure in a new process in which `torchvision` is the fake package `init`."""
    package = tmp_path / "torchvision"
    (package / "transforms" / "v2").mkdir(parents=True)
    (package / "__init__.py").write_text(init)
    (package / "transforms" / "__init__.py").write_text("")
    (package / "transforms" / "v2" / "__init__.py").write_text("")
    code = "from harness.data.torchvision_import import torchvision; print('imported', torchvision.__name__)"
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(tmp_path), str(root)])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.campaign
def test_a_torchvision_without_its_extension_is_imported(tmp_path: Path) -> None:
    done = run_with(tmp_path, FAKE["needs_schema"])
    assert done.stdout.strip() == "imported torchvision", done.stderr


@pytest.mark.campaign
def test_another_failure_is_raised_as_it_is(tmp_path: Path) -> None:
    done = run_with(tmp_path, FAKE["other"])
    assert done.returncode != 0
    assert "RuntimeError: some other failure" in done.stderr
    assert done.stdout.split() == ["tried"]  # not imported a second time


def test_the_real_one_has_what_the_harness_uses() -> None:
    from harness.data.torchvision_import import torchvision

    assert torchvision.models.resnet50
    assert torchvision.datasets.CIFAR10
    assert torchvision.transforms.v2.functional.resized_crop
