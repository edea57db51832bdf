"""Networks of other libraries as models of a study: `timm/<name>` and `torchvision/<name>`.

Architectures only: nothing is downloaded, no pretrained weights are ever loaded, and a network keeps the
initial weights of its own constructor. The library is imported when a study names such a model, not before.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from harness.errors import nearest
from harness.models.entry import Model

if TYPE_CHECKING:
    from torch import nn

SHOWN = 5  # valid names in a message about an unknown one: the libraries have more than a thousand
LISTED = {  # networks that the reference tables name: name -> paper, input size, note
    "torchvision/googlenet": (
        "szegedy2015going",
        224,
        "torchvision's GoogLeNet: 3x3 convolutions where the paper has 5x5, batch norm, auxiliary heads",
    ),
}


def is_zoo_name(name: str) -> bool:
    """Whether `name` begins with the name of a library."""
    return name.partition("/")[0] in _LIBRARIES and "/" in name


def zoo_model(name: str) -> Model:
    """The model of `timm/<name>` or `torchvision/<name>`. It takes no arguments.

    Raises:
        ValueError: the library is not installed, or has no such network.
    """
    if not is_zoo_name(name):
        raise ValueError(f"'{name}' is not a network of a library: timm/<name> or torchvision/<name>")
    if name not in LISTED:
        _check(name)
    paper, input_size, note = LISTED.get(name, ("", 224, f"as {name.partition('/')[0]} builds it"))
    return Model(
        name=name,
        arguments={},
        build=partial(_build, name),
        paper=paper,
        note=note,
        input_size=input_size,
        own_initialisation=True,
    )


def _check(name: str) -> None:
    library, _, network = name.partition("/")
    try:
        names = _names(library)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if network not in names:
        near = nearest(network, names)
        hint = f"; did you mean '{library}/{near}'?" if near else "."
        begin_alike = [each for each in names if each[:4] == network[:4]] or names
        some = ", ".join(f"{library}/{each}" for each in begin_alike[:SHOWN])
        raise ValueError(f"unknown model '{name}'{hint} {library} has {len(names)}, among them {some}")


def _build(name: str, *, classes: int, in_channels: int) -> nn.Module:
    library, _, network = name.partition("/")
    _check(name)
    return _LIBRARIES[library][1](network, classes, in_channels)


@cache
def _names(library: str) -> tuple[str, ...]:
    return tuple(_LIBRARIES[library][0]())


def _timm() -> Any:
    if importlib.util.find_spec("timm") is None:
        raise ValueError("timm is not installed; install it with pip install 'ablation-harness[timm]'")
    _torchvision()  # timm imports it
    import timm

    return timm


def _torchvision() -> Any:
    from harness.data.torchvision_import import torchvision

    return torchvision


def _timm_names() -> list[str]:
    names: list[str] = _timm().list_models()
    return names


def _timm_network(network: str, classes: int, in_channels: int) -> nn.Module:
    net: nn.Module = _timm().create_model(
        network, pretrained=False, num_classes=classes, in_chans=in_channels
    )
    return net


def _torchvision_names() -> list[str]:
    models = _torchvision().models
    names: list[str] = models.list_models(module=models)
    return names


def _torchvision_network(network: str, classes: int, in_channels: int) -> nn.Module:
    if in_channels != 3:
        raise ValueError(f"torchvision/{network}: takes images of 3 channels, not {in_channels}")
    args = {"init_weights": True} if network in ("googlenet", "inception_v3") else {}
    net: nn.Module = _torchvision().models.get_model(network, weights=None, num_classes=classes, **args)
    net.register_forward_hook(_as_outputs)
    return net


def _as_outputs(_net: nn.Module, _images: Any, answer: Any) -> Any:
    """torchvision's named tuples (logits, auxiliary heads from the last to the first) as the harness's."""
    from harness.models.blocks import Outputs

    if not isinstance(answer, tuple):
        return answer
    logits, *auxiliary = answer
    return Outputs(logits, tuple(reversed(auxiliary)))


_LIBRARIES: dict[str, tuple[Callable[[], list[str]], Callable[[str, int, int], nn.Module]]] = {
    "timm": (_timm_names, _timm_network),
    "torchvision": (_torchvision_names, _torchvision_network),
}
