"""The contract between models and what trains, evaluates and serves them. U users, N items, D width.

A model is what its paper adds and nothing else: no loop, no batching, no metric, no device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from metammf.models.content_table import ContentTable
from metammf.nn.graph import BipartiteGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jaxtyping import Bool, Float, Int
    from scipy import sparse

    from metammf.data.features import ItemFeatures
    from metammf.data.interactions import Interactions
    from metammf.models.config import ModelConfig
    from metammf.nn.backbone import Backbone
    from metammf.nn.content import Content
    from metammf.nn.graph import Neighbourhoods

_CHUNK_ROWS = 8192


@dataclass(frozen=True)
class Batch:
    """Positives of one step and their negatives.

    Args:
        users: (B,).
        positives: (B,).
        negatives: (B, K) of each positive's own, or (M,) distinct ones that the step shares.
        masked: (distinct users, M), users in ascending order: shared negatives that are train positives of the user.
        negative_correction: (M,): added to the scores of shared negatives for how they were sampled.
        positive_correction: (B,): the same for the positives.
    """

    users: Int[Tensor, " batch"]
    positives: Int[Tensor, " batch"]
    negatives: Int[Tensor, "*shape"]
    masked: Bool[Tensor, "distinct shared"] | None = None
    negative_correction: Float[Tensor, " shared"] | None = None
    positive_correction: Float[Tensor, " batch"] | None = None

    def vectors(self, model: Model) -> tuple[Tensor, Tensor, Tensor]:
        """Call the model once, on the distinct nodes of the batch.

        Returns:
            Vectors of the users (B, D), of the positives (B, D), and of the negatives (B, K, D) or (M, D).
        """
        users, places, positives, negatives = self.distinct_vectors(model)
        return users[places], positives, negatives

    def distinct_vectors(self, model: Model) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
        return user_vectors, user_places, item_vectors[positives], item_vectors[negatives.view(self.negatives.shape)]


class Objective(Protocol):
    """What a step descends: owns loss and penalties."""

    def __call__(self, model: Model, batch: Batch) -> Mapping[str, Tensor]:
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


class Model(nn.Module, ABC):
    """A model that is trained by descent: vectors of users and of items, scored by their dot product.

    Attributes:
        config_type: The model's config.
        num_users: U.
        num_items: N.
    """

    config_type: ClassVar[type[ModelConfig]]
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

    def objective(self, training: Any) -> Objective | None:
        """Return the objective of a paper that has one of its own; None takes the one that the training config names."""
        return None

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return the free vectors that a penalty on the batch (`l2_reg`) is laid upon; none by default."""
        return []

    def content_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the fusion, which may have a learning rate and decay of their own."""
        return []

    @property
    def content_aware(self) -> bool:
        """Whether an item without interactions has a vector that means something."""
        return isinstance(self, ContentModel)

    @torch.no_grad()
    def vectors(self) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return the vectors of all users and items, in evaluation mode."""
        training = self.training
        self.eval()
        device = next(self.parameters()).device
        users, items = (torch.arange(count, device=device) for count in (self.num_users, self.num_items))
        try:
            return self(users, items)
        finally:
            self.train(training)


@runtime_checkable
class ContentModel(Protocol):
    """A model that gives a vector to an item that it has never seen."""

    def encode_items(self, content: Content) -> Float[Tensor, "batch dim"]:
        """Return vectors from content alone."""
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


class SolvedModel(ABC):
    """A model that is solved rather than descended.

    Args:
        config: Its settings.
        train: The train interactions.
    """

    config_type: ClassVar[type[ModelConfig]]

    def __init__(self, config: Any, train: Interactions) -> None:
        self.config = config
        self.train = train

    @property
    def num_items(self) -> int:
        """N."""
        return self.train.num_items

    @abstractmethod
    def solve(self) -> Mapping[str, Tensor]:
        """Compute what `scores` needs beyond the train interactions themselves."""

    @abstractmethod
    def scorer(self, state: Mapping[str, Tensor]) -> Scorer:
        """Return the finished scorer, from what `solve` returned now or before."""


class VectorScorer:
    """Score by dot product.

    Args:
        users: (U, D).
        items: (N, D).
        rankable: Items that can be recommended, (N,), or None for all.
    """

    def __init__(self, users: Tensor, items: Tensor, rankable: Tensor | None = None) -> None:
        # One memory layout, so that a product gives the same bits before and after a round trip to disk.
        self.users, self.items, self.rankable = users.contiguous(), items.contiguous(), rankable

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.items)

    def scores(self, users: Int[Tensor, " batch"]) -> Float[Tensor, "batch num_items"]:
        """Return the dot products of these users' vectors with all items'."""
        scores = self.users[users.to(self.users.device)] @ self.items.T
        return scores if self.rankable is None else scores.masked_fill_(~self.rankable, -torch.inf)


class FallbackScorer:
    """Score users without a train interaction by popularity: nothing was learned of them.

    Args:
        scorer: For everybody else.
        train: The train interactions.
    """

    def __init__(self, scorer: Scorer, train: Interactions) -> None:
        self.scorer = scorer
        self.unknown = torch.from_numpy(train.user_counts == 0)
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


def finished_scorer(model: Model, train: Interactions) -> VectorScorer:
    """Return the scorer of a model as it stands; a model of ids alone cannot recommend items that it has no id for."""
    users, items = model.vectors()
    rankable = None if model.content_aware else torch.from_numpy(train.item_counts > 0).to(items.device)
    return VectorScorer(users, items, rankable)


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
        """Return scores (B, N), dense, from the users' rows of the train matrix."""

    def scores(self, users: Int[Tensor, " batch"]) -> Float[Tensor, "batch num_items"]:
        """Return the scores of all items for these users."""
        return torch.as_tensor(self.rows(self.matrix[users.cpu().numpy()]), dtype=torch.float32)


