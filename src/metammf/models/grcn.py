"""GRCN: content tells which edges to believe, and ids are propagated over those.

Source: Wei et al., *Graph-Refined Convolutional Network for Multimedia Recommendation with Implicit Feedback*, MM 2020, section
3. U users, N items, D width of ids, C width of a modality, M modalities, E edges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from metammf.models.config import Search
from metammf.models.modal import ModalModel, ModalModelConfig
from metammf.nn.attention import at_receiving, edge_softmax
from metammf.nn.backbone import Backbone
from metammf.nn.edge_weights import entry_products, weighted_product

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from metammf.models.base import Inputs
    from metammf.nn.graph import BipartiteGraph, Edges, Neighbourhoods


class GRCNConfig(ModalModelConfig):
    """Settings of GRCN."""

    name: Literal["grcn"] = "grcn"
    num_layers: Annotated[int, Field(ge=0), Search(1, 4)] = 2
    """Hops L of the id vectors over the refined graph."""
    num_routings: Annotated[int, Field(ge=0), Search(0, 5)] = 3
    """Times T that a user's preference is drawn toward the content that is like it."""
    pruning: Literal["soft", "hard"] = "soft"
    """Edges keep their weight, whatever it is, or lose it where it is negative."""
    unit_vectors: bool = True
    """Scale ids, preferences and content to unit length before they meet, as the authors' code does."""
    content_hop: bool = False
    """Add to what is scored of each modality one hop of attention over it, as the authors' code does; the paper does not."""


