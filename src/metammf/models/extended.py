"""Parts of the objectives that add terms of a paper's own to the one that the training config names. U users, N items, D width.

Such an objective holds its model, of which it needs more than the vectors of a batch, and hands the standard one a source of
vectors that tells it what has been computed, or computes others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from metammf.models.base import Model

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from metammf.models.base import Batch, Objective, VectorSource

M = TypeVar("M", bound=Model)


class ExtendedObjective(ABC, Generic[M]):
    """The objective that the training config names, and a paper's own terms beside its own.

    Args:
        model: Whose terms they are.
        standard: The objective of the scores.
    """

    def __init__(self, model: M, standard: Objective) -> None:
        self.model, self.standard = model, standard

    @abstractmethod
    def __call__(self, model: VectorSource, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss: the standard objective's, and the paper's."""


class _Wrapper:
    """A source of other vectors, which asks another one for all else.

    Args:
        source: Which it asks.
    """

    def __init__(self, source: VectorSource) -> None:
        self.source = source

    def item_offsets(self, items: Tensor) -> Tensor | None:
        """Return what is added to every score of these items."""
        return self.source.item_offsets(items)

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return the free vectors that a penalty is laid upon."""
        return self.source.embeddings(users, items)


class AllVectors(_Wrapper):
    """The vectors of all nodes, computed once and handed out by rows.

    Args:
        users: (U, D).
        items: (N, D).
        source: Asked for all else.
    """

    def __init__(self, users: Tensor, items: Tensor, source: VectorSource) -> None:
        super().__init__(source)
        self.users, self.items = users, items

    def __call__(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of these nodes."""
        return self.users[users], self.items[items]


class Remembering(_Wrapper):
    """A source that keeps the users' vectors that it gave last."""

    users: Tensor

    def __call__(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of these nodes."""
        self.users, item_vectors = self.source(users, items)
        return self.users, item_vectors


class WithItemVectors:
    """A source whose users have the vectors that another source gave last, and whose items have others.

    Args:
        users: Vectors of the distinct users of a batch, as its objective asked for them.
        item_vectors: From distinct items to their vectors.
    """

    def __init__(self, users: Tensor, item_vectors: Callable[[Tensor], Tensor]) -> None:
        self.users, self.item_vectors = users, item_vectors

    def __call__(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the users' vectors as they are, and the other ones of the items."""
        return self.users, self.item_vectors(items)

    def item_offsets(self, items: Tensor) -> None:
        """Return nothing."""

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return nothing: the penalty on the free vectors is laid once."""
        return []
