"""MetaMMF: an item's own fusion network, written from its content, on any backbone.

Source: Liu et al., *Dynamic Multimodal Fusion via Meta-Learning Towards Micro-Video Recommendation*, TOIS 42(2), 2023.
`backbone="mf"` is the paper's MetaMMF_MF, `backbone="graphsage"` its MetaMMF_GCN; a static `fusion` makes a static twin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from metammf.errors import ConfigError
from metammf.models.base import Inputs, ItemIds, NodeModel
from metammf.models.config import ModelConfig, Search
from metammf.nn.backbone import Backbone, BackboneKind, GraphSAGEBackbone, LightGCNBackbone
from metammf.nn.content import Content, ContentScaler, FeatureScaling
from metammf.nn.fusion import FusionKind, make_fusion

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import nn

_STATISTICS_ROWS = 100_000


class MetaMMFConfig(ModelConfig):
    """Settings of MetaMMF and of its static twins; the defaults are the paper's."""

    name: Literal["metammf"] = "metammf"
    backbone: BackboneKind = "graphsage"
    """The predictor: "mf", "graphsage" or "lightgcn"."""
    fusion: FusionKind = "cp"
    """Dynamic "cp" or "dense"; static "concat" (the same network less its dynamic part), "sum", "gated", "attention"."""
    combine: Literal["concat", "sum"] = "concat"
    """Content and id vectors side by side, half the width each, or added up at full width."""
    embedding_dim: Annotated[int, Field(ge=2), Search(16, 256, log=True)] = 64
    """Width D of users' and items' vectors; even for "concat"."""
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = (1024, 512, 256)
    """Widths of the fusion network between the features and its output; any depth."""
    meta_dim: Annotated[int, Field(ge=1), Search(1, 16)] = 5
    """Meta channels S."""
    cp_rank: Annotated[int, Field(ge=1), Search(1, 64, log=True)] = 16
    """CP rank R."""
    dynamic_scale: Annotated[float, Field(gt=0), Search(0.03, 1, log=True)] = 1.0
    """Size of the dynamic weights at the start, relative to the shared ones."""
    bounded_meta: bool = False
    """Whether a tanh bounds the meta information; the paper has none."""
    fusion_dropout: Annotated[float, Field(ge=0, lt=1), Search(0, 0.5)] = 0.0
    """On the features and between the layers of the fusion."""
    feature_scaling: FeatureScaling = "standardize"
    """How features are brought to a common scale, by statistics of the items that have train interactions."""
    modalities: tuple[str, ...] | None = None
    """The modalities to use; all that the data set has by default."""
    id_dropout: Annotated[float, Field(ge=0, lt=1), Search(0, 0.5)] = 0.1
    """Share of the items that get the "unknown" id row at a training step, which is how that row is trained."""
    simulated_cold: Annotated[float, Field(ge=0, lt=1), Search(0, 0.5)] = 0.0
    """Share of the items that a training step leaves without edges and ids, as if they were new."""
    hide_targets: bool = False
    """Leave a step's positives out of the graph that predicts them."""
    normalize: bool = False
    """Score by cosine rather than by dot product."""
    num_layers: Annotated[int, Field(ge=0), Search(1, 4)] = 2
    """Layers or hops of the backbone."""
    hidden_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """GraphSAGE: after each layer but the last."""
    final_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """GraphSAGE: on the final vectors."""

    @model_validator(mode="after")
    def _even_width(self) -> Self:
        if self.combine == "concat" and self.embedding_dim % 2:
            raise ValueError(f'embedding_dim must be even for combine="concat", got {self.embedding_dim}')
        return self


class MetaMMF(NodeModel):
    """Item = fused content and free id; user = free vector; then the backbone.

    Args:
        config: Its settings.
        inputs: Counts, features, and the graph where the backbone propagates.

    Raises:
        ConfigError: the data set has no features, or lacks a modality that is asked for.
    """

    config_type = MetaMMFConfig

    def __init__(self, config: MetaMMFConfig, inputs: Inputs) -> None:
        super().__init__(
            inputs,
            config.embedding_dim,
            _backbone(config, inputs),
            normalize=config.normalize,
            hide_targets=config.hide_targets,
            simulated_cold=config.simulated_cold,
        )
        self.combine = config.combine
        features = inputs.features if config.modalities is None else inputs.features.only(config.modalities)
        if not features.modalities:
            raise ConfigError("MetaMMF fuses content, and this data set has no features: use a model of ids alone")
        self.modalities = features.modalities
        self.content = inputs.content
        width = config.embedding_dim // 2 if config.combine == "concat" else config.embedding_dim
        self.item_ids = ItemIds(inputs.num_items, width, inputs.cold_items, config.id_dropout)
        self.scaler = ContentScaler(features.widths, config.feature_scaling)
        self.scaler.fit(self._rows(_statistics_items(inputs)))
        self.fusion = make_fusion(
            config.fusion,
            features.widths,
            (*config.hidden_dims, width),
            meta_dim=config.meta_dim,
            cp_rank=config.cp_rank,
            dynamic_scale=config.dynamic_scale,
            bounded_meta=config.bounded_meta,
            dropout=config.fusion_dropout,
        )

    def _rows(self, items: Tensor) -> Content:
        return self._used(self.content.rows(items))

    def _used(self, content: Content) -> Content:
        return Content(
            {name: content.values[name] for name in self.modalities},
            {name: content.present[name] for name in self.modalities},
        )

    def scale(self, content: Content) -> Content:
        """Bring raw features to the scale that the fusion takes; modalities that are not used fall out."""
        return self.scaler(self._used(content))

    def fuse_scaled(self, content: Content) -> Float[Tensor, "batch width"]:
        """Return the multimodal vectors e^m of these items."""
        return self.fusion(content)

    def _combined(self, content: Tensor, ids: Tensor) -> Tensor:
        return torch.cat([content, ids], dim=1) if self.combine == "concat" else content + ids

    def item_inputs(self, items: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return e_i = [e_i^m || e_i^c], or their sum."""
        return self._combined(self.fusion(self.scaler(self._rows(items))), self.item_ids(items, self.isolated))

    def encode_items(self, content: Content) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items that have no interactions: content, the unknown id, no edges."""
        return self.encode_scaled(self.scale(content))

    def encode_scaled(self, content: Content, items: Int[Tensor, " batch"] | None = None) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items without edges; with `items`, by the ids that these known items have."""
        fused = self.fusion(content)
        ids = self.item_ids.unknown.expand(len(fused), -1) if items is None else self.item_ids(items)
        return self.finish(self.backbone.isolated(self._combined(fused, ids)))

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return the free vectors of both sides."""
        return [self.user_table(users), self.item_ids.table(items)]

    def content_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the fusion."""
        return list(self.fusion.parameters())


def _backbone(config: MetaMMFConfig, inputs: Inputs) -> Backbone:
    if config.backbone == "lightgcn":
        return LightGCNBackbone(inputs.graph, config.num_layers)
    if config.backbone == "graphsage":
        return GraphSAGEBackbone(
            inputs.graph, config.num_layers, config.embedding_dim, config.hidden_dropout, config.final_dropout
        )
    return Backbone()


def _statistics_items(inputs: Inputs) -> Tensor:
    """Items whose features may set the scale: those with train interactions, at most a fixed number of them."""
    warm = torch.nonzero(~inputs.cold_items).flatten()
    step = max(1, len(warm) // _STATISTICS_ROWS)
    return warm[::step]
