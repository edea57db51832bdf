"""docs/fidelity.md: how faithful each network is to its paper and to other implementations of it.

    python scripts/fidelity.py            print the page

Every figure is measured when the page is made: parameters and multiply-adds are counted on the built
networks, and the checks copy another library's weights into ours and compare the logits.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAPERS = ROOT / "docs" / "reference" / "papers.yaml"
CLASSES, CIFAR_CLASSES = 1000, 10
CIFAR_SIDE = 32  # pixels of the images of networks for CIFAR
TOLERANCE = 1e-4  # of the standard deviation of the reference's logits
Names = Callable[[str, Any], str]  # their name of a weight, our network -> our name


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Another implementation, and what makes ours the same network where a library made another choice."""

    name: str  # torchvision/<name> or timm/<name>
    side: int = 96  # pixels of the images of the check
    args: Mapping[str, Any] = field(default_factory=dict)  # of ours, beside those of the system
    our_name: Names = lambda theirs, _net: theirs
    in_order: bool = False  # the same tensors in the same order under other names
    adjust: Callable[[Any], None] = lambda net: None  # changes ours in place
    remark: str = ""  # what `args` and `adjust` do


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """A row of papers.yaml with sizes that a paper prints; other sizes of that file are computed."""

    row: tuple[str, str, str]  # paper, table, label
    fields: tuple[str, ...] = ("params_m", "gflops")


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A network of a paper: our name, where the paper prints its size, and who else built it."""

    name: str
    printed: Printed | None = None
    references: tuple[Reference, ...] = ()
    remark: str = ""  # what to know about this one beside the note in the table of models


def available() -> bool:
    """Whether both libraries are here."""
    return importlib.util.find_spec("timm") is not None


def page() -> str:
    """The whole page, in Markdown."""
    from fidelity_systems import SYSTEMS

    rows, costs = _printed()
    lines = [
        "# Fidelity\n",
        "Made by `make fidelity`. Parameters and multiply-adds (10^9, one image at the paper's size, 1,000 "
        "classes, 10 of the networks for CIFAR) are counted on the built networks, without auxiliary heads, "
        "batch norm and pooling. "
        "*printed* is the paper's own figure, *reference* that of [papers.yaml](reference/papers.yaml), "
        "computed independently.\n",
        "A check copies every weight of the other library's network into ours, name by name and shape by "
        "shape, and compares the logits of both at evaluation: in each one that is named here they agree "
        f"within {TOLERANCE:g} of their standard deviation.\n",
        "| network | params | printed, M | torchvision | timm | GMACs | printed | reference | checks |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
        *(_row(system, rows, costs) for system in SYSTEMS),
        "\n## Known deviations\n",
        *_deviations(SYSTEMS),
    ]
    return "\n".join(lines) + "\n"


def _row(system: System, rows: Mapping[Any, Mapping[str, Any]], costs: Mapping[str, float]) -> str:
    from harness.models import find
    from harness.models.costs import measure

    side = find(system.name).input_size
    classes = CIFAR_CLASSES if side == CIFAR_SIDE else CLASSES
    params, macs = measure(system.name, {}, resolution=side, classes=classes)
    theirs = {
        reference.name.partition("/")[0]: measure(reference.name, {}, resolution=side, classes=CLASSES)[0]
        for reference in system.references
    }
    cells = [
        f"`{system.name}`",
        f"{params:,}",
        _cell(system.printed, rows, "params_m"),
        *(f"{theirs[library]:,}" if library in theirs else "" for library in ("torchvision", "timm")),
        f"{macs / 1e9:.3f}",
        _cell(system.printed, rows, "gflops"),
        f"{costs[system.name]:g}" if system.name in costs else "",
        "; ".join(check(system.name, reference) for reference in system.references),
    ]
    return f"| {' | '.join(cells)} |"


def check(name: str, reference: Reference) -> str:
    """Load the reference's weights into ours, compare the logits; the result in words.

    Raises:
        RuntimeError: a weight is missing, left over, or of another shape.
        ValueError: the logits differ.
    """
    import torch

    from harness.models import build_model

    with torch.device("meta"):
        theirs = build_model(reference.name, {}, classes=CLASSES)
        ours = build_model(name, reference.args, classes=CLASSES)
    weights = _filled(theirs)
    if reference.in_order:
        mapped = dict(zip(ours.state_dict(), weights.values(), strict=True))
    else:
        mapped = {reference.our_name(each, ours): tensor for each, tensor in weights.items()}
    ours.load_state_dict(mapped, strict=True, assign=True)
    reference.adjust(ours)
    images = torch.randn(2, 3, reference.side, reference.side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = theirs.eval()(images), ours.eval()(images)
    apart = ((found - expected).abs().max() / expected.std()).item()
    if not apart <= TOLERANCE:
        raise ValueError(f"{name}: logits differ from {reference.name}'s by {apart:.1e} of their spread")
    return f"{reference.name}: {len(weights):,} tensors, logits at {reference.side} px"


def _filled(net: Any) -> dict[str, Any]:
    """Give a network without storage weights under which every layer matters; its state."""
    import torch

    net.to_empty(device="cpu")
    draw = torch.Generator().manual_seed(0)
    for name, tensor in net.state_dict().items():
        if not tensor.is_floating_point():
            tensor.zero_()
        elif tensor.dim() > 1:
            tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5, generator=draw)
        elif name.endswith(("running_var", "weight")):
            tensor.uniform_(0.5, 1.5, generator=draw)
        else:
            tensor.normal_(std=0.1, generator=draw)
    return dict(net.state_dict())


def _printed() -> tuple[dict[Any, dict[str, Any]], dict[str, float]]:
    """Of the reference file: (paper, table, label) -> row, and model -> 10^9 multiply-adds."""
    import yaml

    found = yaml.safe_load(PAPERS.read_text())
    rows = {
        (paper, key, str(row.get("label"))): row
        for paper, about in found["papers"].items()
        for key, table in about["tables"].items()
        for row in table["rows"]
    }
    return rows, {row["model"]: row["gmacs"] for row in found["model_costs"]["rows"]}


def _deviations(systems: tuple[System, ...]) -> list[str]:
    """What the table of models says of each, once for networks of which it says the same."""
    from harness.models import find

    of_note: dict[str, list[str]] = {}
    for system in systems:
        remarks = [system.remark, *(reference.remark for reference in system.references)]
        for text in filter(None, (find(system.name).note, *remarks)):
            of_note.setdefault(text, []).append(f"`{system.name}`")
    return [f"- {', '.join(names)}: {note}." for note, names in of_note.items()]


def _cell(printed: Printed | None, rows: Mapping[Any, Mapping[str, Any]], name: str) -> str:
    """A printed size."""
    if printed is None or name not in printed.fields:
        return ""
    return f"{rows[printed.row][name]:g}"


if __name__ == "__main__":
    sys.stdout.write(page())
