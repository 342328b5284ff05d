"""MetaMMF: an item's own fusion network, written from its content, on any backbone.

Source: Liu et al., *Dynamic Multimodal Fusion via Meta-Learning Towards Micro-Video Recommendation*, TOIS 42(2), 2023.
`backbone="mf"` is the paper's MetaMMF_MF, `backbone="graphsage"` its MetaMMF_GCN; a static `fusion` makes a static twin.

Beyond the paper, its future work: `user_fusion` writes a user's own fusion of its preferences by the same
network, p_u^m = the mean of the features of modality m over what the user watched, e_u = [e_u^m || e_u^c] or their sum; where
nothing watched has a modality, a learned vector stands in. `simulated_cold_users` trains the path of a user that has no e_u^c.

Without it a user who is new goes through the backbone with zero for e_u^c. On GraphSAGE and LightGCN what its items send is added
to that, as for every user in training. On GAT the two compete for attention: training may have given nearly all of it to users'
own vectors, and then what items send was never taught to tell. Such a model says so by a warning when it ranks for a new user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from metammf.models.config import ModelConfig, Search
from metammf.models.nodes import ItemIds, NodeModel, SearchedScaling, UnknownRow, numbered
from metammf.nn.backbone import Backbone, BackboneKind, GATBackbone, GraphSAGEBackbone, LightGCNBackbone
from metammf.nn.fusion import DynamicOptions, FusionKind, make_fusion
from metammf.nn.histories import Histories, Preferences
from metammf.nn.neighbours import ContentNeighbours

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Int

    from metammf.models.base import Inputs
    from metammf.nn.content import Content
    from metammf.nn.graph import BipartiteGraph, Neighbourhoods


_DYNAMIC = ("fusion", ("cp", "dense"))


class MetaMMFConfig(ModelConfig):
    """Settings of MetaMMF and of its static twins; the defaults are the paper's."""

    name: Literal["metammf"] = "metammf"
    backbone: BackboneKind = "graphsage"
    """The predictor: "mf", "graphsage", "lightgcn" or "gat"."""
    fusion: FusionKind = "cp"
    """Dynamic "cp" or "dense"; static "concat" (the same network less its dynamic part), "sum", "gated", "attention"."""
    combine: Literal["concat", "sum"] = "concat"
    """Content and id vectors side by side, half the width each, or added up at full width; users' too, with `user_fusion`."""
    user_fusion: FusionKind | None = None
    """Give users too a fused vector, of their mean preference in each modality by what they watched: dynamic "cp" or "dense"
    writes each user's own network, of the same widths as the items'; none by default, as in the paper."""
    embedding_dim: Annotated[int, Field(ge=2), Search(16, 256, log=True)] = 64
    """Width D of users' and items' vectors; even for "concat"."""
    hidden_dims: tuple[Annotated[int, Field(ge=1)], ...] = (1024, 512, 256)
    """Widths of the fusion network between the features and its output; any depth."""
    meta_dim: Annotated[int, Field(ge=1), Search(1, 16, when=_DYNAMIC)] = 5
    """Meta channels S."""
    meta_hidden_dim: Annotated[int, Field(ge=1)] | None = None
    """Most that the hidden layer of the meta information extractor may be wide; as wide as the features by default."""
    cp_rank: Annotated[int, Field(ge=1), Search(1, 64, log=True, when=("fusion", ("cp",)))] = 16
    """CP rank R."""
    dynamic_layers: Literal["all", "last"] = "all"
    """Which layers of the fusion are an item's own; the paper's are all."""
    dynamic_scale: Annotated[float, Field(gt=0), Search(0.03, 1, log=True, when=_DYNAMIC)] = 1.0
    """Size of the dynamic weights at the start, relative to the shared ones."""
    bounded_meta: bool = False
    """Whether a tanh bounds the meta information; the paper has none."""
    fusion_dropout: Annotated[float, Field(ge=0, lt=1), Search(0, 0.5)] = 0.0
    """On the features and between the layers of the fusion."""
    feature_scaling: SearchedScaling = "standardize"
    """How features are brought to a common scale, by statistics of the items that have train interactions."""
    feature_components: Annotated[int, Field(ge=1)] | None = None
    """Principal components that are kept of each modality, at most; all columns by default."""
    modalities: tuple[str, ...] | None = None
    """The modalities to use; all that the data set has by default."""
    id_dropout: Annotated[float, Field(ge=0, lt=1), Search(0, 0.5)] = 0.1
    """Share of the items that get the "unknown" id row at a training step, which is how that row is trained."""
    simulated_cold: Annotated[float, Field(ge=0, lt=1), Search(0, 0.5)] = 0.0
    """Share of the items that a training step leaves without edges and ids, as if they were new."""
    simulated_cold_users: Annotated[float, Field(ge=0, lt=1), Search(0, 0.5)] = 0.0
    """Share of the users that get the "unknown" id row at a training step, as if they came new with what they watched. Their
    edges stay in the graph, so that items still hear that row from them, while a true newcomer sends nothing."""
    hide_targets: bool = False
    """Leave a step's positives out of the graph, and of the histories, that predict them."""
    edge_dropout: Annotated[float, Field(ge=0, lt=1), Search(0, 0.5)] = 0.0
    """Share of all edges that a step leaves out of them."""
    init_std: Annotated[float, Field(gt=0), Search(0.005, 0.2, log=True)] | None = None
    """Standard deviation of the free vectors at the start; Glorot's by default."""
    content_neighbours: bool = False
    """Items without edges borrow from those that are like them by content; for backbones that propagate."""
    neighbour_temperature: Annotated[
        float, Field(gt=0), Search(0.03, 0.3, log=True, when=("content_neighbours", (True,)))
    ] = 0.1
    """Temperature of that borrowing."""
    cold_offset: bool = False
    """Learn one number that is added to the scores of items without edges, so that they can compete with the others."""
    normalize: bool = False
    """Score by cosine rather than by dot product."""
    num_layers: Annotated[int, Field(ge=0), Search(1, 4, when=("backbone", ("graphsage", "lightgcn")))] = 2
    """Layers or hops of the backbone."""
    hidden_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """GraphSAGE and GAT: after each layer but the last."""
    final_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """GraphSAGE and GAT: on the final vectors."""
    num_heads: Annotated[int, Field(ge=1)] = 1
    """GAT: attention heads, which divide the width D among them."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1), Search(0, 0.6)] = 0.0
    """GAT: on the weights of neighbours."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.combine == "concat" and self.embedding_dim % 2:
            raise ValueError(f'embedding_dim must be even for combine="concat", got {self.embedding_dim}')
        if self.content_neighbours and self.backbone == "mf":
            raise ValueError("content_neighbours needs a backbone that propagates: graphsage, lightgcn or gat")
        for name in ("content_neighbours", "cold_offset"):
            if getattr(self, name) and not self.simulated_cold:
                raise ValueError(f"{name} is learned from simulated cold items: set simulated_cold above 0")
        if self.backbone == "mf" and self.user_fusion is None:
            for name in ("hide_targets", "edge_dropout", "simulated_cold_users"):
                if getattr(self, name):
                    raise ValueError(
                        f"{name} needs user_fusion, or a backbone that propagates: graphsage, lightgcn or gat"
                    )
        if self.backbone == "gat" and self.embedding_dim % self.num_heads:
            raise ValueError(f"num_heads must divide embedding_dim {self.embedding_dim}, got {self.num_heads}")
        return self


