"""Finished scorers: all that evaluation and serving see of a model. B users, N items, D width."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from metammf.models.base import ContentHistoryModel, history_model
from metammf.nn.histories import Histories

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Int

    from metammf.data.interactions import Interactions
    from metammf.models.base import HistoryModel, HistoryScorer, Model, Scorer


class VectorScorer:
    """Score by dot product, plus an offset of the item where there is one.

    Args:
        users: (U, D).
        items: (N, D).
        rankable: Items that can be recommended, (N,), or None for all.
        offsets: Added to the scores of the items, (N,), or None for nothing.
    """

    def __init__(
        self, users: Tensor, items: Tensor, rankable: Tensor | None = None, offsets: Tensor | None = None
    ) -> None:
        # One memory layout, so that a product gives the same bits before and after a round trip to disk.
        self.users, self.items, self.rankable, self.offsets = users.contiguous(), items.contiguous(), rankable, offsets
        # Few, as a rule: filling their columns costs a fraction of a mask over all scores.
        self._hidden = None if rankable is None else torch.nonzero(~rankable).flatten()

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.items)

    def scores(self, users: Int[Tensor, " batch"]) -> Float[Tensor, "batch num_items"]:
        """Return the dot products of these users' vectors with all items', offsets added."""
        scores = self.users[users.to(self.users.device)] @ self.items.T
        if self.offsets is not None:
            scores += self.offsets
        return scores if self._hidden is None else scores.index_fill_(1, self._hidden, -torch.inf)


class FallbackScorer:
    """Score users without a train interaction by popularity: nothing was learned of them.

    Args:
        scorer: For everybody else.
        train: The train interactions.
        known: Users that the scorer is to be trusted with even so, (U,); nobody by default.
    """

    def __init__(self, scorer: Scorer, train: Interactions, known: Tensor | None = None) -> None:
        self.scorer = scorer
        self.unknown = torch.from_numpy(train.user_counts == 0)
        if known is not None:
            self.unknown &= ~known
        self.popularity = torch.zeros(scorer.num_items)
        self.popularity[: train.num_items] = torch.as_tensor(train.item_counts, dtype=torch.float32)

    @property
    def num_items(self) -> int:
        """N."""
        return self.scorer.num_items

    def scores(self, users: Int[Tensor, " batch"]) -> Float[Tensor, "batch num_items"]:
        """Return the scores of all items for these users."""
        scores = self.scorer.scores(users)
        unknown = self.unknown[users.cpu()]
        if unknown.any():
            rows = unknown.to(scores.device)
            # What cannot be recommended to anybody stays so.
            scores[rows] = torch.where(scores[rows] == -torch.inf, -torch.inf, self.popularity.to(scores))
        return scores


class FoldInScorer:
    """Score for users that the model has never seen, by the vectors that it gives to what they watched.

    Args:
        model: In evaluation mode.
        memory: What the model reads of the items, by `HistoryModel.item_memory`.
        known: The items' side of the scores.
    """

    def __init__(self, model: HistoryModel, memory: Mapping[str, Tensor], known: VectorScorer) -> None:
        self.model, self.memory, self.known = model, memory, known

    @torch.no_grad()
    def history_scores(self, histories: Histories) -> Float[Tensor, "batch num_items"]:
        """Return the dot products of these users' vectors with all items'."""
        users = self.model.encode_users(histories.to(self.known.items.device), self.memory)
        scorer = VectorScorer(users, self.known.items, self.known.rankable, self.known.offsets)
        return scorer.scores(torch.arange(len(users), device=users.device))


class HistoryOverlay:
    """Score some users by histories that are given beside what was trained on, all others as before.

    Args:
        scorer: For all others.
        folded: For those with a history.
        history: What they watched.
    """

    def __init__(self, scorer: Scorer, folded: HistoryScorer, history: Interactions) -> None:
        self.scorer, self.folded = scorer, folded
        matrix = history.matrix
        self.histories = Histories(torch.from_numpy(matrix.indptr).long(), torch.from_numpy(matrix.indices).long())
        self.has_history = self.histories.counts.flatten() > 0

    @property
    def num_items(self) -> int:
        """N."""
        return self.scorer.num_items

    def scores(self, users: Int[Tensor, " batch"]) -> Float[Tensor, "batch num_items"]:
        """Return the scores of all items for these users."""
        scores = self.scorer.scores(users)
        users = users.cpu()
        rows = self.has_history[users]
        if rows.any():
            folded = self.folded.history_scores(self.histories.of_users(users[rows]))
            scores[rows.to(scores.device)] = folded.to(scores)
        return scores


def finished_scorer(model: Model, train: Interactions) -> VectorScorer:
    """Return the scorer of a model as it stands; a model of ids alone cannot recommend items that it has no id for."""
    users, items = model.vectors()
    rankable = None if model.content_aware else torch.from_numpy(train.item_counts > 0).to(items.device)
    return VectorScorer(users, items, rankable, model.all_offsets())


def validation_scorer(model: Model, train: Interactions, history: Interactions | None) -> Scorer:
    """Return what chooses the epoch: cold users by popularity, or by the history that they come with where the model can."""
    known = finished_scorer(model, train)
    scorer, folding = FallbackScorer(known, train), history_model(model)
    if history is None or folding is None:
        return scorer
    if not isinstance(
        folding, ContentHistoryModel
    ):  # items without a train interaction tell nothing of who watched them
        history = history.select(train.item_counts[history.items] > 0)
    return HistoryOverlay(scorer, FoldInScorer(folding, folding.item_memory(), known), history)


class MatrixRowScorer(ABC):
    """Shared by the solved models that score by products of SciPy matrices.

    Args:
        matrix: Binary train matrix, (U, N).
    """

    def __init__(self, matrix: sparse.csr_array) -> None:
        self.matrix = matrix

    @property
    def num_items(self) -> int:
        """N."""
        return int(self.matrix.shape[1])

    @abstractmethod
    def rows(self, history: sparse.csr_array) -> Any:
        """Return scores (B, N), dense, from rows of what users watched: the train matrix's, or those of new users."""

    def history_scores(self, histories: Histories) -> Float[Tensor, "batch num_items"]:
        """Return the scores of all items for users who watched these."""
        parts = (np.ones(len(histories.items), self.matrix.dtype), histories.items.numpy(), histories.indptr.numpy())
        rows = sparse.csr_array(parts, shape=(len(histories), self.num_items))
        return torch.as_tensor(self.rows(rows), dtype=torch.float32)

    def scores(self, users: Int[Tensor, " batch"]) -> Float[Tensor, "batch num_items"]:
        """Return the scores of all items for these users."""
        return torch.as_tensor(self.rows(self.matrix[users.cpu().numpy()]), dtype=torch.float32)


class NeighbourScorer(MatrixRowScorer):
    """Score an item by what the user has watched among its neighbours: sum_j x_uj s_ij.

    Args:
        matrix: Binary train matrix, (U, N).
        neighbours: s, (N, N): row i holds the neighbours of item i.
    """

    def __init__(self, matrix: sparse.csr_array, neighbours: sparse.csr_array) -> None:
        super().__init__(matrix)
        self.reached = neighbours.T.tocsr()  # row j holds the items that have j among their neighbours

    def rows(self, history: sparse.csr_array) -> Any:
        """Return the sums."""
        return (history @ self.reached).toarray()


def csr_state(matrix: sparse.csr_array) -> dict[str, Tensor]:
    """Return a sparse matrix as the tensors that a solved model keeps."""
    return {name: torch.from_numpy(getattr(matrix, name)) for name in ("indptr", "indices", "data")}


def csr_of(state: Mapping[str, Tensor], num_columns: int) -> sparse.csr_array:
    """Return the sparse matrix of such tensors."""
    data, indices, indptr = (state[name].numpy() for name in ("data", "indices", "indptr"))
    return sparse.csr_array((data, indices, indptr), shape=(len(indptr) - 1, num_columns))
