"""P3 and RP3beta: three-step random walks from a user, nothing trained. U users, N items.

Sources: Cooper et al., *Random Walks in Recommender Systems*, WWW 2014 (P3, their P3alpha with alpha = 1); Paudel et al.,
*Updatable, Accurate, Diverse, and Scalable Recommendations for Interactive Applications*, TiiS 7(1), 2016 (RP3beta). They have
two names, so that a search over the one does not find the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy import sparse

from metammf.models.base import Scorer, SolvedModel
from metammf.models.config import ModelConfig, Search
from metammf.models.scorers import MatrixRowScorer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class P3Config(ModelConfig):
    """P3 has no settings."""

    name: Literal["p3"] = "p3"


class RP3BetaConfig(ModelConfig):
    """Settings of RP3beta."""

    name: Literal["rp3beta"] = "rp3beta"
    beta: Annotated[float, Field(ge=0), Search(0, 1)] = 0.5
    """Exponent of the item popularity that scores are divided by; without it this is P3."""


class P3Scorer(MatrixRowScorer):
    """Score by D_u^-1 X D_i^-1 X^T D_u^-1 X, each column over popularity^beta.

    Args:
        matrix: Binary train matrix X, (U, N).
        beta: Exponent.
    """

    def __init__(self, matrix: sparse.csr_array, beta: float) -> None:
        super().__init__(matrix)
        user_degrees = np.maximum(matrix.sum(axis=1), 1)
        item_degrees = np.maximum(matrix.sum(axis=0), 1)
        self.to_items = sparse.csr_array(sparse.diags_array(1 / user_degrees) @ matrix)
        self.to_users = sparse.csr_array(sparse.diags_array(1 / item_degrees) @ matrix.T)
        self.damping = item_degrees**-beta

    def rows(self, history: sparse.csr_array) -> Any:
        """Return where three steps lead."""
        steps = sparse.diags_array(1 / np.maximum(history.sum(axis=1), 1)) @ history
        return ((steps @ self.to_users) @ self.to_items).toarray() * self.damping


class P3(SolvedModel):
    """A walk user -> item -> user -> item along train interactions."""

    config_type: ClassVar[type[ModelConfig]] = P3Config

    def solve(self) -> dict[str, Tensor]:
        """Nothing beyond the train interactions is needed."""
        return {}

    def scorer(self, state: Mapping[str, Tensor]) -> Scorer:
        """Return the finished scorer."""
        return P3Scorer(self.train.matrix, 0.0)


class RP3Beta(P3):
    """The same walk, where it ends over the item's popularity to the power beta: popular items are not found for that alone."""

    config_type = RP3BetaConfig

    def scorer(self, state: Mapping[str, Tensor]) -> Scorer:
        """Return the finished scorer."""
        return P3Scorer(self.train.matrix, self.config.beta)
