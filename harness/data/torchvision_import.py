"""The only place that imports torchvision: `from harness.data.torchvision_import import torchvision`.

A torchvision built for CUDA beside a CPU build of torch (what an unpinned installation gives on a machine
without a GPU) fails to import with "operator torchvision::nms does not exist": its compiled extension does
not load, yet the import registers fake kernels for two of the extension's operators. Declaring those two
schemas first lets the import pass. Models, transforms and datasets then work; ops.nms, detection models and
torchvision.io do not.
"""

from __future__ import annotations

import importlib
import re
import sys
from types import ModuleType

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
ABSENT_OPERATOR = re.compile(r"operator torchvision::\w+ does not exist")

_declared: list[torch.library.Library] = []  # kept alive: a collected Library takes its schemas with it


def import_torchvision() -> ModuleType:
    """torchvision with its sub-packages models, datasets and transforms.v2.

    Raises:
        RuntimeError: the import failed for another reason than the one above.
    """
    try:
        module = importlib.import_module("torchvision")
    except RuntimeError as error:
        if not ABSENT_OPERATOR.search(str(error)):
            raise
        for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
            del sys.modules[name]
        if not _declared:
            library = torch.library.Library("torchvision", "FRAGMENT")
            for schema in SCHEMAS:
                library.define(schema)
            _declared.append(library)
        module = importlib.import_module("torchvision")
    importlib.import_module("torchvision.transforms.v2")
    return module


torchvision = import_torchvision()
