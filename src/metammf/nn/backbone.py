"""Backbones: from the node vectors of users and items to those that are scored. U users, N items, D width.

A backbone knows nothing of fusions, and a fusion nothing of backbones. `isolated` is the path of a node without edges, which
an item added tomorrow takes as well as an item without a train interaction; `fold_in` that of a user who comes with edges
to known items, which changes nobody else's vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float

    from metammf.nn.graph import BipartiteGraph, Neighbourhoods
    from metammf.nn.histories import Histories

BackboneKind = Literal["mf", "graphsage", "lightgcn"]


class Backbone(nn.Module):
    """The identity, which makes matrix factorisation: score = e_u . e_i."""

    propagates = False
    """Whether the vector of a node depends on other nodes, so that all have to be computed to know one."""

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
    """

    propagates = True

    def __init__(self, graph: BipartiteGraph, num_layers: int) -> None:
        super().__init__(graph)
        self.num_layers = num_layers

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
        hops = self.num_layers
        return (
            total_users / (1 + hops * (graph.user_degrees > 0)),
            total_items / (1 + hops * (graph.item_degrees > 0)),
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
        """Return the vectors of nodes whose mean over neighbours is zero."""
        for depth in range(self.depth):
            nodes = self._layer(depth, nodes, torch.zeros_like(nodes))
        return nodes

    def item_layers(
        self, users: Float[Tensor, "num_users dim"], items: Float[Tensor, "num_items dim"]
    ) -> list[Float[Tensor, "num_items dim"]]:
        """Return the items as they enter each layer."""
        return [entering for _, entering in self._layers(users, items, self._over(None))][:-1]

    def isolated_layers(self, items: Float[Tensor, "batch dim"]) -> list[Float[Tensor, "batch dim"]]:
        """Return the items as they enter each layer, with a mean over neighbours of zero."""
        layers = []
        for depth in range(self.depth):
            layers.append(items)
            items = self._layer(depth, items, torch.zeros_like(items))
        return layers

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
