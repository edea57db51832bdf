"""Files of weights; the weights that a training starts from; which parts of the network learn, how fast."""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.errors import unknown
from harness.runs.folder import write_bytes
from harness.runs.provenance import weights_file
from harness.spec import BACKBONE, CLASSIFIER, RunSpec
from harness.tricks.base import ParameterGroup

# Files of tensors: written atomically, read without executing anything.


def write_torch_file(path: Path, state: Any) -> None:
    """Write plain data and tensors for `read_torch_file`; a reader sees the old file or the new one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


class TensorFileError(ValueError):
    """A file of tensors is damaged, or would execute code when read."""


def read_torch_file(file: Path | IO[bytes], *, mmap: bool = False) -> Any:
    """Plain data and tensors, on the CPU; `mmap`: tensors stay in the file until they are used.

    Raises:
        OSError: there is no file that can be read.
        TensorFileError: it is damaged, or would execute code. torch's own words are left out: they advise to
            read it all the same.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, MemoryError):
        raise
    except Exception:  # what a damaged zip or pickle raises depends on where the damage is
        raise TensorFileError("it is damaged, or holds something other than tensors and plain data") from None


# A file of trained weights that a study names for a model.


State = Mapping[str, Tensor]
WRAPPINGS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")  # of wrapped, compiled, held networks
COUNTERS = ("num_batches_tracked", "n_averaged")  # of steps: not there in older files, and no weights


class WeightsError(ValueError):
    """A file of weights cannot be the start of a training; in words."""


def read_weights(path: Path, key: str = "") -> dict[str, Tensor]:
    """The state dict of a network in a `.safetensors` file or one of torch's, without what it is wrapped in.

    Args:
        key: the entry that holds it, where the file has several.

    Raises:
        WeightsError: it is no file of weights, is damaged, or holds several networks and none is named.
    """
    try:
        state = _read(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    except TensorFileError as error:
        raise WeightsError(f"{path} is no file of weights: {error}") from None
    return _unwrapped(state, path, key)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError:
            raise TensorFileError(
                "it is damaged, cut short or in another format than its name says"
            ) from None
    # What torchvision's and timm's scripts were called with stands in their files: plain values.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return read_torch_file(path, mmap=zipfile.is_zipfile(path))


def _unwrapped(state: Any, path: Path, key: str) -> dict[str, Tensor]:
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} holds a {type(state).__name__}, and no network's state dict")
    if key and key not in state:
        raise WeightsError(f"{path}: {unknown('entry', key, map(str, state))}")
    if not key and not _is_state(state):
        key = _only_network(state, path)
    inside = state[key] if key else state
    if not _is_state(inside):
        raise WeightsError(f"{path} holds no network's state dict{f' as {key!r}' if key else ''}")
    found = {str(name): value for name, value in inside.items() if name not in COUNTERS}
    while prefix := next((each for each in PREFIXES if all(name.startswith(each) for name in found)), ""):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(each, Tensor) for each in value.values())
    )


def _only_network(state: Mapping[Any, Any], path: Path) -> str:
    plain, averages = ([each for each in names if each in state] for names in (WRAPPINGS, AVERAGES))
    if averages:
        several = f"'{plain[0]}' and an average of its weights," if plain else "an average of weights,"
        such = f"{path.name}:{(plain or averages)[0]}"
        raise WeightsError(f"{path} holds {several} '{averages[0]}'; name the one you mean, as in {such}")
    if not plain:
        shown = ", ".join(map(repr, list(state)[:5])) or "nothing"
        raise WeightsError(f"{path} holds no network's state dict: it has {shown}")
    return plain[0]


# The weights of a trained network, given to one that was built for other classes.


def class_layers(build: Callable[..., nn.Module], classes: int) -> frozenset[str]:
    """Names of the parameters whose first dimension is the number of classes: the classifier's, and those of
    auxiliary heads. They are the ones of another shape in the same network for one class more.

    Args:
        build: with classes=K, the network for K classes.
    """
    ours, more = (without_storage(build, count).state_dict() for count in (classes, classes + 1))
    return frozenset(name for name, own in ours.items() if not _is_same(more.get(name), own))


def without_storage(build: Callable[..., nn.Module], classes: int) -> nn.Module:
    """The network, to look at its shapes; with storage where its constructor looks at values."""
    try:
        with torch.device("meta"):
            return build(classes=classes)
    except (RuntimeError, NotImplementedError):
        return build(classes=classes)


def take_over(model: nn.Module, theirs: State, heads: frozenset[str]) -> tuple[str, ...]:
    """Give the network these weights, in place; returns and raises as `compare`."""
    ours = model.state_dict()
    new = compare(ours, theirs, heads)
    given = {name: own if name in new else theirs.get(name, own) for name, own in ours.items()}
    model.load_state_dict(given)
    return new


