r"""LATTICE: graphs of the items, learned from what they look, sound and read like. N items, D width, M modalities.

Source: Zhang et al., *Mining Latent Structures for Multimedia Recommendation*, MM 2021, section 3.

1. **Initial graphs.** S^m_ij = cos(x_i^m, x_j^m) of raw features, negative ones set to zero, kept where j is one of the k nearest
   of i (i itself among them), and S~^m = D^-1/2 S^m D^-1/2.
2. **Learned graphs.** A~^m is the same of x~_i^m = W_m x_i^m + b_m.
3. **Mixing.** A^m = lambda S~^m + (1 - lambda) A~^m, and A = sum_m alpha_m A^m with alpha = softmax of learned weights.
4. **Convolution.** h^(l) = A h^(l-1) on the free item vectors h^(0), L hops.
5. **Any backbone.** A backbone (MF, LightGCN, ...) makes its item vectors of who watched what, and h^(L) / |h^(L)| is added.

As in the paper: all of it. Who the nearest are in 2 is found anew once an epoch, and before an evaluation; how near they are
follows W_m and b_m at every step, with gradient. N x N is never formed: a graph has k entries a row. All features are projected
at each step for it, which is what a step costs beyond its propagations.

The public code departs from it: it leaves negative cosines in; it normalises the sum of the learned graphs rather than each; the
learned graphs have a gradient at the first step of an epoch alone and are constants at all others; the raw features are
parameters that are learned too; LightGCN's adjacency has self-loops and row means; the penalty is laid on the final vectors. Its
learning rate fades by 0.96 every 50 epochs, ours stays.

Ours: an item that lacks a modality has no place in its graphs, and its alphas are scaled to a sum of one over the modalities
that it has. Items without a train interaction: zero through the backbone, and h from their k nearest known items, by
raw features in the initial graphs and by x~ in the learned ones; see `metammf.models.item_graphs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from metammf.models.config import Search
from metammf.models.item_graphs import ItemGraphConfig, ItemGraphModel
from metammf.nn.backbone import Backbone, GraphSAGEBackbone, LightGCNBackbone
from metammf.nn.content import Content, modality_key
from metammf.nn.content_graph import LearnedGraph, shares
from metammf.nn.projection import Projections

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from metammf.models.base import Inputs


class LATTICEConfig(ItemGraphConfig):
    """Settings of LATTICE; the defaults are the paper's."""

    name: Literal["lattice"] = "lattice"
    backbone: Literal["mf", "graphsage", "lightgcn"] = "lightgcn"
    """What makes vectors of who watched what: "mf", "graphsage" or "lightgcn"."""
    feature_dim: Annotated[int, Field(ge=1), Search(16, 128, log=True)] = 64
    """Width of the projected features that the learned graphs are made of."""
    initial_share: Annotated[float, Field(ge=0, le=1), Search(0, 1)] = 0.9
    """Share lambda of the initial graphs beside the learned ones."""


class LATTICE(ItemGraphModel):
    """A backbone on free vectors, and beside it a convolution over items that are alike by content, as is learned.

    Args:
        config: Its settings.
        inputs: Counts, features, and the graph where the backbone propagates.

    Raises:
        ConfigError: the data set has no features.
        DataError: it lacks a modality that is asked for.
    """

    config_type = LATTICEConfig
    known_hidden: Tensor

    def __init__(self, config: LATTICEConfig, inputs: Inputs) -> None:
        super().__init__(config, inputs, _backbone(config, inputs), weighted=True)
        self.initial_share = config.initial_share
        self.modality_weights = nn.Parameter(torch.zeros(len(self.modalities)))
        widths = self.scaler.out_widths if config.initial_share < 1 else {}
        self.projections = Projections(widths, config.feature_dim)
        self.learned = nn.ModuleDict(
            {
                modality_key(name): LearnedGraph(inputs.num_items, config.feature_dim, config.num_neighbours)
                for name in widths
            }
        )
        self.register_buffer("known_hidden", torch.zeros_like(self.item_table.weight))
        # Whether the neighbours in the learned graphs are those that the weights of now give.
        self._current = False
        self.register_load_state_dict_post_hook(_forget_neighbours)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def begin_epoch(self, generator: torch.Generator) -> None:
        """Find the neighbours in the learned graphs anew."""
        self._find_neighbours()

    @torch.no_grad()
    def _find_neighbours(self) -> None:
        if self._current or not self.learned:
            return
        projected = self._projected()
        for name in self.modalities:
            self._learned(name).rebuild(projected[name], self.graph_of(name).members)
        self._current = True

    def _learned(self, modality: str) -> LearnedGraph:
        graph = self.learned[modality_key(modality)]
        assert isinstance(graph, LearnedGraph)
        return graph

    def _projected(self) -> dict[str, Tensor]:
        """x~ of all items; the row of one that lacks the modality is not read."""
        return self.projections.of_all(lambda items: self.scaled_rows(items).values, self.num_items)

    def all_vectors(self) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return the backbone's vectors, and to the items' what their graphs give them."""
        if not self.training or (self.learned and self._learned(self.modalities[0]).pattern is None):
            self._find_neighbours()
        user_vectors, item_vectors = self.propagate(self.item_table.weight)
        hidden = self._convolved()
        if self.training:
            self._current = False  # the step will move the weights
        return user_vectors, item_vectors + functional.normalize(hidden, dim=1)

    def _convolved(self) -> Tensor:
        own = shares(torch.softmax(self.modality_weights, dim=0), self.members())
        projected = self._projected()
        weights = {name: self._learned(name)(projected[name]) for name in projected}
        hidden = self.item_table.weight
        for layer in range(self.num_item_layers):
            if not self.training and layer == self.num_item_layers - 1:
                self.known_hidden.copy_(hidden.detach())
            total = torch.zeros_like(hidden)
            for place, name in enumerate(self.modalities):
                mixed = self.initial_share * self.graph_of(name)(hidden)
                if name in weights:
                    mixed = mixed + (1 - self.initial_share) * weights[name].propagate(hidden)
                total = total + own[:, [place]] * mixed
            hidden = total
        return hidden

    def new_item_vectors(
        self, content: Content, present: Bool[Tensor, "batch modalities"]
    ) -> Float[Tensor, "batch dim"]:
        """Return the backbone's vectors of nodes without edges, and what the graphs give these items."""
        own = shares(torch.softmax(self.modality_weights, dim=0), present)
        hidden = self.known_hidden.new_zeros(len(own), self.known_hidden.shape[1])
        for place, name in enumerate(self.modalities):
            graph, values, here = self.graph_of(name), content.values[name], present[:, place]
            mixed = self.initial_share * graph.of_new(values, here, self.known_hidden)
            if self.learned:
                vectors = self.projections(name, values)
                found = self._learned(name).of_new(vectors, here, graph.members, self.known_hidden)
                mixed = mixed + (1 - self.initial_share) * found
            hidden = hidden + own[:, [place]] * mixed
        return self.without_edges(len(own)) + functional.normalize(hidden, dim=1)

    def content_parameters(self) -> list[nn.Parameter]:
        """Return W_m, b_m and the weights of the modalities."""
        return [*self.projections.parameters(), self.modality_weights]


def _forget_neighbours(model: Any, _keys: Any) -> None:
    model._current = False


def _backbone(config: LATTICEConfig, inputs: Inputs) -> Backbone:
    if config.backbone == "lightgcn":
        return LightGCNBackbone(inputs.graph, config.num_layers)
    if config.backbone == "graphsage":
        return GraphSAGEBackbone(inputs.graph, config.num_layers, config.embedding_dim)
    return Backbone()
