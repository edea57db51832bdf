"""The network of another run: a teacher's, a source's or an ensemble member's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from harness.study.machine import Machine
from harness.study.other_data import data_key, data_name
from harness.study.records import FINISHED, RunFolder, read_json
from harness.study.spec import RunSpec
from harness.training.kernels import LARGEST_BATCH, trust_kernels
from harness.training.network import build_network, make_tricks
from harness.training.tensors import TensorFileError, read_torch_file
from harness.tricks.base import Trick, hooks_of


class NeededRunError(RuntimeError):
    """A run that another one builds on is not there or does not fit."""

    role: ClassVar[str] = "needed"


class TeacherError(NeededRunError):
    """The teacher of a student."""

    role = "teacher"


class SourceError(NeededRunError):
    """The run whose weights a fine-tuning starts from."""

    role = "source"


class MemberError(NeededRunError):
    """A network that is evaluated with others."""

    role = "member"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRun:
    """A finished run of which the weights are there."""

    spec: RunSpec
    folder: RunFolder
    tricks: tuple[Trick, ...]
    classes: int
    data: str
    machine: Machine  # that uses it
    fingerprint: str  # of the data that it saw
    error: type[NeededRunError]

    def require_classes(self, classes: int, data: str) -> None:
        """
        Raises:
            NeededRunError: the network tells other classes apart than this run's data set has.
        """
        if self.classes != classes:
            raise self.error(
                f"{self.error.role} run {self.folder.run_id} knows {self.classes} classes ({self.data}), "
                f"this run has {classes} ({data})"
            )

    def require_same_data(self, spec: RunSpec, fingerprint: str) -> None:
        """
        Raises:
            NeededRunError: this run has the same data set as that of `spec`, and it has changed since.
        """
        same = data_key(self.spec.arm.recipe.data) == data_key(spec.arm.recipe.data)
        if same and self.fingerprint != fingerprint:
            raise self.error(
                f"{self.error.role} run {self.folder.run_id} saw other data than are there now: "
                f"{data_name(spec.arm.recipe.data)} has changed since; `harness run` trains it again"
            )

    def weights(self, *, raw: bool = False) -> dict[str, Any]:
        """The state dict of the network that the run evaluated; `raw`: of the one that it trained, which is
        another where a trick averages weights.

        Raises:
            NeededRunError: the file is missing or damaged.
        """
        path = self.folder.raw_weights if raw and evaluates_another(self.tricks) else self.folder.weights
        try:
            state = read_torch_file(path)
        except FileNotFoundError:
            raise self._unusable(f"has no {path.name}") from None
        except (OSError, TensorFileError) as error:
            raise self._unusable(f"has a {path.name} that cannot be read ({error})") from None
        if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
            raise self._unusable(f"has a {path.name} that is damaged (it holds no network)")
        return state

    def network(self, *, raw: bool = False) -> nn.Module:
        """The trained network in evaluation mode, on its device, without gradients.

        Raises:
            NeededRunError: as `weights`, or they are another network's.
            ValueError: a layer of it is computed wrongly on this CPU, whatever is tried.
        """
        state = self.weights(raw=raw)
        model = build_network(self.spec, self.tricks, classes=self.classes)
        try:
            model.load_state_dict(state)
        except RuntimeError:
            raise self._unusable("has weights that are damaged (they are another network's)") from None
        trust_kernels(model.eval(), self.spec, self.machine, batch=LARGEST_BATCH)
        return model.to(self.machine.device).requires_grad_(False)

    def _unusable(self, what: str) -> NeededRunError:
        return self.error(
            f"{self.error.role} run {self.folder.run_id} {what}; move {self.folder.summary} away and "
            "`harness run` of a study that has this run trains it again"
        )


def find_trained(run_id: str | None, machine: Machine, error: type[NeededRunError]) -> TrainedRun:
    """The finished run of this id; `error` says what it is needed for.

    Raises:
        NeededRunError: the run has not finished, or its record is damaged.
    """
    folder = RunFolder(machine.runs_dir / str(run_id))
    summary = folder.read_summary()
    if summary is None or summary["status"] != FINISHED:
        state = "has not ended" if summary is None else f"ended as '{summary['status']}'"
        if summary is None and folder.summary.exists():
            state = "has a damaged summary.json or spec.json, which counts as no end"
        raise error(f"{error.role} run {folder.run_id} {state}: this run needs it finished")
    spec = RunSpec.from_json(read_json(folder.spec))
    return TrainedRun(
        spec=spec,
        folder=folder,
        tricks=make_tricks(spec),
        classes=summary["classes"],
        data=summary["data"],
        machine=machine,
        fingerprint=str(summary.get("data_fingerprint")),
        error=error,
    )


def evaluates_another(tricks: tuple[Trick, ...]) -> bool:
    """Whether a trick evaluates another network than the trained one: then a run keeps both."""
    return any("edit_eval_model" in hooks_of(trick) for trick in tricks)
