"""A map of vectors in two dimensions that keeps neighbours together: t-SNE, exact, for a thousand items or so.

N items. Van der Maaten and Hinton, Visualizing data using t-SNE, JMLR 9, 2008; started from the first two principal components,
so that the map is settled by the vectors and not by chance (Kobak and Berens, Nature Communications 10, 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from numpy.typing import NDArray
    from torch import Tensor

_PERPLEXITY = 30.0
_STEPS = 400
_EARLY_STEPS = 100
_EXAGGERATION = 12.0
_HALVINGS = 40


def embed_2d(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay vectors (N, D) out in two dimensions, (N, 2), by their cosines. Memory and time grow with N squared."""
    if len(vectors) < 3:
        return np.zeros((len(vectors), 2), dtype=np.float32)
    unit = torch.nn.functional.normalize(torch.from_numpy(np.asarray(vectors, dtype=np.float32)), dim=1)
    distances = (2 - 2 * unit @ unit.T).clamp(min=0)
    wanted = _affinities(distances, min(_PERPLEXITY, (len(unit) - 1) / 3))
    return _descend(wanted, _principal(unit)).numpy()


def neighbour_purity(vectors: NDArray[np.float32], labels: NDArray[np.int64], k: int = 10) -> float:
    """Return the mean share of each item's k nearest by cosine that have its label, in the space as it is."""
    unit = torch.nn.functional.normalize(torch.from_numpy(np.asarray(vectors, dtype=np.float32)), dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-torch.inf)
    nearest = cosines.topk(min(k, len(unit) - 1), dim=1).indices.numpy()
    return float((labels[nearest] == labels[:, None]).mean())


def _principal(unit: Tensor) -> Float[Tensor, "items 2"]:
    centred = unit - unit.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    plane = centred @ axes[:2].T
    if plane.shape[1] < 2:
        plane = torch.nn.functional.pad(plane, (0, 2 - plane.shape[1]))
    return plane / plane.std().clamp(min=1e-12) * 1e-2


def _affinities(distances: Tensor, perplexity: float) -> Float[Tensor, "items items"]:
    """Joint probabilities of neighbourhood; each row's width is found by halving so that its perplexity is as asked."""
    low, high = (torch.full((len(distances), 1), end) for end in (1e-4, 1e6))
    rows = torch.zeros_like(distances)
    for _ in range(_HALVINGS):
        precision = (low * high).sqrt()
        rows = torch.exp(-precision * (distances - distances.min(1, keepdim=True).values)).fill_diagonal_(0)
        rows = rows / rows.sum(1, keepdim=True).clamp(min=1e-30)
        entropy = -(rows * rows.clamp(min=1e-30).log()).sum(1, keepdim=True)
        wide = entropy > np.log(perplexity)
        low, high = torch.where(wide, precision, low), torch.where(wide, high, precision)
    return (rows + rows.T) / (2 * len(rows))


def _descend(wanted: Tensor, start: Tensor) -> Float[Tensor, "items 2"]:
    places, speed, gain = start.clone(), torch.zeros_like(start), torch.ones_like(start)
    rate = max(len(start) / _EXAGGERATION / 4, 50.0)
    for step in range(_STEPS):
        early = step < _EARLY_STEPS
        norms = (places * places).sum(1)
        kernel = 1 / (1 + norms[:, None] + norms[None] - 2 * places @ places.T).clamp(min=1)
        kernel.fill_diagonal_(0)
        pull = ((_EXAGGERATION if early else 1.0) * wanted - kernel / kernel.sum()) * kernel
        gradient = 4 * (pull.sum(1, keepdim=True) * places - pull @ places)
        gain = torch.where((gradient > 0) == (speed > 0), gain * 0.8, gain + 0.2).clamp(min=0.01)
        speed = (0.5 if early else 0.8) * speed - rate * gain * gradient
        places = places + speed
        places = places - places.mean(0)
    return places
