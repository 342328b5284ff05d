"""The contract between models and what trains, evaluates and serves them. U users, N items, D width.

A model is what its paper adds and nothing else: no loop, no batching, no metric, no device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from metammf.models.content_table import ContentTable
from metammf.nn.graph import BipartiteGraph

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jaxtyping import Bool, Float, Int

    from metammf.data.features import ItemFeatures
    from metammf.data.interactions import Interactions
    from metammf.models.config import ModelConfig
    from metammf.nn.content import Content
    from metammf.nn.histories import Histories


@dataclass(frozen=True)
class Batch:
    """Positives of one step and their negatives.

    Args:
        users: (B,).
        positives: (B,).
        negatives: (B, K) of each positive's own, K = 0 where the model wants none; or (M,) distinct ones that the step shares.
        masked: (2, n): shared negatives that are train positives of a user, by the places of the user among the distinct users
            in ascending order, and of the item among the negatives; ascending by user.
        negative_correction: (M,): added to the scores of shared negatives for how they were sampled.
        positive_correction: (B,): the same for the positives.
        part: Share of a whole batch's positives that these are, where processes divide it; a penalty on negatives that the
            whole batch shares counts by it. None for a batch that is whole.
    """

    users: Int[Tensor, " batch"]
    positives: Int[Tensor, " batch"]
    negatives: Int[Tensor, "*shape"]
    masked: Int[Tensor, "2 pairs"] | None = None
    negative_correction: Float[Tensor, " shared"] | None = None
    positive_correction: Float[Tensor, " batch"] | None = None
    part: float | None = None

    def vectors(self, model: VectorSource) -> tuple[Tensor, Tensor, Tensor]:
        """Call the model once, on the distinct nodes of the batch.

        Returns:
            Vectors of the users (B, D), of the positives (B, D), and of the negatives (B, K, D) or (M, D).
        """
        users, places, positives, negatives = self.distinct_vectors(model)
        return functional.embedding(places, users), positives, negatives

    def distinct_vectors(self, model: VectorSource) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Call the model once, and leave each user's vector where it is one.

        Returns:
            Vectors of the distinct users, in ascending order; each positive's place among them (B,); vectors of the positives
            (B, D), and of the negatives (B, K, D) or (M, D).
        """
        users, user_places = torch.unique(self.users, return_inverse=True)
        nodes = torch.cat([self.positives, self.negatives.flatten()])
        items, item_places = torch.unique(nodes, return_inverse=True)
        user_vectors, item_vectors = model(users, items)
        positives, negatives = item_places[: len(self.positives)], item_places[len(self.positives) :]
        # As an embedding's rows: the gradient of repeated rows adds up in one order, whatever the number of threads. That of
        # `item_vectors[positives]` does not.
        return (
            user_vectors,
            user_places,
            functional.embedding(positives, item_vectors),
            functional.embedding(negatives.view(self.negatives.shape), item_vectors),
        )

    def penalty(self, model: VectorSource, l2_reg: float) -> dict[str, Tensor]:
        """Return the penalty on the free vectors of the batch as a term "l2", or nothing where its weight is zero."""
        if not l2_reg:
            return {}
        if self.negatives.ndim == 1 and self.part is not None:  # all processes have them
            nobody = self.users[:0]
            total = _squares(model, self.users, self.positives)
            total = total + self.part * _squares(model, nobody, self.negatives)
        else:
            total = _squares(model, self.users, torch.cat([self.positives, self.negatives.flatten()]))
        return {"l2": l2_reg * 0.5 * total / len(self.users)}


def _squares(model: VectorSource, users: Tensor, items: Tensor) -> Tensor:
    rows = model.embeddings(users, items)
    return sum((row.square().sum() for row in rows), torch.zeros((), device=items.device))