def init_free_vectors(table: nn.Embedding, std: float | None) -> None:
    """Draw free vectors: normal of this standard deviation, or Glorot's."""
    if std is None:
        nn.init.xavier_normal_(table.weight)
    else:
        nn.init.normal_(table.weight, std=std)


class ItemIds(nn.Module):
    """Free id vectors of the items, and the one row that stands for an item that has none.

    An item without a train interaction would keep the noise that it was drawn with; it gets the "unknown" row, which is
    trained by giving it to other items at random (id dropout).

    Args:
        num_items: N.
        dim: Width.
        cold: Items without a train interaction, (N,).
        dropout: Share of the items that get the unknown row at a training step.
        init_std: Standard deviation of the rows at the start; None for Glorot's.
    """

    cold: Tensor

    def __init__(self, num_items: int, dim: int, cold: Tensor, dropout: float, init_std: float | None = None) -> None:
        super().__init__()
        self.table = nn.Embedding(num_items, dim)
        self.unknown = nn.Parameter(torch.zeros(dim))
        self.dropout = dropout
        self.register_buffer("cold", cold.clone(), persistent=False)
        init_free_vectors(self.table, init_std)

    def forward(
        self, items: Int[Tensor, " batch"], isolated: Bool[Tensor, " num_items"] | None = None
    ) -> Float[Tensor, "batch dim"]:
        """Return the rows of these items, the unknown row where there is none, it was dropped, or the item is isolated."""
        lacking = self.cold[items]
        if self.training and isolated is not None:
            lacking = lacking | isolated[items]
        if self.training and self.dropout:
            lacking = lacking | (torch.rand(len(items), device=items.device) < self.dropout)
        return torch.where(lacking.unsqueeze(1), self.unknown, self.table(items))


class NodeModel(Model):
    """A model of the common shape: inputs of the nodes, then a backbone over them.

    Args:
        inputs: Counts.
        dim: Width of the users' vectors.
        backbone: What is done to the inputs.
        normalize: Whether scores are cosines rather than dot products.
        hide_targets: Whether a step's positives are left out of the graph that predicts them.
        edge_dropout: Share of all edges that a step leaves out as well.
        simulated_cold: Share of the items that a step leaves without edges and ids, so that the path of an item that is
            new is trained at the job that it will have.
        init_std: Standard deviation of the free vectors at the start; None for Glorot's.
    """

    def __init__(
        self,
        inputs: Inputs,
        dim: int,
        backbone: Backbone,
        *,
        normalize: bool = False,
        hide_targets: bool = False,
        edge_dropout: float = 0.0,
        simulated_cold: float = 0.0,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        self.num_users, self.num_items = inputs.num_users, inputs.num_items
        self.user_table = nn.Embedding(inputs.num_users, dim)
        init_free_vectors(self.user_table, init_std)
        self.backbone = backbone
        self.normalize = normalize
        self.hide_targets = hide_targets
        self.edge_dropout = edge_dropout
        self.simulated_cold = simulated_cold
        self.isolated: Tensor | None = None
        self._graph: Neighbourhoods | None = None

    @abstractmethod
    def item_inputs(self, items: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return what enters the backbone for these items."""

    def begin_step(self, users: Int[Tensor, " batch"], positives: Int[Tensor, " batch"]) -> None:
        """Draw the items that are cold in this step, and leave out what it is to predict."""
        self.isolated, self._graph = None, None
        if self.simulated_cold:
            self.isolated = torch.rand(self.num_items, device=users.device) < self.simulated_cold
        if self.backbone.graph is not None and (self.hide_targets or self.edge_dropout or self.simulated_cold):
            edges = (users, positives) if self.hide_targets else None
            self._graph = self.backbone.graph.without(edges, self.isolated, share=self.edge_dropout)

    def finish(self, vectors: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return the vectors as they are scored."""
        return nn.functional.normalize(vectors, dim=1) if self.normalize else vectors

    def forward(
        self, users: Int[Tensor, " users"], items: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """Return the vectors of these nodes; a backbone that propagates computes all and picks."""
        if not self.backbone.propagates:
            user_vectors, item_vectors = self.backbone(self.user_table(users), self.in_chunks(self.item_inputs, items))
        else:
            user_vectors, item_vectors = self.propagate(self.in_chunks(self.item_inputs, self.all_items(items.device)))
            user_vectors, item_vectors = user_vectors[users], item_vectors[items]
        return self.finish(user_vectors), self.finish(item_vectors)

    def propagate(self, inputs: Float[Tensor, "num_items dim"]) -> tuple[Tensor, Tensor]:
        """Run the backbone over all nodes; in training, over the graph of this step."""
        return self.backbone(self.user_table.weight, inputs, self._graph if self.training else None)

    def all_items(self, device: torch.device) -> Int[Tensor, " num_items"]:
        """Return the indices of all items."""
        return torch.arange(self.num_items, device=device)

    @staticmethod
    def in_chunks(compute: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
        """Compute rows of many items; outside training in chunks.

        Nothing is kept for a backward pass there, so the widths of hidden layers need not meet the number of items in one
        tensor.
        """
        if torch.is_grad_enabled() or len(items) <= _CHUNK_ROWS:
            return compute(items)
        return torch.cat([compute(chunk) for chunk in torch.split(items, _CHUNK_ROWS)])
