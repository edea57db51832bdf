"""What comes from elsewhere: networks of libraries (`timm/<name>`, `torchvision/<name>`), files of weights.

Nothing is downloaded. A network of a library keeps the initial weights of its own constructor, unless a study
names others. The library is imported when a study names such a model, not before.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path, PurePosixPath
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
        capturable=name in LISTED,
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


# Files of trained weights: one that a study names, or the one that a library keeps on this machine.


SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")  # all but the first: of torch.save


def find_file(named: str, folder: Path) -> tuple[Path, str]:
    """The file that a study names, from its own folder on, and the entry of it that stands after a colon.

    Raises:
        ValueError: there is none; with the nearest name.
    """
    path, entry = folder / Path(named).expanduser(), ""
    if not path.exists() and ":" in path.name:
        name, _, entry = path.name.rpartition(":")
        path = path.with_name(name)
    if not path.is_file():
        there = path.parent.is_dir()
        files = [each.name for each in path.parent.iterdir() if each.suffix in SUFFIXES] if there else []
        where = f"{path.parent} has {', '.join(sorted(files)[:SHOWN]) or 'none'}"
        near = nearest(path.name, files)
        hint = f"did you mean '{near}'? " if near else ""
        raise ValueError(
            f"no file of weights {path.name}; {hint}{where if there else f'no folder {path.parent}'}"
        )
    if path.suffix not in SUFFIXES:
        raise ValueError(f"the name of a file of weights ends in {', '.join(SUFFIXES)}, got {path.name}")
    return path, entry


def pretrained_file(name: str) -> Path:
    """The file that the library of a network has in its cache here, which is what it would load itself.

    Raises:
        ValueError: the network is not of a library, or the file is not here; with where it belongs.
    """
    library, _, network = name.partition("/")
    if library not in _LIBRARIES:
        raise ValueError(
            f"{name} is the harness's own and has no pretrained weights; name a file (weights: FILE), or a"
            f" network of a library (torchvision/{name})"
        )
    return (_timm_file if library == "timm" else _torchvision_file)(network)


def _timm_file(network: str) -> Path:
    about = _timm().models.get_pretrained_cfg(network)
    if about is None or not (about.hf_hub_id or about.url):
        raise ValueError(f"timm has no pretrained weights of {network}; name a file (weights: FILE)")
    if not about.hf_hub_id:
        return _hub_file(f"timm/{network}", about.url)
    from huggingface_hub import constants, try_to_load_from_cache

    names = [about.hf_hub_filename] if about.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    for each in names:
        found = try_to_load_from_cache(about.hf_hub_id, each)
        if isinstance(found, str):
            return Path(found)
    raise ValueError(
        f"timm/{network}: {names[0]} of {about.hf_hub_id} is not in {constants.HF_HUB_CACHE}, and nothing"
        f" is downloaded here; fetch it with `hf download {about.hf_hub_id} {names[0]}`, or name a file"
        " (weights: FILE)"
    )


def _torchvision_file(network: str) -> Path:
    weights = _torchvision().models.get_model_weights(network)
    if not len(weights):
        raise ValueError(f"torchvision has no pretrained weights of {network}; name a file (weights: FILE)")
    return _hub_file(f"torchvision/{network}", weights.DEFAULT.url)


def _hub_file(name: str, url: str) -> Path:
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(url).name
    if not path.is_file():
        raise ValueError(
            f"{name}: {path.name} is not in {path.parent}, and nothing is downloaded here; put it there from"
            f" {url}, or name a file (weights: FILE)"
        )
    return path


_LIBRARIES: dict[str, tuple[Callable[[], list[str]], Callable[[str, int, int], nn.Module]]] = {
    "timm": (_timm_names, _timm_network),
    "torchvision": (_torchvision_names, _torchvision_network),
}
