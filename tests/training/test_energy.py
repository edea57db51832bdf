"""Joules are differences of a device's own counter, over all attempts, and None wherever that is not sure."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.spec import Machine
from harness.training import environment
from harness.training.environment import CpuCounter, EnergyMeter, GpuCounter, open_counter

BUSY = "cpu  {busy} 0 0 999 0 0 0 0 0 0\n"


@dataclass
class Readings:
    """A counter that says these values in turn."""

    values: list[float | None]
    source: str = "test"

    def read_j(self) -> float | None:
        return self.values.pop(0)


def meter(*values: float | None, carried_j: float | None = 0.0) -> EnergyMeter:
    """One whose attempt began at the first value."""
    readings = Readings(list(values[1:]))
    return EnergyMeter(carried_j=carried_j, counter=readings, _start_j=values[0])


def test_energy_is_the_difference_and_earlier_attempts_are_added():
    assert meter(100.0, 130.0).joules() == 30
    assert meter(100.0, 130.0, carried_j=50.0).joules() == 80


@pytest.mark.parametrize(
    "lost",
    [
        meter(100.0, 130.0, carried_j=None),  # the part of an earlier attempt is not known
        meter(None, 130.0),  # nothing could be read when the attempt began
        meter(100.0, None),
        meter(100.0, 5.0),  # the counter began anew
        EnergyMeter(),  # no counter at all
    ],
)
def test_what_is_not_measured_in_full_is_not_measured_and_stays_so(lost: EnergyMeter):
    assert lost.joules() is None
    lost.counter, lost._start_j = Readings([1e6]), 0.0
    assert lost.joules() is None


def machine(**changes: object) -> Machine:
    return Machine(runs_dir=Path("runs"), data_dir=Path("data"), **changes)  # type: ignore[arg-type]


@dataclass
class FakeNvml:
    """What the calls of NVML answer; `energy_mj` by UUID."""

    energy_mj: dict[str, int]
    processes: int = 1
    fails: str = ""
    asked: list[str] = field(default_factory=list)

    def __getattr__(self, name: str):
        if name == self.fails:
            raise AttributeError(name)
        return lambda *arguments: self._call(name, *arguments)

    def _call(self, name: str, *arguments):
        if name == "nvmlDeviceGetHandleByUUID":
            uuid = arguments[0].decode()
            if uuid not in self.energy_mj:
                return 6  # NVML_ERROR_NOT_FOUND
            self.asked.append(uuid)
            arguments[1]._obj.value = len(self.asked)
        elif name == "nvmlDeviceGetTotalEnergyConsumption":
            arguments[1]._obj.value = self.energy_mj[self.asked[arguments[0].value - 1]]
        elif name == "nvmlDeviceGetComputeRunningProcesses_v3":
            arguments[1]._obj.value = self.processes
            return 7 if self.processes else 0  # NVML_ERROR_INSUFFICIENT_SIZE: the count is there
        return 0


def test_the_gpus_of_a_run_are_summed_in_joules():
    nvml = FakeNvml({"GPU-a": 1_500, "GPU-b": 2_000_000})
    assert GpuCounter(nvml, ["GPU-a", "GPU-b"]).read_j() == 2001.5


@pytest.mark.parametrize(("processes", "joules"), [(0, 1.5), (1, 1.5), (2, None)])
def test_a_gpu_that_another_process_uses_too_is_not_measured(processes: int, joules: float | None):
    assert GpuCounter(FakeNvml({"GPU-a": 1_500}, processes=processes), ["GPU-a"]).read_j() == joules


@pytest.mark.parametrize(
    "nvml",
    [
        FakeNvml({}),  # a slice of a GPU has no handle of its own
        FakeNvml({"GPU-a": 1}, fails="nvmlDeviceGetTotalEnergyConsumption"),  # an NVML before Volta
        FakeNvml({"GPU-a": 1}, fails="nvmlDeviceGetComputeRunningProcesses_v3"),
    ],
)
def test_where_nvml_cannot_tell_nothing_is_measured(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: nvml)
    monkeypatch.setattr(environment, "_uuid", lambda device: "GPU-a")
    assert open_counter(machine(device="cuda:0")) is None


def test_a_device_that_runs_share_and_ranks_on_other_nodes_are_not_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeNvml({"GPU-cuda:0": 1, "GPU-cuda:1": 1}))
    monkeypatch.setattr(environment, "_uuid", lambda device: f"GPU-{device}")
    two = ("cuda:0", "cuda:1")
    assert isinstance(open_counter(machine(device="cuda:0")), GpuCounter)
    assert isinstance(open_counter(machine(device="cuda:0", devices=two, processes=2)), GpuCounter)
    assert open_counter(machine(device="cuda:0", shared=True)) is None
    assert open_counter(machine(device="cuda:0", devices=two, processes=4)) is None


@dataclass
class Packages:
    """Two CPU packages as the powercap interface shows them; their counters go round at 1,000 J."""

    folder: Path
    now_s: float = 0.0

    def say(self, *joules: float, busy_s: float = 0.0) -> None:
        for number, value in enumerate(joules):
            package = self.folder / f"intel-rapl:{number}"
            package.mkdir(parents=True, exist_ok=True)
            (package / "energy_uj").write_text(f"{value * 1e6:.0f}\n")
            (package / "max_energy_range_uj").write_text("1000000000\n")
            (self.folder / f"intel-rapl:{number}:0").mkdir(exist_ok=True)  # a part of it, counted already
        (self.folder / "stat").write_text(BUSY.format(busy=round(100 * busy_s)))

    def counter(self) -> CpuCounter:
        found = CpuCounter.open(self.folder)
        assert found is not None
        found.clock, found.cpu_times = (lambda: self.now_s), self.folder / "stat"
        return found


def test_cpu_packages_are_summed_also_when_a_counter_goes_round(tmp_path: Path):
    packages = Packages(tmp_path)
    packages.say(100, 990)
    counter = packages.counter()
    start_j = counter.read_j()
    packages.now_s = 0.9
    packages.say(150, 20)
    end_j = counter.read_j()
    assert start_j is not None
    assert end_j is not None
    assert end_j - start_j == pytest.approx(50 + 30)


def test_a_counter_that_may_have_gone_round_unseen_is_not_believed(tmp_path: Path):
    packages = Packages(tmp_path)
    packages.say(100, 100)
    counter = packages.counter()
    counter.read_j()
    packages.now_s = 1.1  # 1,000 W fill it in a second
    assert counter.read_j() is None


def test_reading_in_time_keeps_it_believed(tmp_path: Path):
    packages = Packages(tmp_path)
    packages.say(0, 0)
    counter = packages.counter()
    counter.read_j()
    for step in range(1, 30):
        packages.now_s = step / 10
        packages.say(10 * step, 0)
        counter.read_in_time()
    assert counter.read_j() == pytest.approx(290)


def test_cpus_that_another_process_kept_busy_are_not_measured(tmp_path: Path):
    packages = Packages(tmp_path)
    packages.say(0, 0)
    counter = packages.counter()
    counter.read_j()
    packages.say(10, 10, busy_s=60)
    assert counter.read_j() is None


def test_a_machine_that_shows_no_counter_has_none(tmp_path: Path):
    assert CpuCounter.open(tmp_path) is None
    Packages(tmp_path).say(1)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert CpuCounter.open(tmp_path) is None
