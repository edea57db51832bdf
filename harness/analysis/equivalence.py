"""Two one-sided tests: is the effect smaller than the smallest effect of interest?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.analysis.intervals import Estimate, half_width


def is_equivalent(estimate: Estimate, margin: float, alpha: float = 0.05) -> NDArray[np.bool_]:
    """Whether both one-sided tests reject |effect| >= margin at `alpha` (shape of the estimate).

    The same as: the two-sided 1 - 2 alpha interval lies strictly inside (-margin, margin)
    (Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15, 1987).
    """
    width = half_width(estimate, 2.0 * alpha)
    return np.asarray((estimate.value - width > -margin) & (estimate.value + width < margin))
