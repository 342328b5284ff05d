"""A finished recommender and users that were not there in training: by what they watched, cold-user splits, strangers."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from metammf.data.interactions import Interactions
from metammf.data.splitting import Development, Split
from metammf.errors import ConfigError, DataError, UnknownIdError
from metammf.evaluation.evaluate import evaluate
from metammf.models.base import Inputs
from metammf.models.content_knn import ContentKNNConfig
from metammf.models.ease import EASEConfig
from metammf.models.freedom import FREEDOMConfig
from metammf.models.gat import GATConfig
from metammf.models.graphsage import GraphSAGEConfig
from metammf.models.itemknn import ItemKNNConfig
from metammf.models.lightgcn import LightGCN, LightGCNConfig
from metammf.models.metammf import MetaMMFConfig
from metammf.models.mf import MFConfig
from metammf.models.mgcn import MGCNConfig
from metammf.models.p3 import P3Config
from metammf.models.popularity import PopularityConfig
from metammf.models.scorers import FallbackScorer, HistoryOverlay, VectorScorer, validation_scorer
from metammf.recommender import Recommender
from metammf.testing.data import scrambled, taste_groups
from metammf.training.config import TrainingConfig
from metammf.training.fit import _for_strangers, fit

if TYPE_CHECKING:
    from pathlib import Path

SPLIT = taste_groups(8, cold=1, lacking=True)
TRAINING = TrainingConfig(epochs=20, batch_size=240, learning_rate=0.05, patience=None, evaluate_every=20)
SMALL: dict[str, Any] = {"embedding_dim": 8, "hidden_dims": (6,), "meta_dim": 2, "cp_rank": 2}
CONFIGS: dict[str, Any] = {
    "content-knn": ContentKNNConfig(),
    "ease": EASEConfig(),
    "freedom": FREEDOMConfig(embedding_dim=8, num_neighbours=4, edge_pruning=0.3),
    "gat": GATConfig(embedding_dim=4, num_heads=2, hidden_dropout=0.0, final_dropout=0.0),
    "graphsage": GraphSAGEConfig(embedding_dim=4, hidden_dropout=0.0, final_dropout=0.0),
    "itemknn": ItemKNNConfig(),
    "lightgcn": LightGCNConfig(embedding_dim=4),
    "metammf-gat": MetaMMFConfig(backbone="gat", num_heads=2, hidden_dropout=0.0, final_dropout=0.0, **SMALL),
    "metammf-lightgcn": MetaMMFConfig(backbone="lightgcn", simulated_cold_users=0.2, **SMALL),
    "metammf-users": MetaMMFConfig(backbone="mf", user_fusion="cp", hide_targets=True, **SMALL),
    "mgcn": MGCNConfig(embedding_dim=8, num_neighbours=4),
    "p3": P3Config(),
    "popularity": PopularityConfig(),
}
WATCHED = ["item-1", "item-3", "item-5"]  # all of the second group


@pytest.fixture(scope="module")
def fitted() -> dict[str, Recommender]:
    torch.set_num_threads(1)
    return {name: fit(config, SPLIT.development, training=TRAINING) for name, config in CONFIGS.items()}


@pytest.fixture(params=list(CONFIGS))
def recommender(request: pytest.FixtureRequest, fitted: dict[str, Recommender]) -> Recommender:
    return fitted[request.param]


@pytest.fixture
def users(fitted: dict[str, Recommender]) -> Recommender:
    return fitted["metammf-users"]


def with_cold_users(split: Split, size: int = 3) -> Split:
    """The first two users lose their train interactions; the first few are their history."""
    train = split.train
    first = np.concatenate([np.flatnonzero(train.users == user)[:size] for user in (0, 1)])
    kept = train.select(train.users >= 2)
    return Split(kept, split.validation, split.test, split.catalog, "made", history=train.select(first))


# Lists ----------------------------------------------------------------------------------------------------------


def test_lists_for_who_watched_these(recommender: Recommender) -> None:
    frame = recommender.recommend_for(WATCHED, k=4)
    assert frame.columns == ["item_id", "rank", "score", "title"]
    assert frame["rank"].to_list() == [1, 2, 3, 4]
    if recommender.config.name != "popularity":
        assert frame["title"].to_list() == ["group 1"] * 4
    first = frame["item_id"].to_list()[0]
    left = recommender.recommend_for(WATCHED, k=3, exclude=[first])["item_id"].to_list()
    assert left == frame["item_id"].to_list()[1:]
    assert set(recommender.recommend_for(WATCHED, k=100)["item_id"]).isdisjoint(WATCHED)


def test_what_is_asked_wrongly(recommender: Recommender) -> None:
    with pytest.raises(UnknownIdError, match=r"unknown item id 'itm-1' \(did you mean 'item-1'\?\)"):
        recommender.recommend_for(["item-0", "itm-1"])
    with pytest.raises(DataError, match="expected the id of an item at least, got none"):
        recommender.recommend_for([])
    with pytest.raises(ConfigError, match="k must be at least 1"):
        recommender.recommend_for(WATCHED, k=0)


def test_models_of_user_ids_cannot() -> None:
    brief = TRAINING.model_copy(update={"epochs": 1})
    recommender = fit(MFConfig(embedding_dim=2), SPLIT.development, training=brief)
    assert not recommender.folds_users
    with pytest.raises(ConfigError, match="mf knows users by their ids alone"):
        recommender.recommend_for(WATCHED)
    with pytest.raises(ConfigError, match="ids alone"):
        recommender.embed_users([WATCHED])


def test_items_that_the_model_knows_nothing_of_tell_nothing(fitted: dict[str, Recommender]) -> None:
    cold = ["item-16", "item-17"]
    for name in ("lightgcn", "ease", "freedom", "itemknn", "content-knn", "gat", "mgcn"):
        with pytest.raises(DataError, match="none of the 2 watched items has a train interaction"):
            fitted[name].recommend_for(cold)
        more, less = (fitted[name].recommend_for(ids, k=5) for ids in ([*WATCHED, "item-16"], WATCHED))
        assert more.drop("score").equals(less.drop("score"))
    assert fitted["metammf-users"].recommend_for(["item-17"], k=3)["title"].to_list() == ["group 1"] * 3


@pytest.mark.parametrize("name", ["content-knn", "ease", "itemknn", "p3"])
def test_known_users_are_scored_as_who_watched_the_same(name: str, fitted: dict[str, Recommender]) -> None:
    """Nothing but a user's history goes into these: in, as new, comes out what was there."""
    recommender = fitted[name]
    asked = torch.tensor([3, 0])
    found = recommender.with_histories(SPLIT.train).scores(asked)
    torch.testing.assert_close(found, recommender.scores(asked))
    listed = recommender.recommend("user-3", k=5, seen="train")["item_id"].to_list()
    watched = [f"item-{item}" for item in SPLIT.train.items[SPLIT.train.users == 3]]
    assert recommender.recommend_for(watched, k=5)["item_id"].to_list() == listed


