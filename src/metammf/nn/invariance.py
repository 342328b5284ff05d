"""What does not vary across environments: a stochastic gate, and the variance of gradients. K environments, D width, F features.

Source: Liu et al., *Heterogeneous Risk Minimization*, ICML 2021, whose scheme InvRL brings to recommendation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float


class StochasticGate(nn.Module):
    """One gate a feature, m = min(1, max(0, mu + 1/2 + noise)), the noise normal, new at each call, and in training alone.

    Args:
        width: Features F.
        noise: Its standard deviation.
    """

    def __init__(self, width: int, noise: float) -> None:
        super().__init__()
        self.noise = noise
        self.mu = nn.Parameter(torch.zeros(width))

    def forward(self) -> Float[Tensor, " width"]:
        """Return the gates, with noise in training."""
        drawn = self.mu + self.noise * torch.randn_like(self.mu) if self.training else self.mu
        return (drawn + 0.5).clamp(0, 1)

    def expected(self) -> Float[Tensor, " width"]:
        """Return the gates without noise."""
        return (self.mu + 0.5).clamp(0, 1)


def gradient_variance(
    gradients: Float[Tensor, "environments dim width"], gate: Float[Tensor, " width"]
) -> Float[Tensor, ""]:
    """Return the squared norm of the gradients' scatter about their mean, each feature's weighed by its gate.

    A feature whose weights every environment pulls alike costs nothing; one that they pull apart is cheaper behind a closed gate.
    """
    scatter = (gradients - gradients.mean(0)).square().sum(0)
    return (scatter * gate).square().sum()
