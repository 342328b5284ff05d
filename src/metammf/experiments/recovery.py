"""How well a fusion finds out which modality matters for which item, where the truth is known. N items, M modalities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def recovery(
    shares: NDArray[Any], truth: NDArray[Any], present: NDArray[np.bool_], modalities: Sequence[str]
) -> dict[str, Any]:
    """Compare each modality's share in items' fused vectors with its true share in their appeal.

    Only modalities that an item has are looked at: of one that it lacks, anybody knows the weight.

    Args:
        shares: Recovered, (N, M).
        truth: True, (N, M).
        present: Whether the item has the modality, (N, M).
        modalities: M names.

    Returns:
        ``pearson`` and ``spearman`` over all pairs of item and modality, ``by_modality`` the same of each,
        ``top_found``, the share of items whose true first modality is recovered as the first, and ``top_chance``, what
        naming the modality that is most often first would find. A correlation with what does not vary is 0.
    """
    by_modality = {
        name: _correlations(shares[present[:, place], place], truth[present[:, place], place])
        for place, name in enumerate(modalities)
    }
    first = truth.argmax(axis=1)
    found = np.where(present, shares, -np.inf).argmax(axis=1)
    return _correlations(shares[present], truth[present]) | {
        "by_modality": by_modality,
        "top_found": float((found == first).mean()),
        "top_chance": float(np.bincount(first, minlength=len(modalities)).max() / len(first)),
    }


def binned(shares: NDArray[Any], truth: NDArray[Any], present: NDArray[np.bool_], bins: int = 10) -> dict[str, Any]:
    """Return quartiles of the recovered share by the true one, in `bins` bins of equal width over [0, 1].

    Returns:
        Columns ``true`` (middle of the bin), ``count``, ``low``, ``middle``, ``high`` (quartiles); empty bins are left out.
    """
    recovered, true = shares[present], truth[present]
    place = np.minimum((true * bins).astype(np.int64), bins - 1)
    rows = [(number, recovered[place == number]) for number in range(bins)]
    rows = [(number, values) for number, values in rows if len(values)]
    quartiles = [np.quantile(values, [0.25, 0.5, 0.75]).tolist() for _, values in rows]
    return {
        "true": [(number + 0.5) / bins for number, _ in rows],
        "count": [len(values) for _, values in rows],
        "low": [one[0] for one in quartiles],
        "middle": [one[1] for one in quartiles],
        "high": [one[2] for one in quartiles],
    }


def _correlations(recovered: NDArray[Any], true: NDArray[Any]) -> dict[str, float]:
    if len(recovered) < 2 or np.ptp(recovered) == 0 or np.ptp(true) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": float(np.corrcoef(recovered, true)[0, 1]),
        "spearman": float(np.corrcoef(stats.rankdata(recovered), stats.rankdata(true))[0, 1]),
    }