class GRCNBackbone(Backbone):
    r"""From [id || one a modality] to [refined id || preference or content of each modality].

    1. Content i_m = LeakyReLU(what enters of an item). A user's preference u_m starts as its free vector, and T times
       u_m <- u_m + sum_(i in N_u) p_ui i_m with p_ui = softmax over i of u_m . i_m.
    2. Affinity s^m_(u<-i) is the softmax of u_m . i_m over the items of u, s^m_(i<-u) over the users of i.
    3. An edge's weight is s_(u<-i) = max_m rho^m_u s^m_(u<-i), with rho_u the free confidence of the node that receives in
       each modality; s_(i<-u) alike by rho_i.
    4. e_u^(l) = sum_i s_(u<-i) e_i^(l-1), items alike; e = e^(0) + ... + e^(L).

    A modality that an item lacks has no say in its edges: they are left out of the softmax and of the maximum. An edge of which
    no modality tells has the weight that it has in a mean over neighbours.

    Args:
        graph: Users and items.
        present: Who has which modality, (N, M).
        dim: Width D.
        content_dim: Width C.
        num_layers: Hops L.
        num_routings: T.
        pruning: "hard" leaves out edges whose weight is negative.
        unit_vectors: Whether ids, preferences and content have unit length.
        content_hop: Whether modalities come out with one hop of attention added.
    """

    propagates = True
    present: Tensor

    def __init__(
        self,
        graph: BipartiteGraph,
        present: Bool[Tensor, "num_items modalities"],
        *,
        dim: int,
        content_dim: int,
        num_layers: int,
        num_routings: int,
        pruning: Literal["soft", "hard"],
        unit_vectors: bool,
        content_hop: bool,
    ) -> None:
        super().__init__(graph)
        modalities = present.shape[1]
        self.widths = [dim, *[content_dim] * modalities]
        self.num_layers, self.num_routings = num_layers, num_routings
        self.pruning, self.unit_vectors, self.content_hop = pruning, unit_vectors, content_hop
        self.register_buffer("present", present, persistent=False)
        # At 1, where an edge has the attention of the modality that believes in it most.
        self.user_confidence = nn.Parameter(torch.ones(graph.num_users, modalities))
        self.item_confidence = nn.Parameter(torch.ones(graph.num_items, modalities))

    def _unit(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=1) if self.unit_vectors else x

    def _split_items(self, items: Tensor) -> tuple[Tensor, list[Tensor]]:
        ids, *parts = torch.split(items, self.widths, dim=1)
        return self._unit(ids), [self._unit(functional.leaky_relu(part)) for part in parts]

    def forward(
        self,
        users: Float[Tensor, "num_users width"],
        items: Float[Tensor, "num_items width"],
        graph: Neighbourhoods | None = None,
    ) -> tuple[Float[Tensor, "num_users width"], Float[Tensor, "num_items width"]]:
        """Return the vectors that are scored."""
        graph = self._over(graph)
        to_users, to_items = graph.edges()
        ids, *preferences = (self._unit(part) for part in torch.split(users, self.widths, dim=1))
        item_ids, contents = self._split_items(items)
        silent = ~self.present.index_select(0, to_users.indices)
        for _ in range(self.num_routings):
            weights = edge_softmax(to_users, _affinities(to_users, preferences, contents, silent))[0]
            preferences = [
                self._unit(mine + weighted_product(to_users, weight, theirs))
                for mine, theirs, weight in zip(preferences, contents, weights.unbind(1), strict=True)
            ]
        affinities = _affinities(to_users, preferences, contents, silent)
        # From the users' order of the edges to the items'.
        turned, turned_silent = affinities.index_select(0, to_users.order), silent.index_select(0, to_users.order)
        user_shares, item_shares = edge_softmax(to_users, affinities)[0], edge_softmax(to_items, turned)[0]
        user_weights = self._refined(to_users, user_shares, self.user_confidence, silent, graph.user_degrees)
        item_weights = self._refined(to_items, item_shares, self.item_confidence, turned_silent, graph.item_degrees)
        total_users, total_items = ids, item_ids
        for _ in range(self.num_layers):
            ids, item_ids = (
                weighted_product(to_users, user_weights, item_ids),
                weighted_product(to_items, item_weights, ids),
            )
            total_users, total_items = total_users + ids, total_items + item_ids
        if self.content_hop:
            preferences, contents = (
                _with_hop(to_users, user_shares, preferences, contents),
                _with_hop(to_items, item_shares, contents, preferences),
            )
        return torch.cat([total_users, *preferences], dim=1), torch.cat([total_items, *contents], dim=1)

    def _refined(
        self, edges: Edges, shares: Tensor, confidence: Tensor, silent: Tensor, degrees: Tensor
    ) -> Float[Tensor, " edges"]:
        """Return the weights of edges, from their shares in each modality."""
        believed = at_receiving(edges, confidence) * shares
        weights = believed.masked_fill(silent, -torch.inf).amax(1)
        if self.pruning == "hard":
            weights = functional.relu(weights)
        equal = 1 / degrees.flatten().clamp(min=1)
        weights = torch.where(silent.all(1), equal.index_select(0, edges.rows), weights)
        return weights if edges.kept is None else weights * edges.kept

    def isolated(self, nodes: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        """Return the vectors of items without edges: what they enter with."""
        ids, contents = self._split_items(nodes)
        return torch.cat([ids, *contents], dim=1)


def _affinities(edges: Edges, preferences: list[Tensor], contents: list[Tensor], silent: Tensor) -> Tensor:
    """Return u_m . i_m of each edge and modality, -inf where the item lacks it, (E, M)."""
    products = [entry_products(edges, *pair) for pair in zip(preferences, contents, strict=True)]
    return torch.stack(products, dim=1).masked_fill(silent, -torch.inf)


def _with_hop(edges: Edges, shares: Tensor, own: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    """Add to each node's vectors what it receives in each modality."""
    return [
        mine + weighted_product(edges, share, theirs)
        for mine, theirs, share in zip(own, others, shares.unbind(1), strict=True)
    ]


class GRCN(ModalModel):
    """Users and items are their refined ids and, beside these, what they prefer or hold in each modality.

    As in the paper: routing, affinities, confidence, the convolution without maps and activations, the concatenation. Lengths are
    the authors' code's (`unit_vectors`), the paper states none. Confidence starts at 1 here, at Glorot's noise there.

    That code departs from the paper: while it routes, its edges point from users to items, so that items receive and no user's
    preference moves; the confidence that weighs an edge is that of the node that sends; modalities come out with one hop of
    attention added (`content_hop`). Its hard pruning is that of here: it takes negative weights away, which only a negative
    confidence gives: at the start of nodes whose confidences all were drawn negative there and of none here, so that "hard" is
    another experiment. Its settings for TikTok are soft.

    Features are standardised (`feature_scaling`), that code takes them as they come.

    A new user is not folded in: the weights of its edges hang on a confidence in each modality that is learned a user.

    Args:
        config: Its settings.
        inputs: Counts, features and the graph.
    """

    config_type = GRCNConfig

    @staticmethod
    def make_backbone(config: GRCNConfig, inputs: Inputs, modalities: tuple[str, ...]) -> Backbone:
        """Return what refines the graph and propagates over it."""
        return GRCNBackbone(
            inputs.graph,
            torch.from_numpy(np.stack([inputs.features.present[name] for name in modalities], axis=1)),
            dim=config.embedding_dim,
            content_dim=config.content_dim,
            num_layers=config.num_layers,
            num_routings=config.num_routings,
            pruning=config.pruning,
            unit_vectors=config.unit_vectors,
            content_hop=config.content_hop,
        )
