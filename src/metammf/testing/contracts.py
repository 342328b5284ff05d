"""What every model has to hold to, an outsider's as well. The test of a new model is four lines::

    @pytest.mark.parametrize("config", [MyConfig(), MyConfig(depth=3)])
    def test_contract(config: MyConfig, tmp_path: Path) -> None:
        check_model(config, tmp_path)

Each function raises AssertionError with what was expected. The data is tiny, its right answer known: see
`metammf.testing.data.taste_groups`.
"""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from metammf.data.features import ItemFeatures
from metammf.data.splitting import Split
from metammf.errors import ConfigError
from metammf.models.base import ContentModel, ContentSolver, Model
from metammf.models.registry import model_config, model_type
from metammf.recommender import Recommender
from metammf.testing.data import GROUPS, scrambled, taste_groups
from metammf.training.config import TrainingConfig
from metammf.training.fit import build_model, fit

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from metammf.models.config import ModelConfig

BRIEF = TrainingConfig(epochs=1, batch_size=240, learning_rate=0.01, weight_decay=0.0)
"""Enough to see whether two fits are the same."""
LEARNING = TrainingConfig(epochs=30, batch_size=480, learning_rate=0.04, evaluate_every=30, patience=None)
"""Enough to learn two groups."""


def check_model(
    config: ModelConfig, folder: Path, *, training: TrainingConfig = LEARNING, accuracy: float | None = 0.9
) -> None:
    """Hold a model to all of it.

    Args:
        config: Of the model; small widths keep it quick.
        folder: An empty folder to write into.
        training: What teaches it two groups of taste.
        accuracy: See `check_known_answer`; None for a model that does not look at the user, as popularity.
    """
    split = taste_groups(cold=1, lacking=True)
    check_config(config)
    check_reproduction(config, split)
    if issubclass(model_type(config.name), Model):
        check_every_parameter_learns(config, with_users_that_lack(split))
    recommender = fit(config, split.development, training=training)
    check_scores(recommender)
    check_recommendations(recommender)
    check_users_without_history(recommender)
    check_new_users(recommender, accuracy)
    check_cold_items(recommender)
    check_round_trip(recommender, folder / "recommender")
    if takes_content(config):
        check_content(recommender)
        check_new_items(recommender, folder)
    if accuracy is not None:
        check_known_answer(recommender, accuracy)


def takes_content(config: ModelConfig) -> bool:
    """Whether the model knows items that it has never seen by their content: as vectors, or as a solved one scores them."""
    return encodes_items(config) or hasattr(model_type(config.name), ContentSolver.with_items.__name__)


def encodes_items(config: ModelConfig) -> bool:
    """Whether it gives them vectors."""
    return hasattr(model_type(config.name), ContentModel.encode_items.__name__)


def check_config(config: ModelConfig) -> None:
    """Frozen, the same again after a trip through JSON, unknown keys refused, every setting documented."""
    written = json.loads(config.model_dump_json())
    assert model_config(written) == config, f"{config!r} comes back from JSON as {model_config(written)!r}"
    undocumented = [
        name for name, field in type(config).model_fields.items() if name != "name" and not field.description
    ]
    assert not undocumented, f"settings without a docstring: {undocumented}"
    try:
        model_config(written | {"no_such_setting": 1})
    except ConfigError as error:
        assert "no_such_setting" in str(error), f"the message does not name the key: {error}"
    else:
        raise AssertionError("an unknown setting was taken without a word")


def check_reproduction(config: ModelConfig, split: Split) -> None:
    """The same seed gives the same bits, whatever the test part holds; another seed gives others, if it is trained."""
    test = scrambled(split.test, avoid=(split.train, split.validation))
    other = Split(split.train, split.validation, test, split.catalog, split.method)
    users = torch.arange(split.catalog.num_users)
    first, second = (fit(config, each.development, training=BRIEF, seed=3).scores(users) for each in (split, other))
    assert torch.equal(first, second), "two fits of one seed differ"
    if issubclass(model_type(config.name), Model):
        third = fit(config, split.development, training=BRIEF, seed=4).scores(users)
        assert not torch.equal(first, third), "the seed has no say"


def check_every_parameter_learns(config: ModelConfig, split: Split) -> None:
    """Training moves every parameter: none is dead weight, none was left out of the optimizer."""
    before = build_model(config, split.development, seed=3, device=torch.device("cpu")).state_dict()
    after = fit(config, split.development, training=BRIEF.model_copy(update={"patience": None}), seed=3).model
    still = [name for name, value in after.named_parameters() if torch.equal(value.detach(), before[name])]
    assert not still, f"parameters that training does not move: {still}"


def with_users_that_lack(split: Split) -> Split:
    """Return the same with a user for each modality who has watched no item that has it, so that what stands in learns too."""
    features = split.catalog.features
    present = {name: mask.copy() for name, mask in features.present.items()}
    for user, mask in enumerate(present.values()):
        mask[split.train.items[split.train.users == user]] = False
    catalog = replace(split.catalog, features=ItemFeatures(features.matrices, present))
    return Split(split.train, split.validation, split.test, catalog, split.method)


