"""Backbones: from the node vectors of users and items to those that are scored. U users, N items, D width.

A backbone knows nothing of fusions, and a fusion nothing of backbones. `isolated` is the path of a node without edges, which
an item added tomorrow takes as well as an item without a train interaction; `fold_in` that of a user who comes with edges
to known items, which changes nobody else's vector.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from metammf.nn.attention import at_receiving, at_sending, edge_softmax
from metammf.nn.edge_weights import weighted_product
from metammf.nn.graph import BipartiteGraph

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float

    from metammf.nn.graph import Edges, Neighbourhoods
    from metammf.nn.histories import Histories

BackboneKind = Literal["mf", "graphsage", "lightgcn", "gat"]


class Backbone(nn.Module):
    """The identity, which makes matrix factorisation: score = e_u . e_i."""

    propagates = False
    """Whether the vector of a node depends on other nodes, so that all have to be computed to know one."""
    weighs_itself = False
    """Whether a node's own vector and its neighbours' compete for the same weights, so that training may come to leave the
    neighbours out where the own vector says more."""

    def __init__(self, graph: BipartiteGraph | None = None) -> None:
        super().__init__()
        self.graph = graph

    @property
    def depth(self) -> int:
        """How many times a node looks at its neighbours."""
        return 0

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

    def item_layers(
        self, users: Float[Tensor, "num_users dim"], items: Float[Tensor, "num_items dim"]
    ) -> list[Float[Tensor, "num_items dim"]]:
        """Return what a user's neighbours send it at each depth, over the whole graph: what `fold_in` sums over a history."""
        return []

    def isolated_layers(self, items: Float[Tensor, "batch dim"]) -> list[Float[Tensor, "batch dim"]]:
        """Return the same of items without edges."""
        return []

    def fold_in(
        self,
        users: Float[Tensor, "batch dim"],
        histories: Histories,
        layers: Sequence[Float[Tensor, "num_items dim"]],
    ) -> Float[Tensor, "batch dim"]:
        """Return the vectors of users with edges to the items of their histories.

        Args:
            users: What enters the backbone for them.
            histories: What they watched.
            layers: Of the known items, as `item_layers` gives them.
        """
        return users


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

    @property
    def depth(self) -> int:
        """Hops L."""
        return self.num_layers

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

    def item_layers(
        self, users: Float[Tensor, "num_users dim"], items: Float[Tensor, "num_items dim"]
    ) -> list[Float[Tensor, "num_items dim"]]:
        """Return the items after 0..L-1 hops, each over the root of its degree."""
        graph = self._over(None)
        hops = [items]
        for _ in range(self.num_layers - 1):
            users, items = graph.symmetric_neighbours(users, items)
            hops.append(items)
        scale = graph.item_degrees.clamp(min=1).rsqrt()
        return [scale * hop for hop in hops[: self.num_layers]]

    def isolated_layers(self, items: Float[Tensor, "batch dim"]) -> list[Float[Tensor, "batch dim"]]:
        """Return the items themselves, then nothing: what has no edges hears of nobody."""
        return [items if hop == 0 else torch.zeros_like(items) for hop in range(self.num_layers)]

    def fold_in(
        self,
        users: Float[Tensor, "batch dim"],
        histories: Histories,
        layers: Sequence[Float[Tensor, "num_items dim"]],
    ) -> Float[Tensor, "batch dim"]:
        """Return the mean over hops; a user without edges is its own."""
        scale = histories.counts.clamp(min=1).rsqrt()
        for layer in layers:
            users = users + scale * histories.sum(layer)
        return users / (1 + len(layers) * (histories.counts > 0))


