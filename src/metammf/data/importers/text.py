"""Textual features without a language model: words counted, weighted and compressed. NumPy and SciPy alone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_WIDTH = 128
_OVERSAMPLING = 16
_POWER_ITERATIONS = 3


def bag_of_words(
    documents: Sequence[Sequence[str]], width: int = _WIDTH
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Embed documents by TF-IDF and truncated SVD (Deerwester et al., 1990), each row of unit length.

    Words of a single document are left out: they relate it to none. The result depends on the documents alone.

    Args:
        documents: Words of each document, in any order.
        width: At most so many dimensions; fewer where there are fewer words or documents.

    Returns:
        The rows (num_documents, width), and the mask of documents that hold a word: the row of another is zero.
    """
    frequencies = Counter(word for document in documents for word in set(document))
    vocabulary = {word: place for place, word in enumerate(sorted(w for w, count in frequencies.items() if count > 1))}
    entries = [
        (row, vocabulary[word], count)
        for row, document in enumerate(documents)
        for word, count in sorted(Counter(document).items())
        if word in vocabulary
    ]
    if not entries:
        return np.zeros((len(documents), 1), dtype=np.float32), np.zeros(len(documents), dtype=np.bool_)
    rows, columns, counts = np.array(entries).T
    rarity = np.log((1 + len(documents)) / (1 + np.array([frequencies[word] for word in vocabulary]))) + 1
    weights = (1 + np.log(counts)) * rarity[columns]
    matrix = sparse.csr_array((weights, (rows, columns)), shape=(len(documents), len(vocabulary)))
    scale = sparse.diags_array(1 / np.maximum(_lengths(matrix), 1e-12))
    reduced = _reduce(sparse.csr_array(scale @ matrix), width)
    lengths = np.linalg.norm(reduced, axis=1, keepdims=True)
    present = np.zeros(len(documents), dtype=np.bool_)
    present[rows] = True
    present &= lengths[:, 0] > 1e-9  # what the kept dimensions say nothing of has no direction
    return np.where(present[:, None], reduced / np.maximum(lengths, 1e-12), 0).astype(np.float32), present


def _lengths(matrix: sparse.csr_array) -> NDArray[np.float64]:
    return np.sqrt(np.asarray((matrix * matrix).sum(axis=1))).ravel()


def _reduce(matrix: sparse.csr_array, width: int) -> NDArray[np.float64]:
    """Return the left singular vectors times their values, by random projection (Halko, Martinsson and Tropp, 2011)."""
    sketch = min(*matrix.shape, width + _OVERSAMPLING)
    basis = _orthonormal(matrix @ np.random.default_rng(0).standard_normal((matrix.shape[1], sketch)))
    for _ in range(_POWER_ITERATIONS):
        basis = _orthonormal(matrix @ (matrix.T @ basis))
    projected = matrix.T @ basis
    squares, directions = np.linalg.eigh(projected.T @ projected)
    strongest = np.argsort(-squares)[:width]
    return basis @ (directions[:, strongest] * np.sqrt(np.maximum(squares[strongest], 0)))


def _orthonormal(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an orthonormal basis of the columns' span, by their Gram matrix: quicker than QR, and exact enough here."""
    squares, directions = np.linalg.eigh(columns.T @ columns)
    kept = squares > 1e-12 * squares.max()
    return columns @ (directions[:, kept] / np.sqrt(squares[kept]))
