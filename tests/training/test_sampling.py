"""Negatives: never a positive, never an item that nobody watched, by the distribution that is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from metammf.data.interactions import Interactions
from metammf.errors import TrainingError
from metammf.training.sampling import NegativeSampler


def interactions(matrix: np.ndarray) -> Interactions:
    users, items = np.nonzero(matrix)
    return Interactions(users.astype(np.int32), items.astype(np.int32), *matrix.shape)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_log(seed: int, num_users: int, num_items: int, density: float) -> np.ndarray:
    """Some items that nobody watched, and no user who watched all the others."""
    rng = np.random.default_rng(seed)
    matrix = rng.random((num_users, num_items)) < density
    matrix[:, rng.random(num_items) < 0.2] = False
    matrix[0, 0] = True
    full = matrix.sum(1) == matrix.any(0).sum()
    matrix[full, np.flatnonzero(matrix.any(0))[0]] = False
    return matrix


@given(
    seed=st.integers(0, 10**6),
    num_users=st.integers(3, 12),
    num_items=st.integers(3, 20),
    density=st.floats(0.05, 0.95),
    weighting=st.sampled_from(["uniform", "popularity"]),
    count=st.integers(1, 6),
)
@settings(max_examples=80, deadline=None)
def test_never_a_train_positive_never_an_item_that_nobody_watched(
    seed: int, num_users: int, num_items: int, density: float, weighting: str, count: int
) -> None:
    matrix = random_log(seed, num_users, num_items, density)
    assume((matrix.sum(1) < matrix.any(0).sum()).all())  # hiding an item from one may leave another with all of them
    sampler = NegativeSampler(interactions(matrix), weighting)
    users = torch.arange(num_users).repeat(3)
    negatives = sampler.per_positive(users, count, generator(seed))
    assert negatives.shape == (len(users), count)
    assert not matrix[users.numpy()[:, None], negatives.numpy()].any()
    assert matrix.any(0)[negatives.numpy()].all()
    shared, _ = sampler.shared(count, generator(seed))
    assert matrix.any(0)[shared.numpy()].all()
    assert torch.equal(shared, shared.unique())
    rows, columns = sampler.watched_pairs(users, shared)
    assert torch.equal(rows, rows.sort().values)
    mask = np.zeros((len(users), len(shared)), dtype=bool)
    mask[rows, columns] = True
    assert len(rows) == mask.sum()
    assert np.array_equal(mask, matrix[users.numpy()][:, shared.numpy()])


@pytest.mark.parametrize("weighting", ["uniform", "popularity"])
@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_distribution(weighting: str, exponent: float) -> None:
    """Chi-square of 40,000 draws at a fixed seed, for a user who has watched two of ten items."""
    rng = np.random.default_rng(0)
    matrix = rng.random((60, 11)) < np.linspace(0.05, 0.9, 11)
    matrix[:, 10] = False
    matrix[0] = False
    matrix[0, [3, 7]] = True
    sampler = NegativeSampler(interactions(matrix), weighting, exponent=exponent)
    draws = sampler.per_positive(torch.zeros(10_000, dtype=torch.int64), 4, generator()).numpy().ravel()
    counts = matrix.sum(0).astype(float)
    weights = (counts**exponent if weighting == "popularity" else np.ones(11)) * (counts > 0) * ~matrix[0]
    found = np.bincount(draws, minlength=11)
    allowed = weights > 0
    assert not found[~allowed].any()
    assert chisquare(found[allowed], len(draws) * weights[allowed] / weights.sum()).pvalue > 0.001


@pytest.mark.parametrize("weighting", ["uniform", "popularity"])
def test_a_user_who_watched_all_but_one(weighting: str) -> None:
    """Beyond the rounds of redrawing there is an exact draw."""
    matrix = np.zeros((3, 3000), dtype=bool)
    matrix[0, :-1] = True
    matrix[1, 1:] = True
    matrix[2, 5] = True
    sampler = NegativeSampler(interactions(matrix), weighting)
    negatives = sampler.per_positive(torch.tensor([0, 1, 0, 1]), 3, generator())
    assert negatives.tolist() == [[2999] * 3, [0] * 3, [2999] * 3, [0] * 3]


def test_a_user_who_watched_everything() -> None:
    matrix = np.zeros((3, 5), dtype=bool)
    matrix[1, :4] = True  # the fifth item was watched by nobody: it is no negative
    matrix[0, 0] = True
    sampler = NegativeSampler(interactions(matrix))
    assert sampler.sated.tolist() == [False, True, False]
    with pytest.raises(TrainingError, match="user 1 has watched every item"):
        sampler.per_positive(torch.tensor([0, 1]), 2, generator())
    assert sampler.per_positive(torch.tensor([0]), 2, generator()).shape == (1, 2)


def test_same_generator_same_negatives() -> None:
    sampler = NegativeSampler(interactions(random_log(0, 10, 20, 0.3)))
    users = torch.arange(10)
    first, second = (sampler.per_positive(users, 5, generator(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, sampler.per_positive(users, 5, generator(4)))


def test_shared_corrections_tell_how_often_over_how_often_expected() -> None:
    matrix = random_log(1, 30, 12, 0.4)
    sampler = NegativeSampler(interactions(matrix), "popularity", exponent=1.0)
    items, correction = sampler.shared(8, generator())
    counts = matrix.sum(0)
    expected = 8 * counts / counts.sum()
    times = correction.exp().numpy() * expected[items.numpy()]
    assert times == pytest.approx(times.round(), abs=1e-3)
    assert times.sum() == pytest.approx(8, abs=1e-2)
    assert sampler.log_expected(items, 8).numpy() == pytest.approx(np.log(expected[items.numpy()]), abs=1e-5)


@pytest.mark.parametrize("count", [0, 12, 500])
def test_shared_without_a_count_or_with_enough_is_every_item_uncorrected(count: int) -> None:
    matrix = random_log(1, 30, 12, 0.4)
    sampler = NegativeSampler(interactions(matrix), "popularity")
    items, correction = sampler.shared(count, generator())
    assert items.tolist() == np.flatnonzero(matrix.any(0)).tolist()
    assert not correction.any()
    assert not sampler.log_expected(items, count).any()


def test_corrected_sample_estimates_the_full_partition_function() -> None:
    """sum_j exp(s_j + correction_j) over a sample by popularity is, on average, the sum of exp(s_j) over all items."""
    matrix = random_log(2, 40, 30, 0.4)
    sampler = NegativeSampler(interactions(matrix), "popularity", exponent=1.0)
    scores = torch.randn(30, generator=generator(), dtype=torch.float64)
    full = scores[torch.from_numpy(matrix.any(0))].exp().sum().item()
    draw = generator(1)
    estimates, biased = [], []
    for _ in range(3000):
        items, correction = sampler.shared(16, draw)
        estimates.append((scores[items] + correction).exp().sum().item())
        biased.append(scores[items].exp().sum().item())
    error = np.std(estimates) / len(estimates) ** 0.5
    assert abs(np.mean(estimates) - full) < 4 * error
    assert error < 0.01 * full
    assert abs(np.mean(biased) - full) > 0.1 * full
