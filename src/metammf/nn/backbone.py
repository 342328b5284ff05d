"""Backbones: from the node vectors of users and items to those that are scored. U users, N items, D width.

A backbone knows nothing of fusions, and a fusion nothing of backbones. `isolated` is the path of a node without edges, which
an item added tomorrow takes as well as an item without a train interaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from metammf.nn.attention import at_receiving, at_sending, edge_softmax
from metammf.nn.edge_weights import weighted_product

if TYPE_CHECKING:
    from jaxtyping import Float

    from metammf.nn.graph import BipartiteGraph, Edges, Neighbourhoods

BackboneKind = Literal["mf", "graphsage", "lightgcn", "gat"]


class Backbone(nn.Module):
    """The identity, which makes matrix factorisation: score = e_u . e_i."""

    propagates = False
    """Whether the vector of a node depends on other nodes, so that all have to be computed to know one."""

    def __init__(self, graph: BipartiteGraph | None = None) -> None:
        super().__init__()
        self.graph = graph

    def forward(
        self,
        users: Float[Tensor, "num_users dim"],
        items: Float[Tensor, "num_items dim"],
        graph: Neighbourhoods | None = None,
    ) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return the vectors that are scored; `graph` stands in for the whole graph at a step that leaves edges out."""
        return users, items

    def _over(self, graph: Neighbourhoods | None) -> Neighbourhoods:
        """The graph of this step, or the whole one."""
        whole = self.graph if graph is None else graph
        assert whole is not None  # a backbone that propagates is given one
        return whole

    def isolated(self, nodes: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return the vectors of nodes without edges."""
        return nodes


class LightGCNBackbone(Backbone):
    """Mean over 0..L hops of symmetrically normalised propagation (He et al., LightGCN, SIGIR 2020, eqs. 3-8).

    A node without edges would be divided by L + 1 for hops that it has not made; it is its own mean here.

    Args:
        graph: Users and items.
        num_layers: Hops L.
        count_left_out: Whether a node that a step leaves without edges, and that has some in the whole graph, is divided by
            L + 1 all the same, its hops being zero.
    """

    propagates = True

    def __init__(self, graph: BipartiteGraph, num_layers: int, *, count_left_out: bool = False) -> None:
        super().__init__(graph)
        self.num_layers = num_layers
        self.count_left_out = count_left_out

    def forward(
        self,
        users: Float[Tensor, "num_users dim"],
        items: Float[Tensor, "num_items dim"],
        graph: Neighbourhoods | None = None,
    ) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return the mean over hops."""
        graph = self._over(graph)
        total_users, total_items = users, items
        for _ in range(self.num_layers):
            users, items = graph.symmetric_neighbours(users, items)
            total_users, total_items = total_users + users, total_items + items
        hops, counted = self.num_layers, self._over(None) if self.count_left_out else graph
        return (
            total_users / (1 + hops * (counted.user_degrees > 0)),
            total_items / (1 + hops * (counted.item_degrees > 0)),
        )


class GraphSAGEBackbone(Backbone):
    """L layers D -> D: root weight plus mean aggregator (Hamilton et al., GraphSAGE, NeurIPS 2017, Algorithm 1).

    LeakyReLU and dropout after all layers but the last, a lighter dropout on the final vectors, as MetaMMF_GCN has it.

    Args:
        graph: Users and items.
        num_layers: Layers L.
        dim: Width D.
        hidden_dropout: After each layer but the last.
        final_dropout: On the final vectors.
    """

    propagates = True

    def __init__(
        self, graph: BipartiteGraph, num_layers: int, dim: int, hidden_dropout: float = 0.5, final_dropout: float = 0.2
    ) -> None:
        super().__init__(graph)
        self.root = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(num_layers))
        self.neighbour = nn.ModuleList(nn.Linear(dim, dim) for _ in range(num_layers))
        self.hidden_dropout = nn.Dropout(hidden_dropout)
        self.final_dropout = nn.Dropout(final_dropout)

    def _between(self, depth: int, x: Tensor) -> Tensor:
        last = depth == len(self.root) - 1
        return self.final_dropout(x) if last else self.hidden_dropout(nn.functional.leaky_relu(x))

    def forward(
        self,
        users: Float[Tensor, "num_users dim"],
        items: Float[Tensor, "num_items dim"],
        graph: Neighbourhoods | None = None,
    ) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return the vectors after the last layer."""
        graph = self._over(graph)
        for depth, (root, neighbour) in enumerate(zip(self.root, self.neighbour, strict=True)):
            around_users, around_items = graph.mean_neighbours(users, items)
            users = self._between(depth, root(users) + neighbour(around_users))
            items = self._between(depth, root(items) + neighbour(around_items))
        return users, items

    def isolated(self, nodes: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return the vectors of nodes whose mean over neighbours is zero."""
        for depth, (root, neighbour) in enumerate(zip(self.root, self.neighbour, strict=True)):
            nodes = self._between(depth, root(nodes) + neighbour(torch.zeros_like(nodes)))
        return nodes


