"""Shared by the graph models that keep modalities apart: a node is an id vector and a vector a modality, side by side.

B items, D width of ids, C width of a modality, M modalities.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from metammf.models.config import Search
from metammf.models.id_model import GraphModelConfig
from metammf.models.nodes import ContentConfig, ItemIds, NodeModel, fitted_scaler
from metammf.nn.content import Content, MissingContent, modality_key

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from metammf.models.base import Inputs
    from metammf.nn.backbone import Backbone


class ModalModelConfig(GraphModelConfig, ContentConfig):
    """What all of them can be told."""

    content_dim: Annotated[int, Field(ge=1), Search(16, 256, log=True)] = 64
    """Width C to which each modality's features are mapped, and of a user's free vector in each."""
    id_dropout: Annotated[float, Field(ge=0, lt=1), Search(0, 0.5)] = 0.1
    """Share of the items that get the "unknown" id row at a training step, which is how that row is trained."""


class ModalModel(NodeModel):
    """Users are free vectors, [id || one a modality]; items a free id and their mapped features.

    Where an item lacks a modality, a learned vector stands for its features. One without a train interaction has the id of
    "unknown" and no edges, whether it is in the data set or is added later. That row starts at zero, and `id_dropout` is what
    trains it. Without, as in the papers, it stays zero: such an item has its content alone, all of whose maps are trained.

    Args:
        config: Its settings.
        inputs: Counts, features and the graph.

    Raises:
        ConfigError: the data set has no features.
        DataError: it lacks a modality that is asked for.
    """

    def __init__(self, config: ModalModelConfig, inputs: Inputs) -> None:
        scaler = fitted_scaler(inputs, config.modalities, config.feature_scaling, config.feature_components)
        modalities = tuple(scaler.widths)
        super().__init__(
            inputs,
            config.embedding_dim + len(modalities) * config.content_dim,
            self.make_backbone(config, inputs, modalities),
            normalize=config.normalize,
            hide_targets=config.hide_targets,
            edge_dropout=config.edge_dropout,
            init_std=config.init_std,
        )
        self.modalities, self.scaler, self.content = modalities, scaler, inputs.content
        self.widths = list(scaler.out_widths.values())
        self.concat = MissingContent(scaler.out_widths)
        self.project = nn.ModuleDict(
            {modality_key(name): nn.Linear(width, config.content_dim) for name, width in scaler.out_widths.items()}
        )
        self.item_ids = ItemIds(
            inputs.num_items, config.embedding_dim, inputs.cold_items, config.id_dropout, config.init_std
        )

    @staticmethod
    @abstractmethod
    def make_backbone(config: Any, inputs: Inputs, modalities: tuple[str, ...]) -> Backbone:
        """Return what takes [id || one a modality] of all nodes to the vectors that are scored."""

    def fuse_scaled(self, content: Content) -> Float[Tensor, "batch width"]:
        """Return the mapped features of these items, the modalities side by side."""
        parts = torch.split(self.concat(content), self.widths, dim=1)
        return torch.cat([layer(part) for layer, part in zip(self.project.values(), parts, strict=True)], dim=1)

    def item_inputs(self, items: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """Return [id || one a modality] of these items."""
        fused = self.fuse_scaled(self.scaled_rows(items))
        return torch.cat([self.item_ids(items, self.isolated), fused], dim=1)

    def encode_items(self, content: Content) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items that have no interactions."""
        return self.encode_scaled(self.scale(content))

    def encode_scaled(self, content: Content, items: Int[Tensor, " batch"] | None = None) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items by their own path; with `items`, by the ids that these known items have."""
        fused = self.fuse_scaled(content)
        ids = self.item_ids.unknown.expand(len(fused), -1) if items is None else self.item_ids(items)
        return self.finish(self.backbone.isolated(torch.cat([ids, fused], dim=1)))

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return the free vectors of both sides."""
        return [self.user_table(users), self.item_ids.table(items)]

    def content_parameters(self) -> list[nn.Parameter]:
        """Return the maps of the features, and what stands for a modality that an item lacks."""
        return [*self.project.parameters(), *self.concat.parameters()]
