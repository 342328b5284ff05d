"""Fusions: from the content of an item to one vector. B items, F feature width, M modalities, O output width.

`FusionNetwork` is the paper's, dynamic (dense or CP) or static (the same network less its dynamic part); the others are the
usual static ones that it is compared with. Any of them fits any backbone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from metammf.nn.content import MissingContent
from metammf.nn.meta import LowRankMetaLinear, MetaExtractor, MetaLinear, StaticLinear

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Bool, Float

    from metammf.nn.content import Content

FusionKind = Literal["cp", "dense", "concat", "sum", "gated", "attention"]


@dataclass(frozen=True)
class DynamicOptions:
    """How the weights that are an item's own are made; the defaults are the paper's.

    Args:
        meta_dim: Meta channels S.
        cp_rank: CP rank R, for "cp".
        layers: "all", or "last" to leave the layers before it to all items alike.
        scale: Size of the dynamic weights at the start, relative to the shared ones.
        bounded: Whether a tanh bounds the meta information.
        meta_hidden_dim: Most that the hidden layer of the meta information extractor may be wide; as wide as the features
            by default.
    """

    meta_dim: int = 5
    cp_rank: int = 16
    layers: Literal["all", "last"] = "all"
    scale: float = 1.0
    bounded: bool = False
    meta_hidden_dim: int | None = None


class FusionNetwork(nn.Module):
    """An item's own fusion network: h^0 = x_i, h^n = act(h^(n-1) W_i^n), LeakyReLU between layers, none after the last.

    Source: Liu et al., *Dynamic Multimodal Fusion via Meta-Learning Towards Micro-Video Recommendation*, TOIS 42(2), 2023.

    Args:
        widths: Modality -> feature width.
        layers: Widths of the layers behind the features, the last is O. The paper's: 1024, 512, 256, 32.
        dynamic: "cp", "dense", or None for the static twin.
        options: Of the dynamic part.
        dropout: On the features and between layers, in training.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        layers: Sequence[int],
        *,
        dynamic: Literal["cp", "dense"] | None,
        options: DynamicOptions = DynamicOptions(),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.concat = MissingContent(widths)
        sizes = [sum(widths.values()), *layers]
        self.meta = (
            MetaExtractor(sizes[0], options.meta_dim, hidden_dim=options.meta_hidden_dim, bounded=options.bounded)
            if dynamic
            else None
        )

        def layer(depth: int, in_dim: int, out_dim: int) -> StaticLinear:
            if dynamic is None or (options.layers == "last" and depth < len(layers) - 1):
                return StaticLinear(in_dim, out_dim)
            if dynamic == "cp":
                return LowRankMetaLinear(options.meta_dim, in_dim, out_dim, options.cp_rank, options.scale)
            return MetaLinear(options.meta_dim, in_dim, out_dim, options.scale)

        self.layers = nn.ModuleList(layer(depth, *pair) for depth, pair in enumerate(itertools.pairwise(sizes)))
        self.activation = nn.LeakyReLU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, content: Content) -> Float[Tensor, "batch out_dim"]:
        """Fuse each item by its own network."""
        x = self.concat(content)
        meta = self.meta(x) if self.meta is not None else x[:, :0]
        for depth, layer in enumerate(self.layers):
            x = layer(self.dropout(x if depth == 0 else self.activation(x)), meta)
        return x


class _ProjectedFusion(nn.Module):
    """Shared by the fusions that give each modality an MLP of its own and then weigh the M results.

    Args:
        widths: Modality -> feature width.
        layers: Widths of each modality's MLP, the last is O.
        dropout: On the features and between layers, in training.
    """

    def __init__(self, widths: Mapping[str, int], layers: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.modalities = tuple(widths)
        self.projections = nn.ModuleList(_mlp([width, *layers], dropout) for width in widths.values())
        self.out_dim = layers[-1]

    def weights(self, content: Content, projected: Float[Tensor, "batch modalities out_dim"]) -> Tensor:
        """Return the weight of each modality, broadcastable to (B, M, O); absent ones are masked by the caller."""
        return torch.ones(1, 1, 1, device=projected.device)

    def forward(self, content: Content) -> Float[Tensor, "batch out_dim"]:
        """Project each modality and add them up by their weights; an item that has none gets zero."""
        projected = torch.stack(
            [project(content.values[name]) for name, project in zip(self.modalities, self.projections, strict=True)],
            dim=1,
        )
        lacking = ~self.mask(content).unsqueeze(2)
        return (projected * self.weights(content, projected)).masked_fill(lacking, 0).sum(1)

    def mask(self, content: Content) -> Bool[Tensor, "batch modalities"]:
        """Return which modalities each item has."""
        return torch.stack([content.present[name] for name in self.modalities], dim=1)


def _mlp(sizes: Sequence[int], dropout: float) -> nn.Sequential:
    parts: list[nn.Module] = []
    for in_dim, out_dim in itertools.pairwise(sizes):
        parts += [nn.Dropout(dropout), nn.Linear(in_dim, out_dim), nn.LeakyReLU()]
    return nn.Sequential(*parts[:-1])


class SumFusion(_ProjectedFusion):
    """Mean of the projections of the modalities that the item has."""

    def weights(self, content: Content, projected: Float[Tensor, "batch modalities out_dim"]) -> Tensor:
        """One over the number of present modalities, shape (B, 1, 1)."""
        return 1 / self.mask(content).sum(1).clamp(min=1)[:, None, None]


class GatedFusion(_ProjectedFusion):
    """Each entry of each projection is let through by a sigmoid gate that all features of the item set."""

    def __init__(self, widths: Mapping[str, int], layers: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__(widths, layers, dropout=dropout)
        self.concat = MissingContent(widths)
        self.gate = nn.Linear(sum(widths.values()), len(widths) * self.out_dim)

    def weights(self, content: Content, projected: Float[Tensor, "batch modalities out_dim"]) -> Tensor:
        """Sigmoid gates, shape (B, M, O)."""
        return torch.sigmoid(self.gate(self.concat(content))).view_as(projected)


class AttentionFusion(_ProjectedFusion):
    """Softmax attention over the modalities that the item has; the query is learned and shared by all items."""

    def __init__(self, widths: Mapping[str, int], layers: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__(widths, layers, dropout=dropout)
        self.key = nn.Linear(self.out_dim, self.out_dim)
        self.query = nn.Linear(self.out_dim, 1, bias=False)

    def weights(self, content: Content, projected: Float[Tensor, "batch modalities out_dim"]) -> Tensor:
        """Attention weights, shape (B, M, 1); an item without any modality gets equal ones."""
        scores = self.query(torch.tanh(self.key(projected)))
        lacking = ~self.mask(content).unsqueeze(2)
        return torch.softmax(scores.masked_fill(lacking & ~lacking.all(1, keepdim=True), -torch.inf), dim=1)


def make_fusion(
    kind: FusionKind,
    widths: Mapping[str, int],
    layers: Sequence[int],
    *,
    options: DynamicOptions = DynamicOptions(),
    dropout: float = 0.0,
) -> nn.Module:
    """Build a fusion by its name; every one maps a `Content` to (B, layers[-1])."""
    projected = {"sum": SumFusion, "gated": GatedFusion, "attention": AttentionFusion}
    if kind in projected:
        return projected[kind](widths, layers, dropout=dropout)
    dynamic: Literal["cp", "dense"] | None = None if kind == "concat" else "cp" if kind == "cp" else "dense"
    return FusionNetwork(widths, layers, dynamic=dynamic, options=options, dropout=dropout)
