"""How sure a share is, and how sure a difference between two trials on the same items."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_Z = 1.959963984540054
"""Of the normal distribution, for 95%."""
_RESAMPLES = 2000


def wilson(grades: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of a mean grade, after Wilson (1927).

    Exact in kind for grades of 0 and 1; for those between it is too wide, never too narrow, since they vary less.
    """
    n, share = len(grades), float(np.mean(grades))
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_difference(grades: Sequence[float], baseline: Sequence[float]) -> tuple[float, float, float]:
    """The mean of grades minus baseline over the same items, with the 95% interval of a bootstrap over items."""
    differences = np.asarray(grades) - np.asarray(baseline)
    rng = np.random.default_rng(0)
    # One resample at a time: all at once would take gigabytes for large sets.
    means = [float(rng.choice(differences, len(differences)).mean()) for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)
