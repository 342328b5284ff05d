"""LightGCN on ids alone.

Source: He et al., *LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation*, SIGIR 2020, eqs. 3-8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from metammf.models.config import Search
from metammf.models.id_model import GraphModelConfig, IdModel
from metammf.nn.backbone import LightGCNBackbone

if TYPE_CHECKING:
    from metammf.models.base import Inputs


class LightGCNConfig(GraphModelConfig):
    """Settings of LightGCN."""

    name: Literal["lightgcn"] = "lightgcn"
    num_layers: Annotated[int, Field(ge=0), Search(1, 4)] = 2
    """Hops L."""


class LightGCN(IdModel):
    """Free vectors, averaged over hops of symmetric propagation."""

    config_type = LightGCNConfig

    def __init__(self, config: LightGCNConfig, inputs: Inputs) -> None:
        super().__init__(config, inputs, LightGCNBackbone(inputs.graph, config.num_layers))
