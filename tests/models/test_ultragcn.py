"""UltraGCN's losses on the tiny world, an interaction and a neighbour at a time."""

from __future__ import annotations

import math

import pytest
import torch

from metammf.errors import ConfigError
from metammf.models.base import Batch, Inputs
from metammf.models.ultragcn import UltraGCN, UltraGCNConfig
from metammf.nn.cooccurrence import cooccurrence_neighbours
from metammf.testing.data import taste_groups
from metammf.training.config import TrainingConfig
from metammf.training.fit import fit
from metammf.training.shared import SharedVectors

SPLIT = taste_groups(4, cold=1)
INPUTS = Inputs(SPLIT.train, SPLIT.catalog.features)
USERS, POSITIVES = (
    torch.from_numpy(side[[0, 3, 5, 6]].astype("int64")) for side in (SPLIT.train.users, SPLIT.train.items)
)
BATCH = Batch(USERS, POSITIVES, torch.tensor([[1, 3], [5, 7], [0, 2], [2, 6]]))


def made(**settings: float) -> UltraGCN:
    torch.manual_seed(0)
    return UltraGCN(UltraGCNConfig(embedding_dim=4, item_neighbours=3, **settings), INPUTS)


def log_sigmoid(score: float) -> float:
    return -math.log1p(math.exp(-score))


def test_scores_are_dot_products_of_free_vectors() -> None:
    model = made()
    users, items = model.vectors()
    assert torch.equal(users, model.user_table.weight)
    assert torch.equal(items, model.item_table.weight)


def test_loss() -> None:
    model = made(constraint_weight=0.7, negative_weight=2.0, item_weight=1.5)
    terms = model.objective(TrainingConfig(objective="bce", l2_reg=0.3))(model, BATCH)
    scores = (model.user_table.weight @ model.item_table.weight.T).tolist()
    d_u, d_i = SPLIT.train.user_counts.tolist(), SPLIT.train.item_counts.tolist()
    neighbours, strengths = cooccurrence_neighbours(SPLIT.train.matrix, 3)
    main = constraint = items = squares = 0.0
    for user, positive, negatives in zip(USERS.tolist(), POSITIVES.tolist(), BATCH.negatives.tolist(), strict=True):

        def beta(item: int, user: int = user) -> float:
            return math.sqrt((d_u[user] + 1) / (d_i[item] + 1)) / d_u[user]

        good, bad = log_sigmoid(scores[user][positive]), [log_sigmoid(-scores[user][j]) for j in negatives]
        main -= good + 2.0 * sum(bad) / 2
        constraint -= 0.7 * (
            beta(positive) * good + 2.0 * sum(beta(j) * x for j, x in zip(negatives, bad, strict=True)) / 2
        )
        for j, omega in zip(neighbours[positive].tolist(), strengths[positive].tolist(), strict=True):
            items -= 1.5 * omega * log_sigmoid(scores[user][j])
        squares += model.user_table.weight[user].square().sum().item()
        squares += sum(model.item_table.weight[j].square().sum().item() for j in (positive, *negatives))
    expected = {"main": main / 4, "constraint": constraint / 4, "items": items / 4, "l2": 0.3 * 0.5 * squares / 4}
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)


def test_without_weight_there_is_no_graph_of_items() -> None:
    model = made(item_weight=0.0)
    assert model.losses.graph is None
    assert set(model.objective(TrainingConfig())(model, BATCH)) == {"main", "constraint"}


def test_batches_that_share_vectors_have_the_gradients_of_one() -> None:
    gradients = []
    for share in (False, True):
        model = made(item_weight=1.0)
        source = SharedVectors(model, [BATCH]) if share else model
        sum(model.objective(TrainingConfig())(source, BATCH).values()).backward()
        if share:
            source.backward()
        gradients.append([weight.grad for weight in model.parameters()])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_neighbours_of_the_batch_are_read_by_rows_too() -> None:
    """A step that moves the rows that it reads alone reads those of the item-item loss as well."""
    config = UltraGCNConfig(embedding_dim=4, item_neighbours=3, item_weight=1.0)
    dense, touched = (
        fit(
            config,
            SPLIT.development,
            training=TrainingConfig(epochs=4, batch_size=30, weight_decay=0.0, patience=None, table_updates=updates),
        ).vectors()
        for updates in ("dense", "touched")
    )
    torch.testing.assert_close(touched.users, dense.users, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(touched.items, dense.items, atol=1e-4, rtol=1e-3)


def test_shared_negatives_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"UltraGCN descends a loss of its own.*training\.objective"):
        made().objective(TrainingConfig(objective="softmax"))
