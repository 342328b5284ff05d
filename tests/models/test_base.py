"""What stands between models and the rest: scorers, the content table, steps that leave edges out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metammf.data.features import ItemFeatures
from metammf.models import content_table, nodes
from metammf.models.base import Inputs
from metammf.models.content_table import ContentTable, content_of
from metammf.models.lightgcn import LightGCN, LightGCNConfig
from metammf.models.metammf import MetaMMF, MetaMMFConfig
from metammf.models.mf import MF, MFConfig
from metammf.models.scorers import FallbackScorer, VectorScorer, finished_scorer
from metammf.nn.graph import BipartiteGraph
from metammf.testing.data import taste_groups

SPLIT = taste_groups(4, cold=1, lacking=True)
INPUTS = Inputs(SPLIT.train, SPLIT.catalog.features)


def test_scores_are_dot_products() -> None:
    users, items = torch.randn(4, 3), torch.randn(5, 3)
    rankable = torch.tensor([True, True, False, True, True])
    found = VectorScorer(users, items, rankable).scores(torch.tensor([2, 0]))
    expected = torch.stack([items @ users[2], items @ users[0]])
    expected[:, 2] = -torch.inf
    torch.testing.assert_close(found, expected)


def test_fallback_is_popularity_and_keeps_out_what_cannot_be_recommended() -> None:
    scorer = finished_scorer(MF(MFConfig(embedding_dim=4), INPUTS), SPLIT.train)
    users = torch.tensor([0, INPUTS.num_users - 1])
    plain, final = scorer.scores(users), FallbackScorer(scorer, SPLIT.train).scores(users)
    assert torch.equal(final[0], plain[0])
    counts = torch.as_tensor(SPLIT.train.item_counts, dtype=torch.float32)
    assert torch.equal(final[1], torch.where(counts > 0, counts, -torch.inf))


def test_vectors_leave_the_mode_as_it_was() -> None:
    model = MetaMMF(MetaMMFConfig(embedding_dim=8, hidden_dims=(4,)), INPUTS)
    for mode in (True, False):
        model.train(mode)
        first, second = model.vectors()[1], model.vectors()[1]
        assert torch.equal(first, second)  # no dropout
        assert model.training is mode
        assert not first.requires_grad


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MetaMMF(MetaMMFConfig(backbone="lightgcn", embedding_dim=8, hidden_dims=(4,)), INPUTS)
    whole = model.vectors()
    monkeypatch.setattr(nodes, "_CHUNK_ROWS", 3)
    for found, expected in zip(model.vectors(), whole, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_of_features(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory or row by row from disk, half precision or not: the same."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((9, 4)).astype(dtype)
    mask = rng.random(9) < 0.5
    features = ItemFeatures({"visual": matrix}, {"visual": mask})
    items = torch.tensor([8, 0, 3, 3])
    for limit in (1 << 30, 0):
        monkeypatch.setattr(content_table, "RESIDENT_BYTES", limit)
        found = ContentTable(features).rows(items)
        assert found.values["visual"].dtype == torch.float32
        assert np.array_equal(found.values["visual"].numpy(), matrix[items.numpy()].astype(np.float32))
        assert np.array_equal(found.present["visual"].numpy(), mask[items.numpy()])
    assert content_of(features).values["visual"].dtype == torch.float32


def dense(pairs: set[tuple[int, int]]) -> BipartiteGraph:
    from scipy import sparse

    rows, columns = np.array(sorted(pairs)).T
    shape = (INPUTS.num_users, INPUTS.num_items)
    return BipartiteGraph(sparse.csr_array((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape))


@pytest.mark.parametrize("kind", ["edges", "items", "both"])
def test_a_graph_less_some_edges_is_the_graph_of_the_others(kind: str) -> None:
    pairs = set(zip(SPLIT.train.users.tolist(), SPLIT.train.items.tolist(), strict=True))
    edges = sorted(pairs)[::3] if kind != "items" else []
    hidden = torch.zeros(INPUTS.num_items, dtype=torch.bool)
    if kind != "edges":
        hidden[[0, 5]] = True
    kept = {(user, item) for user, item in pairs - set(edges) if not hidden[item]}
    asked = tuple(torch.tensor(column) for column in zip(*edges, strict=True)) if edges else None
    thinned = INPUTS.graph.without(asked, hidden if kind != "edges" else None)
    other = dense(kept)
    torch.testing.assert_close(thinned.user_degrees, other.user_degrees)
    torch.testing.assert_close(thinned.item_degrees, other.item_degrees)
    users = torch.randn(INPUTS.num_users, 3, requires_grad=True)
    items = torch.randn(INPUTS.num_items, 3, requires_grad=True)
    results = []
    for graph in (thinned, other):
        out = torch.cat([*graph.symmetric_neighbours(users, items), *graph.mean_neighbours(users, items)])
        results.append((out, *torch.autograd.grad(out.square().sum(), (users, items))))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_hidden_targets_are_not_in_the_graph_that_predicts_them() -> None:
    """The vector of a user no longer hangs on the item that it is to predict; outside training it does."""
    model = LightGCN(LightGCNConfig(embedding_dim=4, num_layers=1, hide_targets=True), INPUTS)
    user, item = int(SPLIT.train.users[0]), int(SPLIT.train.items[0])
    for hidden in (True, False):
        model.train(hidden)
        model.zero_grad()
        model.begin_step(torch.tensor([user]), torch.tensor([item]))
        model(torch.tensor([user]), torch.tensor([item]))[0].sum().backward()
        assert model.item_table.weight.grad[item].any() != hidden


def test_simulated_cold_items_go_the_way_of_new_ones() -> None:
    config = MetaMMFConfig(
        backbone="lightgcn", embedding_dim=8, hidden_dims=(4,), simulated_cold=0.4, id_dropout=0.0, num_layers=1
    )
    torch.manual_seed(0)
    model = MetaMMF(config, INPUTS)
    model.train()
    model.begin_step(torch.tensor([0]), torch.tensor([0]))
    assert model.isolated is not None
    items = torch.arange(INPUTS.num_items)
    found = model(torch.tensor([0]), items)[1]
    encoded = model.encode_items(content_of(SPLIT.catalog.features))
    same = torch.isclose(found, encoded, atol=1e-6).all(1)
    assert torch.equal(same, model.isolated | INPUTS.cold_items)
    assert 0 < model.isolated.sum() < INPUTS.num_items


def test_edge_dropout_leaves_out_a_share_of_the_edges() -> None:
    torch.manual_seed(0)
    counts = [INPUTS.graph.without(share=0.25).user_degrees.sum().item() for _ in range(200)]
    assert np.mean(counts) == pytest.approx(0.75 * len(SPLIT.train), rel=0.03)
    assert len(set(counts)) > 3