def test_vectors(users: Recommender, fitted: dict[str, Recommender]) -> None:
    vectors = users.embed_users([WATCHED, ["item-0"]])
    assert vectors.shape == (2, 8)
    assert vectors[0] == pytest.approx(users.embed_users([WATCHED])[0], abs=1e-6)
    assert users.embed_users([]).shape == (0, 8)
    scores = users.vectors().items.numpy() @ vectors[0]
    best = int(users.catalog.item_ids.indices(users.recommend_for(WATCHED, k=1)["item_id"].to_list())[0])
    assert scores[best] == pytest.approx(users.recommend_for(WATCHED, k=1)["score"][0], abs=1e-5)
    with pytest.raises(ConfigError, match="ease has no vectors"):
        fitted["ease"].embed_users([WATCHED])


def test_a_new_user_who_watched_a_new_item(users: Recommender, tmp_path: Path) -> None:
    """Content goes all the way: an item that nobody has seen tells of a user that nobody has seen."""
    wider = users.add_items(["new-a", "new-b"], SPLIT.catalog.features.select(np.array([16, 17])))
    wider.save(tmp_path / "wider")
    for each in (wider, Recommender.load(tmp_path / "wider")):
        assert each.recommend_for(["new-b"], k=3)["title"].to_list() == ["group 1"] * 3
        assert each.embed_users([["new-b"]])[0] == pytest.approx(users.embed_users([["item-17"]])[0], abs=1e-6)


@pytest.mark.parametrize("name", ["freedom", "mgcn"])
def test_a_new_item_tells_nothing_to_a_model_that_listens_to_known_ones(
    name: str, fitted: dict[str, Recommender], tmp_path: Path
) -> None:
    fitted[name].save(tmp_path / "saved")
    loaded = Recommender.load(tmp_path / "saved")
    wider = loaded.add_items(["new"], SPLIT.catalog.features.select(np.array([1])))
    more, less = wider.recommend_for([*WATCHED, "new"], k=5), wider.recommend_for(WATCHED, k=5, exclude=["new"])
    assert more.equals(less)
    with pytest.raises(DataError, match="none of the 1 watched items has a train interaction"):
        wider.recommend_for(["new"])


