"""GAT on ids alone.

Source: Velickovic et al., *Graph Attention Networks*, ICLR 2018, eqs. 1-5, on the user-item graph, as the MetaMMF paper (Liu et
al., TOIS 2023) has it among its baselines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from metammf.models.config import Search
from metammf.models.id_model import GraphModelConfig, IdModel
from metammf.nn.backbone import GATBackbone

if TYPE_CHECKING:
    from metammf.models.base import Inputs


class GATConfig(GraphModelConfig):
    """Settings of GAT."""

    name: Literal["gat"] = "gat"
    num_layers: Annotated[int, Field(ge=1), Search(1, 3)] = 2
    """Layers L."""
    num_heads: Annotated[int, Field(ge=1)] = 1
    """Attention heads, which divide the width D among them."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1), Search(0, 0.6)] = 0.0
    """On the weights of neighbours."""
    hidden_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """After each layer but the last."""
    final_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """On the final vectors."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.embedding_dim % self.num_heads:
            raise ValueError(f"num_heads must divide embedding_dim {self.embedding_dim}, got {self.num_heads}")
        return self


class GAT(IdModel):
    """Free vectors, through layers that weigh neighbours by attention; see `GATBackbone`.

    GAT's own paper classifies nodes by given features; free vectors take their place here. Its dropout on the input of
    a layer is `hidden_dropout` after the one before; the free vectors themselves are not dropped. It drops 0.6 there and of the
    attention's weights; the defaults here are the dropouts of MetaMMF's GraphSAGE, and none on attention.

    A user who is new has no vector of its own, which attention may have preferred to what users watched in training: it is
    folded in, with a warning.

    Args:
        config: Its settings.
        inputs: Counts and the graph.
    """

    config_type = GATConfig

    def __init__(self, config: GATConfig, inputs: Inputs) -> None:
        backbone = GATBackbone(
            inputs.graph,
            config.num_layers,
            config.embedding_dim,
            config.num_heads,
            config.attention_dropout,
            config.hidden_dropout,
            config.final_dropout,
        )
        super().__init__(config, inputs, backbone)
