"""Users who were not there in training, in outside ids: what they watched goes in, scores and vectors come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from metammf.errors import DataError
from metammf.models.scorers import FoldInScorer
from metammf.nn.histories import Histories

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from metammf.data.ids import IdMap
    from metammf.models.base import HistoryScorer


class Newcomers:
    """Ranks for new users by what each of them watched.

    Args:
        fold_in: Scores by histories.
        item_ids: Outside ids of the items.
        known: Items of which the model knows something, (N,); the others tell nothing of who watched them.
        name: Of the model, for messages.
    """

    def __init__(self, fold_in: HistoryScorer, item_ids: IdMap, known: NDArray[np.bool_], name: str) -> None:
        self.fold_in, self.item_ids, self.known, self.name = fold_in, item_ids, known, name

    def scores(self, watched: Sequence[Any]) -> Tensor:
        """Return the score of every item for one user, (1, N).

        Raises:
            UnknownIdError: there is no such item.
            DataError: nothing was watched, or nothing that the model knows.
        """
        return self.fold_in.history_scores(self._histories([watched]))

    @torch.no_grad()
    def vectors(self, watched: Sequence[Sequence[Any]]) -> Tensor:
        """Return the vectors of several users, (n, D), of a model that has vectors; errors as of `scores`."""
        assert isinstance(self.fold_in, FoldInScorer)  # a scorer with vectors is no solved one
        return self.fold_in.model.encode_users(self._histories(watched), self.fold_in.memory)

    def _histories(self, watched: Sequence[Sequence[Any]]) -> Histories:
        """Turn outside ids into histories, each item once."""
        rows = []
        for ids in watched:
            items = np.unique(self.item_ids.indices(list(ids)))
            if not len(items):
                raise DataError("what a new user watched: expected the id of an item at least, got none")
            if not self.known[items].any():
                raise DataError(
                    f"none of the {len(items)} watched items has a train interaction: {self.name} knows nothing of them"
                )
            rows.append(items[self.known[items]].tolist())
        return Histories.of(rows)