def check_scores(recommender: Recommender) -> None:
    """Shape (B, N), float32, no NaN, row by row the same, and the caller's to write on."""
    count = recommender.catalog.num_users
    scores = recommender.scores(torch.arange(count))
    assert scores.shape == (count, recommender.num_items), f"scores of shape {tuple(scores.shape)}"
    assert scores.dtype == torch.float32, f"scores are {scores.dtype}"
    assert not scores.isnan().any(), "NaN among the scores"
    assert not (scores == torch.inf).any(), "a score is infinite"
    asked = torch.tensor([2, 0, 2, count - 1])
    rows = recommender.scores(asked)
    torch.testing.assert_close(rows, scores[asked], msg=lambda text: f"scores hang on who else is asked for: {text}")
    rows.zero_()
    torch.testing.assert_close(
        recommender.scores(asked), scores[asked], msg=lambda text: f"writing on them told: {text}"
    )


def check_recommendations(recommender: Recommender) -> None:
    """Nothing that was seen, nothing twice, best first, ranks from 1, fewer where fewer are left."""
    catalog = recommender.catalog
    seen = recommender.train.union(recommender.validation)
    for number, user_id in enumerate(catalog.user_ids.ids[:4].tolist()):
        frame = recommender.recommend(user_id, k=10_000)
        items = catalog.item_ids.indices(frame["item_id"].to_list())
        assert len(items), f"nothing for {user_id}"
        assert len(np.unique(items)) == len(items), "an item comes twice"
        assert not np.isin(items, seen.items[seen.users == number]).any(), "an item that the user has seen"
        assert frame["rank"].to_list() == list(range(1, len(items) + 1)), "ranks are not 1, 2, 3, ..."
        assert frame["score"].is_sorted(descending=True), "not the best first"
        top = recommender.recommend(user_id, k=3)
        assert top.equals(frame.head(3)), "a longer list begins otherwise"


def check_users_without_history(recommender: Recommender) -> None:
    """A user of whom nothing is known gets the popular items."""
    unknown = np.flatnonzero(recommender.train.user_counts == 0)
    user_id = recommender.catalog.user_ids.ids[unknown[0]]
    counts = recommender.train.item_counts
    expected = np.argsort(-counts, kind="stable")[:5]
    found = recommender.recommend(user_id, k=5)["item_id"].to_list()
    assert found == recommender.catalog.item_ids.ids[expected].tolist(), f"{user_id} gets {found}, not what is popular"


def check_new_users(recommender: Recommender, accuracy: float | None) -> None:
    """A user who was not there in training is ranked for by what it watched, or refused by an error of ours.

    Three items of a group tell of which group the user is; see `check_known_answer`.
    """
    ids = recommender.catalog.item_ids
    if not recommender.folds_users:
        try:
            recommender.recommend_for(ids.ids[:1].tolist())
        except ConfigError:
            return
        raise AssertionError("the model knows users by their ids alone, and ranked for a new one")
    known = (recommender.train.item_counts > 0) | takes_content(recommender.config)
    shares = []
    for group in range(GROUPS):
        watched = ids.ids[group : group + 3 * GROUPS : GROUPS].tolist()
        frame = recommender.recommend_for(watched, k=10_000)
        assert frame["rank"].to_list() == list(range(1, frame.height + 1)), "ranks are not 1, 2, 3, ..."
        assert not frame["item_id"].is_in(watched).any(), "an item that the new user has watched"
        again = recommender.recommend_for([*reversed(watched), watched[0]], k=10_000)
        assert again.equals(frame), "the order of what was watched, or an item twice, makes a difference"
        ranked = ids.indices(frame["item_id"].to_list())
        ranked = ranked[known[ranked]]
        own = np.flatnonzero(ranked % GROUPS == group)
        other = np.flatnonzero(ranked % GROUPS != group)
        shares.append((own[:, None] < other[None, :]).mean())
    found = float(np.mean(shares))
    assert accuracy is None or found >= accuracy, f"new users: own group first in {found:.3f}, expected {accuracy}"


def check_cold_items(recommender: Recommender) -> None:
    """Content gives an item without interactions the vector that `encode_items` gives it; ids never recommend it."""
    kind = model_type(recommender.config.name)
    cold = np.flatnonzero(recommender.train.item_counts == 0)
    scores = recommender.scores(_with_history(recommender))
    if not takes_content(recommender.config):
        if not issubclass(kind, Model):
            return
        assert (scores[:, cold] == -torch.inf).all(), "an id without interactions is noise, and was scored"
        frames = pl.concat(recommender.recommend_many(None, 10_000))
        ids = recommender.catalog.item_ids.ids[cold].tolist()
        assert not frames["item_id"].is_in(ids).any(), "an id without interactions was recommended"
        return
    assert torch.isfinite(scores).all(), "content is known, but an item cannot be recommended"
    if not encodes_items(recommender.config):
        return  # `check_new_items` holds them against those of today by their scores
    encoded = recommender.embed_items(recommender.catalog.features.select(cold))
    torch.testing.assert_close(
        torch.from_numpy(encoded),
        recommender.vectors().items[cold],
        msg=lambda text: f"a cold item goes another way than one added tomorrow: {text}",
    )


