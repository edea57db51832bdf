"""Fine-tuning: training starts from the weights of another run."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from harness.data.base import DataSet
from harness.study.machine import Machine
from harness.study.spec import RunSpec
from harness.training.trained import SourceError, find_trained

NAMES_SHOWN = 3


def load_source(model: nn.Module, spec: RunSpec, machine: Machine, data: DataSet) -> None:
    """Give the built network the weights of the network that its source run evaluated.

    Parameters with one row for each class (the last layer, and the auxiliary heads') keep their initial
    values where the data set has another number of classes, and are taken over where it has the same.

    Raises:
        SourceError: the source has not finished, its files are missing, or it is another network.
    """
    source = find_trained(spec.source_run_id, machine, SourceError)
    source.require_same_data(spec, data.fingerprint)
    theirs, ours = source.weights(), model.state_dict()
    missing, extra = set(ours) - set(theirs), set(theirs) - set(ours)
    if missing or extra:
        raise SourceError(
            f"source run {source.folder.run_id} ({source.spec.arm.recipe.model.name}) is another network "
            f"than this run's ({spec.arm.recipe.model.name}): it lacks {_few(missing)} and has {_few(extra)} "
            "that this one has not"
        )
    differ = {name for name, value in theirs.items() if value.shape != ours[name].shape}
    wrong = [name for name in differ if not _is_of_classes(theirs[name], ours[name], source.classes)]
    if wrong:
        raise SourceError(
            f"source run {source.folder.run_id} has other layer sizes than this run's network: {_few(wrong)}"
        )
    model.load_state_dict({name: ours[name] if name in differ else theirs[name] for name in ours})


def _is_of_classes(theirs: Tensor, ours: Tensor, classes: int) -> bool:
    """Whether two parameters differ in the number of classes alone, which comes first.

    >>> import torch
    >>> [_is_of_classes(torch.zeros(rows, 3), torch.zeros(4, 3), classes=8) for rows in (8, 9)]
    [True, False]
    """
    return theirs.shape[0] == classes and theirs.shape[1:] == ours.shape[1:]


def _few(names: Iterable[str]) -> str:
    """
    >>> _few({"b", "a"}), _few("abcdef"), _few([])
    ('a, b', 'a, b, c and 3 more', 'nothing')
    """
    found = sorted(names)
    more = f" and {len(found) - NAMES_SHOWN} more" if len(found) > NAMES_SHOWN else ""
    return ", ".join(found[:NAMES_SHOWN]) + more if found else "nothing"
