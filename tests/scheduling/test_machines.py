"""What a machine has, read from files and variables as Linux, the driver and containers write them."""

from pathlib import Path

import pytest

from harness.runs import provenance
from harness.scheduling import base


@pytest.fixture
def two_gpus(tmp_path: Path) -> Path:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("visible", "devices"),
    [
        (None, ("cuda:0", "cuda:1")),
        ("1", ("cuda:0",)),
        ("1, 0", ("cuda:0", "cuda:1")),
        ("GPU-8f6a", ("cuda:0",)),
        ("0,-1,1", ("cuda:0",)),
        ("7", ("cpu",)),
        ("-1", ("cpu",)),
        ("", ("cpu",)),
    ],
)
def test_visible_devices_are_read_as_the_driver_reads_them(two_gpus, visible, devices):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert provenance.detect_devices(environment, two_gpus) == devices


@pytest.mark.parametrize(
    ("visible", "wrong"),
    [
        ("1,0", ""),
        ("", ""),
        ("-1", ""),
        ("0,-1", ""),
        ("GPU-aa,MIG-bb", ""),
        ("0,7", "'0,7' names 7, and this machine has GPUs 0 to 1; -1 trains on the CPU"),
        ("cuda:0", "'cuda:0' names cuda:0, and this machine has GPUs 0 to 1; -1 trains on the CPU"),
    ],
)
def test_a_visible_device_that_is_not_there_is_said_in_words(two_gpus, visible, wrong):
    assert provenance.wrong_visible({"CUDA_VISIBLE_DEVICES": visible}, two_gpus) == wrong
    assert provenance.wrong_visible({}, two_gpus) == ""


def test_without_a_device_file_there_is_only_the_cpu(tmp_path):
    (tmp_path / "nvidiactl").touch()
    assert provenance.detect_devices({"CUDA_VISIBLE_DEVICES": "0"}, tmp_path) == ("cpu",)


@pytest.mark.parametrize(
    ("own", "parent", "cores"),
    [("max 100000", "max 100000", 8), ("250000 100000", "max 100000", 2), ("max 100000", "50000 100000", 1)],
)
def test_cores_are_cut_by_the_tightest_quota_above_the_process(tmp_path, monkeypatch, own, parent, cores):
    monkeypatch.setattr(base.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    root = tmp_path / "cgroup"
    (root / "user" / "job").mkdir(parents=True)
    (root / "user" / "job" / "cpu.max").write_text(own + "\n")
    (root / "user" / "cpu.max").write_text(parent + "\n")
    membership = tmp_path / "membership"
    membership.write_text("4:memory:/elsewhere\n0::/user/job\n")
    assert base.available_cores(root, membership) == cores
    assert base.available_cores(root, tmp_path / "absent") == 8


@pytest.mark.parametrize(
    ("devices", "per_device", "cores", "workers"),
    [
        (("cpu",), 3, 2, 2),
        (("cuda:0",), 3, 16, 3),
        (("cuda:0", "cuda:1"), 4, 5, 5),
        (("cuda:0", "cuda:1"), 2, 1, 2),
    ],
)
def test_workers_are_bounded_by_cores_and_devices(monkeypatch, devices, per_device, cores, workers):
    monkeypatch.setattr(base, "available_cores", lambda: cores)
    assert base.default_workers(devices, per_device) == workers
