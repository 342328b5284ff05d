"""VBPR: matrix factorisation, and beside it taste for what items look like. D width, F total feature width.

Source: He and McAuley, *VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback*, AAAI 2016, eq. 4. Any modalities
take the place of the visual one; their features are standardised (`feature_scaling`), where the paper takes them as they come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from metammf.models.config import Search
from metammf.models.nodes import ContentConfig, NodeModel, init_free_vectors
from metammf.nn.backbone import Backbone
from metammf.nn.content import Content, MissingContent

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from metammf.models.base import Inputs


class VBPRConfig(ContentConfig):
    """Settings of VBPR."""

    name: Literal["vbpr"] = "vbpr"
    embedding_dim: Annotated[int, Field(ge=2), Search(16, 256, log=True)] = 64
    """Width D of a user's factors: one half for items' free factors, one for their content; even."""
    init_std: Annotated[float, Field(gt=0), Search(0.005, 0.2, log=True)] | None = None
    """Standard deviation of the free factors at the start; Glorot's by default."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.embedding_dim % 2:
            raise ValueError(f"embedding_dim must be even, got {self.embedding_dim}")
        return self


class VBPR(NodeModel):
    r"""Score = b_i + gamma_u . gamma_i + theta_u . (E f_i) + beta . f_i.

    The biases are coordinates that every user's vector holds a one against: [gamma_u | 1 | 1 | theta_u] and
    [gamma_i | b_i | beta . f_i | E f_i]. The paper's global offset and user bias change no ranking and are left out.

    An item without a train interaction has no factors of its own, so gamma_i = 0 and b_i = 0, which is where the penalty of the
    paper would leave them: it is scored by its content, whether it is in the data set or is added later.

    Args:
        config: Its settings.
        inputs: Counts and features.

    Raises:
        ConfigError: the data set has no features.
        DataError: it lacks a modality that is asked for.
    """

    config_type = VBPRConfig

    def __init__(self, config: VBPRConfig, inputs: Inputs) -> None:
        super().__init__(inputs, config.embedding_dim, Backbone(), init_std=config.init_std)
        self.part = config.embedding_dim // 2
        self.item_table = nn.Embedding(inputs.num_items, self.part + 1)  # gamma_i | b_i
        init_free_vectors(self.item_table, config.init_std, without=inputs.cold_items)
        nn.init.zeros_(self.item_table.weight[:, -1])
        self.take_content(inputs, config)
        self.concat = MissingContent(self.scaler.out_widths)
        self.project = nn.Linear(sum(self.scaler.out_widths.values()), 1 + self.part, bias=False)  # beta | E
        nn.init.xavier_uniform_(self.project.weight)

    def fuse_scaled(self, content: Content) -> Float[Tensor, "batch width"]:
        """Return [beta . f_i | E f_i] of these items."""
        return self.project(self.concat(content))

    def item_inputs(self, items: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return the vectors of these items."""
        return self.encode_scaled(self.scaled_rows(items), items)

    def forward(
        self, users: Int[Tensor, " users"], items: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """Return the vectors of these nodes."""
        gamma, theta = self.user_table(users).split(self.part, dim=1)
        return torch.cat([gamma, gamma.new_ones(len(users), 2), theta], dim=1), self.in_chunks(self.item_inputs, items)

    def encode_items(self, content: Content) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items that have no interactions."""
        return self.encode_scaled(self.scale(content))

    def encode_scaled(self, content: Content, items: Int[Tensor, " batch"] | None = None) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items; with `items`, by the free factors that these known items have."""
        fused = self.fuse_scaled(content)
        own = fused.new_zeros(len(fused), self.part + 1) if items is None else self.item_table(items)
        return torch.cat([own, fused], dim=1)

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return the free factors of both sides, the items' biases among them."""
        return [self.user_table(users), self.item_table(items)]

    def row_tables(self) -> list[nn.Embedding]:
        """Return the tables of both sides."""
        return [self.user_table, self.item_table]

    def content_parameters(self) -> list[nn.Parameter]:
        """Return E, beta, and what stands for a modality that an item lacks."""
        return [*self.project.parameters(), *self.concat.parameters()]
