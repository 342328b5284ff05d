"""UltraGCN's losses of scores, a pair at a time."""

from __future__ import annotations

import math

import pytest
import torch

from metammf.nn.constraint import ConstraintLoss


def log_sigmoid(score: float) -> float:
    return -math.log1p(math.exp(-score))


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_each_pair_counts_by_its_degrees(weight: float) -> None:
    user_degrees, item_degrees = torch.tensor([3.0, 0.0, 5.0]), torch.tensor([1.0, 2.0, 0.0, 4.0])
    loss = ConstraintLoss(user_degrees, item_degrees, weight)
    users, positives = torch.tensor([2, 0]), torch.tensor([3, 1])
    negatives = torch.tensor([[0, 1, 2], [3, 3, 0]])
    raised, lowered = torch.randn(2), torch.randn(2, 3)
    main, constraint = loss(users, positives, negatives, raised, lowered)

    def beta(user: int, item: int) -> float:
        d_u, d_i = float(user_degrees[user]), float(item_degrees[item])
        return math.sqrt((d_u + 1) / (d_i + 1)) / d_u

    for b, (user, positive) in enumerate(zip(users.tolist(), positives.tolist(), strict=True)):
        good, bad = log_sigmoid(float(raised[b])), [log_sigmoid(-float(score)) for score in lowered[b]]
        betas = [beta(user, item) for item in negatives[b].tolist()]
        assert float(main[b]) == pytest.approx(-good - weight * sum(bad) / 3, rel=1e-5)
        expected = -beta(user, positive) * good - weight * sum(x * y for x, y in zip(betas, bad, strict=True)) / 3
        assert float(constraint[b]) == pytest.approx(expected, rel=1e-5)
