"""Objectives against loops over the batch, and how a batch asks a model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metammf.models.base import Batch, Model
from metammf.testing.data import taste_groups
from metammf.training.config import TrainingConfig
from metammf.training.objectives import draw_batch, make_objective, objective_of
from metammf.training.sampling import NegativeSampler

TRAIN = taste_groups(5).train


class Table(Model):
    """Free vectors, and a note of what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.num_users, self.num_items = TRAIN.num_users, TRAIN.num_items
        torch.manual_seed(0)
        self.users, self.items = nn.Embedding(self.num_users, 4), nn.Embedding(self.num_items, 4)
        self.asked: list[tuple[list[int], list[int]]] = []

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append((users.tolist(), items.tolist()))
        return self.users(users), self.items(items)

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        return [self.users(users), self.items(items)]

    def score(self, user: int, item: int) -> float:
        return (self.users.weight[user] @ self.items.weight[item]).item()


def batch(**settings: object) -> tuple[Batch, TrainingConfig]:
    config = TrainingConfig(num_negatives=3, **settings)
    sampler = NegativeSampler(TRAIN, config.negative_sampling, exponent=config.popularity_exponent)
    users, items = (torch.from_numpy(part[:12].astype(np.int64)) for part in (TRAIN.users, TRAIN.items))
    return draw_batch(users, items, sampler, config, torch.Generator().manual_seed(0)), config


@pytest.mark.parametrize("objective", ["bpr", "bce", "softmax"])
def test_the_model_is_asked_once_for_distinct_nodes(objective: str) -> None:
    model = Table()
    drawn, config = batch(objective=objective)
    make_objective(config)(model, drawn)
    ((users, items),) = model.asked
    assert users == sorted(set(drawn.users.tolist()))
    assert items == sorted({*drawn.positives.tolist(), *drawn.negatives.flatten().tolist()})


def test_vectors_come_back_in_the_order_of_the_batch() -> None:
    model = Table()
    drawn, _ = batch()
    users, positives, negatives = drawn.vectors(model)
    assert torch.equal(users, model.users(drawn.users))
    assert torch.equal(positives, model.items(drawn.positives))
    assert torch.equal(negatives, model.items(drawn.negatives))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def triples(model: Table, drawn: Batch) -> list[tuple[float, list[float]]]:
    return [
        (model.score(user, positive), [model.score(user, negative) for negative in negatives])
        for user, positive, negatives in zip(
            drawn.users.tolist(), drawn.positives.tolist(), drawn.negatives.tolist(), strict=True
        )
    ]


def test_bpr_and_bce_equal_loops() -> None:
    model = Table()
    drawn, config = batch(objective="bpr")
    scored = triples(model, drawn)
    expected = np.mean([-math.log(sigmoid(p - n)) for p, negatives in scored for n in negatives])
    assert make_objective(config)(model, drawn)["bpr"].item() == pytest.approx(expected, rel=1e-5)
    drawn, config = batch(objective="bce")
    scored = triples(model, drawn)
    expected = np.mean([-math.log(sigmoid(p)) - np.mean([math.log(sigmoid(-n)) for n in ns]) for p, ns in scored])
    assert make_objective(config)(model, drawn)["bce"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("logq", [True, False])
@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_sampled_softmax_equals_a_loop(sampling: str, logq: bool) -> None:
    """Each score over the temperature less the log of the item's expected count; the user's positives masked."""
    model = Table()
    drawn, config = batch(
        objective="softmax", shared_negatives=7, temperature=0.5, negative_sampling=sampling, logq=logq
    )
    counts = TRAIN.item_counts.astype(float) ** (0.75 if sampling == "popularity" else 0.0) * (TRAIN.item_counts > 0)
    expected_count = 7 * counts / counts.sum()
    watched = set(zip(TRAIN.users.tolist(), TRAIN.items.tolist(), strict=True))
    times = [1.0] * len(drawn.negatives)
    if logq:
        times = (drawn.negative_correction.exp() * torch.from_numpy(expected_count)[drawn.negatives]).tolist()
        assert sum(times) == pytest.approx(7, abs=1e-4)
    losses = []
    for user, positive in zip(drawn.users.tolist(), drawn.positives.tolist(), strict=True):

        def weight(item: int, user: int = user) -> float:
            return math.exp(model.score(user, item) / 0.5) / (expected_count[item] if logq else 1)

        total = weight(positive)
        for item, often in zip(drawn.negatives.tolist(), times, strict=True):
            if (user, item) not in watched:
                total += often * weight(item)
        losses.append(-math.log(weight(positive) / total))
    assert make_objective(config)(model, drawn)["softmax"].item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_full_softmax_is_cross_entropy_over_all_unwatched_items_and_the_positive() -> None:
    model = Table()
    drawn, config = batch(objective="softmax", shared_negatives=0, temperature=0.5)
    scores = model.users(drawn.users) @ model.items.weight.T / 0.5
    watched = torch.from_numpy(TRAIN.matrix.toarray() > 0)[drawn.users]
    watched[torch.arange(12), drawn.positives] = False
    expected = nn.functional.cross_entropy(scores.masked_fill(watched, -torch.inf), drawn.positives)
    torch.testing.assert_close(make_objective(config)(model, drawn)["softmax"], expected)


@pytest.mark.parametrize("count", [0, 400])
def test_as_many_negatives_as_there_are_make_the_full_softmax(count: int) -> None:
    """Each positive against itself and every item that its user has not watched, however they would have been sampled."""
    model = Table()
    drawn, config = batch(objective="softmax", shared_negatives=count, negative_sampling="popularity", temperature=0.5)
    make_objective(config)(model, drawn)["softmax"].backward()
    found = model.users.weight.grad.clone()
    model.users.weight.grad = None
    scores = model.users(drawn.users) @ model.items.weight.T / 0.5
    watched = torch.from_numpy(TRAIN.matrix.toarray() > 0)[drawn.users]
    rows = torch.arange(12)
    watched[rows, drawn.positives] = False
    partition = scores.masked_fill(watched, -torch.inf).logsumexp(1)
    (partition - scores[rows, drawn.positives]).mean().backward()
    torch.testing.assert_close(found, model.users.weight.grad)


def test_penalty_is_half_the_squared_norms_over_the_positives() -> None:
    model = Table()
    drawn, config = batch(objective="bpr", l2_reg=0.1)
    total = 0.0
    for user, positive, negatives in zip(
        drawn.users.tolist(), drawn.positives.tolist(), drawn.negatives.tolist(), strict=True
    ):
        total += model.users.weight[user].square().sum().item()
        total += sum(model.items.weight[item].square().sum().item() for item in (positive, *negatives))
    terms = make_objective(config)(model, drawn)
    assert set(terms) == {"bpr", "l2"}
    assert terms["l2"].item() == pytest.approx(0.1 * 0.5 * total / 12, rel=1e-5)


def test_no_penalty_no_term() -> None:
    drawn, config = batch(objective="softmax")
    assert set(make_objective(config)(Table(), drawn)) == {"softmax"}


def test_what_a_paper_adds_is_part_of_what_its_model_is_trained_by(monkeypatch):
    def nothing(_model, _batch):
        return {}

    config = TrainingConfig()
    assert type(objective_of(Table(), config)) is type(make_objective(config))
    monkeypatch.setattr(Table, "extended", lambda *_: nothing)
    assert objective_of(Table(), config) is nothing
    monkeypatch.setattr(Table, "objective", lambda *_: max)
    assert objective_of(Table(), config) is max