class VectorSource(Protocol):
    """What an objective sees of a model: the model itself, or its vectors where several batches share them."""

    def __call__(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of these nodes; the indices of each side are distinct. See `Model.forward`."""
        ...

    def item_offsets(self, items: Tensor) -> Tensor | None:
        """Return what is added to every score of these items; see `Model.item_offsets`."""
        ...

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return the free vectors that a penalty is laid upon; see `Model.embeddings`."""
        ...


class Objective(Protocol):
    """What a step descends: owns loss and penalties."""

    def __call__(self, model: VectorSource, batch: Batch) -> Mapping[str, Tensor]:
        """Return the terms of the loss, which are added up."""
        ...


class Inputs:
    """What a model may ask for when it is built; what it does not touch is never built.

    Args:
        train: The train interactions.
        features: One row an item.
    """

    def __init__(self, train: Interactions, features: ItemFeatures) -> None:
        self.train = train
        self.features = features
        self.num_users = train.num_users
        self.num_items = train.num_items

    @cached_property
    def graph(self) -> BipartiteGraph:
        """Who watched what in train."""
        return BipartiteGraph(self.train.matrix)

    @cached_property
    def content(self) -> ContentTable:
        """Features as tensors, row by row."""
        return ContentTable(self.features)

    @cached_property
    def cold_items(self) -> Bool[Tensor, " num_items"]:
        """Items without a train interaction."""
        return torch.from_numpy(self.train.item_counts == 0)

    @cached_property
    def cold_users(self) -> Bool[Tensor, " num_users"]:
        """Users without a train interaction."""
        return torch.from_numpy(self.train.user_counts == 0)


class Model(nn.Module, ABC):
    """A model that is trained by descent: vectors of users and of items, scored by their dot product.

    A score is the dot product plus the item's offset, where the model has offsets.

    Attributes:
        config_type: The model's config.
        num_users: U.
        num_items: N.
        draws_negatives: Whether batches hold negatives; an objective of the model's own may need none.
        shares_vectors: Whether the batches of a step may share the vectors of one call; an objective of the model's own may
            need more of the model than those.
    """

    config_type: ClassVar[type[ModelConfig]]
    draws_negatives: ClassVar[bool] = True
    shares_vectors: ClassVar[bool] = True
    num_users: int
    num_items: int

    @abstractmethod
    def forward(
        self, users: Int[Tensor, " users"], items: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """Return the vectors of these nodes; the indices of each side are distinct."""

    def begin_epoch(self, generator: torch.Generator) -> None:
        """Do what the paper does once an epoch; nothing by default."""

    def begin_step(self, users: Int[Tensor, " batch"], positives: Int[Tensor, " batch"]) -> None:
        """Learn which train interactions the step is about to predict; nothing by default."""

    def item_offsets(self, items: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"] | None:
        """Return what is added to every score of these items, in their shape; None, the default, for nothing."""
        return None

    def new_item_offset(self) -> float:
        """Return what is added to every score of an item that is new; nothing by default."""
        return 0.0

    def objective(self, training: Any) -> Objective | None:
        """Return the objective of a paper that has one of its own; None takes the one that the training config names."""
        return None

    def extended(self, standard: Objective) -> Objective:
        """Return the objective that the training config names with the terms that the paper adds to it; as it is by default."""
        return standard

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return the free vectors that a penalty on the batch (`l2_reg`) is laid upon; none by default."""
        return []

    def content_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the fusion, which may have a learning rate and decay of their own."""
        return []

    def row_tables(self) -> list[nn.Embedding]:
        """Return the tables of which `forward` reads the rows of its nodes alone, by calling them; none by default.

        Of these a step can leave the rows that it does not read as they are.
        """
        return []

    @property
    def content_aware(self) -> bool:
        """Whether an item without interactions has a vector that means something."""
        return isinstance(self, ContentModel)

    @property
    def folds_users(self) -> bool:
        """Whether a user that comes with a history has a vector that means something; it is then a `HistoryModel`."""
        return False

    @property
    def may_misjudge_new_users(self) -> bool:
        """Whether training may have left untaught how a user who comes with a history and no vector of its own is folded in."""
        return False

    @property
    def knows_nobody(self) -> bool:
        """Whether training has taught a vector for a user of whom nothing is known, which popularity would stand in for."""
        return False

    @torch.no_grad()
    def vectors(self) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return the vectors of all users and items, in evaluation mode."""
        with self.evaluating() as device:
            return self(torch.arange(self.num_users, device=device), torch.arange(self.num_items, device=device))

    @torch.no_grad()
    def all_offsets(self) -> Float[Tensor, " num_items"] | None:
        """Return the offsets of all items, in evaluation mode."""
        with self.evaluating() as device:
            return self.item_offsets(torch.arange(self.num_items, device=device))

    @contextmanager
    def evaluating(self) -> Iterator[torch.device]:
        """Keep the model in evaluation mode, and give its device; afterwards it is in the mode that it was in."""
        training = self.training
        self.eval()
        try:
            yield next(self.parameters()).device
        finally:
            self.train(training)


@runtime_checkable
class ContentModel(Protocol):
    """A model that gives a vector to an item that it has never seen."""

    def encode_items(self, content: Content) -> Float[Tensor, "batch dim"]:
        """Return vectors from content alone."""
        ...


@runtime_checkable
class ContentSolver(Protocol):
    """A solved model that scores an item that it has never seen."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that it looks at."""
        ...

    def with_items(self, state: Mapping[str, Tensor], content: Content) -> Mapping[str, Tensor]:
        """Return what was solved with further items after those that it knows, by their content alone.

        Nothing that was there changes, and neither does the order in which items are added.
        """
        ...


@runtime_checkable
class HistoryModel(Protocol):
    """A model that gives a vector to a user that it has never seen, by the items that the user watched.

    What it reads of these items is kept with the finished recommender, a row an item, so that neither features nor a
    propagation are needed to take a user in.
    """

    def item_memory(self) -> Mapping[str, Tensor]:
        """Return what `encode_users` reads of the items, in evaluation mode: tensors of N rows."""
        ...

    def encode_users(self, histories: Histories, memory: Mapping[str, Tensor]) -> Float[Tensor, "batch dim"]:
        """Return the vectors of users that have no free vector, from what they watched."""
        ...


def history_model(model: Model) -> HistoryModel | None:
    """Return the model as one that takes users in, if it is one."""
    return model if model.folds_users and isinstance(model, HistoryModel) else None


@runtime_checkable
class ContentHistoryModel(HistoryModel, Protocol):
    """One for which a user may have watched items that it has never seen either; to others these tell nothing."""

    def new_item_memory(self, content: Content) -> Mapping[str, Tensor]:
        """Return the item memory of items that are new, from content alone."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """All that evaluation and serving see of a finished model."""

    @property
    def num_items(self) -> int:
        """N."""
        ...

    def scores(self, users: Int[Tensor, " batch"]) -> Float[Tensor, "batch num_items"]:
        """Return the score of every item for these users; -inf for an item that cannot be recommended."""
        ...


@runtime_checkable
class HistoryScorer(Protocol):
    """A finished model that scores for users that it has never seen."""

    def history_scores(self, histories: Histories) -> Float[Tensor, "batch num_items"]:
        """Return the score of every item for users who watched these; -inf for an item that cannot be recommended."""
        ...


class SolvedModel(ABC):
    """A model that is solved rather than descended.

    Args:
        config: Its settings.
        inputs: What it may ask for; the features are not there where it is only to make a scorer of what was solved before.
    """

    config_type: ClassVar[type[ModelConfig]]

    def __init__(self, config: Any, inputs: Inputs) -> None:
        self.config = config
        self.inputs = inputs
        self.train = inputs.train

    @property
    def num_items(self) -> int:
        """N."""
        return self.train.num_items

    @abstractmethod
    def solve(self) -> Mapping[str, Tensor]:
        """Compute what `scores` needs beyond the train interactions themselves, that of new items included."""

    @abstractmethod
    def scorer(self, state: Mapping[str, Tensor]) -> Scorer:
        """Return the finished scorer, from what `solve` returned now or before."""
