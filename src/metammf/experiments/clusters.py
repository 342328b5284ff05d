"""How well vectors of items fall into groups that they were not told. N items, C groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.cluster.vq import kmeans2

from metammf.experiments.projection import neighbour_purity
from metammf.experiments.study_results import ClusterQuality

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metammf.data.interactions import Interactions

_COMPONENTS = 16


def cluster_quality(vectors: NDArray[np.float32], groups: NDArray[np.int64]) -> ClusterQuality:
    """Measure how far vectors (N, D) keep groups (N,) together; time and memory grow with N squared."""
    shares = np.bincount(groups) / len(groups)
    return ClusterQuality(silhouette(vectors, groups), neighbour_purity(vectors, groups), float((shares**2).sum()))


def silhouette(vectors: NDArray[Any], groups: NDArray[np.int64]) -> float:
    """Return the mean silhouette by cosine distance; an item that is alone in its group counts as 0.

    Rousseeuw, Silhouettes: a graphical aid to the interpretation and validation of cluster analysis, J. Comput. Appl. Math.
    20, 1987.
    """
    names, own = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return 0.0
    unit = np.asarray(vectors, dtype=np.float64)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    member = np.eye(len(names))[own]  # (N, C)
    sizes = member.sum(axis=0)
    rows = np.arange(len(own))
    distances = 1 - unit @ unit.T
    np.fill_diagonal(distances, 0)
    sums = distances @ member
    alone = sizes[own] == 1
    within = sums[rows, own] / np.maximum(sizes[own] - 1, 1)
    others = sums / sizes
    others[rows, own] = np.inf
    nearest = others.min(axis=1)
    scale = np.maximum(within, nearest)
    values = np.where(alone | (scale <= 0), 0.0, (nearest - within) / np.where(scale > 0, scale, 1.0))
    return float(values.mean())


def taste_communities(train: Interactions, count: int = 8, *, seed: int = 0) -> NDArray[np.int64]:
    """Group items by who watched them, with no look at their content, shape (N,); -1 where nobody did.

    k-means on the first singular vectors of the train matrix, users and items scaled by the root of their counts.
    """
    groups = np.full(train.num_items, -1, dtype=np.int64)
    warm = np.flatnonzero(train.item_counts)
    matrix = train.matrix.astype(np.float64)
    scaled = (
        sparse.diags_array(1 / np.sqrt(np.maximum(train.user_counts, 1)))
        @ matrix
        @ sparse.diags_array(1 / np.sqrt(np.maximum(train.item_counts, 1)))
    )
    width = min(_COMPONENTS, min(scaled.shape) - 1)
    _, strengths, axes = sparse.linalg.svds(scaled.tocsr(), k=width, rng=np.random.default_rng(seed))
    places = (axes.T * strengths**2)[warm]  # by the square, what two items share outweighs what sets one user apart
    places = places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-12)
    _, groups[warm] = kmeans2(places, min(count, len(warm)), minit="++", rng=np.random.default_rng(seed))
    return groups