class _Layered(Backbone):
    """One of layers of learned weights, of which each sees all nodes as the one before has left them."""

    propagates = True

    @abstractmethod
    def _layers(self, users: Tensor, items: Tensor, graph: Neighbourhoods) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield users and items as they enter the first layer, and after each."""

    @abstractmethod
    def _alone(self, depth: int, nodes: Tensor) -> Tensor:
        """Return nodes without edges after one layer more."""

    def forward(
        self,
        users: Float[Tensor, "num_users dim"],
        items: Float[Tensor, "num_items dim"],
        graph: Neighbourhoods | None = None,
    ) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return the vectors after the last layer."""
        *_, last = self._layers(users, items, self._over(graph))
        return last

    def isolated(self, nodes: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return the vectors of nodes without edges after the last layer."""
        for depth in range(self.depth):
            nodes = self._alone(depth, nodes)
        return nodes

    def item_layers(
        self, users: Float[Tensor, "num_users dim"], items: Float[Tensor, "num_items dim"]
    ) -> list[Float[Tensor, "num_items dim"]]:
        """Return the items as they enter each layer."""
        return [entering for _, entering in self._layers(users, items, self._over(None))][:-1]

    def isolated_layers(self, items: Float[Tensor, "batch dim"]) -> list[Float[Tensor, "batch dim"]]:
        """Return the items as they enter each layer, without edges."""
        layers = []
        for depth in range(self.depth):
            layers.append(items)
            items = self._alone(depth, items)
        return layers


class GraphSAGEBackbone(_Layered):
    """L layers D -> D: root weight plus mean aggregator (Hamilton et al., GraphSAGE, NeurIPS 2017, Algorithm 1).

    LeakyReLU and dropout after all layers but the last, a lighter dropout on the final vectors, as MetaMMF_GCN has it.

    Args:
        graph: Users and items.
        num_layers: Layers L.
        dim: Width D.
        hidden_dropout: After each layer but the last.
        final_dropout: On the final vectors.
    """

    def __init__(
        self, graph: BipartiteGraph, num_layers: int, dim: int, hidden_dropout: float = 0.5, final_dropout: float = 0.2
    ) -> None:
        super().__init__(graph)
        self.root = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(num_layers))
        self.neighbour = nn.ModuleList(nn.Linear(dim, dim) for _ in range(num_layers))
        self.hidden_dropout = nn.Dropout(hidden_dropout)
        self.final_dropout = nn.Dropout(final_dropout)

    @property
    def depth(self) -> int:
        """Layers L."""
        return len(self.root)

    def _layer(self, depth: int, nodes: Tensor, around: Tensor) -> Tensor:
        """The nodes after one layer more, from the means over their neighbours."""
        nodes = self.root[depth](nodes) + self.neighbour[depth](around)
        last = depth == self.depth - 1
        return self.final_dropout(nodes) if last else self.hidden_dropout(nn.functional.leaky_relu(nodes))

    def _layers(self, users: Tensor, items: Tensor, graph: Neighbourhoods) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield users and items as they enter the first layer, and after each."""
        yield users, items
        for depth in range(self.depth):
            around_users, around_items = graph.mean_neighbours(users, items)
            users, items = self._layer(depth, users, around_users), self._layer(depth, items, around_items)
            yield users, items

    def _alone(self, depth: int, nodes: Tensor) -> Tensor:
        """Return nodes after one layer more, with a mean over neighbours of zero."""
        return self._layer(depth, nodes, torch.zeros_like(nodes))

    def fold_in(
        self,
        users: Float[Tensor, "batch dim"],
        histories: Histories,
        layers: Sequence[Float[Tensor, "num_items dim"]],
    ) -> Float[Tensor, "batch dim"]:
        """Return the users after the last layer, each with the mean over its own items."""
        for depth, layer in enumerate(layers):
            users = self._layer(depth, users, histories.sum(layer) / histories.counts.clamp(min=1))
        return users


class _Ends(NamedTuple):
    """What attention needs of the nodes of a side: the terms of the logits, (nodes, H), and mapped vectors, (nodes, H, D / H)."""

    receiving: Tensor
    sending: Tensor
    mapped: Tensor


class GATBackbone(_Layered):
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

    weighs_itself = True

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

    @property
    def depth(self) -> int:
        """Layers L."""
        return len(self.map)

    def _between(self, depth: int, x: Tensor) -> Tensor:
        last = depth == self.depth - 1
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

    def _ends(self, depth: int, x: Tensor) -> _Ends:
        return _Ends(*self._logits(depth, x), self.map[depth](x).unflatten(1, (self.heads, -1)))

    def _layers(self, users: Tensor, items: Tensor, graph: Neighbourhoods) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield users and items as they enter the first layer, and after each."""
        to_users, to_items = graph.edges()
        yield users, items
        for depth in range(self.depth):
            of_users, of_items = self._ends(depth, users), self._ends(depth, items)
            users = self._between(depth, self._attend(to_users, of_users, of_items))
            items = self._between(depth, self._attend(to_items, of_items, of_users))
            yield users, items

    def _alone(self, depth: int, nodes: Tensor) -> Tensor:
        """Return nodes after one layer more, attending to themselves alone."""
        return self._between(depth, self.map[depth](nodes))

    def fold_in(
        self,
        users: Float[Tensor, "batch dim"],
        histories: Histories,
        layers: Sequence[Float[Tensor, "num_items dim"]],
    ) -> Float[Tensor, "batch dim"]:
        """Return the users after the last layer, each attending to its own items and to itself."""
        watched, histories = histories.distinct()
        to_users, _ = BipartiteGraph.of_histories(histories, len(watched)).edges()
        for depth, layer in enumerate(layers):
            received = self._attend(to_users, self._ends(depth, users), self._ends(depth, layer[watched]))
            users = self._between(depth, received)
        return users
