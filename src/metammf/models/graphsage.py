"""GraphSAGE on ids alone.

Source: Hamilton et al., *Inductive Representation Learning on Large Graphs*, NeurIPS 2017, Algorithm 1, mean aggregator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from metammf.models.config import Search
from metammf.models.id_model import GraphModelConfig, IdModel
from metammf.nn.backbone import GraphSAGEBackbone

if TYPE_CHECKING:
    from metammf.models.base import Inputs


class GraphSAGEConfig(GraphModelConfig):
    """Settings of GraphSAGE."""

    name: Literal["graphsage"] = "graphsage"
    num_layers: Annotated[int, Field(ge=1), Search(1, 3)] = 2
    """Layers L."""
    hidden_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """After each layer but the last."""
    final_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """On the final vectors."""


class GraphSAGE(IdModel):
    """Free vectors, through layers of root weight plus mean over neighbours."""

    config_type = GraphSAGEConfig

    def __init__(self, config: GraphSAGEConfig, inputs: Inputs) -> None:
        backbone = GraphSAGEBackbone(
            inputs.graph, config.num_layers, config.embedding_dim, config.hidden_dropout, config.final_dropout
        )
        super().__init__(config, inputs, backbone)
