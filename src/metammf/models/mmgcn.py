"""MMGCN: a graph convolution of its own in each modality, summed.

Source: Wei et al., *MMGCN: Multi-modal Graph Convolution Network for Personalized Recommendation of Micro-video*, MM 2019,
eqs. 1-7. U users, N items, D width, C width of a modality that enters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from metammf.models.config import Search
from metammf.models.modal import ModalModel, ModalModelConfig
from metammf.nn.backbone import Backbone
from metammf.nn.content import modality_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    from metammf.models.base import Inputs
    from metammf.nn.graph import BipartiteGraph, Neighbourhoods
    from metammf.nn.histories import Histories


class MMGCNConfig(ModalModelConfig):
    """Settings of MMGCN."""

    name: Literal["mmgcn"] = "mmgcn"
    num_layers: Annotated[int, Field(ge=1), Search(1, 3)] = 2
    """Layers L in each modality."""
    combination: Literal["add", "concat"] = "add"
    """How a node joins its neighbourhood with itself: eq. 6, by element, or eq. 5, side by side."""


class ModalLayer(nn.Module):
    r"""One layer in one modality, users and items alike.

    h = LeakyReLU(mean over neighbours of W1 x), x^ = LeakyReLU(W2 x) + id; "add" gives LeakyReLU(W3 h + x^), "concat"
    LeakyReLU(W3 [h || x^]).

    Args:
        in_dim: Width of x.
        dim: Width D of ids and of what comes out.
        combination: "add" or "concat".
    """

    def __init__(self, in_dim: int, dim: int, combination: Literal["add", "concat"]) -> None:
        super().__init__()
        self.message = nn.Linear(in_dim, dim, bias=False)  # W1
        self.own = nn.Linear(in_dim, dim, bias=False)  # W2
        self.joined = nn.Linear(dim if combination == "add" else 2 * dim, dim, bias=False)  # W3
        for layer in (self.message, self.own, self.joined):
            nn.init.xavier_normal_(layer.weight)
        self.combination = combination

    def combine(
        self, x: Float[Tensor, "nodes in_dim"], ids: Float[Tensor, "nodes dim"], around: Float[Tensor, "nodes dim"]
    ) -> Float[Tensor, "nodes dim"]:
        """Return what comes out, from the mean over neighbours of W1 x."""
        around, own = functional.leaky_relu(around), functional.leaky_relu(self.own(x)) + ids
        if self.combination == "add":
            return functional.leaky_relu(self.joined(around) + own)
        return functional.leaky_relu(self.joined(torch.cat([around, own], dim=1)))


class MMGCNBackbone(Backbone):
    """From [id || one a modality] to the sum over modalities of what its last layer gives.

    Args:
        graph: Users and items, the same in all modalities.
        modalities: Names.
        dim: Width D of ids and of all layers.
        content_dim: Width C of what enters in each modality.
        num_layers: Layers L.
        combination: Of a node and its neighbourhood.
    """

    propagates = True

    def __init__(
        self,
        graph: BipartiteGraph,
        modalities: tuple[str, ...],
        dim: int,
        content_dim: int,
        num_layers: int,
        combination: Literal["add", "concat"],
    ) -> None:
        super().__init__(graph)
        self.num_layers = num_layers
        self.widths = [dim, *[content_dim] * len(modalities)]
        self.layers = nn.ModuleDict(
            {
                modality_key(name): nn.ModuleList(
                    ModalLayer(dim if depth else content_dim, dim, combination) for depth in range(num_layers)
                )
                for name in modalities
            }
        )

    def forward(
        self,
        users: Float[Tensor, "num_users width"],
        items: Float[Tensor, "num_items width"],
        graph: Neighbourhoods | None = None,
    ) -> tuple[Float[Tensor, "num_users dim"], Float[Tensor, "num_items dim"]]:
        """Return the sums over modalities."""
        total_users, total_items, _ = self._run(users, items, self._over(graph))
        return total_users, total_items

    @property
    def depth(self) -> int:
        """Layers L of a modality."""
        return self.num_layers

    def _run(
        self, users: Tensor, items: Tensor, graph: Neighbourhoods
    ) -> tuple[Tensor, Tensor, list[Float[Tensor, "num_items modalities_dim"]]]:
        """The sums over modalities, and what items send at each depth, the modalities side by side."""
        sent: list[list[Tensor]] = [[] for _ in range(self.num_layers)]
        (user_ids, *user_parts), (item_ids, *item_parts) = (torch.split(x, self.widths, dim=1) for x in (users, items))
        total_users, total_items = torch.zeros_like(user_ids), torch.zeros_like(item_ids)
        for layers, of_users, of_items in zip(self.layers.values(), user_parts, item_parts, strict=True):
            assert isinstance(layers, nn.ModuleList)
            for layer, told in zip(layers, sent, strict=True):
                assert isinstance(layer, ModalLayer)
                told.append(layer.message(of_items))
                around = graph.mean_neighbours(layer.message(of_users), told[-1])
                of_users = layer.combine(of_users, user_ids, around[0])
                of_items = layer.combine(of_items, item_ids, around[1])
            total_users, total_items = total_users + of_users, total_items + of_items
        return total_users, total_items, [torch.cat(told, dim=1) for told in sent]

    def isolated(self, nodes: Float[Tensor, "batch width"]) -> Float[Tensor, "batch dim"]:
        """Return the vectors of nodes whose mean over neighbours is zero."""
        nothing = nodes.new_zeros(len(nodes), len(self.layers) * self.widths[0])
        return self._from_means(nodes, [nothing] * self.num_layers)

    def _from_means(self, nodes: Tensor, means: Sequence[Tensor]) -> Tensor:
        """Nodes by the means over neighbours of what these send at each depth, the modalities side by side."""
        ids, *parts = torch.split(nodes, self.widths, dim=1)
        total = torch.zeros_like(ids)
        for place, (layers, part) in enumerate(zip(self.layers.values(), parts, strict=True)):
            assert isinstance(layers, nn.ModuleList)
            for layer, mean in zip(layers, means, strict=True):
                assert isinstance(layer, ModalLayer)
                part = layer.combine(part, ids, mean.chunk(len(self.layers), dim=1)[place])
            total = total + part
        return total

    def item_layers(
        self, users: Float[Tensor, "num_users width"], items: Float[Tensor, "num_items width"]
    ) -> list[Float[Tensor, "num_items modalities_dim"]]:
        """Return what items send at each depth, the modalities side by side."""
        return self._run(users, items, self._over(None))[2]

    def fold_in(
        self,
        users: Float[Tensor, "batch width"],
        histories: Histories,
        layers: Sequence[Float[Tensor, "num_items modalities_dim"]],
    ) -> Float[Tensor, "batch dim"]:
        """Return the sums over modalities for users with edges to their own items."""
        return self._from_means(users, [histories.sum(sent) / histories.counts.clamp(min=1) for sent in layers])


class MMGCN(ModalModel):
    """Each modality has its layers, its users' free preferences and its items' features; ids are common to all.

    As in the paper: mean aggregation, both combinations, the sum over modalities. Its other aggregator, the maximum over
    neighbours, which it finds no better, is left out. Features are mapped to one width before they enter, for users' preferences
    would otherwise be as wide as the raw features; the authors' code does so for the visual ones alone.

    That code departs from the paper further: users' preferences and all id vectors are plain tensors, no parameters, and stay
    as they were drawn; what enters is scaled to unit length; modalities are averaged; its linear maps W2 and W3 have biases; and
    three layers always run, whatever number it is given, so that the published run, told two, had three.

    Ours: features are standardised (`feature_scaling`), the authors' code takes them as they come. A user who is new has zero for
    its id and its preferences, and is folded in by the items with train interactions that it watched.

    Args:
        config: Its settings.
        inputs: Counts, features and the graph.
    """

    config_type = MMGCNConfig

    @property
    def folds_users(self) -> bool:
        """Whether a user that comes with a history has a vector: its layers look at what was watched."""
        return True

    @staticmethod
    def make_backbone(config: MMGCNConfig, inputs: Inputs, modalities: tuple[str, ...]) -> Backbone:
        """Return the layers of all modalities."""
        dims = config.embedding_dim, config.content_dim
        return MMGCNBackbone(inputs.graph, modalities, *dims, config.num_layers, config.combination)
