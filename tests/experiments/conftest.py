from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from metammf.data.dataset import Catalog, Dataset
from metammf.data.features import absent_features
from metammf.data.folder import save_dataset
from metammf.data.ids import IdMap
from metammf.data.interactions import Interactions
from metammf.data.splitting import Split
from metammf.models.mf import MFConfig
from metammf.models.scorers import VectorScorer
from metammf.recommender import Recommender
from metammf.testing.data import taste_groups

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two groups of users with a taste each, as a data set on disk that carries a split."""
    split = taste_groups(cold=2)
    labels = np.repeat(np.arange(3, dtype=np.int8), [len(split.train), len(split.validation), len(split.test)])
    log = split.train.union(split.validation).union(split.test)
    path = tmp_path_factory.mktemp("data") / "groups"
    save_dataset(Dataset("two groups", log, split.catalog, labels), path)
    return path


@pytest.fixture(scope="session")
def random_split() -> Callable[..., Split]:
    """A split of random interactions, ten a user, the last user without any in train."""

    def make(*, num_users: int, num_items: int, seed: int = 0) -> Split:
        rng = np.random.default_rng(seed)
        pairs = np.unique(rng.integers(num_users * num_items, size=10 * num_users))
        part = rng.choice(3, len(pairs), p=(0.6, 0.2, 0.2))
        users, items = np.divmod(pairs, num_items)
        part[(part == 0) & (users == num_users - 1)] = 2
        logs = [Interactions(users[part == number], items[part == number], num_users, num_items) for number in range(3)]
        ids = (IdMap.of_range(num_users, kind="user"), IdMap.of_range(num_items))
        return Split(*logs, Catalog(*ids, absent_features({}, num_items)), "random")

    return make


@pytest.fixture(scope="session")
def vector_recommender(random_split: Callable[..., Split]) -> Callable[..., Recommender]:
    """A recommender of random vectors."""

    def make(*, num_users: int, num_items: int, dim: int = 16) -> Recommender:
        rng = np.random.default_rng(1)
        users, items = (
            torch.from_numpy(rng.standard_normal((count, dim), dtype=np.float32)) for count in (num_users, num_items)
        )
        development = random_split(num_users=num_users, num_items=num_items).development
        return Recommender(development, MFConfig(embedding_dim=dim), VectorScorer(users, items))

    return make
