r"""FREEDOM: a frozen graph of the items, and a denoised one of who watched what. U users, N items, D width, M modalities.

Source: Zhou and Shen, *A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal Recommendation*, MM 2023.

1. **Frozen item graph.** S^m_ij = 1 where j is one of the k nearest items of i by the cosine of their raw features in modality m
   (i itself among them), S~^m = D^-1/2 S^m D^-1/2, and S = sum_m alpha_m S~^m with fixed alpha. Made once, never learned.
2. **Denoised interactions.** Each epoch keeps (1 - rho) of the train edges, drawn without replacement with probabilities in
   proportion to 1 / sqrt(degree_u degree_i). Evaluation takes all edges.
3. **Vectors.** h^_u and h^_i are LightGCN's mean over 0..L_ui hops on those edges (a node of which an epoch keeps no edge has
   x / (L_ui + 1)); h~ = S^L_ii X on the free item vectors X; h_u = h^_u and h_i = h^_i + h~_i. A score is h_u . h_i.
4. **Loss.** BPR of those scores, and lambda times, for each modality, BPR of the scores h_u . (W_m x_i^m + b_m).

As in the paper: all of it; the recipe has its settings. The public code departs from it in that the raw features of 4 are
parameters that are learned, starting from their values; here they stay what they are.

Ours: any modalities (the paper's alpha of the visual one is `visual_share`, the others share the rest alike). An item that lacks
a modality has no place in its graph, and its alphas are scaled to a sum of one over the modalities that it has; in 4 a learned
vector stands in. The terms of 4 are added to whatever objective the training config names, made by that objective.
Items without a train interaction: h^_i = 0, and h~_i from their k nearest known items; see `metammf.models.item_graphs`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from metammf.models.config import Search
from metammf.models.extended import ExtendedObjective, Remembering, WithItemVectors
from metammf.models.item_graphs import ItemGraphConfig, ItemGraphModel
from metammf.nn.backbone import LightGCNBackbone
from metammf.nn.content import Content, modality_key
from metammf.nn.content_graph import shares
from metammf.nn.projection import Projections

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from metammf.models.base import Batch, Inputs, Objective, VectorSource
    from metammf.nn.graph import Neighbourhoods


class FREEDOMConfig(ItemGraphConfig):
    """Settings of FREEDOM; the defaults are the paper's."""

    name: Literal["freedom"] = "freedom"
    edge_pruning: Annotated[float, Field(ge=0, lt=1), Search(0, 0.9)] = 0.8
    """Share rho of the train edges that an epoch leaves out of the graph."""
    modality_weight: Annotated[float, Field(ge=0), Search(1e-5, 1e-1, log=True)] = 1e-3
    """Weight lambda of the terms that score each modality by itself; 0 for none."""
    visual_share: Annotated[float, Field(ge=0, le=1), Search(0, 1, modality="visual")] = 0.1
    """Weight alpha of the modality named "visual" in the item graph; the others share the rest alike. Where there is no such
    modality, or no other, all share alike."""


