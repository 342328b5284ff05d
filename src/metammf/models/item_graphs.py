"""Shared by the models with graphs of items that are alike by content. U users, N items, B new items, D width, M modalities.

Known items are those with a train interaction. The graphs are among them alone: the free vector of another item is noise,
and an item that is added later could be nobody's neighbour either. All other items, of the data set or new, are rows
beside the graphs: `encode_items` gives them what their nearest known items by content give them. Of who watched them they say
nothing: a user who is new is told by the known items that it watched.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from metammf.models.config import Search
from metammf.models.nodes import ContentConfig, FreeVectorModel, SearchedScaling, scaled_features
from metammf.nn.content import Content, modality_key
from metammf.nn.content_graph import ContentGraph, has_direction

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from metammf.models.base import Inputs
    from metammf.nn.backbone import Backbone


class ItemGraphConfig(ContentConfig):
    """What all of them can be told."""

    embedding_dim: Annotated[int, Field(ge=1), Search(16, 256, log=True)] = 64
    """Width D of users' and items' vectors."""
    num_layers: Annotated[int, Field(ge=0), Search(1, 4)] = 2
    """Hops over who watched what."""
    num_item_layers: Annotated[int, Field(ge=1), Search(1, 3)] = 1
    """Hops over the item graphs."""
    num_neighbours: Annotated[int, Field(ge=1), Search(3, 40, log=True)] = 10
    """Nearest items k of each item in each modality, itself among them."""
    feature_scaling: SearchedScaling = "none"
    """How features are brought to a common scale, by statistics of the items that have train interactions; the paper takes
    them as they are. Where all are nearly alike, "center" or "standardize" tells them apart."""
    normalize: bool = False
    """Score by cosine rather than by dot product."""
    init_std: Annotated[float, Field(gt=0), Search(0.005, 0.2, log=True)] | None = None
    """Standard deviation of the free vectors at the start; Glorot's by default."""


class ItemGraphModel(FreeVectorModel):
    """Free vectors on both sides, a backbone over who watched what, and a graph of the known items in each modality.

    An item without a train interaction has no free vector (it is zero), no edges, and the neighbours that its content has
    among the known items.

    Args:
        config: Its settings.
        inputs: Counts and features, and the graph where the backbone propagates.
        backbone: What is done to the free vectors.
        weighted: Whether the item graphs hold cosines or ones.

    Raises:
        ConfigError: the data set has no features.
        DataError: it lacks a modality that is asked for.
    """

    cold: Tensor

    def __init__(self, config: ItemGraphConfig, inputs: Inputs, backbone: Backbone, *, weighted: bool) -> None:
        super().__init__(
            inputs,
            config.embedding_dim,
            backbone,
            normalize=config.normalize,
            init_std=config.init_std,
            without=inputs.cold_items,
        )
        self.num_item_layers = config.num_item_layers
        self.register_buffer("cold", torch.nonzero(inputs.cold_items).flatten(), persistent=False)
        self.take_content(inputs, config)
        self.graphs = nn.ModuleDict()
        for name in self.modalities:
            features = scaled_features(self.scaler, inputs, name)
            self.graphs[modality_key(name)] = ContentGraph(
                features.values[name],
                features.present[name] & ~inputs.cold_items,
                config.num_neighbours,
                weighted=weighted,
            )

    def graph_of(self, modality: str) -> ContentGraph:
        """Return the graph of a modality."""
        graph = self.graphs[modality_key(modality)]
        assert isinstance(graph, ContentGraph)
        return graph

    def members(self) -> Bool[Tensor, "num_items modalities"]:
        """Return which known items have a place in the graph of which modality."""
        return torch.stack([self.graph_of(name).members for name in self.modalities], dim=1)

    @abstractmethod
    def all_vectors(self) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return the vectors of all nodes; those of items that are not known are not read.

        Outside training it also notes what `new_item_vectors` takes of the known items.
        """

    @abstractmethod
    def new_item_vectors(
        self, content: Content, present: Bool[Tensor, "batch modalities"]
    ) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items without interactions; `present` tells the modalities that they can be compared in."""

    def forward(
        self, users: Int[Tensor, " users"], items: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """Return the vectors of these nodes."""
        user_vectors, item_vectors = self.all_vectors()
        if not self.training and len(self.cold):  # no step of training reads them
            unknown = self.in_chunks(lambda rows: self._encode(self.content.rows(rows)), self.cold)
            item_vectors = item_vectors.index_copy(0, self.cold, unknown.to(item_vectors.dtype))
        return self.finish(user_vectors[users]), self.finish(item_vectors[items])

    def encode_items(self, content: Content) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items that have no interactions: what their nearest known items by content give them."""
        return self.finish(self._encode(content))

    def _encode(self, content: Content) -> Tensor:
        scaled = self.scaler(content)
        present = [has_direction(scaled.values[name], scaled.present[name]) for name in self.modalities]
        return self.new_item_vectors(scaled, torch.stack(present, dim=1))

    def without_edges(self, count: int) -> Float[Tensor, "count dim"]:
        """Return what the backbone makes of items that have neither a free vector nor an edge."""
        return self.backbone.isolated(self.item_table.weight.new_zeros(count, self.item_table.embedding_dim))

    @property
    def folds_users(self) -> bool:
        """Whether the backbone looks at what a user watched; a new user has no vector beside that."""
        return self.backbone.depth > 0

    def row_tables(self) -> list[nn.Embedding]:
        """Return none: the item graphs propagate the free vectors of all."""
        return []
