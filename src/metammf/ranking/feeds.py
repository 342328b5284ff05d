"""The best items of many users as tables in outside ids, batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metammf.ranking.topk import rank_batches, users_at_once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy import sparse

    from metammf.ranking.topk import ItemScorer


class Feeds:
    """What recommends to many users and no more than that needs, so that it can be sent to another process.

    Args:
        scorer: Scores of all items, by user index.
        user_ids: Outside ids of the users, index by index.
        items: ``item_id`` and, where there are titles, ``title``, index by index.
        k: How many items; fewer come where fewer are left.
        seen: What is left out, a row a user, (num_users, num_items); None for nothing.
        exclude: Items that never come, by index.
    """

    def __init__(
        self,
        scorer: ItemScorer,
        user_ids: pl.Series,
        items: pl.DataFrame,
        k: int,
        seen: sparse.csr_array | None,
        exclude: NDArray[np.int64],
    ) -> None:
        self.scorer, self.user_ids, self.items = scorer, user_ids, items
        self.k = min(k, max(1, scorer.num_items))
        self.seen, self.exclude = seen, exclude

    @property
    def users_at_once(self) -> int:
        """Users of one batch. Equal batches give equal bits, so who divides users divides them between batches."""
        return users_at_once(self.scorer.num_items)

    def frames(self, users: NDArray[np.int64]) -> Iterator[pl.DataFrame]:
        """Yield the lists of these users, one frame a batch, in their order.

        Yields:
            Columns ``user_id, item_id, rank, score`` (ranks from 1), and ``title`` where there are titles.
        """
        exclude = self.exclude if len(self.exclude) else None
        for batch, items, scores in rank_batches(self.scorer, users, self.k, seen=self.seen, exclude=exclude):
            yield feed_frame(self.items, items, scores, user_ids=self.user_ids.gather(batch))


def feed_frame(
    catalog: pl.DataFrame, items: NDArray[Any], scores: NDArray[Any], *, user_ids: pl.Series | None = None
) -> pl.DataFrame:
    """Return ranked lists as a table, one row a place that is filled.

    Args:
        catalog: ``item_id`` and perhaps ``title``, by item index.
        items: Item indices (B, k), best first; -1 where a list ends early.
        scores: Likewise.
        user_ids: Whose lists they are, (B,).
    """
    found = items >= 0
    row, place = np.nonzero(found)
    chosen = items[found]
    columns = {} if user_ids is None else {"user_id": user_ids.gather(row)}
    columns |= {
        "item_id": catalog["item_id"].gather(chosen),
        "rank": pl.Series(place + 1, dtype=pl.Int32),
        "score": pl.Series(scores[found], dtype=pl.Float32),
    }
    if "title" in catalog.columns:
        columns["title"] = catalog["title"].gather(chosen)
    return pl.DataFrame(columns)
