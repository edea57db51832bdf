"""Receptive field at constant cost: smaller images, and less stride in the first layers.

Paper: szegedy2016rethinking, arXiv:1512.00567, Sec. 9 and Table 2
Equation: 299 pixels: stride 2, then max-pool;   151 pixels: stride 1, then max-pool;   79 pixels: stride
    1, no pool; the later layers see grids of about the same size
Acts on: recipe (data resolution, model argument first_layer)
Defaults: pixels = 299 (the first layer of the baseline)
Differs: the paper trains each network until convergence, smaller images for longer; how long is the
    recipe's affair here, and the same for all three in its study. Pixels are the paper's, as everywhere in
    a recipe while tricks edit it; a size maps them to its own afterwards (its key `resolutions`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from harness.tricks.base import Trick, with_model_args

FIRST_LAYERS = {299: "stride2_pool", 151: "stride1_pool", 79: "stride1"}


@dataclass(frozen=True, kw_only=True)
class ReceptiveField(Trick):
    """Set `recipe.data.resolution` and the model argument `first_layer`."""

    name: ClassVar[str] = "receptive_field"
    pixels: Literal[299, 151, 79] = 299

    def edit_recipe(self, recipe: Any) -> Any:
        edited = with_model_args(
            recipe, "receptive_field changes the first layers", first_layer=FIRST_LAYERS[self.pixels]
        )
        return dataclasses.replace(edited, data=dataclasses.replace(recipe.data, resolution=self.pixels))