def compare(ours: State, theirs: State, heads: frozenset[str]) -> tuple[str, ...]:
    """Whether weights are this network's. Those with one row for each class (`heads`) may be for another
    number of classes, or not there.

    Returns:
        the names of those, which then stay as they were initialised.

    Raises:
        WeightsError: the weights are another network's, or not finite; what it says follows the file's name.
    """
    new = tuple(name for name in ours if name in heads and not _is_same(theirs.get(name), ours[name]))
    for name, own in ours.items():
        other = theirs.get(name)
        if other is None and name not in heads and not name.endswith(COUNTERS):
            raise WeightsError(f"has no layer '{name}', which this network has")
        if other is None or name.endswith(COUNTERS):
            continue
        rows = 1 if name in heads else 0  # of a head, the number of rows is that of classes
        if other.ndim != own.ndim or other.shape[rows:] != own.shape[rows:] or not other.is_floating_point():
            there, here = (f"{tuple(each.shape)} of {str(each.dtype)[6:]}" for each in (other, own))
            raise WeightsError(f"differs from this network in '{name}': {there} there, {here} here")
        if name not in new and not bool(other.isfinite().all()):
            raise WeightsError(f"has NaN or infinity in '{name}'")
    extra = next((name for name in theirs if name not in ours and not name.endswith(COUNTERS)), None)
    if extra is not None:
        raise WeightsError(f"has a layer '{extra}', which this network has not")
    return new


def _is_same(other: Tensor | None, own: Tensor) -> bool:
    return other is not None and other.shape == own.shape


def weights_of(spec: RunSpec, runs_dir: Path) -> tuple[Path, State]:
    """The file that the run's model starts from, and what is in it.

    Raises:
        WeightsError: it is not where it was, has changed since the study was planned, or as `read_weights`.
    """
    sha256, _, key = spec.arm.recipe.model.weights.partition(":")
    try:
        path = weights_file(runs_dir, sha256)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"the weights that this run starts from cannot be read: {error}") from None
    if found != sha256:
        raise WeightsError(f"{path} has changed since this run was planned; `harness run` its study again")
    return path, read_weights(path, key)


# Parts of a network: which learn, and at which share of the learning rate.


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a network by the names that a study has for them.

    `classifier` is the last layer, and that of each auxiliary head; `backbone` is everything else; any other
    name, which may have * and ?, is that of a module or parameter (`layer4`, `blocks.1*`) with all below it.
    """

    model: nn.Module
    heads: frozenset[str]  # `class_layers`; empty where nothing is asked of parts
    initialised: tuple[str, ...] = ()  # parameters that were not taken over, where others were
    frozen_norms: tuple[nn.Module, ...] = ()  # which stay in evaluation mode

    def depth(self, part: str, name: str) -> int:
        """How deep in the tree of modules stands what `part` names and `name` belongs to; 0: backbone or
        classifier; -1: it does not belong to it."""
        if part in (BACKBONE, CLASSIFIER):
            return 0 if self._is_of_classifier(name) == (part == CLASSIFIER) else -1
        pieces = name.split(".")
        above = ((depth, ".".join(pieces[:depth])) for depth in range(1, len(pieces) + 1))
        return next((depth for depth, module in above if fnmatchcase(module, part)), -1)

    def _is_of_classifier(self, name: str) -> bool:
        layers = {head.rpartition(".")[0] for head in self.heads} - {""}
        return name in self.heads or any(f"{name}.".startswith(f"{layer}.") for layer in layers)

    def require(self, parts: Iterable[str]) -> None:
        """
        Raises:
            ValueError: one of them names nothing that could learn.
        """
        names = [name for name, _ in self.model.named_parameters()]
        for part in parts:
            if all(self.depth(part, name) < 0 for name in names):
                valid = (BACKBONE, CLASSIFIER, *dict.fromkeys(name.partition(".")[0] for name in names))
                raise ValueError(unknown("part of the network", part, valid))

    def freeze(self, parts: Sequence[str]) -> tuple[nn.Module, ...]:
        """Let these parts have no gradient, and so no update and no weight decay.

        Returns:
            their batch norms, which are to stay in evaluation mode.

        Raises:
            ValueError: a part is none, or nothing is left to learn.
        """
        if not parts:
            return ()
        self.require(parts)

        def is_frozen(name: str) -> bool:
            return any(self.depth(part, name) >= 0 for part in parts)

        for name, parameter in self.model.named_parameters():
            if is_frozen(name):
                parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ValueError(f"freeze {', '.join(parts)} leaves nothing of the network to learn")
        modules = self.model.named_modules()
        return tuple(module for name, module in modules if isinstance(module, _BatchNorm) and is_frozen(name))

    def scaled(self, groups: list[ParameterGroup], scales: Mapping[str, float]) -> list[ParameterGroup]:
        """The groups, cut by the factor on the learning rate, which `optim.set_lr` reads. The name that
        stands deepest in the tree counts: `layer4` for its parameters, `backbone` for the others.

        Raises:
            ValueError: a part is none, does not learn, or two names for a parameter stand equally deep.
        """
        if not scales:
            return groups
        self.require(scales)
        cut: list[ParameterGroup] = []
        used: set[str] = set()
        for group in groups:
            by_scale: dict[float, list[Any]] = {}
            for name, parameter in group["params"]:
                used |= {part for part in scales if self.depth(part, name) >= 0}
                by_scale.setdefault(self._scale(name, scales), []).append((name, parameter))
            cut += [{**group, "params": named, "lr_scale": scale} for scale, named in by_scale.items()]
        for part in scales:
            if part not in used:
                raise ValueError(f"lr_scale: nothing of {part} learns, since it is frozen; leave it out")
        return cut

    def _scale(self, name: str, scales: Mapping[str, float]) -> float:
        depths = {part: self.depth(part, name) for part in scales}
        deepest = max(depths.values())
        parts = sorted(part for part, depth in depths.items() if depth == deepest >= 0)
        if len(parts) > 1:
            raise ValueError(f"lr_scale: '{name}' is of {' and of '.join(parts)}; name it once")
        return scales[parts[0]] if parts else 1.0
