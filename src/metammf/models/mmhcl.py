r"""MMHCL: users alike by what they watched, items alike by content, and both held against who watched what. D width.

Source: Guo et al., *MMHCL: Multi-Modal Hypergraph Contrastive Learning for Recommendation*, ACM TOMM 2025 (arXiv 2504.16576).

- Users: every item is a hyperedge of the users who watched it. u2 = A_U^(L_U) U2, A_U = H H^T less its diagonal, by rows.
- Items: in each modality, every item is a hyperedge of the items that have it among their k nearest by cosine, itself among
  them; the modalities' hyperedges stand side by side in one H. i2 = A_I^(L_I) I2, A_I = D^-1/2 H H^T D^-1/2.
- First order: u1, i1 = the mean over hops 0..L of LightGCN on free vectors of their own.
- h_u = u1 + u2 / |u2|, h_i = i1 + i2 / |i2|; a score is h_u . h_i.
- Loss: BPR, a penalty on the vectors, and by weights of their own the contrast of both sides:
  mean over nodes of -log(e(h_u, u2_u) / (sum over v of e(h_u, u2_v) + sum over v != u of e(h_u, h_v))), e(x, y) = exp(cos / t).

Normalisations, and which two views are contrasted, are those of the authors' code. It departs from its paper, or from us, in
this: it draws a batch of different users and one item of each, so that users count alike (`training.user_weight_exponent = 1`
in the recipe, with which a user may come twice); decays the learning rate by 4% every 50 epochs, about as many as its run on
TikTok has; and lays the penalty on the vectors that are scored (here: on the free ones of the batch).

Ours: any modalities. An item is in no hyperedge of a modality that it lacks. A x is computed as H (H^T x) and never written
out. Nodes without a second-order neighbour are not contrasted. An item without train interactions has no free vectors and makes
no hyperedge: it joins those of its k nearest known items, in the data set as when it is added later, and i1 = 0. The contrast
of all nodes takes 2 (U^2 + N^2) cosines a step; `contrasted_nodes` lets a sample of each side, drawn anew at each step, stand
for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from metammf.models.config import Search
from metammf.models.extended import AllVectors, ExtendedObjective
from metammf.models.nodes import ContentConfig, NodeModel, SearchedScaling, init_free_vectors, scaled_features
from metammf.nn.backbone import LightGCNBackbone
from metammf.nn.hypergraph import SharedItems, SimilarItems
from metammf.nn.losses import contrastive_loss

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from metammf.models.base import Batch, Inputs, Objective, VectorSource
    from metammf.nn.content import Content


class MMHCLConfig(ContentConfig):
    """Settings of MMHCL; the defaults are those of its published run on TikTok."""

    name: Literal["mmhcl"] = "mmhcl"
    embedding_dim: Annotated[int, Field(ge=1), Search(16, 256, log=True)] = 64
    """Width D of users' and items' vectors."""
    num_layers: Annotated[int, Field(ge=0), Search(1, 4)] = 2
    """Hops L over who watched what."""
    num_user_layers: Annotated[int, Field(ge=1), Search(1, 4)] = 3
    """Hops L_U over users who share items."""
    num_item_layers: Annotated[int, Field(ge=1), Search(1, 4)] = 2
    """Hops L_I over items that are alike."""
    num_neighbours: Annotated[int, Field(ge=1), Search(3, 40, log=True)] = 5
    """Nearest items k of each item in each modality, itself among them."""
    user_weight: Annotated[float, Field(ge=0), Search(0.003, 0.3, log=True)] = 0.03
    """Weight of the users' contrast."""
    item_weight: Annotated[float, Field(ge=0), Search(0.003, 0.3, log=True)] = 0.07
    """Weight of the items' contrast."""
    contrast_temperature: Annotated[float, Field(gt=0), Search(0.1, 1, log=True)] = 0.6
    """Temperature t of both."""
    contrasted_nodes: Annotated[int, Field(ge=2), Search(256, 4096, log=True)] | None = None
    """Nodes of each side that a step contrasts, drawn at random; all by default, as in the paper."""
    feature_scaling: SearchedScaling = "none"
    """How features are brought to a common scale, by statistics of the items that have train interactions; the paper takes
    them as they are. Where all are nearly alike, "center" or "standardize" tells them apart."""


@dataclass(frozen=True)
class Views:
    """The vectors of all nodes.

    Args:
        users: h_u, (U, D).
        items: h_i, (N, D); of items without train interactions without meaning.
        second_users: u2, (U, D).
        second_items: i2, (N, D).
    """

    users: Tensor
    items: Tensor
    second_users: Tensor
    second_items: Tensor


