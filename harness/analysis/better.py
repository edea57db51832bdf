"""How often one run of this row beats one run of the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def probability_better(values: ArrayLike, versus: ArrayLike) -> float:
    """P(A > B) = U / (n_A n_B), the Mann-Whitney statistic over all pairs of runs; ties count one half.

    The comparison that Bouthillier et al. 2021 (arXiv:2103.03098) recommend. Both arguments need at least
    one value.
    """
    one = np.asarray(values, dtype=float)[:, None]
    other = np.asarray(versus, dtype=float)[None, :]
    return float(np.mean((one > other) + 0.5 * (one == other)))
