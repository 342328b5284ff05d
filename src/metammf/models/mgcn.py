r"""MGCN: content purified by ids, ids and content in views of their own, fused by what a node's behaviour prefers.

U users, N items, D width, M modalities.

Source: Yu et al., *Multi-View Graph Convolutional Network for Multimedia Recommendation*, MM 2023.

1. **Purifier guided by behaviour.** x.._i^m = e_i * sigmoid(W2_m (W1_m x_i^m + b1_m) + b2_m), with e_i the free item vector.
2. **User-item view.** b_u and b_i are LightGCN's mean over hops on the free vectors.
3. **Item-item view.** h_i^m = (S~^m)^L x..^m, where S^m holds the cosines of raw features for the k nearest items of each (itself
   among them), S~^m = D^-1/2 S^m D^-1/2; for users h_u^m = sum over their items of h_i^m / sqrt(degree_u degree_i).
4. **Fuser aware of behaviour**, for users and items: alpha_m = softmax_m(q . tanh(W3 h^m + b3)), common = sum_m alpha_m h^m,
   preference P_m = sigmoid(W4_m b + b4_m), fused = common + mean_m P_m * (h^m - common).
5. **Vectors**: b + fused. A score is their dot product.
6. **Loss.** BPR, and lambda_c times the contrastive term of users and that of items: -log of exp(cos(fused_n, b_n) / tau) over
   the sum of exp(cos(fused_n, b_n') / tau) over all nodes n'.

As in the paper: all of it, with S~'s negative cosines set to zero, as a root of a row sum needs. The paper's 6 sums over all
nodes; as in the public code, those of a batch stand for all, here each once. The public code departs from the paper in that it
takes the mean of common and all M specific parts (over M + 1) for `fused`; that raw features are parameters that are learned
too; that its penalty is laid on the final vectors; that its learning rate fades by 0.96 every 50 epochs, where ours stays; and in
tau = 0.2, which it does not let be set.

Ours: any modalities. A node that lacks a modality (an item without it, a user none of whose items has it) gives it no weight in
4. The contrastive terms are added to whatever objective the training config names. Items without a train interaction:
b_i = 0, and h_i^m from their k nearest known items; see `metammf.models.item_graphs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from metammf.models.config import Search
from metammf.models.extended import ExtendedObjective
from metammf.models.item_graphs import ItemGraphConfig, ItemGraphModel
from metammf.nn.backbone import LightGCNBackbone
from metammf.nn.losses import contrastive_loss
from metammf.nn.projection import Projections

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Bool, Float

    from metammf.models.base import Batch, Inputs, Objective, VectorSource
    from metammf.nn.content import Content
    from metammf.nn.histories import Histories


class MGCNConfig(ItemGraphConfig):
    """Settings of MGCN; the defaults are the paper's."""

    name: Literal["mgcn"] = "mgcn"
    contrastive_weight: Annotated[float, Field(ge=0), Search(1e-4, 1, log=True)] = 0.01
    """Weight lambda_c of the contrastive terms; 0 for none."""
    contrastive_temperature: Annotated[float, Field(gt=0), Search(0.05, 1, log=True)] = 0.2
    """Temperature tau of the contrastive terms."""


class Fuser(nn.Module):
    """Content of nodes, fused by what their behaviour prefers.

    Args:
        modalities: M names.
        dim: Width D.
    """

    def __init__(self, modalities: Sequence[str], dim: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))
        self.preferences = nn.ModuleList(nn.Linear(dim, dim) for _ in modalities)

    def forward(
        self,
        contents: Sequence[Float[Tensor, "nodes dim"]],
        behaviour: Float[Tensor, "nodes dim"],
        present: Bool[Tensor, "nodes modalities"],
    ) -> Float[Tensor, "nodes dim"]:
        """Return the fused content of nodes, zero where nothing is present."""
        weights = self._attention(contents, present)
        common, own = torch.zeros_like(behaviour), torch.zeros_like(behaviour)
        for m, content in enumerate(contents):
            common = common + weights[:, [m]] * content
        for m, (content, preference) in enumerate(zip(contents, self.preferences, strict=True)):
            own = own + present[:, [m]] * torch.sigmoid(preference(behaviour)) * (content - common)
        return common + own / present.sum(1, keepdim=True).clamp(min=1)

    def _attention(self, contents: Sequence[Tensor], present: Tensor) -> Tensor:
        scores = torch.cat([self.attention(content) for content in contents], dim=1)
        nothing = torch.finfo(scores.dtype).min / 2  # not -inf: a row that lacks all would not be numbers
        return torch.softmax(scores.masked_fill(~present, nothing), dim=1) * present