class _Ends(NamedTuple):
    """What attention needs of the nodes of a side: the terms of the logits, (nodes, H), and mapped vectors, (nodes, H, D / H)."""

    receiving: Tensor
    sending: Tensor
    mapped: Tensor


class GATBackbone(Backbone):
    r"""L layers D -> D that weigh neighbours by attention (Velickovic et al., Graph Attention Networks, ICLR 2018, eqs. 1-5).

    Head h gives node i the vector sum_j alpha_ij W x_j over its neighbours and itself, with alpha_ij the softmax over j of
    LeakyReLU(a . [W x_i || W x_j]), slope 0.2. Heads stand side by side, an ELU between layers. The paper's last layer averages
    its heads, for its outputs are classes; here they are vectors, and stand side by side as well.

    The logit is the sum of a term of either end, so that no edge holds more than a number a head.

    Args:
        graph: Users and items.
        num_layers: Layers L.
        dim: Width D.
        num_heads: Heads H, each of width D / H.
        attention_dropout: On the weights alpha.
        hidden_dropout: After each layer but the last.
        final_dropout: On the final vectors.
    """

    propagates = True

    def __init__(
        self,
        graph: BipartiteGraph,
        num_layers: int,
        dim: int,
        num_heads: int = 1,
        attention_dropout: float = 0.0,
        hidden_dropout: float = 0.5,
        final_dropout: float = 0.2,
    ) -> None:
        super().__init__(graph)
        self.heads = num_heads
        self.map = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(num_layers))
        # The two halves of a, of each head.
        sizes = [(num_heads, dim // num_heads)] * num_layers
        self.receiving = nn.ParameterList(nn.init.xavier_uniform_(nn.Parameter(torch.empty(size))) for size in sizes)
        self.sending = nn.ParameterList(nn.init.xavier_uniform_(nn.Parameter(torch.empty(size))) for size in sizes)
        for layer in self.map:
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight)
        self.attention_dropout = nn.Dropout(attention_dropout) if attention_dropout else nn.Identity()
        self.hidden_dropout = nn.Dropout(hidden_dropout)
        self.final_dropout = nn.Dropout(final_dropout)

    def _between(self, depth: int, x: Tensor) -> Tensor:
        last = depth == len(self.map) - 1
        return self.final_dropout(x) if last else self.hidden_dropout(functional.elu(x))

    def _logits(self, depth: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """A node's term in the logits of what it receives, and of what it sends, both (nodes, H)."""
        weight = cast("nn.Linear", self.map[depth]).weight
        weight = weight.reshape(self.heads, -1, weight.shape[1])  # (H, D / H, D)
        halves = [torch.einsum("hk,hkd->dh", half[depth], weight) for half in (self.receiving, self.sending)]
        receiving, sending = torch.split(x @ torch.cat(halves, dim=1), self.heads, dim=1)
        return receiving, sending

    def _attend(self, edges: Edges, receivers: _Ends, senders: _Ends) -> Tensor:
        """What the rows of `edges` receive from its columns and from themselves."""
        scores = at_receiving(edges, receivers.receiving) + at_sending(edges, senders.sending)
        own_scores = functional.leaky_relu(receivers.receiving + receivers.sending, 0.2)
        weights, own_weights = edge_softmax(edges, functional.leaky_relu(scores, 0.2), own_scores)
        heads = zip(self.attention_dropout(weights).unbind(1), senders.mapped.unbind(1), strict=True)
        received = torch.stack([weighted_product(edges, weight, values) for weight, values in heads], dim=1)
        return torch.addcmul(received, self.attention_dropout(own_weights).unsqueeze(2), receivers.mapped).flatten(1)

    def forward(
        self,
        users: Float[Tensor, "num_users dim"],
        items: Float[Tensor, "num_items dim"],
        graph: Neighbourhoods | None = None,
    ) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return the vectors after the last layer."""
        to_users, to_items = self._over(graph).edges()
        for depth, layer in enumerate(self.map):
            both = [_Ends(*self._logits(depth, x), layer(x).unflatten(1, (self.heads, -1))) for x in (users, items)]
            users = self._between(depth, self._attend(to_users, both[0], both[1]))
            items = self._between(depth, self._attend(to_items, both[1], both[0]))
        return users, items

    def isolated(self, nodes: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return the vectors of nodes that attend to themselves alone."""
        for depth, layer in enumerate(self.map):
            nodes = self._between(depth, layer(nodes))
        return nodes
