"""GAT against its equations, a node at a time, and as MetaMMF's backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from metammf.models.base import Inputs
from metammf.models.gat import GAT, GATConfig
from metammf.models.metammf import MetaMMF, MetaMMFConfig
from metammf.nn.backbone import GATBackbone
from metammf.testing.data import taste_groups
from metammf.testing.naive import edges_of

SPLIT = taste_groups(4, cold=1)
INPUTS = Inputs(SPLIT.train, SPLIT.catalog.features)
EDGES = edges_of(SPLIT.train)


def naive(backbone: GATBackbone, x: Tensor, heads: int) -> Tensor:
    """A node attends to its neighbours and to itself; heads side by side; ELU between two layers."""
    for depth, layer in enumerate(backbone.map):
        mapped = (x @ layer.weight.T).unflatten(1, (heads, -1))
        rows = []
        for node in range(len(x)):
            parts = []
            for head in range(heads):
                around = [node, *np.flatnonzero(EDGES[node])]
                logits = torch.stack(
                    [
                        backbone.receiving[depth][head] @ mapped[node, head]
                        + backbone.sending[depth][head] @ mapped[other, head]
                        for other in around
                    ]
                )
                alpha = torch.where(logits > 0, logits, 0.2 * logits).softmax(0)
                parts.append(sum(share * mapped[other, head] for share, other in zip(alpha, around, strict=True)))
            rows.append(torch.cat(parts))
        x = torch.stack(rows)
        if depth < len(backbone.map) - 1:
            x = torch.where(x > 0, x, x.exp() - 1)
    return x


@pytest.mark.parametrize("heads", [1, 3])
def test_forward(heads: int) -> None:
    torch.manual_seed(0)
    model = GAT(GATConfig(embedding_dim=6, num_heads=heads, init_std=1.0), INPUTS)
    with torch.no_grad():
        expected = naive(model.backbone, torch.cat([model.user_table.weight, model.item_table.weight]), heads)
    torch.testing.assert_close(torch.cat(model.vectors()), expected)


def test_it_is_a_backbone_of_metammf() -> None:
    config = MetaMMFConfig(backbone="gat", embedding_dim=8, hidden_dims=(), num_heads=2, num_layers=3)
    model = MetaMMF(config, INPUTS)
    assert isinstance(model.backbone, GATBackbone)
    assert (model.backbone.heads, len(model.backbone.map)) == (2, 3)


def test_heads_divide_the_width() -> None:
    for config in (GATConfig, MetaMMFConfig):
        with pytest.raises(ValueError, match="num_heads must divide embedding_dim 10, got 4"):
            config(embedding_dim=10, num_heads=4, **({"backbone": "gat"} if config is MetaMMFConfig else {}))
