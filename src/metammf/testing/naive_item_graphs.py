"""Graphs of items that are alike, written out a pair at a time: what the models with such graphs are held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from metammf.data.splitting import Split


def raw(split: Split, modality: str) -> Tensor:
    """Return the features of a modality as they are, (N, F)."""
    return torch.from_numpy(split.catalog.features.matrices[modality]).float()


def alike(split: Split, modality: str, vectors: Tensor, k: int, *, weighted: bool) -> Tensor:
    """Return D^-1/2 S D^-1/2 in one modality, dense (N, N), with gradients for the vectors.

    S holds, for each item i that has the modality, max(0, cosine) or 1 at its k nearest items among those that have it
    and a train interaction, i itself where it is one of them. Of equal cosines the lower index comes first.
    """
    count = len(vectors)
    present = split.catalog.features.present[modality]
    known = present & (split.train.item_counts > 0)
    strengths = [[vectors.new_zeros(()) for _ in range(count)] for _ in range(count)]
    for i in range(count):
        cosines = {
            j: vectors[i] @ vectors[j] / (vectors[i].norm() * vectors[j].norm())
            for j in range(count)
            if present[i] and known[j]
        }
        for j in sorted(cosines, key=lambda j: (-round(float(cosines[j].detach()), 6), j))[:k]:
            strengths[i][j] = cosines[j].clamp(min=0) if weighted else torch.ones_like(cosines[j])
    degrees = [sum(row, vectors.new_zeros(())) for row in strengths]
    return torch.stack(
        [
            torch.stack(
                [
                    entry / (degrees[i] * degrees[j]).sqrt() if float(entry.detach()) else entry
                    for j, entry in enumerate(row)
                ]
            )
            for i, row in enumerate(strengths)
        ]
    )


def mixed(split: Split, graphs: Sequence[Tensor], weights: Sequence[Tensor | float]) -> Tensor:
    """Return the sum of the modalities' graphs, a row's weights scaled to a sum of one over the modalities that it has."""
    masks = list(split.catalog.features.present.values())
    rows = []
    for i in range(len(graphs[0])):
        total = sum(weight for weight, mask in zip(weights, masks, strict=True) if mask[i])
        parts = [
            graph[i] * (weight / total) for graph, weight, mask in zip(graphs, weights, masks, strict=True) if mask[i]
        ]
        rows.append(torch.stack(parts).sum(0) if parts else torch.zeros_like(graphs[0][i]))
    return torch.stack(rows)
