"""The protocol: full ranking over all items, what a user has seen left out, cold items in a table of their own."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import polars as pl

from metammf.errors import ConfigError, DataError, did_you_mean
from metammf.evaluation.beyond import beyond_metrics
from metammf.evaluation.metrics import hit_matrix, means, per_user_metrics
from metammf.evaluation.result import Evaluation
from metammf.ranking.topk import rank

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray
    from scipy import sparse

    from metammf.data.interactions import Interactions
    from metammf.data.splitting import Split
    from metammf.ranking.topk import ItemScorer

Part = Literal["validation", "test"]
Seen = Literal["train", "train+validation"]


class Ranker(Protocol):
    """Ranks all items for many users, as `metammf.ranking.topk.rank` does."""

    def __call__(
        self,
        scorer: ItemScorer,
        users: NDArray[np.int64],
        k: int,
        *,
        seen: sparse.csr_array | None = None,
        candidates: ArrayLike | None = None,
        batch_size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return items (n, k), -1 where a list ends early, and their scores."""


@runtime_checkable
class TakesHistories(Protocol):
    """A recommender that can rank for users by what they are said to have watched."""

    def with_histories(self, history: Interactions) -> ItemScorer:
        """Return what ranks for these users by their history, and for all others as before."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Lists of the best items, and what of them is relevant.

    Args:
        users: Internal indices, ascending, shape (B,).
        items: The lists, shape (B, K), best first; -1 where a list ends early.
        hits: Which of them are relevant, likewise.
        relevant: How many items are relevant to each user, shape (B,).
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    hits: NDArray[np.bool_]
    relevant: NDArray[np.int64]

    def restrict(self, interactions: Interactions, chosen: NDArray[np.bool_] | None = None) -> Ranking:
        """Let `interactions` alone be relevant, those with `chosen` items, of all by default; users without one fall out."""
        counts = interactions.user_counts[self.users]
        rows = counts > 0
        hits = self.hits[rows] if chosen is None else self.hits[rows] & chosen[self.items[rows]]
        return Ranking(self.users[rows], self.items[rows], hits, counts[rows])


def rank_relevant(
    scorer: ItemScorer,
    relevant: Interactions,
    seen: Interactions | None,
    k: int,
    *,
    users: NDArray[np.int64] | None = None,
    candidates: NDArray[Any] | None = None,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    ranker: Ranker = rank,
) -> Ranking:
    """Rank for every user with a relevant item, or for `users`, and mark the hits.

    Args:
        scorer: Anything with `num_items` and `scores(users)`.
        relevant: What should come out on top.
        seen: What is left out of each user's ranking.
        k: Length of the lists.
        users: Internal user indices, shape (B,).
        candidates: The only items that may come out, indices or mask.
        batch_size: Users at once.
        progress: Called with the users done and the users in all.
        ranker: What ranks; by default this process.

    Raises:
        DataError: the scorer knows another number of items, or gives NaN or scores of a wrong shape.
    """
    if scorer.num_items != relevant.num_items:
        raise DataError(f"the recommender scores {scorer.num_items} items, the split has {relevant.num_items}")
    if users is None:
        users = np.flatnonzero(relevant.user_counts)
    hidden = None if seen is None else seen.matrix
    k = min(k, scorer.num_items)  # a list cannot be longer than there are items
    items, _ = ranker(scorer, users, k, seen=hidden, candidates=candidates, batch_size=batch_size, progress=progress)
    return Ranking(users, items, hit_matrix(items, users, relevant), relevant.user_counts[users])


def validation_metrics(
    scorer: ItemScorer,
    validation: Interactions,
    train: Interactions,
    ks: Sequence[int] = (10, 20),
    *,
    batch_size: int | None = None,
    ranker: Ranker = rank,
) -> dict[str, float]:
    """Return the means of the ranking metrics on validation, train left out: what training looks at after an epoch.

    Raises:
        DataError: there is no validation interaction, or the scores are not what they should be.
    """
    lengths = _lengths(ks)
    _not_empty(validation, "validation")
    ranking = rank_relevant(scorer, validation, train, max(lengths), batch_size=batch_size, ranker=ranker)
    return means(per_user_metrics(ranking.hits, ranking.relevant, lengths))


def evaluate(
    recommender: ItemScorer,
    split: Split,
    *,
    part: Part = "test",
    seen: Seen | None = None,
    ks: Sequence[int] = (10, 20),
    all_users: bool = False,
    sample: int | None = None,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    ranker: Ranker = rank,
) -> Evaluation:
    """Rank all items for the users of a part and measure where its interactions come out.

    Args:
        recommender: Anything with `num_items` and `scores(users)`. Where the split gives histories of cold users, one that can
            take users in is asked to rank for them by these.
        split: The data.
        part: ``test`` or ``validation``.
        seen: What is left out of each user's ranking: ``train`` or ``train+validation``. Default: all that comes
            before the part, that is ``train`` for validation and ``train+validation`` for test.
        ks: Lengths of the lists.
        all_users: Average over every user of the data set, those without an interaction in the part as zero, instead
            of over the users with one. The tables of warm and of cold items keep to users with such an interaction.
        sample: Look at so many users of the part, always the same ones. Default: all of them.
        batch_size: Users at once. Default: what keeps a batch of scores within memory and cache.
        progress: Called with the users done and the users in all.
        ranker: What ranks; by default this process.

    Raises:
        ConfigError: an option is unknown, would leave out the truth (validation with ``train+validation``), or `sample` is
            below 1 or asked for together with all users.
        DataError: the part is empty, the recommender knows another number of items, or it gives NaN.
    """
    started = perf_counter()
    if split.history is not None and isinstance(recommender, TakesHistories):
        recommender = recommender.with_histories(split.history)
    lengths, left_out = _lengths(ks), _checked(part, seen)
    if sample is not None and sample < 1:
        raise ConfigError(f"a sample of {sample} users: expected 1 or more")
    if sample is not None and all_users:
        raise ConfigError("a sample of users and all users exclude each other")
    whole: Interactions = getattr(split, part)
    _not_empty(whole, part)
    relevant = whole.of_some_users(sample, seed=0)
    hidden = split.seen("train" if left_out == "train" else "train+validation")
    users = np.arange(relevant.num_users) if all_users else None
    ranking = rank_relevant(
        recommender,
        relevant,
        hidden,
        max(lengths),
        users=users,
        batch_size=batch_size,
        progress=progress,
        ranker=ranker,
    )
    is_cold = split.cold_items
    on_cold = is_cold[relevant.items]
    warm, cold = relevant.select(~on_cold), relevant.select(on_cold)
    of_cold_users = split.train.user_counts[relevant.users] == 0
    strangers, both = relevant.select(of_cold_users), relevant.select(of_cold_users & on_cold)
    rankings = {
        "": ranking,
        "warm": ranking.restrict(warm, ~is_cold),
        "cold_among_all": ranking.restrict(cold, is_cold),
        "cold_among_cold": rank_relevant(
            recommender, cold, hidden, max(lengths), candidates=is_cold, batch_size=batch_size, ranker=ranker
        ),
        "cold_users": ranking.restrict(strangers),
        "cold_users_cold_items": ranking.restrict(both, is_cold),
    }
    tables = {name: per_user_metrics(each.hits, each.relevant, lengths) for name, each in rankings.items()}
    averages = {name: means(table) if len(rankings[name].users) else {} for name, table in tables.items()}
    return Evaluation(
        part=part,
        seen=left_out,
        ks=lengths,
        all_users=all_users,
        sample=sample,
        num_users=len(ranking.users),
        num_interactions=len(relevant),
        metrics=averages[""] | beyond_metrics(ranking.items, split.train.item_counts, lengths),
        warm=_counts(warm, ~is_cold) | {"among_all": averages["warm"]},
        cold=_counts(cold, is_cold)
        | {"among_all": averages["cold_among_all"], "among_cold": averages["cold_among_cold"]},
        cold_users=_counts(strangers, split.train.item_counts >= 0)
        | {"among_all": averages["cold_users"], "cold_items": averages["cold_users_cold_items"]},
        per_user=_per_user(rankings, tables, split.catalog.user_ids.ids),
        seconds=perf_counter() - started,
    )


def _lengths(ks: Sequence[int]) -> tuple[int, ...]:
    if not ks or min(ks) < 1:
        raise ConfigError(f"ks: expected at least one length of a list, each 1 or more, got {list(ks)}")
    return tuple(sorted({int(k) for k in ks}))


def _checked(part: str, seen: str | None) -> str:
    for name, value, known in (("part", part, get_args(Part)), ("seen", seen, get_args(Seen))):
        if value is not None and value not in known:
            raise ConfigError(f"unknown {name} {value!r}{did_you_mean(value, known)}; there are: {', '.join(known)}")
    if part == "validation" and seen == "train+validation":
        raise ConfigError("part 'validation' with seen 'train+validation' would leave out the very items looked for")
    return seen or ("train" if part == "validation" else "train+validation")


def _not_empty(part: Interactions, name: str) -> None:
    if not len(part):
        raise DataError(f"the {name} part is empty: there is nothing to evaluate on")


def _counts(interactions: Interactions, items: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "num_items": int(items.sum()),
        "num_users": int((interactions.user_counts > 0).sum()),
        "num_interactions": len(interactions),
    }


def _per_user(
    rankings: dict[str, Ranking], tables: dict[str, dict[str, NDArray[np.float64]]], ids: NDArray[Any]
) -> pl.DataFrame:
    """Set all tables side by side, one row a user of the first; null where a user is not in a table."""
    users = rankings[""].users
    columns = [pl.Series("user_id", ids[users].tolist())]
    for name, ranking in rankings.items():
        prefix = f"{name}/" if name else ""
        rows = np.searchsorted(users, ranking.users)
        for metric, values in ({"relevant": ranking.relevant} | tables[name]).items():
            column = np.full(len(users), np.nan)
            column[rows] = values
            series = pl.Series(prefix + metric, column, nan_to_null=True)
            columns.append(series.cast(pl.Int64) if metric == "relevant" else series)
    return pl.DataFrame(columns)
