"""Models of the common shape: inputs of the nodes, then a backbone over them. U users, N items, D width."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Protocol, get_args

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from metammf.errors import ConfigError
from metammf.models.base import Inputs, Model
from metammf.models.config import ModelConfig, Search
from metammf.nn.content import Content, ContentScaler, FeatureScaling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Bool, Float, Int

    from metammf.nn.backbone import Backbone
    from metammf.nn.graph import Neighbourhoods
    from metammf.nn.histories import Histories

_CHUNK_ROWS = 8192
_STATISTICS_ROWS = 100_000


SearchedScaling = Annotated[FeatureScaling, Search(choices=get_args(FeatureScaling))]
"""How features are brought to a common scale: searched alike for every model that reads them."""


class ContentConfig(ModelConfig):
    """What models that take content can be told of it."""

    feature_scaling: SearchedScaling = "standardize"
    """How features are brought to a common scale, by statistics of the items that have train interactions. Where a paper's own
    code takes them as they come ("none"), its docstring or recipe says so; a comparison searches it."""
    feature_components: Annotated[int, Field(ge=1)] | None = None
    """Principal components that are kept of each modality, at most; all columns by default."""
    modalities: tuple[str, ...] | None = None
    """The modalities to use; all that the data set has by default."""


class ContentSettings(Protocol):
    """A config that says as much of content as `ContentConfig` does."""

    @property
    def feature_scaling(self) -> FeatureScaling:
        """See `ContentConfig`."""
        ...

    @property
    def feature_components(self) -> int | None:
        """See `ContentConfig`."""
        ...

    @property
    def modalities(self) -> tuple[str, ...] | None:
        """See `ContentConfig`."""
        ...


def init_free_vectors(table: nn.Embedding, std: float | None, without: Bool[Tensor, " nodes"] | None = None) -> None:
    """Draw free vectors: normal of this standard deviation, or Glorot's; zero for the nodes that are to be without one.

    Those stay without: a node that has no train interaction is in no batch and in no graph, so that its row has no gradient.
    """
    if std is None:
        nn.init.xavier_normal_(table.weight)
    else:
        nn.init.normal_(table.weight, std=std)
    if without is not None:
        with torch.no_grad():
            table.weight[without] = 0


def fitted_scaler(
    inputs: Inputs, modalities: tuple[str, ...] | None, scaling: FeatureScaling, components: int | None
) -> ContentScaler:
    """Return what brings features to a common scale, by statistics of the items that have train interactions.

    Args:
        inputs: Features, and which items have train interactions.
        modalities: Those to use; None for all.
        scaling: How.
        components: Principal components that are kept of each modality, at most; None for all columns.

    Raises:
        ConfigError: the data set has no features.
        DataError: it lacks a modality that is asked for.
    """
    features = inputs.features if modalities is None else inputs.features.only(modalities)
    if not features.modalities:
        raise ConfigError("the model takes content, and this data set has no features: use a model of ids alone")
    scaler = ContentScaler(features.widths, scaling, components)
    scaler.fit(inputs.content.rows(_statistics_items(inputs)))
    return scaler


def scaled_features(scaler: ContentScaler, inputs: Inputs, modality: str | None = None) -> Content:
    """Return the scaled features of all items, read a part at a time: none is held in two forms.

    Args:
        scaler: Of the model.
        inputs: Of the model.
        modality: The one to return, where there is not to be room for all; None for all.
    """
    widths = scaler.out_widths if modality is None else {modality: scaler.out_widths[modality]}
    values = {name: torch.empty(inputs.num_items, width) for name, width in widths.items()}
    present = {name: torch.empty(inputs.num_items, dtype=torch.bool) for name in values}
    for items in torch.split(torch.arange(inputs.num_items), _CHUNK_ROWS):
        part = inputs.content.rows(items)
        for name in values:
            values[name][items], present[name][items] = scaler.scaled(part, name), part.present[name]
    return Content(values, present)


def _statistics_items(inputs: Inputs) -> Tensor:
    """Items whose features may set the scale: those with train interactions, at most a fixed number of them."""
    warm = torch.nonzero(~inputs.cold_items).flatten()
    present = np.zeros(inputs.num_items, dtype=np.bool_)
    for mask in inputs.features.present.values():
        present |= mask
    warm = warm[torch.from_numpy(present)[warm]]
    return warm[:: max(1, -(-len(warm) // _STATISTICS_ROWS))]


def numbered(layers: Sequence[Tensor]) -> dict[str, Tensor]:
    """Name what neighbours send at each depth, as an item memory holds it."""
    return {f"layer_{depth}": layer for depth, layer in enumerate(layers)}


class UnknownRow(nn.Module):
    """The one free vector that stands for a node that has none of its own.

    A node without a train interaction would keep the noise that it was drawn with; it gets the "unknown" row, which is
    trained by giving it to other nodes at random (id dropout).

    Args:
        dim: Width.
        cold: Nodes without a train interaction, (nodes,).
        dropout: Share of the nodes that get the unknown row at a training step.
    """

    cold: Tensor

    def __init__(self, dim: int, cold: Tensor, dropout: float) -> None:
        super().__init__()
        self.unknown = nn.Parameter(torch.zeros(dim))
        self.dropout = dropout
        self.register_buffer("cold", cold.clone(), persistent=False)

    def replace(
        self,
        rows: Float[Tensor, "batch dim"],
        nodes: Int[Tensor, " batch"],
        isolated: Bool[Tensor, " all_nodes"] | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """Return the rows of these nodes, the unknown row where there is none, it was dropped, or the node is isolated."""
        lacking = self.cold[nodes]
        if self.training and isolated is not None:
            lacking = lacking | isolated[nodes]
        if self.training and self.dropout:
            lacking = lacking | (torch.rand(len(nodes), device=nodes.device) < self.dropout)
        return torch.where(lacking.unsqueeze(1), self.unknown, rows)


class ItemIds(UnknownRow):
    """Free id vectors of the items, and the unknown row.

    Args:
        num_items: N.
        dim: Width.
        cold: Items without a train interaction, (N,).
        dropout: Share of the items that get the unknown row at a training step.
        init_std: Standard deviation of the rows at the start; None for Glorot's.
    """

    def __init__(self, num_items: int, dim: int, cold: Tensor, dropout: float, init_std: float | None = None) -> None:
        super().__init__(dim, cold, dropout)
        self.table = nn.Embedding(num_items, dim)
        init_free_vectors(self.table, init_std)

    def forward(
        self, items: Int[Tensor, " batch"], isolated: Bool[Tensor, " num_items"] | None = None
    ) -> Float[Tensor, "batch dim"]:
        """Return the rows of these items, the unknown row where they have none in this step."""
        return self.replace(self.table(items), items, isolated)


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
        user_dim: Width of the users' free vectors, where they are a part of what enters the backbone; `dim` by default.
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
        user_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.num_users, self.num_items = inputs.num_users, inputs.num_items
        self.user_table = nn.Embedding(inputs.num_users, user_dim or dim)
        init_free_vectors(self.user_table, init_std)
        self.backbone = backbone
        self.normalize = normalize
        self.hide_targets = hide_targets
        self.edge_dropout = edge_dropout
        self.simulated_cold = simulated_cold
        self.isolated: Tensor | None = None
        self._graph: Neighbourhoods | None = None

    def take_content(self, inputs: Inputs, config: ContentSettings) -> None:
        """Take the features of all items, and fit what brings them to a common scale.

        Raises:
            ConfigError: the data set has no features.
            DataError: it lacks a modality that is asked for.
        """
        self.scaler = fitted_scaler(inputs, config.modalities, config.feature_scaling, config.feature_components)
        self.modalities = tuple(self.scaler.widths)
        self.content = inputs.content

    def scale(self, content: Content) -> Content:
        """Bring raw features to the scale that the model takes; modalities that are not used fall out."""
        return self.scaler(content)

    def scaled_rows(self, items: Int[Tensor, " batch"]) -> Content:
        """Return the scaled content of items of the data set."""
        return self.scale(self.content.rows(items))

    @abstractmethod
    def item_inputs(self, items: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return what enters the backbone for these items."""

    def user_inputs(self, users: Int[Tensor, " batch"] | None = None) -> Float[Tensor, "batch dim"]:
        """Return what enters the backbone for these users, or for all."""
        return self.user_table.weight if users is None else self.user_table(users)

    def begin_step(self, users: Int[Tensor, " batch"], positives: Int[Tensor, " batch"]) -> None:
        """Draw the items that are cold in this step, and leave out what it is to predict."""
        self.isolated, self._graph = None, None
        if self.simulated_cold:
            self.isolated = torch.rand(self.num_items, device=users.device) < self.simulated_cold
        if self.backbone.graph is not None and (self.hide_targets or self.edge_dropout or self.simulated_cold):
            edges = (users, positives) if self.hide_targets else None
            self._graph = self.backbone.graph.without(edges, self.isolated, share=self.edge_dropout)

    def row_tables(self) -> list[nn.Embedding]:
        """Return the users' free vectors, unless the backbone propagates those of all."""
        return [] if self.backbone.propagates else [self.user_table]

    def finish(self, vectors: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return the vectors as they are scored."""
        return nn.functional.normalize(vectors, dim=1) if self.normalize else vectors

    def forward(
        self, users: Int[Tensor, " users"], items: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """Return the vectors of these nodes; a backbone that propagates computes all and picks."""
        if not self.backbone.propagates:
            user_vectors, item_vectors = self.backbone(self.user_inputs(users), self.in_chunks(self.item_inputs, items))
        else:
            user_vectors, item_vectors = self.propagate(self.in_chunks(self.item_inputs, self.all_items(items.device)))
            user_vectors, item_vectors = user_vectors[users], item_vectors[items]
        return self.finish(user_vectors), self.finish(item_vectors)

    def propagate(self, inputs: Float[Tensor, "num_items dim"]) -> tuple[Tensor, Tensor]:
        """Run the backbone over all nodes; in training, over the graph of this step."""
        return self.backbone(self.user_inputs(), inputs, self._graph if self.training else None)

    def item_memory(self) -> dict[str, Tensor]:
        """Return what users' neighbours send them at each depth; see `HistoryModel`."""
        with self.evaluating() as device, torch.no_grad():
            items = self.in_chunks(self.item_inputs, self.all_items(device))
            return numbered(self.backbone.item_layers(self.user_inputs(), items))

    def encode_users(self, histories: Histories, memory: Mapping[str, Tensor]) -> Float[Tensor, "batch dim"]:
        """Return the vectors of users without a free vector, by the way of a node with these edges."""
        return self.finish(self.fold_in(histories, memory))

    @property
    def may_misjudge_new_users(self) -> bool:
        """Whether users' own vectors, which no step left out, may have kept the backbone from listening to their items."""
        return self.folds_users and self.backbone.weighs_itself and not self.knows_nobody

    def fold_in(self, histories: Histories, memory: Mapping[str, Tensor]) -> Float[Tensor, "batch dim"]:
        """Return what the backbone makes of users with these edges."""
        layers = [memory[f"layer_{depth}"] for depth in range(self.backbone.depth)]
        return self.backbone.fold_in(self.new_user_inputs(histories, memory), histories, layers)

    def new_user_inputs(self, histories: Histories, memory: Mapping[str, Tensor]) -> Float[Tensor, "batch dim"]:
        """Return what enters the backbone for users that are new: nothing of their own, by default."""
        return torch.zeros(len(histories), self.user_table.embedding_dim, device=histories.items.device)

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


class FreeVectorModel(NodeModel):
    """A free vector on both sides is what enters the backbone.

    Args:
        inputs: Counts.
        dim: Width.
        backbone: What is done to the vectors.
        normalize, hide_targets, edge_dropout, init_std: See `NodeModel`.
        without: Items that are to be without one, (N,): theirs is zero.
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
        init_std: float | None = None,
        without: Bool[Tensor, " num_items"] | None = None,
    ) -> None:
        super().__init__(
            inputs,
            dim,
            backbone,
            normalize=normalize,
            hide_targets=hide_targets,
            edge_dropout=edge_dropout,
            init_std=init_std,
        )
        self.item_table = nn.Embedding(inputs.num_items, dim)
        init_free_vectors(self.item_table, init_std, without)

    def item_inputs(self, items: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return the free vectors of these items."""
        return self.item_table(items)

    def row_tables(self) -> list[nn.Embedding]:
        """Return the free vectors of both sides, unless the backbone propagates those of all."""
        return [] if self.backbone.propagates else [self.user_table, self.item_table]

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return the free vectors of both sides."""
        return [self.user_table(users), self.item_table(items)]
