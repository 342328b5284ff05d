"""Two actors on loopback; the extra ``ray`` is there in CI."""

from __future__ import annotations

import os
import sys

import numpy as np
import polars as pl
import pytest
import torch

from metammf.errors import ConfigError, DataError, MissingExtraError
from metammf.evaluation.evaluate import evaluate
from metammf.experiments.feed_files import COLUMNS, OneProcess, write_feed_folder
from metammf.experiments.ray_engine import RayEngine, _pack, _RankUsers, _unpack
from metammf.models.ease import EASEConfig
from metammf.models.mf import MFConfig
from metammf.models.popularity import PopularityConfig
from metammf.models.scorers import VectorScorer
from metammf.ranking.topk import rank
from metammf.testing.data import taste_groups
from metammf.training.config import TrainingConfig
from metammf.training.fit import fit

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own, of its settings and of Python's
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pool():
    """One pool for all, since it takes seconds to start; nothing of it is left."""
    if not os.environ.get("CI"):
        pytest.importorskip("ray", reason="the extra ray is not installed")
    with RayEngine(2) as engine:
        yield engine
    assert not engine._ray.is_initialized()


@pytest.fixture(scope="module")
def recommender(vector_recommender):
    return vector_recommender(num_users=1280, num_items=25_000)


@pytest.mark.slow
def test_recommendations_equal_those_of_one_process(pool, recommender, tmp_path):
    """Two of five parts are there from an earlier call in one process."""
    out, told, feeds = tmp_path / "out", [], recommender.feeds(7)
    write_feed_folder(feeds, out, {}, OneProcess(), users_per_part=256)
    for number in (0, 1, 4):
        (out / f"part-0000{number}.parquet").unlink()
    write_feed_folder(feeds, out, {}, pool, users_per_part=256, progress=lambda *at: told.append(at))
    expected = pl.concat(recommender.recommend_many(None, 7)).select(COLUMNS)
    assert pl.read_parquet(out / "*.parquet").equals(expected)
    assert told[-1] == (1280, 1280)


@pytest.mark.slow
def test_evaluation_equals_that_of_one_process(pool, recommender, random_split):
    split = random_split(num_users=1280, num_items=25_000)
    here = evaluate(recommender, split, all_users=True)
    there = evaluate(recommender.final_scorer, split, all_users=True, ranker=pool.rank)
    assert there.to_dict() | {"seconds": 0} == here.to_dict() | {"seconds": 0}
    assert there.per_user.equals(here.per_user)


@pytest.mark.slow
def test_an_error_of_ours_comes_back_as_itself(pool):
    broken = VectorScorer(torch.full((40, 2), torch.nan), torch.ones(30, 2))
    with pytest.raises(DataError) as caught:
        pool.rank(broken, np.arange(40), 5)
    assert str(caught.value) == "scores: expected numbers, got NaN for user 0 (by index)"


@pytest.mark.slow
def test_nobody_to_rank_for(pool, recommender):
    items, _ = pool.rank(recommender.final_scorer, np.array([], dtype=np.int64), 5)
    assert items.shape == (0, 5)


@pytest.mark.parametrize("config", [EASEConfig(), PopularityConfig(), MFConfig(embedding_dim=2)])
def test_every_kind_of_scorer_can_be_sent(config):
    split = taste_groups()
    scorer = fit(config, split.development, training=TrainingConfig(epochs=1)).final_scorer
    work = _RankUsers(scorer, np.arange(17), 5, split.train.matrix, np.arange(9), batch_size=4, size=8)
    found = [_unpack(_pack(work))(block) for block in range(3)]
    items, scores = rank(scorer, np.arange(17), 5, seen=split.train.matrix, candidates=np.arange(9), batch_size=4)
    assert np.array_equal(np.concatenate([one["row"] for one in found]), np.arange(17))
    assert np.array_equal(np.concatenate([one["items"] for one in found]), items)
    assert np.array_equal(np.concatenate([one["scores"] for one in found]), scores)


def test_tensors_are_sent_without_a_copy_of_their_bytes():
    scorer = VectorScorer(torch.randn(100, 8), torch.randn(50, 8), torch.ones(50, dtype=torch.bool))
    told, buffers = _pack(scorer)
    assert len(told) < 1000
    assert sum(buffer.nbytes for buffer in buffers) == 4 * 8 * 150 + 50
    assert any(np.shares_memory(buffer, scorer.users.numpy()) for buffer in buffers)
    again = _unpack((told, buffers))
    assert torch.equal(again.users, scorer.users)
    assert torch.equal(again.rankable, scorer.rankable)


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 1, "threads": 0}])
def test_what_does_not_fit(options):
    with pytest.raises(ConfigError, match="at least 1"):
        RayEngine(**options)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'metammf\[ray\]'"):
        RayEngine()
