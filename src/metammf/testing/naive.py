"""What fast code is held against: the definitions written out one node, one edge and one item at a time, on tiny data.

U users, N items. Nodes are the users, then the items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from metammf.data.interactions import Interactions
    from metammf.data.splitting import Split
    from metammf.nn.backbone import GATBackbone


def edges_of(train: Interactions) -> NDArray[np.bool_]:
    """Return which nodes are neighbours, (U + N, U + N), in both directions."""
    count = train.num_users + train.num_items
    edges = np.zeros((count, count), dtype=np.bool_)
    edges[train.users, train.num_users + train.items] = True
    return edges | edges.T


def symmetric(weights: NDArray[Any]) -> NDArray[np.float64]:
    """Return each entry over the square root of the product of its row's and its column's sum."""
    rows, columns = weights.sum(1), weights.sum(0)
    out = np.zeros(weights.shape)
    for row, column in zip(*np.nonzero(weights), strict=True):
        out[row, column] = float(weights[row, column]) / float(rows[row] * columns[column]) ** 0.5
    return out


def spread(weights: NDArray[np.float64], x: Tensor) -> Tensor:
    """Return for each row the sum over its entries of weight times the entry's vector."""
    out = [torch.zeros(x.shape[1]) for _ in range(len(weights))]
    for row, column in zip(*np.nonzero(weights), strict=True):
        out[row] = out[row] + float(weights[row, column]) * x[column]
    return torch.stack(out)


def light(edges: NDArray[np.bool_], x: Tensor, num_layers: int, counted: NDArray[np.bool_] | None = None) -> Tensor:
    """Return the mean over hops of symmetric propagation; a node without edges, or without any in `counted`, has made none."""
    weights = symmetric(edges)
    hops = [x]
    for _ in range(num_layers):
        hops.append(spread(weights, hops[-1]))
    connected = torch.from_numpy((edges if counted is None else counted).any(1)).unsqueeze(1)
    return torch.where(connected, torch.stack(hops).mean(0), x)


def attentive(edges: NDArray[np.bool_], x: Tensor, backbone: GATBackbone) -> Tensor:
    """Return what the layers of GAT make of x: heads side by side, an ELU between layers."""
    for depth, layer in enumerate(backbone.map):
        assert isinstance(layer, nn.Linear)
        weights = layer.weight.chunk(backbone.heads)
        pairs = zip(backbone.receiving[depth], backbone.sending[depth], strict=True)
        heads = [_head(edges, x, weight, torch.cat(pair)) for weight, pair in zip(weights, pairs, strict=True)]
        x = torch.cat(heads, dim=1)
        if depth < len(backbone.map) - 1:
            x = torch.where(x > 0, x, x.exp() - 1)
    return x


def _head(edges: NDArray[np.bool_], x: Tensor, weight: Tensor, attention: Tensor) -> Tensor:
    """The softmax over a node and its neighbours of LeakyReLU(a . [W x_i || W x_j]), and their sum by it."""
    rows = []
    for node in range(len(x)):
        around = [weight @ x[other] for other in (node, *np.flatnonzero(edges[node]))]
        logits = torch.stack([attention @ torch.cat([around[0], other]) for other in around])
        alpha = torch.where(logits > 0, logits, 0.2 * logits).softmax(0)
        rows.append(torch.stack([share * other for share, other in zip(alpha, around, strict=True)]).sum(0))
    return torch.stack(rows)


def standardized(split: Split, name: str) -> NDArray[np.float64]:
    """Return a modality with zero mean and unit variance over the items that have train interactions and the modality."""
    features = split.catalog.features
    values = features.matrices[name].astype(float)
    known = features.present[name] & (split.train.item_counts > 0)
    return (values - values[known].mean(0)) / values[known].std(0)


def check_terms(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    parameters: Iterable[Tensor],
    *,
    tolerances: tuple[float, float],
    gradient_tolerances: tuple[float, float],
) -> None:
    """Hold the terms of a loss against naive ones, and the gradients of each term in all parameters.

    Args:
        found: Names and terms.
        expected: Likewise.
        parameters: Of the model that both were computed from.
        tolerances: Of the terms: absolute, relative.
        gradient_tolerances: Of the gradients, likewise.
    """
    assert set(found) == set(expected)
    weights = list(parameters)
    for name, term in expected.items():
        _check_close(found[name], term, tolerances)
        values = [
            torch.autograd.grad(each[name], weights, retain_graph=True, materialize_grads=True)
            for each in (found, expected)
        ]
        for one, other in zip(*values, strict=True):
            _check_close(one, other, gradient_tolerances)


def _check_close(one: Tensor, other: Tensor, tolerances: tuple[float, float]) -> None:
    torch.testing.assert_close(one, other, atol=tolerances[0], rtol=tolerances[1])
