"""Models against their papers' definitions, written out one item and one node at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metammf.errors import ConfigError, DataError
from metammf.models.base import Inputs, Model
from metammf.models.graphsage import GraphSAGE, GraphSAGEConfig
from metammf.models.lightgcn import LightGCN, LightGCNConfig
from metammf.models.metammf import MetaMMF, MetaMMFConfig
from metammf.models.mf import MF, MFConfig
from metammf.models.vbpr import VBPR, VBPRConfig
from metammf.nn.meta import LowRankMetaLinear
from metammf.testing.data import taste_groups
from metammf.testing.naive import edges_of, light, standardized

if TYPE_CHECKING:
    from metammf.nn.content import MissingContent

SPLIT = taste_groups(4, cold=1, lacking=True)
INPUTS = Inputs(SPLIT.train, SPLIT.catalog.features)
USERS, ITEMS = INPUTS.num_users, INPUTS.num_items
EDGES = edges_of(SPLIT.train)


def made(kind: type, config: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return kind(config, INPUTS)


def all_vectors(model: Model) -> Tensor:
    """Users' vectors, then items'."""
    return torch.cat(model.vectors())


def mean(rows: list[Tensor], dim: int) -> Tensor:
    return torch.stack(rows).mean(0) if rows else torch.zeros(dim)


def sage(model: Any, x: Tensor) -> Tensor:
    """Two layers D -> D, root weight plus the mean over neighbours, LeakyReLU after the first; node by node."""
    layers = model.backbone
    for depth in range(2):
        after = []
        for node in range(len(x)):
            around = mean([x[other] for other in np.flatnonzero(EDGES[node])], x.shape[1])
            row = layers.root[depth].weight @ x[node] + layers.neighbour[depth].weight @ around
            row = row + layers.neighbour[depth].bias
            after.append(torch.where(row > 0, row, 0.01 * row) if depth == 0 else row)
        x = torch.stack(after)
    return x


def features_of(concat: MissingContent, item: int) -> Tensor:
    """All modalities of an item side by side; a learned vector stands for one that it lacks."""
    features = SPLIT.catalog.features
    return torch.cat(
        [
            torch.from_numpy(standardized(SPLIT, name)[item]).float()
            if features.present[name][item]
            else concat.vectors[f"of_{name}"]
            for name in features.modalities
        ]
    )


def fused(model: MetaMMF, item: int) -> Tensor:
    """An item's own network: x_i, s_i = MLP(x_i), W_i^n = W^n + sum_s s_is T^n[s] formed, h^n = act(h^(n-1) W_i^n)."""
    x = features_of(model.fusion.concat, item)
    meta = model.fusion.meta.out(torch.relu(model.fusion.meta.hidden(x)))
    for depth, layer in enumerate(model.fusion.layers):
        dynamic = layer.dense_factors() if isinstance(layer, LowRankMetaLinear) else layer.dynamic
        weight = layer.shared + sum(s * slice_ for s, slice_ in zip(meta, dynamic, strict=True))
        x = x @ weight
        if depth < len(model.fusion.layers) - 1:
            x = torch.where(x > 0, x, 0.01 * x)
    return x


def metammf_inputs(model: MetaMMF, combine: str) -> Tensor:
    items = []
    for item in range(ITEMS):
        cold = SPLIT.train.item_counts[item] == 0
        own = model.item_ids.unknown if cold else model.item_ids.table.weight[item]
        content = fused(model, item)
        items.append(torch.cat([content, own]) if combine == "concat" else content + own)
    return torch.cat([model.user_table.weight, torch.stack(items)])


@pytest.mark.parametrize("combine", ["concat", "sum"])
@pytest.mark.parametrize("fusion", ["cp", "dense"])
@pytest.mark.parametrize("backbone", ["mf", "graphsage", "lightgcn"])
def test_metammf(backbone: str, fusion: str, combine: str) -> None:
    """MetaMMF_MF, MetaMMF_GCN, and MetaMMF on LightGCN."""
    config = MetaMMFConfig(
        backbone=backbone, fusion=fusion, combine=combine, embedding_dim=8, hidden_dims=(7, 6), meta_dim=3, cp_rank=2
    )
    model = made(MetaMMF, config)
    for parameter in [model.item_ids.unknown, *model.fusion.concat.vectors.values()]:
        torch.nn.init.normal_(parameter)  # zero at the start
    with torch.no_grad():
        x = metammf_inputs(model, combine)
        expected = {"mf": lambda: x, "graphsage": lambda: sage(model, x), "lightgcn": lambda: light(EDGES, x, 2)}[
            backbone
        ]()
    torch.testing.assert_close(all_vectors(model), expected, atol=1e-5, rtol=1e-4)


def test_lightgcn() -> None:
    model = made(LightGCN, LightGCNConfig(embedding_dim=4, num_layers=3))
    x = torch.cat([model.user_table.weight, model.item_table.weight]).detach()
    torch.testing.assert_close(all_vectors(model), light(EDGES, x, 3))


