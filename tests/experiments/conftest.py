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


FRAGILE = """
import os
import signal
from pathlib import Path
from typing import Literal

from metammf.models.ease import EASE, EASEConfig


class FragileConfig(EASEConfig):
    name: Literal["fragile:Fragile"] = "fragile:Fragile"
    tally: str
    dies_at: int


class Fragile(EASE):
    config_type = FragileConfig

    def solve(self):
        with open(self.config.tally, "a") as stream:
            stream.write("x")
        if os.path.getsize(self.config.tally) == self.config.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().solve()
"""


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], str]:
    """A recipe of a model that kills its own process, when it is solved for the time of that number."""
    (tmp_path / "fragile.py").write_text(FRAGILE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("METAMMF_MODELS", "fragile")

    def make(name: str, dies_at: int) -> str:
        settings = ['name = "fragile:Fragile"', f"tally = {str(tmp_path / name)!r}", f"dies_at = {dies_at}"]
        (tmp_path / f"{name}.toml").write_text("\n".join(["[model]", *settings]), encoding="utf-8")
        return str(tmp_path / f"{name}.toml")

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
