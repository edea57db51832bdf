"""Multi-crop evaluation: a test image's probabilities are the mean over several views of it.

Paper: szegedy2015going, arXiv:1409.4842, Sec. 7 and Table 3: 144 crops; krizhevsky2012imagenet,
    Sec. 4.1 (memory): 10 crops; szegedy2016rethinking, arXiv:1512.00567, Table 4: 12 crops
Equation: p = 1 / C * sum over the C views of softmax(z(view)); 144 = 4 scales x 3 squares x 6 crops x 2
    mirrors
Acts on: recipe (eval_crops)
Defaults: crops = 10 (four corners and the centre, and their mirror images)
Differs: szegedy2017inception, arXiv:1602.07261, Sec. 5, says of its 12 crops "as described in"
    szegedy2015going: 6 crops and their mirrors; the scale (256) and the square (the centre) are our choice.
    harness/data has the views of each number. It changes only how a trained network is evaluated, and costs
    no training.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from harness.tricks.base import Trick


@dataclass(frozen=True, kw_only=True)
class MultiCrop(Trick):
    """Set `recipe.eval_crops`."""

    name: ClassVar[str] = "multi_crop"
    observes: ClassVar[bool] = True
    crops: Literal[10, 12, 144] = 10

    def edit_recipe(self, recipe: Any) -> Any:
        return dataclasses.replace(recipe, eval_crops=self.crops)
