"""Diffusion of rows of a binary matrix, and the network that takes the noise away. B rows, N columns, T steps.

Steps are counted from 1 to T; gamma_t is what is left of a row's signal after t of them, gamma_0 = 1.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_LONGEST_PERIOD = 10_000


class NoiseSchedule(nn.Module):
    r"""Noise that grows linearly: 1 - gamma_t = s (g_min + (t - 1) / (T - 1) (g_max - g_min)).

    Args:
        steps: T, at least 2.
        scale: s.
        low: g_min.
        high: g_max.
    """

    signal: Tensor
    guess_weight: Tensor
    row_weight: Tensor

    def __init__(self, steps: int, scale: float, low: float, high: float) -> None:
        super().__init__()
        self.steps = steps
        signal = torch.ones(steps + 1, dtype=torch.float64)
        signal[1:] -= scale * torch.linspace(low, high, steps, dtype=torch.float64)
        kept = signal[1:] / signal[:-1]
        rest = 1 - signal[1:]
        # The mean of what a row was one step before, given what it is and a guess of what it was at first.
        self.register_buffer("signal", signal.float(), persistent=False)
        self.register_buffer("guess_weight", ((1 - kept) * signal[:-1].sqrt() / rest).float(), persistent=False)
        self.register_buffer("row_weight", ((1 - signal[:-1]) * kept.sqrt() / rest).float(), persistent=False)

    def noisy(self, rows: Float[Tensor, "batch columns"], steps: Int[Tensor, " batch"]) -> Tensor:
        """Return sqrt(gamma_t) x + sqrt(1 - gamma_t) noise, each row at its own step."""
        signal = self.signal[steps].unsqueeze(1)
        return signal.sqrt() * rows + (1 - signal).sqrt() * torch.randn_like(rows)


class Denoiser(nn.Module):
    """An MLP from a noisy row and its step to a guess of the row without noise; tanh between the layers.

    Args:
        columns: N; first and last layer are so wide.
        hidden_dims: Widths between, at least one.
        time_dim: Width of the embedding of a step.
        dropout: On the noisy row.
    """

    def __init__(self, columns: int, hidden_dims: tuple[int, ...], time_dim: int, dropout: float) -> None:
        super().__init__()
        self.time_dim, self.dropout = time_dim, dropout
        self.time = _linear(time_dim, time_dim)
        self.first = _linear(columns, hidden_dims[0])
        self.of_time = _linear(time_dim, hidden_dims[0], bias=False)
        self.middle = nn.ModuleList(_linear(*widths) for widths in itertools.pairwise(hidden_dims))
        self.last = _linear(hidden_dims[-1], columns)

    def forward(
        self, rows: Float[Tensor, "batch columns"], steps: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch columns"]:
        """Return the guesses."""
        return self.last(self._hidden(self.first(functional.dropout(rows, self.dropout, self.training)), steps))

    def _hidden(self, first: Tensor, steps: Tensor) -> Tensor:
        hidden = torch.tanh(first + self.of_time(self.time(sinusoids(steps, self.time_dim))))
        for layer in self.middle:
            hidden = torch.tanh(layer(hidden))
        return hidden

    @torch.no_grad()
    def chain(self) -> tuple[Tensor, Tensor]:
        """Return what leads from the last hidden layer through a guess to the first layer: a matrix and an offset."""
        return self.first.weight @ self.last.weight, self.first.weight @ self.last.bias

    @torch.no_grad()
    def denoised(
        self, rows: Tensor, schedule: NoiseSchedule, chain: tuple[Tensor, Tensor]
    ) -> Float[Tensor, "batch columns"]:
        """Return where the means of the reverse steps T..1 lead from rows without noise; nothing is drawn or dropped.

        Between two steps a row passes through linear maps alone, so that the chain runs in the width of the hidden layers,
        and N numbers a row are made once, at the end.

        Args:
            rows: (B, N), CSR or dense.
            schedule: The steps.
            chain: From `chain`.
        """
        first, (matrix, offset) = rows @ self.first.weight.T, chain
        for step in range(schedule.steps, 0, -1):
            steps = torch.full((len(first),), step, device=first.device)
            hidden = self._hidden(first + self.first.bias, steps)
            if step > 1:  # the mean at the first step is the guess itself
                guess = hidden @ matrix.T + offset
                first = schedule.guess_weight[step - 1] * guess + schedule.row_weight[step - 1] * first
        return self.last(hidden)


def sinusoids(steps: Int[Tensor, " batch"], dim: int) -> Float[Tensor, "batch dim"]:
    """Return cosines and sines of a step at frequencies from 1 down to 1 / 10,000; a zero at the end of an odd width."""
    half = dim // 2
    rates = torch.exp(-math.log(_LONGEST_PERIOD) * torch.arange(half, device=steps.device) / max(1, half))
    angles = steps.unsqueeze(1).float() * rates
    return functional.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, dim % 2))


def _linear(in_dim: int, out_dim: int, *, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(in_dim, out_dim, bias=bias)
    nn.init.xavier_normal_(layer.weight)
    if bias:
        nn.init.normal_(layer.bias, std=0.001)
    return layer