def test_graphsage() -> None:
    model = made(GraphSAGE, GraphSAGEConfig(embedding_dim=4))
    with torch.no_grad():
        expected = sage(model, torch.cat([model.user_table.weight, model.item_table.weight]))
    torch.testing.assert_close(all_vectors(model), expected)


def test_mf_and_cosine() -> None:
    plain, cosine = (made(MF, MFConfig(embedding_dim=4, normalize=normalize)) for normalize in (False, True))
    x = torch.cat([plain.user_table.weight, plain.item_table.weight]).detach()
    torch.testing.assert_close(all_vectors(plain), x)
    torch.testing.assert_close(all_vectors(cosine), x / x.norm(dim=1, keepdim=True))


def test_vbpr() -> None:
    """Score = b_i + gamma_u . gamma_i + theta_u . (E f_i) + beta . f_i, a pair at a time."""
    model = made(VBPR, VBPRConfig(embedding_dim=6))
    for vector in model.concat.vectors.values():
        torch.nn.init.normal_(vector)  # zero at the start
    warm = SPLIT.train.item_counts > 0
    with torch.no_grad():
        model.item_table.weight[torch.from_numpy(warm), -1] = torch.randn(int(warm.sum()))
        beta, projection = model.project.weight[0], model.project.weight[1:]
        expected = torch.zeros(USERS, ITEMS)
        for user in range(USERS):
            gamma_user, theta = model.user_table.weight[user, :3], model.user_table.weight[user, 3:]
            for item in range(ITEMS):
                f = features_of(model.concat, item)
                gamma, bias = model.item_table.weight[item, :3], model.item_table.weight[item, 3]
                own = bias + gamma_user @ gamma if warm[item] else 0.0  # a cold item has neither
                expected[user, item] = own + theta @ (projection @ f) + beta @ f
    users, items = model.vectors()
    torch.testing.assert_close(users @ items.T, expected, atol=1e-5, rtol=1e-4)
    assert model.item_offsets(torch.arange(ITEMS)) is None


@pytest.mark.parametrize("backbone", ["mf", "graphsage", "lightgcn"])
def test_some_nodes_have_the_vectors_that_they_have_among_all(backbone: str) -> None:
    model = made(MetaMMF, MetaMMFConfig(backbone=backbone, embedding_dim=8, hidden_dims=(4,))).eval()
    users, items = model.vectors()
    some_users, some_items = torch.tensor([0, 3, 7]), torch.tensor([1, ITEMS - 1])
    found_users, found_items = model(some_users, some_items)
    torch.testing.assert_close(found_users.detach(), users[some_users])
    torch.testing.assert_close(found_items.detach(), items[some_items])


def test_dropped_ids_get_the_unknown_row_in_training_alone() -> None:
    model = made(MetaMMF, MetaMMFConfig(backbone="mf", embedding_dim=8, hidden_dims=(), id_dropout=0.5))
    torch.nn.init.constant_(model.item_ids.unknown, 7.0)
    warm = torch.arange(8)
    dropped = (model.item_ids(warm.repeat(200)) == 7).all(1)
    assert 0.45 < dropped.float().mean() < 0.55
    model.eval()
    assert torch.equal(model.item_ids(warm), model.item_ids.table.weight[:8])
    assert (model.item_ids(torch.arange(8, ITEMS)) == 7).all()


def test_modalities_may_be_chosen() -> None:
    model = made(MetaMMF, MetaMMFConfig(backbone="mf", embedding_dim=8, hidden_dims=(), modalities=("textual",)))
    assert model.modalities == ("textual",)
    assert model.fusion.layers[0].shared.shape == (3, 4)
    with pytest.raises(DataError, match=r"unknown modality 'textua' \(did you mean 'textual'\?\)"):
        made(MetaMMF, MetaMMFConfig(modalities=("textua",)))


def test_no_features_no_fusion() -> None:
    with pytest.raises(ConfigError, match="no features"):
        MetaMMF(MetaMMFConfig(), Inputs(SPLIT.train, SPLIT.catalog.features.only(())))


def test_odd_widths_cannot_be_halved() -> None:
    for config in (MetaMMFConfig, VBPRConfig):
        with pytest.raises(ValueError, match="even"):
            config(embedding_dim=9)
    assert MetaMMFConfig(embedding_dim=9, combine="sum").embedding_dim == 9


def test_what_is_not_touched_is_not_built() -> None:
    inputs = Inputs(SPLIT.train, SPLIT.catalog.features)
    MF(MFConfig(embedding_dim=4), inputs)
    assert not {"graph", "content"} & set(vars(inputs))


def test_the_paper_s_sizes() -> None:
    """F -> 1024 -> 512 -> 256 -> 32, S = 5, R = 16, D = 64, two GraphSAGE layers, dropouts 0.5 and 0.2."""
    config = MetaMMFConfig()
    assert (config.backbone, config.fusion, config.combine, config.embedding_dim) == ("graphsage", "cp", "concat", 64)
    assert (config.hidden_dims, config.meta_dim, config.cp_rank) == ((1024, 512, 256), 5, 16)
    assert (config.num_layers, config.hidden_dropout, config.final_dropout) == (2, 0.5, 0.2)