class MMHCL(NodeModel):
    """LightGCN, and beside it hops over second-order neighbours of either side.

    Args:
        config: Its settings.
        inputs: Counts, features, and the graph.

    Raises:
        ConfigError: the data set has no features.
        DataError: it lacks a modality that is asked for.
    """

    config_type = MMHCLConfig
    shares_vectors = False
    edge_sums: Tensor
    cold: Tensor

    def __init__(self, config: MMHCLConfig, inputs: Inputs) -> None:
        super().__init__(inputs, config.embedding_dim, LightGCNBackbone(inputs.graph, config.num_layers))
        self.config = config
        self.item_table, self.second_users, self.second_items = (
            nn.Embedding(count, config.embedding_dim) for count in (self.num_items, self.num_users, self.num_items)
        )
        cold = inputs.cold_items
        for table, without in ((self.item_table, cold), (self.second_users, None), (self.second_items, cold)):
            init_free_vectors(table, None, without=without)
        self.register_buffer("cold", torch.nonzero(inputs.cold_items).flatten(), persistent=False)
        self.take_content(inputs, config)
        self.shared_items = SharedItems(inputs.graph)
        self.similar_items = SimilarItems(
            scaled_features(self.scaler, inputs), ~inputs.cold_items, config.num_neighbours
        )
        # What an item that is added later takes from the hyperedges that it joins.
        self.register_buffer("edge_sums", torch.zeros(len(self.modalities) * self.num_items, config.embedding_dim))

    def views(self) -> Views:
        """Return the vectors of all nodes; outside training, note what a new item takes of them."""
        users, items = self.propagate(self.item_table.weight)
        second_users, second_items = self.second_users.weight, self.second_items.weight
        for _ in range(self.config.num_user_layers):
            second_users = self.shared_items(second_users)
        for depth in range(self.config.num_item_layers):
            if not self.training and depth == self.config.num_item_layers - 1:
                self.edge_sums.copy_(self.similar_items.edge_sums(second_items))
            second_items = self.similar_items(second_items)
        return Views(
            users + functional.normalize(second_users, dim=1),
            items + functional.normalize(second_items, dim=1),
            second_users,
            second_items,
        )

    def item_inputs(self, items: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return the free vectors of these items."""
        return self.item_table(items)

    def forward(
        self, users: Int[Tensor, " users"], items: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """Return h of these nodes."""
        views = self.views()
        item_vectors = views.items
        if not self.training and len(self.cold):  # no step of training reads them
            unknown = self.in_chunks(lambda rows: self.encode_items(self.content.rows(rows)), self.cold)
            item_vectors = item_vectors.index_copy(0, self.cold, unknown)
        return views.users[users], item_vectors[items]

    def encode_items(self, content: Content) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items that have no interactions: those of the hyperedges that they join."""
        return functional.normalize(self.similar_items.of_new(self.scaler(content), self.edge_sums), dim=1)

    def extended(self, standard: Objective) -> Objective:
        """Return the objective with the contrast of both sides."""
        return MMHCLObjective(self, standard)

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return the free vectors of both sides and orders."""
        return [self.user_table(users), self.second_users(users), self.item_table(items), self.second_items(items)]


class MMHCLObjective(ExtendedObjective[MMHCL]):
    """An objective, and the contrast of each node's vector with its second-order one."""

    def __call__(self, model: VectorSource, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss."""
        own, config = self.model, self.model.config
        views = own.views()
        terms = dict(self.standard(AllVectors(views.users, views.items, model), batch))
        users, items = self._nodes(own.shared_items.connected), self._nodes(own.similar_items.connected)
        for side, weight, first, second, nodes in (
            ("users", config.user_weight, views.users, views.second_users, users),
            ("items", config.item_weight, views.items, views.second_items, items),
        ):
            if weight and len(nodes):
                terms[f"contrast_of_{side}"] = weight * contrast(
                    first[nodes], second[nodes], config.contrast_temperature
                )
        return terms

    def _nodes(self, connected: Bool[Tensor, " nodes"]) -> Tensor:
        nodes, count = torch.nonzero(connected).flatten(), self.model.config.contrasted_nodes
        if count is None or count >= len(nodes):
            return nodes
        return nodes[torch.randperm(len(nodes), device=nodes.device)[:count]]


def contrast(
    first: Float[Tensor, "nodes dim"], second: Float[Tensor, "nodes dim"], temperature: float
) -> Float[Tensor, ""]:
    """Return the contrast of each node's first vector with its second one, against those of all others of both orders."""
    own = torch.arange(len(first), device=first.device)
    itself = torch.stack([own, own + len(first)])  # each first vector among the candidates
    return contrastive_loss(first, torch.cat([second, first]), own, temperature, masked=itself)