class FREEDOM(ItemGraphModel):
    """LightGCN on a part of the edges, and beside it a convolution over items that are alike.

    Args:
        config: Its settings.
        inputs: Counts, features and the graph.

    Raises:
        ConfigError: the data set has no features.
        DataError: it lacks a modality that is asked for.
    """

    config_type = FREEDOMConfig
    item_shares: Tensor
    modality_weights: Tensor
    known_hidden: Tensor

    def __init__(self, config: FREEDOMConfig, inputs: Inputs) -> None:
        backbone = LightGCNBackbone(inputs.graph, config.num_layers, count_left_out=True)
        super().__init__(config, inputs, backbone, weighted=False)
        self.edge_pruning, self.modality_weight = config.edge_pruning, config.modality_weight
        self.kept_edges = max(1, int((1 - config.edge_pruning) * len(inputs.graph.adjacency.data)))
        self._pruned: Neighbourhoods | None = None
        weights = _modality_weights(self.modalities, config.visual_share)
        self.register_buffer("modality_weights", weights, persistent=False)
        self.register_buffer("item_shares", shares(weights, self.members()), persistent=False)
        self.register_buffer("known_hidden", torch.zeros_like(self.item_table.weight))
        widths = self.scaler.out_widths if config.modality_weight else {}
        self.projections = Projections(widths, config.embedding_dim)
        self.stand_ins = nn.ParameterDict(
            {modality_key(name): nn.Parameter(torch.zeros(config.embedding_dim)) for name in widths}
        )

    def begin_epoch(self, generator: torch.Generator) -> None:
        """Draw the edges of the epoch."""
        graph = self.backbone.graph
        assert graph is not None  # LightGCN has one
        self._pruned = graph.pruned(self.kept_edges, generator) if self.edge_pruning else None

    def propagate(self, inputs: Float[Tensor, "num_items dim"]) -> tuple[Tensor, Tensor]:
        """Run LightGCN over all nodes; in training, over the edges of this epoch."""
        return self.backbone(self.user_table.weight, inputs, self._pruned if self.training else None)

    def all_vectors(self) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return h_u and h_i = h^_i + h~_i."""
        user_vectors, item_vectors = self.propagate(self.item_table.weight)
        hidden = self.item_table.weight
        for _ in range(self.num_item_layers - 1):
            hidden = self._over_items(hidden)
        if not self.training:
            self.known_hidden.copy_(hidden.detach())
        return user_vectors, item_vectors + self._over_items(hidden)

    def _over_items(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for place, name in enumerate(self.modalities):
            total = total + self.item_shares[:, [place]] * self.graph_of(name)(x)
        return total

    def new_item_vectors(
        self, content: Content, present: Bool[Tensor, "batch modalities"]
    ) -> Float[Tensor, "batch dim"]:
        """Return h~ of items without interactions, whose h^ is zero."""
        own = shares(self.modality_weights, present)
        vectors = self.without_edges(len(own))  # zero on LightGCN
        for place, name in enumerate(self.modalities):
            found = self.graph_of(name).of_new(content.values[name], present[:, place], self.known_hidden)
            vectors = vectors + own[:, [place]] * found
        return vectors

    def project(self, modality: str, items: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return W_m x_i + b_m of these items, and of one that lacks the modality a learned vector."""
        content = self.scaled_rows(items)
        projected = self.projections(modality, content.values[modality])
        stand_in = self.stand_ins[modality_key(modality)]
        return self.finish(torch.where(content.present[modality].unsqueeze(1), projected, stand_in))

    def extended(self, standard: Objective) -> Objective:
        """Return the objective with the terms of each modality."""
        return FREEDOMObjective(self, standard) if self.modality_weight else standard

    def content_parameters(self) -> list[nn.Parameter]:
        """Return W_m, b_m, and what stands for a modality that an item lacks."""
        return [*self.projections.parameters(), *self.stand_ins.parameters()]


class FREEDOMObjective(ExtendedObjective[FREEDOM]):
    """An objective, and lambda times the same of each modality's own scores h_u . (W_m x_i + b_m)."""

    def __call__(self, model: VectorSource, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss: the objective's own, and one a modality by its name."""
        source = Remembering(model)
        terms = dict(self.standard(source, batch))
        for name in self.model.modalities:
            alone = WithItemVectors(source.users, partial(self.model.project, name))
            own = self.standard(alone, batch)
            terms[name] = self.model.modality_weight * torch.stack(list(own.values())).sum()
        return terms


def _modality_weights(modalities: tuple[str, ...], visual_share: float) -> Tensor:
    """alpha of each modality, a sum of one."""
    others = len(modalities) - ("visual" in modalities)
    if "visual" not in modalities or not others:
        return torch.full((len(modalities),), 1 / len(modalities))
    return torch.tensor([visual_share if name == "visual" else (1 - visual_share) / others for name in modalities])
