"""FREEDOM against its paper, an item, an edge and a pair of items at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from metammf.models.base import Batch, Inputs
from metammf.models.freedom import FREEDOM, FREEDOMConfig
from metammf.testing.data import taste_groups
from metammf.testing.naive import edges_of, light
from metammf.testing.naive_item_graphs import alike, mixed, raw
from metammf.training.config import TrainingConfig
from metammf.training.objectives import make_objective
from metammf.training.shared import SharedVectors

if TYPE_CHECKING:
    import numpy as np

SPLIT = taste_groups(4, cold=1, lacking=True)
INPUTS = Inputs(SPLIT.train, SPLIT.catalog.features)
USERS, ITEMS = INPUTS.num_users, INPUTS.num_items
WARM = torch.from_numpy(SPLIT.train.item_counts > 0)
BATCH = Batch(torch.tensor([0, 1, 2, 0]), torch.tensor([2, 3, 4, 4]), torch.tensor([[1, 3], [0, 2], [7, 5], [3, 3]]))


def made(**settings: Any) -> FREEDOM:
    torch.manual_seed(0)
    model = FREEDOM(FREEDOMConfig(embedding_dim=4, num_neighbours=3, **settings), INPUTS)
    for vector in model.stand_ins.values():
        torch.nn.init.normal_(vector)  # zero at the start
    return model


def over_items(x: Tensor, hops: int, weights: tuple[float, ...] = (0.1, 0.9)) -> Tensor:
    """h~: S = sum_m alpha_m S~^m, hops times; the visual modality is the first."""
    graphs = [alike(SPLIT, name, raw(SPLIT, name), 3, weighted=False) for name in ("visual", "textual")]
    graph = mixed(SPLIT, graphs, weights)
    for _ in range(hops):
        x = graph @ x
    return x


def naive(model: FREEDOM, edges: np.ndarray, hops: int = 1) -> tuple[Tensor, Tensor]:
    """h_u = h^_u and h_i = h^_i + h~_i; a node that has train interactions is divided by its hops, with or without edges."""
    ids = model.item_table.weight
    both = light(edges, torch.cat([model.user_table.weight, ids]), 2, counted=edges_of(SPLIT.train))
    return both[:USERS], both[USERS:] + over_items(ids, hops)


@pytest.mark.parametrize("hops", [1, 2])
def test_vectors(hops: int) -> None:
    model = made(num_item_layers=hops)
    users, items = model.vectors()
    with torch.no_grad():
        expected_users, expected_items = naive(model, edges_of(SPLIT.train), hops)
    torch.testing.assert_close(users, expected_users)
    torch.testing.assert_close(items[WARM], expected_items[WARM])
    torch.testing.assert_close(items[~WARM], expected_items[~WARM], atol=1e-4, rtol=1e-3)
    assert not model.item_table.weight[~WARM].any()


def test_an_epoch_trains_on_a_part_of_the_edges() -> None:
    model = made(edge_pruning=0.6).train()
    model.begin_epoch(torch.Generator().manual_seed(0))
    assert model._pruned is not None
    kept = model._pruned.sum_to_users(torch.eye(ITEMS)).numpy() > 0
    assert kept.sum() == int(0.4 * len(SPLIT.train))
    edges = edges_of(SPLIT.train)
    assert not (kept & ~edges[:USERS, USERS:]).any()
    edges[:USERS, USERS:], edges[USERS:, :USERS] = kept, kept.T
    assert (edges_of(SPLIT.train).any(1) & ~edges.any(1)).any()  # some nodes have lost all of theirs
    users, items = model(torch.arange(USERS), torch.arange(ITEMS))
    expected_users, expected_items = naive(model, edges)
    torch.testing.assert_close(users, expected_users)
    torch.testing.assert_close(items[WARM], expected_items[WARM])
    again = made(edge_pruning=0.6).train()
    again.begin_epoch(torch.Generator().manual_seed(0))
    torch.testing.assert_close(again(torch.arange(USERS), torch.arange(ITEMS))[0], users)
    again.begin_epoch(torch.Generator().manual_seed(1))
    assert not torch.allclose(again(torch.arange(USERS), torch.arange(ITEMS))[0], users)


def test_no_pruning_is_the_whole_graph() -> None:
    model = made(edge_pruning=0.0).train()
    model.begin_epoch(torch.Generator())
    users, _ = model(torch.arange(USERS), torch.arange(ITEMS))
    torch.testing.assert_close(users, naive(model, edges_of(SPLIT.train))[0])


def naive_terms(model: FREEDOM) -> dict[str, Tensor]:
    """-log sigmoid of each triple's difference: of h_i, and lambda times that of W_m x_i + b_m, a modality at a time."""
    users, items = naive(model, edges_of(SPLIT.train))
    features = SPLIT.catalog.features

    def projected(name: str, item: int) -> Tensor:
        if not features.present[name][item]:
            return model.stand_ins[f"of_{name}"]
        layer = model.projections.of(name)
        return layer.weight @ raw(SPLIT, name)[item] + layer.bias

    vectors = {"bpr": list(items)} | {
        name: [projected(name, item) for item in range(ITEMS)] for name in features.modalities
    }
    terms = {}
    for name, rows in vectors.items():
        losses = [
            -torch.log(torch.sigmoid(users[user] @ rows[positive] - users[user] @ rows[negative]))
            for user, positive, negatives in zip(BATCH.users, BATCH.positives, BATCH.negatives, strict=True)
            for negative in negatives
        ]
        terms[name] = torch.stack(losses).mean() * (1 if name == "bpr" else 0.3)
    return terms


