r"""BM3: users and items drawn to each other and items to their content, without a single negative. D width.

Source: Zhou et al., *Bootstrap Latent Representations for Multi-modal Recommendation*, WWW 2023, section 3. With C(x, y) the
negative cosine of x and y, f(h) = h W_p + b_p the predictor, and a dot for a view that dropout makes and no gradient enters:

- h_u = mean over hops 0..L of LightGCN; h_i = the same, plus the item's own free vector; h_i^m = e_i^m W_m + b_m;
- reconstruction of the graph, for each train interaction: C(f(h_u), dot h_i) + C(dot h_u, f(h_i));
- alignment between modalities: sum over m of C(f(h_i^m), dot h_i);
- alignment within a modality: sum over m of C(f(h_i^m), dot h_i^m);
- penalty: lambda (|h_u|^2 + |h_i|^2);
- score: f(h_u) . f(h_i).

The public code weighs both alignments by 2, where the paper adds them as they are (`alignment_weight`); divides a node without
edges by L + 1; trains the features e_i^m themselves; and takes as its penalty the norms, not squared, of the matrices of all
h_u and of all h_i over the number of items. The published weights, 0.1 and 0.01, belong to that penalty, whose pull on one vector
is weaker by the norm of a whole matrix: with the squares of the paper 0.1 drowns the cosines, and the recipe takes 1e-3.

Ours: any modalities. Features are standardised (`feature_scaling`), where the public code takes them as they come. An item
counts in the alignments of the modalities that it has. Content reaches an item's vector through the losses alone, so that one
without train interactions would keep a free vector of noise: it is not recommended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from metammf.models.config import Search
from metammf.models.nodes import ContentConfig, FreeVectorModel
from metammf.nn.backbone import LightGCNBackbone
from metammf.nn.content import modality_key

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from metammf.models.base import Batch, Inputs, VectorSource
    from metammf.nn.content import Content


class BM3Config(ContentConfig):
    """Settings of BM3."""

    name: Literal["bm3"] = "bm3"
    embedding_dim: Annotated[int, Field(ge=1), Search(16, 256, log=True)] = 64
    """Width D of users' and items' vectors."""
    num_layers: Annotated[int, Field(ge=0), Search(1, 3)] = 1
    """Hops L."""
    dropout: Annotated[float, Field(ge=0, lt=1), Search(0.1, 0.6)] = 0.5
    """Share of the coordinates that a target view lacks."""
    alignment_weight: Annotated[float, Field(ge=0), Search(0.1, 4, log=True)] = 1.0
    """Weight of the alignments between and within modalities; the paper has none."""
    l2_weight: Annotated[float, Field(ge=0), Search(1e-6, 1e-1, log=True)] = 1e-3
    """lambda: penalty on the squared norms of the propagated vectors of a train interaction."""


class BM3(FreeVectorModel):
    """LightGCN on free vectors, an item's own added to its propagated one, and a predictor over both sides.

    Args:
        config: Its settings.
        inputs: Counts, features, and the graph.

    Raises:
        ConfigError: the data set has no features.
        DataError: it lacks a modality that is asked for.
    """

    config_type = BM3Config
    draws_negatives = False
    shares_vectors = False

    def __init__(self, config: BM3Config, inputs: Inputs) -> None:
        super().__init__(inputs, config.embedding_dim, LightGCNBackbone(inputs.graph, config.num_layers))
        self.config = config
        self.take_content(inputs, config)
        dim = config.embedding_dim
        self.projections = nn.ModuleDict(
            {modality_key(name): _linear(width, dim) for name, width in self.scaler.out_widths.items()}
        )
        self.predictor = _linear(dim, dim)

    def propagate(self, inputs: Float[Tensor, "num_items dim"]) -> tuple[Tensor, Tensor]:
        """Return h_u of all users and h_i of all items."""
        users, items = super().propagate(inputs)
        return users, items + inputs

    def finish(self, vectors: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return f(h)."""
        return self.predictor(vectors)

    @property
    def folds_users(self) -> bool:
        """Whether LightGCN looks at what a user watched; a new user has no vector beside that."""
        return self.backbone.depth > 0

    def modality_vectors(self, content: Content) -> dict[str, Float[Tensor, "batch dim"]]:
        """Return h_i^m by modality, of scaled content; without meaning where an item lacks the modality."""
        return {name: self.projections[modality_key(name)](content.values[name]) for name in self.modalities}

    def objective(self, training: Any) -> BM3Objective:
        """Return the paper's objective."""
        return BM3Objective(self, training.l2_reg)

    def content_parameters(self) -> list[nn.Parameter]:
        """Return W_m and b_m."""
        return list(self.projections.parameters())


def _linear(in_dim: int, out_dim: int) -> nn.Linear:
    linear = nn.Linear(in_dim, out_dim)
    nn.init.xavier_normal_(linear.weight)
    return linear


class BM3Objective:
    """Reconstruction of the graph, alignment between and within modalities, and penalties; see the module.

    Args:
        model: Whose vectors before the predictor it takes too.
        l2_reg: Penalty on the batch's free vectors, beside the paper's on the propagated ones.
    """

    def __init__(self, model: BM3, l2_reg: float) -> None:
        self.model, self.l2_reg = model, l2_reg

    def __call__(self, model: VectorSource, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss, each the mean over the batch."""
        own, config = self.model, self.model.config
        all_users, all_items = own.propagate(own.item_table.weight)
        # As an embedding's rows, for the reason that `Batch.distinct_vectors` gives.
        users, items = functional.embedding(batch.users, all_users), functional.embedding(batch.positives, all_items)
        user_targets, item_targets = self._target(users), self._target(items)
        between, within = self._alignments(batch.positives, item_targets)
        terms = {
            "reconstruction": negative_cosine(own.predictor(users), item_targets)
            + negative_cosine(own.predictor(items), user_targets),
            "between_modalities": config.alignment_weight * between,
            "within_modalities": config.alignment_weight * within,
            "propagated_l2": config.l2_weight * (users.square().sum(1) + items.square().sum(1)).mean(),
        }
        return terms | batch.penalty(model, self.l2_reg)

    def _alignments(self, positives: Tensor, item_targets: Tensor) -> tuple[Tensor, Tensor]:
        own = self.model
        distinct, places = torch.unique(positives, return_inverse=True)
        content = own.scaled_rows(distinct)
        between, within = item_targets.new_zeros(()), item_targets.new_zeros(())
        for name, vectors in own.modality_vectors(content).items():
            predicted = functional.embedding(places, own.predictor(vectors))
            present = content.present[name][places]
            between = between + negative_cosine(predicted, item_targets, present)
            within = within + negative_cosine(predicted, self._target(vectors[places]), present)
        return between, within

    def _target(self, vectors: Tensor) -> Tensor:
        return functional.dropout(vectors.detach(), self.model.config.dropout)


def negative_cosine(
    predicted: Float[Tensor, "batch dim"],
    targets: Float[Tensor, "batch dim"],
    counted: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean of -cos over rows, over those that are counted; 0 where none is."""
    cosines = functional.cosine_similarity(predicted, targets, dim=1)
    if counted is None:
        return -cosines.mean()
    return -(cosines * counted).sum() / counted.sum().clamp(min=1)