@pytest.mark.parametrize(("share", "told"), [(0.0, True), (0.3, False)])
def test_attention_that_was_not_taught_to_do_without_users_own_vectors_is_told(
    share: float, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = MetaMMFConfig(backbone="gat", simulated_cold_users=share, **SMALL)
    brief = TRAINING.model_copy(update={"epochs": 1})
    recommender = fit(config, SPLIT.development, training=brief)
    for _ in range(2):
        recommender.recommend_for(WATCHED)
    assert caplog.text.count("may rank badly for users who are new") == told


def test_a_solved_model_of_content_ranks_an_item_that_is_new_for_a_user_that_is(
    fitted: dict[str, Recommender], tmp_path: Path
) -> None:
    """As the items of the data set that nobody watched in training; it tells nothing of who watched it, as these do not."""
    known = fitted["content-knn"]
    wider = known.add_items(["new-a", "new-b"], SPLIT.catalog.features.select(np.array([16, 17])))
    wider.save(tmp_path / "wider")
    for each in (wider, Recommender.load(tmp_path / "wider")):
        found = dict(each.recommend_for(WATCHED, k=100).select("item_id", "score").iter_rows())
        assert (found["new-a"], found["new-b"]) == pytest.approx((found["item-16"], found["item-17"]))
        assert found["new-b"] > found["new-a"]
        assert (
            each.recommend_for([*WATCHED, "new-b"], k=3)["item_id"].to_list()
            == [item for item in each.recommend_for(WATCHED, k=4)["item_id"] if item != "new-b"][:3]
        )
        with pytest.raises(DataError, match="none of the 1 watched items has a train interaction"):
            each.recommend_for(["new-b"])


def test_explained_for_who_watched_these(users: Recommender) -> None:
    found = users.explain("item-7", watched=WATCHED)
    assert found["modality"].to_list() == ["visual", "textual"]
    assert not found.equals(users.explain("item-7", watched=["item-0"]))
    with pytest.raises(ConfigError, match="exclude each other"):
        users.explain("item-7", "user-0", watched=WATCHED)


def test_one_saved_without_what_it_reads_says_so(users: Recommender) -> None:
    old = Recommender(SPLIT.development, users.config, users.scorer, build=lambda: users.model)
    assert old.recommend("user-0").equals(users.recommend("user-0"))
    with pytest.raises(ConfigError, match="train it again"):
        old.recommend_for(WATCHED)


# Cold-user splits -----------------------------------------------------------------------------------------------


def test_evaluation_ranks_for_cold_users_by_their_history(recommender: Recommender) -> None:
    split = with_cold_users(SPLIT)
    again = fit(recommender.config, split.development, training=TRAINING)
    found = evaluate(again, split, ks=(5,))
    assert found.cold_users["num_users"] == 2
    assert found.cold_users["num_interactions"] == 4
    cold = found.per_user.filter(found.per_user["user_id"].is_in(["user-0", "user-1"]))
    assert cold["cold_users/recall@5"].mean() == found.cold_users["among_all"]["recall@5"]
    assert found.per_user["cold_users/recall@5"].null_count() == 14
    if recommender.config.name not in ("popularity", "graphsage"):
        assert found.cold_users["among_all"]["recall@5"] >= 0.5
    assert split.history is not None
    overlay = again.with_histories(split.history)
    lists = {user: overlay.scores(torch.tensor([user]))[0] for user in (0, 5)}
    torch.testing.assert_close(lists[5], again.scores(torch.tensor([5]))[0])
    ids = [f"item-{item}" for item in split.history.items[split.history.users == 0]]
    best = again.recommend_for(ids, k=1)
    item = int(again.catalog.item_ids.index(best["item_id"][0]))
    assert lists[0][item].item() == pytest.approx(best["score"][0], abs=1e-5)
    assert torch.equal(
        pickle.loads(pickle.dumps(overlay)).scores(torch.tensor([0, 5])), overlay.scores(torch.tensor([0, 5]))
    )


@pytest.mark.parametrize("name", ["lightgcn", "metammf-users"])
def test_nothing_is_learned_of_what_cold_users_come_with(name: str) -> None:
    split = with_cold_users(SPLIT)
    assert split.history is not None
    other = replace(split.development, history=scrambled(split.history, avoid=(SPLIT.train, SPLIT.validation)))
    brief = TRAINING.model_copy(update={"epochs": 2, "evaluate_every": 1})
    first, second = (fit(CONFIGS[name], each, training=brief) for each in (split.development, other))
    for before, after in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(before, after)
    assert first.history[-1].metrics != second.history[-1].metrics  # but the epoch is chosen by it


def test_the_scorer_that_chooses_the_epoch() -> None:
    development = with_cold_users(SPLIT).development
    model = LightGCN(LightGCNConfig(embedding_dim=4), Inputs(development.train, development.catalog.features))
    assert isinstance(validation_scorer(model, development.train, None), FallbackScorer)
    assert isinstance(validation_scorer(model, development.train, development.history), HistoryOverlay)


@pytest.mark.parametrize("name", ["graphsage", "metammf-gat"])
def test_dropout_has_no_say_in_which_epoch_is_chosen(name: str) -> None:
    """Cold users are encoded while validation ranks: what was seen of the chosen weights is what they are worth."""
    split = with_cold_users(SPLIT)
    config = CONFIGS[name].model_copy(update={"hidden_dropout": 0.5, "final_dropout": 0.5})
    training = TrainingConfig(epochs=4, patience=4, batch_size=240, learning_rate=0.05, metric="ndcg@10")
    torch.rand(5)  # what others draw has no say either
    first, second = (fit(config, split.development, training=training, seed=3) for _ in range(2))
    assert [record.metrics for record in first.history] == [record.metrics for record in second.history]
    states = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    seen = max(record.metrics["ndcg@10"] for record in first.history)
    assert seen == evaluate(first, split, part="validation").metrics["ndcg@10"]


def test_what_tells_nothing_falls_out_of_a_given_history(fitted: dict[str, Recommender]) -> None:
    """An id without a train interaction is noise, in a history as in a ranking."""
    users, items = [0, 0, 1], [3, 16, 17]  # 16 and 17 are cold
    history = Interactions(users, items, SPLIT.catalog.num_users, SPLIT.catalog.num_items)
    less = history.select(np.array([0]))
    asked, lightgcn = torch.tensor([0, 1]), fitted["lightgcn"]
    found = lightgcn.with_histories(history).scores(asked)
    torch.testing.assert_close(found, lightgcn.with_histories(less).scores(asked))
    model, train = lightgcn.model, SPLIT.train
    torch.testing.assert_close(validation_scorer(model, train, history).scores(asked), found)


def test_a_history_may_not_overlap() -> None:
    with pytest.raises(DataError, match="train and history overlap"):
        replace(SPLIT, history=SPLIT.train, of_one_log=False)
    refit = with_cold_users(SPLIT).development.refit()
    assert refit.history is not None


# Strangers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("better", [True, False])
def test_validation_says_who_ranks_for_users_of_whom_nothing_is_known(better: bool, tmp_path: Path) -> None:
    """The model for them where it finds their item, popularity where it does not; and it is kept."""
    config = CONFIGS["metammf-lightgcn"]
    stranger, item = SPLIT.catalog.num_users - 1, 5
    theirs = Interactions([stranger], [item], SPLIT.catalog.num_users, SPLIT.catalog.num_items)
    development = Development(SPLIT.train, SPLIT.validation.union(theirs), SPLIT.catalog)
    model = fit(config, SPLIT.development, training=TRAINING.model_copy(update={"epochs": 1})).model
    users, items = torch.zeros(SPLIT.catalog.num_users, 1), torch.zeros(SPLIT.catalog.num_items, 1)
    users[stranger], items[item] = 1, 1 if better else -1
    scorer = VectorScorer(users, items)
    chosen = _for_strangers(model, scorer, development, "recall@5")
    assert chosen == ("model" if better else "popularity")
    recommender = Recommender(development, config, scorer, model=model, strangers=chosen)
    recommender.save(tmp_path / "r")
    loaded = Recommender.load(tmp_path / "r")
    first = loaded.recommend("user-16", k=1, seen="none")["item_id"].to_list()
    assert (loaded.strangers, first) == (chosen, ["item-5"] if better else ["item-0"])


def test_popularity_where_validation_says_nothing_or_the_model_learned_nothing(fitted: dict[str, Recommender]) -> None:
    for name in ("metammf-lightgcn", "lightgcn"):
        assert fitted[name].strangers == "popularity"
        model, scorer = fitted[name].model, fitted[name].vectors()
        assert _for_strangers(model, scorer, SPLIT.development, "recall@5") == "popularity"
