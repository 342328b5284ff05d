"""NGCF: what passes along an edge depends on both of its ends.

Source: Wang et al., *Neural Graph Collaborative Filtering*, SIGIR 2019, eqs. 3-11. U users, N items, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from metammf.models.config import Search
from metammf.models.id_model import GraphModelConfig, IdModel
from metammf.nn.backbone import Backbone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    from metammf.models.base import Inputs
    from metammf.nn.graph import BipartiteGraph, Neighbourhoods
    from metammf.nn.histories import Histories

_SLOPE = 0.2
"""Of LeakyReLU; the paper states none, this is that of the framework that its authors used."""


class NGCFConfig(GraphModelConfig):
    """Settings of NGCF."""

    name: Literal["ngcf"] = "ngcf"
    layer_dims: tuple[Annotated[int, Field(ge=1)], ...] = (64, 64, 64)
    """Width of each layer; scored are all of them and the free vectors, side by side."""
    message_dropout: Annotated[float, Field(ge=0, lt=1), Search(0, 0.5)] = 0.1
    """On what each layer gives."""
    unit_layers: bool = False
    """Scale what each layer contributes to the final vectors to unit length, as the authors' code does; the paper does not."""


class NGCFBackbone(Backbone):
    r"""Layers of messages m_(u<-i) = (W1 e_i + W2 (e_i * e_u)) / sqrt(|N_u| |N_i|) and m_(u<-u) = W1 e_u.

    e_u^(l) = LeakyReLU(m_(u<-u) + sum_(i in N_u) m_(u<-i)), items alike; the final vector is e^(0) || e^(1) || ... || e^(L). By
    eq. 7 the sum over neighbours comes first and is mapped once a node, so that a layer is one propagation.

    Args:
        graph: Users and items.
        dim: Width of what enters.
        layer_dims: Widths of the layers.
        message_dropout: On what each layer gives.
        unit_layers: Whether what a layer contributes has unit length.
    """

    propagates = True

    def __init__(
        self, graph: BipartiteGraph, dim: int, layer_dims: tuple[int, ...], message_dropout: float, unit_layers: bool
    ) -> None:
        super().__init__(graph)
        widths = list(zip((dim, *layer_dims), layer_dims, strict=False))
        self.own = nn.ModuleList(nn.Linear(*width, bias=False) for width in widths)  # W1
        self.common = nn.ModuleList(nn.Linear(*width, bias=False) for width in widths)  # W2
        for layer in (*self.own, *self.common):
            nn.init.xavier_uniform_(layer.weight)
        self.message_dropout = nn.Dropout(message_dropout)
        self.unit_layers = unit_layers

    @property
    def depth(self) -> int:
        """Layers L."""
        return len(self.own)

    def _layer(self, depth: int, x: Tensor, around: Tensor) -> Tensor:
        mapped = self.own[depth](x + around) + self.common[depth](x * around)
        return self.message_dropout(functional.leaky_relu(mapped, _SLOPE))

    def _side_by_side(self, layers: list[Tensor]) -> Tensor:
        first, *others = layers
        return torch.cat([first, *map(functional.normalize, others)] if self.unit_layers else layers, dim=1)

    def forward(
        self,
        users: Float[Tensor, "num_users dim"],
        items: Float[Tensor, "num_items dim"],
        graph: Neighbourhoods | None = None,
    ) -> tuple[Float[Tensor, "num_users out_dim"], Float[Tensor, "num_items out_dim"]]:
        """Return the vectors of all layers, side by side."""
        layers = self._layers(users, items, self._over(graph))
        return self._side_by_side([user for user, _ in layers]), self._side_by_side([item for _, item in layers])

    def _layers(self, users: Tensor, items: Tensor, graph: Neighbourhoods) -> list[tuple[Tensor, Tensor]]:
        """Users and items as they enter the first layer, and after each."""
        layers = [(users, items)]
        for depth in range(self.depth):
            around_users, around_items = graph.symmetric_neighbours(users, items)
            users, items = self._layer(depth, users, around_users), self._layer(depth, items, around_items)
            layers.append((users, items))
        return layers

    def isolated(self, nodes: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch out_dim"]:
        """Return the vectors of nodes whose sum over neighbours is zero."""
        layers = [nodes]
        for depth in range(self.depth):
            layers.append(self._layer(depth, layers[-1], torch.zeros_like(layers[-1])))
        return self._side_by_side(layers)

    def item_layers(
        self, users: Float[Tensor, "num_users dim"], items: Float[Tensor, "num_items dim"]
    ) -> list[Float[Tensor, "num_items _"]]:
        """Return the items as they enter each layer, each over the root of its degree."""
        graph = self._over(None)
        scale = graph.item_degrees.clamp(min=1).rsqrt()
        return [scale * entering for _, entering in self._layers(users, items, graph)[:-1]]

    def fold_in(
        self,
        users: Float[Tensor, "batch dim"],
        histories: Histories,
        layers: Sequence[Float[Tensor, "num_items _"]],
    ) -> Float[Tensor, "batch out_dim"]:
        """Return the vectors of all layers, side by side, of users with edges to their own items."""
        scale, own = histories.counts.clamp(min=1).rsqrt(), [users]
        for depth, layer in enumerate(layers):
            own.append(self._layer(depth, own[-1], scale * histories.sum(layer)))
        return self._side_by_side(own)


class NGCF(IdModel):
    """Free vectors, through layers in which a node meets its neighbours element by element.

    Node dropout, the paper's second kind, is `edge_dropout` here, as in the authors' code, which drops entries of the
    adjacency matrix; degrees are counted anew then rather than what is left scaled up. The paper's settings leave it out.

    The authors' code departs from the paper: the elementwise term takes in the node itself (its matrix has self-loops), each of
    the two terms has a bias and its own activation before they are added, its default matrix is scaled by the degree of the
    receiving node alone, layers are scaled to unit length (`unit_layers`), and the penalty lies on the final vectors. The
    penalty here is `training.l2_reg`, on the free vectors. In one thing both depart from the paper: its message dropout
    (section 2.4) drops messages, each edge by itself; theirs and ours drop coordinates of what a layer gives.

    Args:
        config: Its settings.
        inputs: Counts and the graph.
    """

    config_type = NGCFConfig

    def __init__(self, config: NGCFConfig, inputs: Inputs) -> None:
        backbone = NGCFBackbone(
            inputs.graph, config.embedding_dim, config.layer_dims, config.message_dropout, config.unit_layers
        )
        super().__init__(config, inputs, backbone)