def check_round_trip(recommender: Recommender, folder: Path) -> None:
    """What is saved and loaded gives byte-identical recommendations and the same vectors for new content."""
    recommender.save(folder)
    loaded = Recommender.load(folder)
    assert loaded.config == recommender.config, "the config changed on disk"
    assert _written(loaded) == _written(recommender), "recommendations differ after a round trip"
    users = torch.arange(recommender.catalog.num_users)
    assert torch.equal(loaded.scores(users), recommender.scores(users)), "scores differ after a round trip"
    if recommender.folds_users:
        watched = recommender.catalog.item_ids.ids[:3].tolist()
        same = loaded.recommend_for(watched).equals(recommender.recommend_for(watched))
        assert same, "recommendations for a new user differ after a round trip"
    if takes_content(recommender.config):
        features = recommender.catalog.features
        same = np.array_equal(_told_by(loaded, features), _told_by(recommender, features))
        assert same, "what new content tells differs after a round trip"


def _with_history(recommender: Recommender) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(recommender.train.user_counts))


def _told_by(recommender: Recommender, features: ItemFeatures) -> NDArray[np.float32]:
    """What the model makes of content, a row an item: its vector, or its scores for the users where there are no vectors."""
    if encodes_items(recommender.config):
        return recommender.embed_items(features)
    wider = recommender.add_items([f"new-{row}" for row in range(features.num_items)], features)
    return wider.scores(_with_history(recommender))[:, recommender.num_items :].T.numpy()


def _written(recommender: Recommender) -> bytes:
    stream = io.BytesIO()
    pl.concat(recommender.recommend_many(None, 10)).write_csv(stream)
    return stream.getvalue()


def check_content(recommender: Recommender) -> None:
    """A modality may lack, all of them may; what stands in its place never tells; what an item has, does."""
    features = recommender.catalog.features.select(np.arange(4))
    everything = {name: np.ones(4, dtype=np.bool_) for name in features.modalities}
    whole = _told_by(recommender, ItemFeatures(features.matrices, everything))
    lacking = dict(everything)
    for name in features.modalities:
        lacking[name] = np.zeros(4, dtype=np.bool_)
        vectors = _told_by(recommender, ItemFeatures(features.matrices, lacking))
        other = {**features.matrices, name: np.full_like(features.matrices[name], 1e6)}
        assert np.isfinite(vectors).all(), f"nothing without {', '.join(lacking)}"
        assert np.array_equal(vectors, _told_by(recommender, ItemFeatures(other, lacking))), f"absent {name} tells"
        assert not np.allclose(vectors, whole), f"it does not matter whether {name} is there"
        told = _told_by(recommender, ItemFeatures({**features.matrices, name: -features.matrices[name]}, everything))
        assert not np.allclose(told, whole), f"what {name} holds does not matter"
    turned = dict(reversed(list(features.matrices.items())))
    assert np.array_equal(_told_by(recommender, ItemFeatures(turned, everything)), whole), "modalities by their place"


def check_new_items(recommender: Recommender, folder: Path) -> None:
    """An item that is added is scored as the cold item of the same content, what was there as before, on disk as well."""
    catalog = recommender.catalog
    cold = np.flatnonzero(recommender.train.item_counts == 0)
    wider = recommender.add_items([f"new-{item}" for item in cold], catalog.features.select(cold))
    users = _with_history(recommender)
    scores = wider.scores(users)
    assert wider.num_items == recommender.num_items + len(cold)
    torch.testing.assert_close(scores[:, : recommender.num_items], recommender.scores(users))
    torch.testing.assert_close(scores[:, recommender.num_items :], recommender.scores(users)[:, cold])
    wider.save(folder / "wider")
    loaded = Recommender.load(folder / "wider")
    assert torch.equal(loaded.scores(users), scores), "scores of added items differ after a round trip"
    again = loaded.add_items(["new-again"], catalog.features.select(cold[:1])).scores(users)
    torch.testing.assert_close(again[:, : wider.num_items], scores)
    torch.testing.assert_close(again[:, wider.num_items], scores[:, recommender.num_items])


def check_known_answer(recommender: Recommender, accuracy: float) -> None:
    """Users' unseen items of their own group come before those of the other, at least at this rate of pairs.

    Chance is a half. Cold items take part where the model takes content.
    """
    seen = recommender.train.union(recommender.validation).matrix.toarray() > 0
    known = (recommender.train.item_counts > 0) | takes_content(recommender.config)
    groups = np.arange(recommender.num_items) % GROUPS
    shares = []
    for user in np.flatnonzero(recommender.train.user_counts):
        scores = recommender.scores(torch.tensor([user]))[0].numpy()
        own = scores[(groups == user % GROUPS) & ~seen[user] & known]
        other = scores[(groups != user % GROUPS) & known]
        pairs = own[:, None] - other[None, :]
        shares.append((pairs > 0).mean() + 0.5 * (pairs == 0).mean())
    found = float(np.mean(shares))
    assert found >= accuracy, f"own group first in {found:.3f} of the pairs, expected at least {accuracy}"
