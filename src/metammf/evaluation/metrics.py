"""Ranking metrics as functions of one hit matrix.

`hits[u, r]` tells whether the item at rank r + 1 of user u's list is relevant, boolean of shape (B, K) with K >= k;
`relevant[u]` is how many items are relevant to the user, shape (B,). Each metric gives one float64 a user, and its figure
is their mean; a user without a relevant item counts as zero. One ranking at the largest k serves every k.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from metammf.data.interactions import Interactions

    Hits = NDArray[np.bool_]
    Counts = NDArray[np.int64]
    PerUser = NDArray[np.float64]


def hit_matrix(items: NDArray[np.int64], users: NDArray[np.int64], relevant: Interactions) -> Hits:
    """Tell which of the ranked `items` (B, K) of `users` (B,) are `relevant` to their user; -1, an empty place, never."""
    if not len(relevant):
        return np.zeros(items.shape, dtype=np.bool_)
    keys = np.sort(relevant.keys)
    wanted = users[:, None] * relevant.num_items + items
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return (keys[place] == wanted) & (items >= 0)


def precision(hits: Hits, _relevant: Counts, k: int) -> PerUser:
    """Share of the k places that hold a relevant item; a list shorter than k leaves places empty."""
    return _over(hits[:, :k].sum(axis=1), np.full(len(hits), k))


def recall(hits: Hits, relevant: Counts, k: int) -> PerUser:
    """Share of the relevant items that are among the first k."""
    return _over(hits[:, :k].sum(axis=1), relevant)


def micro_recall(hits: Hits, relevant: Counts, k: int) -> PerUser:
    """Hits among the first k over the mean number of relevant items.

    Its mean over users is total hits / total relevant interactions, which the MetaMMF paper (Liu et al., TOIS 42(2),
    2023) calls HR.
    """
    return _over(hits[:, :k].sum(axis=1), np.full(len(hits), relevant.mean() if len(relevant) else 0.0))


def hit_rate(hits: Hits, _relevant: Counts, k: int) -> PerUser:
    """One where a relevant item is among the first k, else zero."""
    return np.asarray(hits[:, :k].any(axis=1), dtype=np.float64)


def ndcg(hits: Hits, relevant: Counts, k: int) -> PerUser:
    """Discounted gain, 1 / log2(rank + 1) a hit, over that of the ideal list of min(relevant, k) hits.

    Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 20(4), 2002; binary relevance.
    """
    length = min(k, max(hits.shape[1], int(relevant.max(initial=0))))  # further places hold nothing
    discounts = 1.0 / np.log2(np.arange(length) + 2.0)
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    return _over(_weighted(hits, discounts), ideal[np.minimum(relevant, length)])


def average_precision(hits: Hits, relevant: Counts, k: int) -> PerUser:
    """Precision at the rank of each hit within k, summed, over min(relevant, k); its mean is the MAP."""
    first = hits[:, :k]
    at_hits = np.where(first, np.cumsum(first, axis=1) / np.arange(1, first.shape[1] + 1), 0.0)
    return _over(at_hits.sum(axis=1), np.minimum(relevant, k))


def reciprocal_rank(hits: Hits, _relevant: Counts, k: int) -> PerUser:
    """One over the rank of the first hit within k, zero where there is none; its mean is the MRR."""
    first = hits[:, :k]
    return np.where(first.any(axis=1), 1.0 / (first.argmax(axis=1) + 1), 0.0)


METRICS: dict[str, Callable[[Hits, Counts, int], PerUser]] = {
    "recall": recall,
    "ndcg": ndcg,
    "precision": precision,
    "hit_rate": hit_rate,
    "map": average_precision,
    "mrr": reciprocal_rank,
    "micro_recall": micro_recall,
}


def per_user_metrics(hits: Hits, relevant: Counts, ks: Sequence[int]) -> dict[str, PerUser]:
    """Return every metric at every k, ``"recall@10"``, ..., one value a user."""
    return {f"{name}@{k}": metric(hits, relevant, k) for name, metric in METRICS.items() for k in ks}


def means(per_user: dict[str, PerUser]) -> dict[str, float]:
    """Return the mean over users of each metric."""
    return {name: float(values.mean()) for name, values in per_user.items()}


def _weighted(hits: Hits, weights: NDArray[np.float64]) -> PerUser:
    width = min(hits.shape[1], len(weights))
    # Not a matrix product: its order of summation, and so the last bit, would depend on how many users there are.
    return np.where(hits[:, :width], weights[:width], 0.0).sum(axis=1)


def _over(numerator: NDArray[Any], denominator: NDArray[Any]) -> PerUser:
    """Divide, with zero where there is nothing to find."""
    zeros = np.zeros(len(numerator))
    return np.divide(numerator, denominator, out=zeros, where=denominator > 0)
