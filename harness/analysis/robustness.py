"""Would the verdict be another without one seed, or if diverged runs counted?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.analysis.comparisons import Family, compare_family, words_without_seed
from harness.analysis.findings import NOT_EVALUABLE
from harness.analysis.intervals import Floats
from harness.analysis.verdicts import FEWEST_SEEDS

NOTHING_LEARNT_PCT = 0.0  # what a diverged run without a value counts as; chance is above it


def fragile_pairs(values: Floats, failures: Floats, family: Family, words: Sequence[str]) -> list[bool]:
    """For each open pair, whether its word changes when a seed of either arm is left out, or failures count.

    The word before the rules about the number of seeds is compared, so that 3 seeds can be tested against
    2. Pairs with fewer than 3 seeds, or without a word, are not called fragile. At a look, it is the word of
    that look that may change: what was settled before it stays.

    Args:
        values: (A, S) the metric in percent of converged runs; NaN elsewhere.
        failures: (A, S) what diverged runs count as, in percent; NaN elsewhere.
        words: the word of each open pair on `values`.
    """
    present = np.isfinite(values)
    without = [
        words_without_seed(values, family, s) if present[:, s].any() else None for s in range(values.shape[1])
    ]
    counted: dict[tuple[int, ...], list[str]] = {}  # arms whose failures count -> the words then
    out = []
    tested = family.pairs if family.stage.open is None else [family.pairs[k] for k in family.stage.open]
    for k, (arm, versus) in enumerate(tested):
        if words[k] == NOT_EVALUABLE or present[[arm, versus]].sum(axis=1).min() < FEWEST_SEEDS:
            out.append(False)
            continue
        used = present[arm] | present[versus]
        left_out = [rest[k] for s, rest in enumerate(without) if rest is not None and used[s]]
        lossy = tuple(each for each in (arm, versus) if np.isfinite(failures[each]).any())
        if lossy:
            if lossy not in counted:
                filled = _with_failures(values, failures, lossy)
                counted[lossy] = [each.word for each in compare_family(filled, family)]
            left_out.append(counted[lossy][k])
        out.append(any(word != words[k] for word in left_out))
    return out


def _with_failures(values: Floats, failures: Floats, arms: Sequence[int]) -> Floats:
    """The table when the diverged runs of these arms count (those of other arms do not)."""
    filled = values.copy()
    for arm in arms:
        filled[arm] = np.where(np.isfinite(failures[arm]), failures[arm], values[arm])
    return filled
