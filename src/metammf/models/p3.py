"""P3 and RP3beta: three-step random walks from a user, nothing trained. U users, N items.

Sources: Cooper et al., *Random Walks in Recommender Systems*, WWW 2014; Paudel et al., *Updatable, Accurate, Diverse, and
Scalable Recommendations for Interactive Applications*, TiiS 7(1), 2016.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    """Settings of P3; a positive `beta` makes it RP3beta."""

    name: Literal["p3"] = "p3"
    beta: Annotated[float, Field(ge=0), Search(0, 1)] = 0.0
    """Exponent of the item popularity that scores are divided by."""


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

    config_type = P3Config

    def solve(self) -> dict[str, Tensor]:
        """Nothing beyond the train interactions is needed."""
        return {}

    def scorer(self, state: Mapping[str, Tensor]) -> Scorer:
        """Return the finished scorer."""
        return P3Scorer(self.train.matrix, self.config.beta)
