"""EASE: a linear item-item model solved in closed form. U users, N items.

Source: Steck, *Embarrassingly Shallow Autoencoders for Sparse Data*, WWW 2019, Algorithm 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.linalg import lapack
from torch import Tensor

from metammf.errors import ConfigError
from metammf.models.base import Scorer, SolvedModel
from metammf.models.config import ModelConfig, Search
from metammf.models.scorers import MatrixRowScorer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from scipy import sparse


class EASEConfig(ModelConfig):
    """Settings of EASE."""

    name: Literal["ease"] = "ease"
    l2: Annotated[float, Field(gt=0), Search(1, 5000, log=True)] = 50.0
    """Ridge penalty lambda."""
    max_items: int = 30_000
    """The model is items x items by its nature (4 bytes a cell, three such matrices at the peak): refuse beyond this."""


class EASEScorer(MatrixRowScorer):
    """Score by x_u B.

    Args:
        matrix: Binary train matrix, (U, N).
        weights: B, (N, N), zero on its diagonal.
    """

    def __init__(self, matrix: sparse.csr_array, weights: Tensor) -> None:
        super().__init__(matrix)
        self.weights = weights.numpy()

    def rows(self, history: sparse.csr_array) -> Any:
        """Return x_u B."""
        return history @ self.weights


class EASE(SolvedModel):
    """B = I - P diag(1 / diag P), P = (X^T X + lambda I)^-1."""

    config_type = EASEConfig

    def solve(self) -> dict[str, Tensor]:
        """Invert the regularised Gram matrix.

        Raises:
            ConfigError: there are more items than `max_items`, or the penalty is too small for float32.
        """
        if self.num_items > self.config.max_items:
            raise ConfigError(
                f"EASE needs items x items memory: {self.num_items} items, model.max_items is {self.config.max_items}"
            )
        X = self.train.matrix
        gram = (X.T @ X).toarray(order="F").astype(np.float32, copy=False)
        gram[np.diag_indices_from(gram)] += self.config.l2
        inverse = torch.from_numpy(_inverse(gram, self.config.l2))
        weights = inverse.div_(-inverse.diagonal().clone())
        weights.fill_diagonal_(0)
        return {"weights": weights}

    def scorer(self, state: Mapping[str, Tensor]) -> Scorer:
        """Return the finished scorer."""
        return EASEScorer(self.train.matrix, state["weights"])


def _inverse(matrix: NDArray[np.float32], l2: float) -> NDArray[np.float32]:
    """Invert a symmetric positive definite matrix, in place where it can be.

    LAPACK's own pair for this is several times as fast as `torch.cholesky_inverse` on a processor.
    """
    factor, failed = lapack.spotrf(matrix, lower=True, overwrite_a=True)
    inverse, singular = lapack.spotri(factor, lower=True, overwrite_c=True)
    if (
        failed or singular
    ):  # a Gram matrix plus a positive diagonal is positive definite, unless rounding lost the latter
        raise ConfigError(f"the Gram matrix has no inverse in float32 with model.l2 = {l2}: raise it")
    lower = np.tril(inverse)
    return np.ascontiguousarray(lower + np.tril(lower, -1).T)