def test_loss_terms() -> None:
    model = made(edge_pruning=0.0, modality_weight=0.3).train()
    objective = model.extended(make_objective(TrainingConfig(l2_reg=0.1)))
    found, expected = dict(objective(model, BATCH)), naive_terms(model)
    penalty = found.pop("l2")
    assert set(found) == set(expected) == {"bpr", "visual", "textual"}
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term)
    nodes = torch.cat([BATCH.positives, BATCH.negatives.flatten()])
    squares = model.user_table.weight[BATCH.users].square().sum() + model.item_table.weight[nodes].square().sum()
    torch.testing.assert_close(penalty, 0.05 * squares / 4)
    parameters = list(model.content_parameters())
    gradients = torch.autograd.grad(torch.stack(list(found.values())).sum(), parameters)
    torch.testing.assert_close(gradients, torch.autograd.grad(torch.stack(list(expected.values())).sum(), parameters))


def test_batches_may_share_vectors() -> None:
    model = made(edge_pruning=0.0, modality_weight=0.3).train()
    objective = model.extended(make_objective(TrainingConfig()))
    found, expected = objective(SharedVectors(model, [BATCH, BATCH]), BATCH), objective(model, BATCH)
    torch.testing.assert_close(dict(found), dict(expected))


def test_any_objective_takes_the_terms() -> None:
    model = made(modality_weight=0.3).train()
    shared = Batch(BATCH.users, BATCH.positives, torch.tensor([1, 5]), masked=torch.zeros(2, 0, dtype=torch.int64))
    terms = model.extended(make_objective(TrainingConfig(objective="softmax")))(model, shared)
    assert set(terms) == {"softmax", "visual", "textual"}


def test_without_the_terms_there_is_nothing_to_project() -> None:
    model = made(modality_weight=0.0)
    standard = make_objective(TrainingConfig())
    assert model.extended(standard) is standard
    assert not model.content_parameters()


@pytest.mark.parametrize(("names", "weights"), [(("textual",), (0.0, 1.0)), (("visual",), (1.0, 0.0))])
def test_one_modality_alone(names: tuple[str, ...], weights: tuple[float, ...]) -> None:
    model = made(modalities=names)
    x = torch.randn(ITEMS, 4)
    x[~WARM] = 0
    graph = alike(SPLIT, names[0], raw(SPLIT, names[0]), 3, weighted=False)
    assert sum(weights) == 1
    torch.testing.assert_close(model._over_items(x)[WARM], (graph @ x)[WARM])
