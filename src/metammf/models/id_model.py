"""Shared by the models that know items by their ids alone: a table a side, then a backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from metammf.models.config import ModelConfig, Search
from metammf.models.nodes import FreeVectorModel

if TYPE_CHECKING:
    from metammf.models.base import Inputs
    from metammf.nn.backbone import Backbone


class IdModelConfig(ModelConfig):
    """What all of them can be told."""

    embedding_dim: Annotated[int, Field(ge=1), Search(16, 256, log=True)] = 64
    """Width D of users' and items' vectors."""
    normalize: bool = False
    """Score by cosine rather than by dot product."""
    init_std: Annotated[float, Field(gt=0), Search(0.005, 0.2, log=True)] | None = None
    """Standard deviation of the free vectors at the start; Glorot's by default."""


class GraphModelConfig(IdModelConfig):
    """What those whose backbone propagates can be told besides."""

    hide_targets: bool = False
    """Leave a step's positives out of the graph that predicts them."""
    edge_dropout: Annotated[float, Field(ge=0, lt=1), Search(0, 0.5)] = 0.0
    """Share of all edges that a step leaves out of the graph."""


class IdModel(FreeVectorModel):
    """Free vectors on both sides.

    Args:
        config: Its settings.
        inputs: Counts.
        backbone: What is done to the vectors.
    """

    def __init__(self, config: IdModelConfig, inputs: Inputs, backbone: Backbone) -> None:
        super().__init__(
            inputs,
            config.embedding_dim,
            backbone,
            normalize=config.normalize,
            hide_targets=config.hide_targets if isinstance(config, GraphModelConfig) else False,
            edge_dropout=config.edge_dropout if isinstance(config, GraphModelConfig) else 0.0,
            init_std=config.init_std,
        )

    @property
    def folds_users(self) -> bool:
        """Whether the backbone looks at what a user watched; a new user has no vector beside that."""
        return self.backbone.depth > 0
