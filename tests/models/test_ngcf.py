"""NGCF against its equations, an edge at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from metammf.models.base import Inputs
from metammf.models.ngcf import NGCF, NGCFConfig
from metammf.testing.data import taste_groups
from metammf.testing.naive import edges_of

SPLIT = taste_groups(4, cold=1)
EDGES = edges_of(SPLIT.train)


def made(config: NGCFConfig) -> NGCF:
    torch.manual_seed(0)
    return NGCF(config, Inputs(SPLIT.train, SPLIT.catalog.features))


def naive(model: NGCF, *, unit: bool) -> Tensor:
    """m_(u<-i) = p_ui (W1 e_i + W2 (e_i * e_u)), m_(u<-u) = W1 e_u; their sum activated; all layers side by side."""
    layers = [torch.cat([model.user_table.weight, model.item_table.weight])]
    degrees = EDGES.sum(1)
    for own, common in zip(model.backbone.own, model.backbone.common, strict=True):
        before, after = layers[-1], []
        for node in range(len(before)):
            total = own.weight @ before[node]
            for other in np.flatnonzero(EDGES[node]):
                message = own.weight @ before[other] + common.weight @ (before[other] * before[node])
                total = total + message / float(degrees[node] * degrees[other]) ** 0.5
            after.append(torch.where(total > 0, total, 0.2 * total))
        layers.append(torch.stack(after))
    if unit:
        layers[1:] = [layer / layer.norm(dim=1, keepdim=True) for layer in layers[1:]]
    return torch.cat(layers, dim=1)


@pytest.mark.parametrize("unit", [False, True])
def test_forward(unit: bool) -> None:
    model = made(NGCFConfig(embedding_dim=4, layer_dims=(5, 3), unit_layers=unit, init_std=0.5))
    with torch.no_grad():
        expected = naive(model, unit=unit)
    assert expected.shape[1] == 4 + 5 + 3
    torch.testing.assert_close(torch.cat(model.vectors()), expected)


def test_isolated_is_the_path_of_a_node_without_edges() -> None:
    model = made(NGCFConfig(embedding_dim=4, layer_dims=(5,), init_std=0.5)).eval()
    cold = torch.from_numpy(np.flatnonzero(SPLIT.train.item_counts == 0))
    found = model.backbone.isolated(model.item_table(cold)).detach()
    torch.testing.assert_close(found, model.vectors()[1][cold])


def test_dropout_is_of_training_alone() -> None:
    model = made(NGCFConfig(embedding_dim=4, layer_dims=(8,), message_dropout=0.5, init_std=0.5))
    users, items = torch.arange(model.num_users), torch.arange(model.num_items)
    assert (model(users, items)[0][:, 4:] == 0).any()
    assert torch.equal(model.vectors()[0], model.vectors()[0])
    assert not (model.vectors()[0][:-1, 4:] == 0).any()


def test_no_layers_is_matrix_factorisation() -> None:
    model = made(NGCFConfig(embedding_dim=4, layer_dims=()))
    assert torch.equal(model.vectors()[0], model.user_table.weight.detach())
