"""MMGCN against its equations, a node and a modality at a time."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from metammf.errors import DataError
from metammf.models.base import Inputs
from metammf.models.mmgcn import MMGCN, MMGCNConfig
from metammf.testing.data import taste_groups
from metammf.testing.naive import edges_of

SPLIT = taste_groups(4, cold=1, lacking=True)
FEATURES, WARM = SPLIT.catalog.features, SPLIT.train.item_counts > 0
EDGES = edges_of(SPLIT.train)


def made(config: MMGCNConfig) -> MMGCN:
    torch.manual_seed(0)
    model = MMGCN(config, Inputs(SPLIT.train, FEATURES))
    for parameter in [model.item_ids.unknown, *model.concat.vectors.values()]:
        torch.nn.init.normal_(parameter)  # zero at the start
    return model


@pytest.mark.parametrize("id_dropout", [0.0, 0.5])
def test_the_unknown_id_is_trained_by_dropout_alone(id_dropout: float) -> None:
    """Without, it stays the zero that it starts as: a cold item, which no step predicts, then has no id."""
    torch.manual_seed(0)
    model = MMGCN(MMGCNConfig(embedding_dim=4, content_dim=3, id_dropout=id_dropout), Inputs(SPLIT.train, FEATURES))
    assert not model.item_ids.unknown.any()
    warm = torch.from_numpy(np.flatnonzero(WARM))
    users, items = model.train()(torch.arange(model.num_users), warm)
    (users.square().sum() + items.square().sum()).backward()
    assert bool(model.item_ids.unknown.grad.any()) == bool(id_dropout)


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.01 * x)


def entering(model: MMGCN, name: str, place: int) -> Tensor:
    """Users' free preferences in a modality, then items' mapped features; a learned vector where an item lacks it."""
    dim, width = 4, 3
    start = dim + place * width
    rows = list(model.user_table.weight[:, start : start + width])
    layer = model.project[f"of_{name}"]
    for item in range(model.num_items):
        has = FEATURES.present[name][item]
        told = torch.from_numpy(FEATURES.matrices[name][item]) if has else model.concat.vectors[f"of_{name}"]
        rows.append(layer.weight @ told + layer.bias)
    return torch.stack(rows)


def naive(model: MMGCN, combination: str) -> Tensor:
    item_ids = [model.item_ids.table.weight[item] if warm else model.item_ids.unknown for item, warm in enumerate(WARM)]
    ids = torch.stack([*model.user_table.weight[:, :4], *item_ids])
    total = torch.zeros_like(ids)
    for place, name in enumerate(FEATURES.modalities):
        x = entering(model, name, place)
        for layer in model.backbone.layers[f"of_{name}"]:
            after = []
            for node in range(len(x)):
                around = [layer.message.weight @ x[other] for other in np.flatnonzero(EDGES[node])]
                h = leaky(torch.stack(around).mean(0)) if around else torch.zeros(4)
                own = leaky(layer.own.weight @ x[node]) + ids[node]
                w3 = layer.joined.weight
                after.append(leaky(w3 @ h + own) if combination == "add" else leaky(w3 @ torch.cat([h, own])))
            x = torch.stack(after)
        total = total + x
    return total


@pytest.mark.parametrize("combination", ["add", "concat"])
def test_forward(combination: Literal["add", "concat"]) -> None:
    config = MMGCNConfig(embedding_dim=4, content_dim=3, combination=combination, feature_scaling="none", init_std=0.5)
    model = made(config)
    with torch.no_grad():
        expected = naive(model, combination)
    torch.testing.assert_close(torch.cat(model.vectors()), expected)


def test_any_set_of_modalities() -> None:
    model = made(MMGCNConfig(embedding_dim=4, content_dim=3, modalities=("textual",)))
    assert model.modalities == ("textual",)
    assert model.user_table.embedding_dim == 4 + 3
    with pytest.raises(DataError, match="unknown modality 'smell'"):
        made(MMGCNConfig(modalities=("smell",)))


def test_a_penalty_lies_on_ids_and_preferences() -> None:
    model = made(MMGCNConfig(embedding_dim=4, content_dim=3))
    users, items = model.embeddings(torch.tensor([1]), torch.tensor([2]))
    assert users.shape == (1, 4 + 2 * 3)
    assert torch.equal(items, model.item_ids.table.weight[2:3])
