"""GAT against its equations, a node at a time, and as MetaMMF's backbone."""

from __future__ import annotations

import pytest
import torch

from metammf.models.base import Inputs
from metammf.models.gat import GAT, GATConfig
from metammf.models.metammf import MetaMMF, MetaMMFConfig
from metammf.nn.backbone import GATBackbone
from metammf.testing.data import taste_groups
from metammf.testing.naive import attentive, edges_of

SPLIT = taste_groups(4, cold=1)
INPUTS = Inputs(SPLIT.train, SPLIT.catalog.features)
EDGES = edges_of(SPLIT.train)


@pytest.mark.parametrize("heads", [1, 3])
def test_forward(heads: int) -> None:
    torch.manual_seed(0)
    model = GAT(GATConfig(embedding_dim=6, num_heads=heads, init_std=1.0), INPUTS)
    with torch.no_grad():
        expected = attentive(EDGES, torch.cat([model.user_table.weight, model.item_table.weight]), model.backbone)
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
