"""How often one run of this row beats one run of the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from harness.analysis.findings import Effect
from harness.analysis.intervals import Estimate

DEPENDABLE = 0.75  # Bouthillier et al. 2021, sec. 4: the least P(A > B) that is worth a recommendation
ROUNDING = 1e-9  # a t below this is a difference of 0


def probability_better(values: ArrayLike, versus: ArrayLike) -> float:
    """P(A > B) = U / (n_A n_B), the Mann-Whitney statistic over all pairs of runs; ties count one half.

    The comparison that Bouthillier et al. 2021 (arXiv:2103.03098) recommend. Both arguments need at least
    one value.
    """
    one = np.asarray(values, dtype=float)[:, None]
    other = np.asarray(versus, dtype=float)[None, :]
    return float(np.mean((one > other) + 0.5 * (one == other)))


def better_interval(
    estimate: Estimate | None, one_run_sd: float | None, alpha: float = 0.05
) -> tuple[float, float] | None:
    """The 1 - alpha interval of P(A > B) for one normal run of each, from the same seed.

    P = Phi(theta), theta = effect / sd of the difference of two runs (McGraw and Wong, Psychological Bulletin
    111, 1992). D / se is noncentral t with noncentrality theta one_run_sd / se (theta sqrt(S) in a complete
    table); its interval is found by turning the distribution function round (Steiger and Fouladi, in Harlow
    et al., What if there were no significance tests?, 1997).

    Args:
        estimate: the contrast with its standard error and degrees of freedom.
        one_run_sd: sqrt(v_arm + v_versus); None where the two arms evaluate the same networks.
    Returns:
        Both ends in [0, 1]; None without a standard error.
    """
    if estimate is None or one_run_sd is None or not estimate.se > 0.0:
        return None
    t, df, scale = float(estimate.value / estimate.se), float(estimate.df), float(estimate.se) / one_run_sd
    low, high = (_noncentrality(t, df, p) for p in (1.0 - alpha / 2.0, alpha / 2.0))
    return float(special.ndtr(low * scale)), float(special.ndtr(high * scale))


def dependably_better(effect: Effect) -> bool:
    """At least 3 of 4 runs win, and chance is excluded (Bouthillier et al. 2021)."""
    if effect.prob_better is None or effect.prob_better_low is None:
        return False
    return effect.prob_better >= DEPENDABLE and effect.prob_better_low > 0.5


def _noncentrality(t: float, df: float, p: float) -> float:
    """The noncentrality at which P(T <= t) = p, which falls as the noncentrality grows."""
    # T with -nc is -T with nc. The two ways agree to nine digits only, so a difference of 0, whose sign is
    # rounding and another one on another CPU, always goes the same way.
    if t < -ROUNDING:
        return -_noncentrality(-t, df, 1.0 - p)
    return float(special.nctdtrinc(df, p, t))
