"""The finished thing: scores, id maps, what has been seen, and encoders for items and for users that are new.

Outside ids stop here: what goes in and comes out are the outside world's, what lies below works on indices.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
import torch

from metammf.data.folder import id_series, load_features
from metammf.data.splitting import Development
from metammf.errors import ConfigError, DataError
from metammf.explanation import Explainable, item_contributions, pair_contributions
from metammf.files import sha256
from metammf.models.base import (
    ContentHistoryModel,
    ContentModel,
    ContentSolver,
    HistoryScorer,
    Inputs,
    Model,
    history_model,
)
from metammf.models.content_table import content_of
from metammf.models.registry import model_type
from metammf.models.scorers import FallbackScorer, FoldInScorer, HistoryOverlay, VectorScorer
from metammf.newcomers import Newcomers
from metammf.ranking.feeds import Feeds, feed_frame
from metammf.ranking.topk import top_k

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from scipy import sparse
    from torch import Tensor

    from metammf.data.features import ItemFeatures, Placebo
    from metammf.data.interactions import Interactions
    from metammf.models.base import HistoryModel, Scorer, SolvedModel
    from metammf.models.config import ModelConfig
    from metammf.nn.content import Content

log = logging.getLogger(__name__)

_ENCODED_AT_ONCE = 8192
Seen = Literal["train", "train+validation", "none"]
Strangers = Literal["popularity", "model"]
"""What ranks for users of whom nothing is known."""


class Recommender:
    """What training leaves: recommend, find similar items, take new items and new users in, explain.

    `metammf.fit` makes one, `Recommender.load` reads one back.

    Args:
        development: What it was trained on.
        config: The model's config.
        scorer: Scores of all items, by user index.
        model: The trained model, for new items and explanations; None for a solved one.
        build: Makes the trained model when it is first asked for, where it is not given.
        state: What a solved model was solved to.
        history: One record an epoch.
        trained_items: Items that the model was trained with, where some were added later.
        data_path: The data set's folder, where features are read again when an explanation asks for them.
        feature_hashes: SHA-256 of the feature files that it was trained with, by their path in that folder.
        placebo: Kind and seed, where it was trained with a placebo in the place of those features.
        known_features: Features of the trained items, where the catalog has grown beyond them.
        strangers: What ranks for users without a train interaction; the model, where validation says that it is better.
        item_memory: What the model reads of the items that a new user watched; made of a model that is given, where it is not.
    """

    def __init__(
        self,
        development: Development,
        config: ModelConfig,
        scorer: Scorer,
        *,
        model: Model | None = None,
        build: Callable[[], Model] | None = None,
        state: Mapping[str, Tensor] | None = None,
        history: Sequence[Any] = (),
        trained_items: int | None = None,
        data_path: Path | None = None,
        feature_hashes: Mapping[str, str] | None = None,
        placebo: tuple[Placebo, int] | None = None,
        known_features: ItemFeatures | None = None,
        strangers: Strangers = "popularity",
        item_memory: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.train, self.validation, self.catalog = development.train, development.validation, development.catalog
        self.config = config
        self.history = tuple(history)
        self.scorer = scorer
        self.state = dict(state or {})
        self.trained_items = self.catalog.num_items if trained_items is None else trained_items
        self.data_path = data_path
        self.feature_hashes = dict(feature_hashes or {})
        self.placebo = placebo
        self._known_features = known_features
        self.strangers = strangers
        self.final_scorer: Scorer = scorer if strangers == "model" else FallbackScorer(scorer, self.train)
        self._model, self._build = model, build
        self._item_memory = item_memory

    def __repr__(self) -> str:
        return f"Recommender({self.config.name}: {self.catalog.num_users} users x {self.num_items} items)"

    # Scores -----------------------------------------------------------------------------------------------------

    @property
    def num_items(self) -> int:
        """Items that are ranked, those added later included."""
        return self.scorer.num_items

    def scores(self, users: Tensor) -> Tensor:
        """Return the score of every item for users by their index: int64 (B,) -> float32 (B, num_items).

        -inf marks an item that cannot be recommended. A user without a train interaction is scored by popularity, or by the
        model where `strangers` says so.
        """
        return self.final_scorer.scores(users)

    def has_history(self, user_id: Any) -> bool:
        """Whether a user has a train interaction; one without gets popularity, or what `strangers` says.

        Raises:
            UnknownIdError: there is no such user.
        """
        return bool(self.train.user_counts[self.catalog.user_ids.index(user_id)])

    def recommend(
        self, user_id: Any, k: int = 10, *, seen: Seen = "train+validation", exclude: Sequence[Any] = ()
    ) -> pl.DataFrame:
        """Return the k best items for a user that it has not seen, best first.

        Args:
            user_id: An outside id.
            k: How many; fewer come where fewer are left.
            seen: What the user has seen: "train+validation", "train", or "none" to leave nothing out.
            exclude: Outside ids of items that are not to come.

        Returns:
            Columns ``user_id, item_id, rank, score`` (ranks from 1), and ``title`` where there are titles.

        Raises:
            UnknownIdError: there is no such user or item.
            ConfigError: k is below 1, or `seen` is none of the three.
        """
        frames = self.recommend_many([user_id], k, seen=seen, exclude=exclude)
        return pl.concat(list(frames))

    def recommend_many(
        self,
        user_ids: Sequence[Any] | None = None,
        k: int = 10,
        *,
        seen: Seen = "train+validation",
        exclude: Sequence[Any] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Yield the recommendations of many users (None: of all), batch by batch, as `recommend` gives them."""
        users = np.arange(self.catalog.num_users) if user_ids is None else self.catalog.user_ids.indices(user_ids)
        feeds = self.feeds(k, seen=seen, exclude=exclude)
        for done, frame in enumerate(feeds.frames(users), start=1):
            yield frame
            if progress is not None:
                progress(min(done * feeds.users_at_once, len(users)), len(users))

    def feeds(self, k: int = 10, *, seen: Seen = "train+validation", exclude: Sequence[Any] = ()) -> Feeds:
        """Return what makes `recommend_many`'s frames, by user index: all that another process needs to make them too."""
        barred = self.catalog.item_ids.indices(exclude)
        return Feeds(self.final_scorer, self._user_column, self._item_table, k, self._seen(seen), barred)

    def similar(self, item_id: Any, k: int = 10) -> pl.DataFrame:
        """Return the k items whose vectors are nearest to an item's by cosine, itself left out.

        Returns:
            Columns ``item_id, rank, score``, and ``title`` where there are titles.

        Raises:
            UnknownIdError: there is no such item.
            DataError: the model knows items by their ids alone, and this one was never trained.
            ConfigError: the model has no vectors of items.
        """
        item = self.catalog.item_ids.index(item_id)
        known = self.vectors()
        vectors = torch.nn.functional.normalize(known.items, dim=1)
        cosines = vectors[item : item + 1] @ vectors.T
        if known.rankable is not None:
            if not known.rankable[item]:
                raise DataError(f"item {item_id!r} has no train interaction: {self.config.name} knows nothing of it")
            cosines.masked_fill_(~known.rankable, -torch.inf)
        itself = (torch.tensor([0]), torch.tensor([item]))
        items, scores = top_k(cosines, min(k, max(1, self.num_items)), seen=itself)
        return feed_frame(self._item_table, items.numpy(), scores.numpy())

    def vectors(self) -> VectorScorer:
        """Return the vectors of users (U, D) and items (N, D) whose dot products, plus the items' offsets, are the scores.

        Raises:
            ConfigError: the model has none.
        """
        if not isinstance(self.scorer, VectorScorer):
            raise ConfigError(f"{self.config.name} has no vectors of items")
        return self.scorer

    def _seen(self, seen: Seen) -> sparse.csr_array | None:
        if seen not in ("train", "train+validation", "none"):
            raise ConfigError(f"seen {seen!r}: expected 'train', 'train+validation' or 'none'")
        if seen == "none":
            return None
        return self.train.matrix if seen == "train" or not len(self.validation) else self._all_seen.matrix

    @cached_property
    def _all_seen(self) -> Interactions:
        return self.train.union(self.validation)

    @cached_property
    def _user_column(self) -> pl.Series:
        """Ids of the users; made once, since a million strings take longer than a user's ranking."""
        return id_series(self.catalog.user_ids)

    @cached_property
    def _item_table(self) -> pl.DataFrame:
        """Ids and titles of the items."""
        titles = [self.catalog.items["title"]] if "title" in self.catalog.items.columns else []
        return pl.DataFrame([id_series(self.catalog.item_ids).alias("item_id"), *titles])

    # New users --------------------------------------------------------------------------------------------------

    @property
    def folds_users(self) -> bool:
        """Whether a user that was not there in training can be ranked for, by what it watched."""
        return isinstance(self.scorer, HistoryScorer) or self._history_model() is not None

    def _history_model(self) -> HistoryModel | None:
        return None if self._model is None and self._build is None else history_model(self.model)

    @cached_property
    def item_memory(self) -> Mapping[str, Tensor]:
        """What the model reads of the items that a new user watched: tensors of a row an item; none where it cannot."""
        model = self._history_model()
        if self._item_memory is not None or model is None:
            return self._item_memory or {}
        # A network that was built again of its weights has no features to make it of.
        return model.item_memory() if self._build is None else {}

    @cached_property
    def _newcomers(self) -> Newcomers:
        return Newcomers(self._fold_in(), self.catalog.item_ids, self._told_items, self.config.name)

    def _fold_in(self) -> HistoryScorer:
        if isinstance(self.scorer, HistoryScorer):
            return self.scorer
        model = self._history_model()
        if model is None:
            raise ConfigError(
                f"{self.config.name} knows users by their ids alone: it cannot rank for a new one by what it watched"
            )
        if not self.item_memory:
            raise ConfigError("the recommender was saved without what it takes new users in by: train it again")
        if self.model.may_misjudge_new_users:
            log.warning(
                "%s may rank badly for users who are new: its attention may have learned to look at users' own vectors rather"
                " than at what they watched, and these have none (MetaMMF: simulated_cold_users teaches it)",
                self.config.name,
            )
        return FoldInScorer(model, self.item_memory, self.vectors())

    @property
    def _told_items(self) -> NDArray[np.bool_]:
        """Items of which the model knows something, so that they tell something of who watched them, (N,)."""
        known = np.ones(self.num_items, dtype=np.bool_)
        if not isinstance(self._history_model(), ContentHistoryModel):
            known[: self.train.num_items] = self.train.item_counts > 0
        return known

    def recommend_for(self, watched: Sequence[Any], k: int = 10, *, exclude: Sequence[Any] = ()) -> pl.DataFrame:
        """Return the k best items for a user who is new and has watched these, which are left out; best first.

        Args:
            watched: Outside ids of items; their order and repetitions do not matter.
            k: How many; fewer come where fewer are left.
            exclude: Outside ids of further items that are not to come.

        Returns:
            Columns ``item_id, rank, score``, and ``title`` where there are titles.

        Raises:
            UnknownIdError: there is no such item.
            DataError: nothing was watched, or nothing that the model knows.
            ConfigError: the model knows users by their ids alone, or k is below 1.
        """
        scores = self._newcomers.scores(watched)
        out = np.unique(self.catalog.item_ids.indices([*watched, *exclude]))
        hidden = (torch.zeros(len(out), dtype=torch.int64), torch.from_numpy(out))
        items, best = top_k(scores, min(k, max(1, self.num_items)), seen=hidden)
        return feed_frame(self._item_table, items.numpy(), best.numpy())

    def embed_users(self, watched: Sequence[Sequence[Any]]) -> NDArray[np.float32]:
        """Return vectors of new users from the outside ids of what each watched, shape (n, D).

        Raises:
            UnknownIdError: there is no such item.
            DataError: one of them watched nothing, or nothing that the model knows.
            ConfigError: the model knows users by their ids alone, or has no vectors.
        """
        dim = self.vectors().users.shape[1]
        newcomers = self._newcomers
        return newcomers.vectors(watched).numpy() if len(watched) else np.zeros((0, dim), np.float32)

    def with_histories(self, history: Interactions) -> Scorer:
        """Return a scorer that ranks for users by what `history` says they watched, and for all others as before.

        Where the model knows users by their ids alone, all stays as it was.
        """
        if not self.folds_users:
            return self.final_scorer
        told = history.select(self._told_items[history.items])
        return HistoryOverlay(self.final_scorer, self._newcomers.fold_in, told)

    # Content ----------------------------------------------------------------------------------------------------

    @property
    def model(self) -> Model:
        """The trained model.

        Raises:
            ConfigError: it was solved, not trained.
        """
        if self._model is None and self._build is not None:
            self._model = self._build()
        if self._model is None:
            raise ConfigError(f"{self.config.name} is a solved model: it has no network")
        return self._model

    def _solver(self, train: Interactions, features: ItemFeatures) -> SolvedModel | None:
        """Return the solved model over these interactions and items, where the model is of that kind."""
        kind = model_type(self.config.name)
        return None if issubclass(kind, Model) else kind(self.config, Inputs(train, features))

    def _content_model(self) -> ContentModel:
        if isinstance(self._solver(self.train, self.catalog.features), ContentSolver):
            raise ConfigError(f"{self.config.name} has no vectors of items")
        if (self._model is None and self._build is None) or not isinstance(self.model, ContentModel):
            raise ConfigError(f"{self.config.name} knows items by their ids alone: it cannot encode content")
        return self.model

    @torch.no_grad()
    def embed_items(self, features: ItemFeatures) -> NDArray[np.float32]:
        """Return vectors of items from their content alone, shape (n, D), in the order of `features`.

        Raises:
            ConfigError: the model knows items by their ids alone.
            DataError: a modality that the model fuses is not there, or has another width.
        """
        model = self._content_model()
        self._check_content(features, getattr(model, "modalities", ()))
        chunks = [model.encode_items(content) for content in _in_chunks(features)]
        return torch.cat(chunks).numpy() if chunks else np.zeros((0, self.vectors().items.shape[1]), np.float32)

    def _check_content(self, features: ItemFeatures, modalities: Sequence[str]) -> None:
        expected = self.catalog.features.widths
        for name in modalities:
            if name not in features.matrices:
                raise DataError(f"modality {name!r} is missing: the model fuses {', '.join(modalities)}")
            if features.widths[name] != expected[name]:
                raise DataError(f"{name} features: expected width {expected[name]}, got {features.widths[name]}")
        features.check_finite()

    def add_items(
        self, item_ids: Sequence[Any], features: ItemFeatures, titles: Sequence[str] | None = None
    ) -> Recommender:
        """Return a recommender that knows further items, recommendable at once, by their content alone.

        Raises:
            DataError: an id is known already, or the features do not fit.
            ConfigError: the model knows items by their ids alone.
        """
        if len(item_ids) != features.num_items:
            raise DataError(f"{len(item_ids)} new item ids, but features of {features.num_items} items")
        if titles is not None and len(titles) != len(item_ids):
            raise DataError(f"{len(item_ids)} new item ids, but {len(titles)} titles")
        catalog = self.catalog.with_items(
            item_ids, titles
        )  # without features: the vectors that are made of them are kept
        train, validation = (replace(part, num_items=catalog.num_items) for part in (self.train, self.validation))
        solved = self._solved_with(features, train, catalog.features)
        scorer, state = (self._vectors_with(features), None) if solved is None else solved
        return Recommender(
            Development(train, validation, catalog),
            self.config,
            scorer,
            model=self._model,
            build=self._build,
            state=state,
            history=self.history,
            trained_items=self.trained_items,
            data_path=self.data_path,
            feature_hashes=self.feature_hashes,
            placebo=self.placebo,
            known_features=self._known_features or self.catalog.features,
            strangers=self.strangers,
            item_memory=self._grown_memory(features),
        )

    def _vectors_with(self, features: ItemFeatures) -> VectorScorer:
        """Return the vectors with those of new items."""
        new, known = torch.from_numpy(self.embed_items(features)), self.vectors()
        offsets = None
        if known.offsets is not None:
            offsets = torch.cat([known.offsets, torch.full((len(new),), self.model.new_item_offset())])
        return VectorScorer(known.users, torch.cat([known.items, new]), offsets=offsets)

    def _solved_with(
        self, features: ItemFeatures, train: Interactions, wider: ItemFeatures
    ) -> tuple[Scorer, Mapping[str, Tensor]] | None:
        """Return the scorer with new items, and what it was made of, where the model is solved and takes content.

        Args:
            features: Of the new items.
            train: The train interactions over the wider catalog.
            wider: Its features.
        """
        solver, after = self._solver(self.train, self.catalog.features), self._solver(train, wider)
        if after is None or not isinstance(solver, ContentSolver):
            return None
        self._check_content(features, solver.modalities)
        state = solver.with_items(self.state, content_of(features))
        return after.scorer(state), state

    @torch.no_grad()
    def _grown_memory(self, features: ItemFeatures) -> Mapping[str, Tensor] | None:
        """The memory of the items with that of new ones, so that who watched a new one can be ranked for too."""
        model = self._history_model()
        if model is None or not self.item_memory:
            return None
        if not isinstance(model, ContentHistoryModel):  # a new one tells nothing of who watched it
            new = features.num_items
            return {
                name: torch.cat([rows, rows.new_zeros(new, *rows.shape[1:])]) for name, rows in self.item_memory.items()
            }
        parts = [self.item_memory, *(model.new_item_memory(content) for content in _in_chunks(features))]
        return {name: torch.cat([part[name] for part in parts]) for name in self.item_memory}

    def item_features(self) -> ItemFeatures:
        """Return the features of the items that the model was trained with.

        Raises:
            DataError: they are not in memory, and the data set's folder is gone or holds something else.
        """
        features = self._known_features or self.catalog.features
        if any(mask.any() for mask in features.present.values()) or not features.modalities:
            return features
        if self.data_path is None or not self.data_path.is_dir():
            raise DataError(f"the data set's folder ({self.data_path}) is not there: its features are needed")
        ids, features, _ = load_features(self.data_path)
        if not np.array_equal(ids.ids, self.catalog.item_ids.ids[: self.trained_items]):
            raise DataError(f"{self.data_path} holds other items than the model was trained with")
        for name, digest in self.feature_hashes.items():
            path = self.data_path / name
            if not path.is_file() or sha256(path) != digest:
                raise DataError(f"{path} is not the file that the model was trained with")
        return features if self.placebo is None else features.placebo(*self.placebo)

    def explain(
        self, item_id: Any, user_id: Any | None = None, *, watched: Sequence[Any] | None = None
    ) -> pl.DataFrame:
        """Return how much each modality of an item counts, for its fused vector or for its score for a user.

        Args:
            item_id: An outside id.
            user_id: A user's id: explain the score for this user.
            watched: Outside ids of what a new user watched, instead: explain the score for that user.

        Returns:
            Columns ``modality, present, leave_one_out, gradient_x_input, share``, one row a modality; see
            `metammf.explanation.Contributions`.

        Raises:
            UnknownIdError: there is no such item or user.
            ConfigError: the model does not fuse content, the user has no history, or a user and `watched` are both given.
            DataError: the item's features are no longer there.
        """
        item = self.catalog.item_ids.index(item_id)
        user = self._explained_user(user_id, watched)
        model = self.model if isinstance(self._content_model(), Explainable) else None
        if not isinstance(model, Explainable):
            raise ConfigError(f"{self.config.name} cannot be explained by modalities")
        features = self.item_features()
        if item >= features.num_items:
            raise DataError(f"item {item_id!r} was added after training: its features are not kept")
        content = content_of(features.select(np.array([item])))
        if user is None:
            found = item_contributions(model, content)
        else:
            found = pair_contributions(model, content, torch.tensor([item]), user)
        return found.of_item(0)

    def _explained_user(self, user_id: Any | None, watched: Sequence[Any] | None) -> Tensor | None:
        """The vector (D,) of the user that an explanation is for, if it is for one."""
        if watched is not None:
            if user_id is not None:
                raise ConfigError("a user and what a new user watched exclude each other")
            return torch.from_numpy(self.embed_users([watched])[0])
        if user_id is None:
            return None
        user = self.catalog.user_ids.index(user_id)
        if self.strangers == "popularity" and not self.has_history(user_id):
            raise ConfigError(f"user {user_id!r} has no history: popularity ranks for it, which no modality explains")
        return self.vectors().users[user]

    # Disk -------------------------------------------------------------------------------------------------------

    def save(
        self,
        folder: Path | str,
        *,
        data_path: Path | str | None = None,
        feature_hashes: Mapping[str, str] | None = None,
        placebo: tuple[Placebo, int] | None = None,
    ) -> None:
        """Write everything into a folder of its own, atomically; no pickle.

        Args:
            folder: Where to.
            data_path: The data set's folder, where features are read again when an explanation asks for them.
            feature_hashes: SHA-256 of the feature files there, by their path in the folder.
            placebo: Kind and seed, where the model was trained with a placebo in the place of those features.

        Raises:
            DataError: the folder is somebody else's, or cannot be written.
        """
        from metammf.recommender_files import write_recommender

        write_recommender(
            self,
            folder,
            data_path=data_path or self.data_path,
            feature_hashes=feature_hashes or self.feature_hashes,
            placebo=placebo or self.placebo,
        )

    @classmethod
    def load(cls, folder: Path | str) -> Recommender:
        """Read back what `save` wrote; `folder` may be a run's.

        Raises:
            RunError: there is nothing of the kind, or it is damaged.
        """
        from metammf.recommender_files import read_recommender

        return read_recommender(cls, folder)


def _in_chunks(features: ItemFeatures) -> Iterator[Content]:
    """Yield the content of some items at a time."""
    for start in range(0, features.num_items, _ENCODED_AT_ONCE):
        yield content_of(features.select(np.arange(start, min(start + _ENCODED_AT_ONCE, features.num_items))))
