"""What a set of recommendations is like apart from being right.

All are functions of `exposure`, how often each item was recommended within the first k places of all users' lists, shape
(num_items,), and some of `popularity`, how often it was watched in train, likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Counts = NDArray[np.int64]


def exposure(items: NDArray[np.int64], k: int, num_items: int) -> Counts:
    """Count how often each item stands within the first k places of the lists `items` (B, K); -1 is an empty place."""
    shown = items[:, :k]
    return np.bincount(shown[shown >= 0], minlength=num_items)


def coverage(exposure: Counts) -> float:
    """Share of all items that are recommended to anybody."""
    return float((exposure > 0).mean())


def gini(exposure: Counts) -> float:
    """Gini coefficient of the exposure over all items: 0 where all are shown alike, near 1 where one item is all.

    With x sorted upwards, sum_i (2 i - n - 1) x_i / (n sum_i x_i), i from 1 to n.
    """
    total = exposure.sum()
    if not total:
        return 0.0
    count = len(exposure)
    weights = 2 * np.arange(1, count + 1) - count - 1
    return float((weights * np.sort(exposure)).sum() / (count * total))


def novelty(exposure: Counts, popularity: Counts) -> float:
    """Mean self-information of what is recommended, in bits: the mean of -log2 p_i over all filled places.

    p_i = (c_i + 1) / sum_j (c_j + 1), the share of the train interactions that are on item i, counts smoothed by one so
    that an item nobody watched has a finite novelty. After Zhou et al., Solving the apparent diversity-accuracy dilemma
    of recommender systems, PNAS 107(10), 2010.
    """
    smoothed = popularity + 1.0
    return _mean_shown(exposure, -np.log2(smoothed / smoothed.sum()))


def mean_popularity(exposure: Counts, popularity: Counts) -> float:
    """Mean number of train interactions of what is recommended, over all filled places."""
    return _mean_shown(exposure, popularity.astype(np.float64))


def beyond_metrics(items: NDArray[np.int64], popularity: Counts, ks: Sequence[int]) -> dict[str, float]:
    """Return all of the above at every k, ``"coverage@10"``, ..., of the lists `items` (B, K)."""
    found: dict[str, float] = {}
    for k in ks:
        shown = exposure(items, k, len(popularity))
        found[f"coverage@{k}"] = coverage(shown)
        found[f"gini@{k}"] = gini(shown)
        found[f"novelty@{k}"] = novelty(shown, popularity)
        found[f"popularity@{k}"] = mean_popularity(shown, popularity)
    return found


def _mean_shown(exposure: Counts, values: NDArray[np.float64]) -> float:
    total = exposure.sum()
    return float((exposure * values).sum() / total) if total else 0.0