class MetaMMF(NodeModel):
    """Item = fused content and free id; user = free vector, and fused preferences where asked for; then the backbone.

    Args:
        config: Its settings.
        inputs: Counts, features, and the graph where the backbone propagates.

    Raises:
        ConfigError: the data set has no features, or lacks a modality that is asked for.
    """

    config_type = MetaMMFConfig
    known_keys: Tensor
    known_vectors: Tensor

    def __init__(self, config: MetaMMFConfig, inputs: Inputs) -> None:
        width = config.embedding_dim // 2 if config.combine == "concat" else config.embedding_dim
        super().__init__(
            inputs,
            config.embedding_dim,
            _backbone(config, inputs),
            normalize=config.normalize,
            hide_targets=config.hide_targets,
            edge_dropout=config.edge_dropout,
            init_std=config.init_std,
            simulated_cold=config.simulated_cold,
            user_dim=None if config.user_fusion is None else width,
        )
        self.combine = config.combine
        self.cold_offset = nn.Parameter(torch.zeros(())) if config.cold_offset else None
        self.take_content(inputs, config)
        self.item_ids = ItemIds(inputs.num_items, width, inputs.cold_items, config.id_dropout, config.init_std)
        self.fusion = self._fusion(config, config.fusion, width)
        self._add_users_side(config, inputs, width)
        self.neighbours = ContentNeighbours(config.neighbour_temperature) if config.content_neighbours else None
        if self.neighbours is not None:
            self.register_buffer("known_keys", torch.zeros(inputs.num_items, width))
            self.register_buffer("known_vectors", torch.zeros(inputs.num_items, config.embedding_dim))

    def _fusion(self, config: MetaMMFConfig, kind: FusionKind, width: int) -> nn.Module:
        return make_fusion(
            kind,
            self.scaler.out_widths,
            (*config.hidden_dims, width),
            options=DynamicOptions(
                config.meta_dim,
                config.cp_rank,
                config.dynamic_layers,
                config.dynamic_scale,
                config.bounded_meta,
                config.meta_hidden_dim,
            ),
            dropout=config.fusion_dropout,
        )

    def _add_users_side(self, config: MetaMMFConfig, inputs: Inputs, width: int) -> None:
        """What is made for users alone; nothing of it by default."""
        self.user_fusion = None if config.user_fusion is None else self._fusion(config, config.user_fusion, width)
        self.preferences = Preferences(self.scaler.out_widths)
        self.watched: BipartiteGraph | None = None if self.user_fusion is None else inputs.graph
        self._targets: tuple[Tensor, Tensor] | None = None
        share = config.simulated_cold_users
        dim = self.user_table.embedding_dim
        self.unknown_user = UnknownRow(dim, inputs.cold_users, share) if share else None

    def fuse_scaled(self, content: Content) -> Float[Tensor, "batch width"]:
        """Return the multimodal vectors e^m of these items."""
        return self.fusion(content)

    def fuse_rows(self, items: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """Return the multimodal vectors e^m of items of the data set."""
        return self.fuse_scaled(self.scaled_rows(items))

    def _combined(self, content: Tensor, ids: Tensor) -> Tensor:
        return torch.cat([content, ids], dim=1) if self.combine == "concat" else content + ids

    def item_inputs(self, items: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return e_i = [e_i^m || e_i^c], or their sum."""
        return self._combined(self.fuse_rows(items), self.item_ids(items, self.isolated))

    def begin_step(self, users: Int[Tensor, " batch"], positives: Int[Tensor, " batch"]) -> None:
        """Draw the items that are cold in this step, and leave out of graph and histories what it is to predict."""
        super().begin_step(users, positives)
        self._targets = (users, positives) if self.hide_targets else None

    def user_inputs(self, users: Int[Tensor, " batch"] | None = None) -> Float[Tensor, "batch dim"]:
        """Return e_u, of all users for None: a free vector, or [e_u^m || e_u^c], or their sum."""
        ids = super().user_inputs(users)
        if self.unknown_user is not None:
            nodes = torch.arange(self.num_users, device=ids.device) if users is None else users
            ids = self.unknown_user.replace(ids, nodes)
        return ids if self.user_fusion is None else self._combined(self._fused_preferences(users, ids.device), ids)

    def _fused_preferences(self, users: Tensor | None, device: torch.device) -> Tensor:
        """Return e_u^m; in training, of what this step leaves of the histories."""
        assert self.watched is not None
        assert self.user_fusion is not None
        if self.training and users is None:
            graph: Neighbourhoods = self.watched if self._graph is None else self._graph
            sums = graph.sum_to_users(self._liked(self.all_items(device)))
            fused: Tensor = self.user_fusion(self.preferences.of(sums))
            return fused
        chosen = torch.arange(self.num_users, device=device) if users is None else users
        if self.training:
            histories = self.watched.histories(chosen, self._targets, self.isolated, share=self.edge_dropout)
        else:
            histories = self.watched.histories(chosen)
        items, histories = histories.distinct()
        return self._fused_histories(histories, self.in_chunks(self._liked, items))

    def _fused_histories(self, histories: Histories, table: Tensor) -> Tensor:
        """Return e_u^m of users by what they watched, from a table of what preferences are summed of."""

        def fused(some: Tensor) -> Tensor:
            assert self.user_fusion is not None
            vectors: Tensor = self.user_fusion(self.preferences.of(histories.of_users(some).sum(table)))
            return vectors

        return self.in_chunks(fused, torch.arange(len(histories), device=table.device))

    def _liked(self, items: Tensor) -> Tensor:
        """Return what preferences for these items are summed of."""
        with torch.no_grad():
            return self.preferences.table(self.scaled_rows(items))

    def forward(
        self, users: Int[Tensor, " users"], items: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """Return the vectors of these nodes; see `NodeModel.forward`."""
        if self.neighbours is None:
            user_vectors, item_vectors = super().forward(users, items)
        else:
            every = self.all_items(items.device)
            fused = self.in_chunks(self.fuse_rows, every)
            user_vectors, item_vectors = self.propagate(self._combined(fused, self.item_ids(every, self.isolated)))
            item_vectors = self._borrow(item_vectors, fused, self._isolated(every))
            user_vectors, item_vectors = self.finish(user_vectors[users]), self.finish(item_vectors[items])
        return user_vectors, item_vectors

    def item_offsets(self, items: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"] | None:
        """Return the learned offset where an item has no edges, in training at this step."""
        return None if self.cold_offset is None else self.cold_offset * self._isolated(items)

    def new_item_offset(self) -> float:
        """Return the learned offset of items without edges."""
        return 0.0 if self.cold_offset is None else float(self.cold_offset.detach())

    def _isolated(self, items: Tensor) -> Tensor:
        cold = self.item_ids.cold[items]
        return cold | self.isolated[items] if self.training and self.isolated is not None else cold

    def _borrow(self, vectors: Tensor, fused: Tensor, isolated: Tensor) -> Tensor:
        assert self.neighbours is not None
        known, alone = ~isolated, torch.nonzero(isolated).flatten()
        if not self.training:
            # What an item added later will borrow from.
            self.known_keys.copy_(fused * known.unsqueeze(1))
            self.known_vectors.copy_(vectors * known.unsqueeze(1))
        borrowed = self.neighbours(vectors[alone], fused[alone], fused[known], vectors[known])
        return vectors.index_copy(0, alone, borrowed.to(vectors.dtype))

    def encode_items(self, content: Content) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items that have no interactions: content, the unknown id, no edges."""
        return self.encode_scaled(self.scale(content))

    def encode_scaled(self, content: Content, items: Int[Tensor, " batch"] | None = None) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items by their own path; with `items`, by the ids that these known items have."""
        fused = self.fusion(content)
        if items is None:
            ids = self.item_ids.unknown.expand(len(fused), -1)
            isolated = torch.ones(len(fused), dtype=torch.bool, device=fused.device)
        else:
            ids, isolated = self.item_ids(items), self.item_ids.cold[items]
        vectors = self.backbone.isolated(self._combined(fused, ids))
        if self.neighbours is not None and isolated.any():
            known = ~self.item_ids.cold
            borrowed = self.neighbours(vectors, fused, self.known_keys[known], self.known_vectors[known])
            vectors = torch.where(isolated.unsqueeze(1), borrowed, vectors)
        return self.finish(vectors)

    @property
    def folds_users(self) -> bool:
        """Whether what a user watched says something: by its content, or by the edges."""
        return self.user_fusion is not None or self.backbone.depth > 0

    @property
    def knows_nobody(self) -> bool:
        """Whether the unknown row of the users was trained."""
        return self.unknown_user is not None

    def item_memory(self) -> dict[str, Tensor]:
        """Return what users' neighbours send them at each depth, and what preferences are summed of."""
        memory = super().item_memory()
        if self.user_fusion is not None:
            memory["content"] = self.in_chunks(self._liked, self.all_items(self.item_ids.cold.device))
        return memory

    def new_item_memory(self, content: Content) -> dict[str, Tensor]:
        """Return the same of items that have no interactions."""
        scaled = self.scale(content)
        fused = self.fusion(scaled)
        ids = self.item_ids.unknown.expand(len(fused), -1)
        memory = numbered(self.backbone.isolated_layers(self._combined(fused, ids)))
        if self.user_fusion is not None:
            memory["content"] = self.preferences.table(scaled)
        return memory

    def new_user_inputs(self, histories: Histories, memory: Mapping[str, Tensor]) -> Float[Tensor, "batch dim"]:
        """Return e_u of users that are new: the unknown row, zero where none was trained, for e_u^c."""
        ids = super().new_user_inputs(histories, memory)
        if self.unknown_user is not None:
            ids = self.unknown_user.unknown.expand(len(ids), -1)
        if self.user_fusion is None:
            return ids
        return self._combined(self._fused_histories(histories, memory["content"]), ids)

    def row_tables(self) -> list[nn.Embedding]:
        """Return the free vectors of both sides, unless the backbone propagates those of all."""
        return [] if self.backbone.propagates else [self.user_table, self.item_ids.table]

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return the free vectors of both sides."""
        return [self.user_table(users), self.item_ids.table(items)]

    def content_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the fusions."""
        users = [] if self.user_fusion is None else self.user_fusion.parameters()
        return [*self.fusion.parameters(), *users]


def _backbone(config: MetaMMFConfig, inputs: Inputs) -> Backbone:
    if config.backbone == "lightgcn":
        return LightGCNBackbone(inputs.graph, config.num_layers)
    if config.backbone == "graphsage":
        return GraphSAGEBackbone(
            inputs.graph, config.num_layers, config.embedding_dim, config.hidden_dropout, config.final_dropout
        )
    if config.backbone == "gat":
        return GATBackbone(
            inputs.graph,
            config.num_layers,
            config.embedding_dim,
            config.num_heads,
            config.attention_dropout,
            config.hidden_dropout,
            config.final_dropout,
        )
    return Backbone()