class MGCN(ItemGraphModel):
    """LightGCN on free vectors, purified content over graphs of items that are alike, and a fuser.

    Args:
        config: Its settings.
        inputs: Counts, features and the graph.

    Raises:
        ConfigError: the data set has no features.
        DataError: it lacks a modality that is asked for.
    """

    config_type = MGCNConfig
    shares_vectors: ClassVar[bool] = False
    present: Tensor
    known_hidden: Tensor

    def __init__(self, config: MGCNConfig, inputs: Inputs) -> None:
        super().__init__(config, inputs, LightGCNBackbone(inputs.graph, config.num_layers), weighted=True)
        dim = config.embedding_dim
        self.contrastive_weight, self.temperature = config.contrastive_weight, config.contrastive_temperature
        self.projections = Projections(self.scaler.out_widths, dim)
        self.gates = Projections(dict.fromkeys(self.modalities, dim), dim)
        self.fuser = Fuser(self.modalities, dim)
        of_items = self.members()
        of_users = inputs.graph.sum_to_users(of_items.float()) > 0
        self.register_buffer("present", torch.cat([of_users, of_items]), persistent=False)
        self.register_buffer("known_hidden", torch.zeros(len(self.modalities), inputs.num_items, dim))
        self.views: tuple[Tensor, Tensor] | None = None
        """In training: behaviour and fused content of all nodes, users first, as the last call made them."""

    def _purified(self) -> dict[str, Tensor]:
        projected = self.projections.of_all(lambda items: self.scaled_rows(items).values, self.num_items)
        ids = self.item_table.weight
        return {name: ids * torch.sigmoid(self.gates(name, values)) for name, values in projected.items()}

    def _content_views(self) -> list[Tensor]:
        """h^m of all nodes, users first; one a modality."""
        graph = self.backbone.graph
        assert graph is not None  # LightGCN has one
        views = []
        for place, (name, hidden) in enumerate(self._purified().items()):
            for layer in range(self.num_item_layers):
                if not self.training and layer == self.num_item_layers - 1:
                    self.known_hidden[place].copy_(hidden.detach())
                hidden = self.graph_of(name)(hidden)
            views.append(torch.cat([graph.symmetric_to_users(hidden), hidden]))
        return views

    def all_vectors(self) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return b + fused of all nodes."""
        behaviour = torch.cat(self.propagate(self.item_table.weight))
        fused = self.fuser(self._content_views(), behaviour, self.present)
        self.views = (behaviour, fused) if self.training else None
        users, items = (behaviour + fused).split([self.num_users, self.num_items])
        return users, items

    @property
    def folds_users(self) -> bool:
        """Whether a user that comes with a history has a vector: by its items' content at the least."""
        return True

    def item_memory(self) -> dict[str, Tensor]:
        """Return what users' neighbours send them at each hop, and in each modality, and which of these they have."""
        memory = super().item_memory()
        graph = self.backbone.graph
        assert graph is not None  # LightGCN has one
        scale = graph.item_degrees.clamp(min=1).rsqrt()
        with self.evaluating(), torch.no_grad():
            for place, view in enumerate(self._content_views()):
                memory[f"content_{place}"] = scale * view[self.num_users :]
        return memory | {"present": self.members().float()}

    def fold_in(self, histories: Histories, memory: Mapping[str, Tensor]) -> Float[Tensor, "batch dim"]:
        """Return b + fused of users that are new, who have no free vector."""
        behaviour = super().fold_in(histories, memory)
        scale = histories.counts.clamp(min=1).rsqrt()
        contents = [scale * histories.sum(memory[f"content_{place}"]) for place in range(len(self.modalities))]
        return behaviour + self.fuser(contents, behaviour, histories.sum(memory["present"]) > 0)

    def new_item_vectors(
        self, content: Content, present: Bool[Tensor, "batch modalities"]
    ) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items that have neither a free vector nor an edge."""
        behaviour = self.without_edges(len(present))
        contents = [
            self.graph_of(name).of_new(content.values[name], present[:, place], self.known_hidden[place])
            for place, name in enumerate(self.modalities)
        ]
        return behaviour + self.fuser(contents, behaviour, present)

    def extended(self, standard: Objective) -> Objective:
        """Return the objective with the contrastive terms."""
        return MGCNObjective(self, standard) if self.contrastive_weight else standard

    def content_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the purifier and of the fuser."""
        return [*self.projections.parameters(), *self.gates.parameters(), *self.fuser.parameters()]


class MGCNObjective(ExtendedObjective[MGCN]):
    """An objective, and lambda_c times what sets a node's fused content against its behaviour."""

    def __call__(self, model: VectorSource, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss: the objective's own, and the contrastive ones of both sides."""
        terms = dict(self.standard(model, batch))
        assert self.model.views is not None  # made by the call of the model just now
        behaviour, fused = self.model.views
        self.model.views = None  # the step's tensors go with the step
        sides = {"users": batch.users, "items": self.model.num_users + batch.positives}
        for name, nodes in sides.items():
            nodes = torch.unique(nodes)
            own = torch.arange(len(nodes), device=nodes.device)
            loss = contrastive_loss(fused[nodes], behaviour[nodes], own, self.model.temperature)
            terms[f"contrastive of {name}"] = self.model.contrastive_weight * loss
        return terms
