"""Diffusion against its formulae, a step at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metammf.nn.diffusion import Denoiser, NoiseSchedule, sinusoids

STEPS, SCALE, LOW, HIGH = 4, 0.5, 0.01, 0.4


def signals() -> list[float]:
    """gamma_0..gamma_T."""
    return [1.0] + [1 - SCALE * (LOW + step / (STEPS - 1) * (HIGH - LOW)) for step in range(STEPS)]


def made(hidden_dims: tuple[int, ...] = (5, 4)) -> tuple[Denoiser, NoiseSchedule]:
    torch.manual_seed(0)
    denoiser = Denoiser(7, hidden_dims, 3, 0.5)
    for layer in (denoiser.first, denoiser.last, denoiser.time):
        torch.nn.init.normal_(layer.bias)
    return denoiser.eval(), NoiseSchedule(STEPS, SCALE, LOW, HIGH)


def guess(denoiser: Denoiser, row: Tensor, step: int) -> Tensor:
    """The MLP on the row and the embedded step side by side."""
    embedded = denoiser.time(torch.tensor([math.cos(step), math.sin(step), 0.0]))
    weight = torch.cat([denoiser.first.weight, denoiser.of_time.weight], dim=1)
    hidden = torch.tanh(weight @ torch.cat([row, embedded]) + denoiser.first.bias)
    for layer in denoiser.middle:
        hidden = torch.tanh(layer.weight @ hidden + layer.bias)
    return denoiser.last.weight @ hidden + denoiser.last.bias


def test_noise_takes_the_place_of_the_signal() -> None:
    _, schedule = made()
    rows, steps = torch.ones(20_000, 2), torch.tensor([1, 4]).repeat(10_000)
    noisy = schedule.noisy(rows, steps)
    for step in (1, 4):
        found = noisy[steps == step]
        assert found.mean().item() == pytest.approx(signals()[step] ** 0.5, abs=0.02)
        assert found.var().item() == pytest.approx(1 - signals()[step], rel=0.05)


def test_a_step_is_told_by_cosines_and_sines() -> None:
    rates = [1.0, 10_000**-0.5]
    expected = [[*(math.cos(step * r) for r in rates), *(math.sin(step * r) for r in rates), 0.0] for step in (1, 3)]
    torch.testing.assert_close(sinusoids(torch.tensor([1, 3]), 5), torch.tensor(expected))


@pytest.mark.parametrize("hidden_dims", [(5,), (5, 4)])
def test_a_guess(hidden_dims: tuple[int, ...]) -> None:
    denoiser, _ = made(hidden_dims)
    rows, steps = torch.randn(3, 7), torch.tensor([1, 4, 2])
    expected = torch.stack([guess(denoiser, row, int(step)) for row, step in zip(rows, steps, strict=True)])
    torch.testing.assert_close(denoiser(rows, steps), expected)


@pytest.mark.parametrize("hidden_dims", [(5,), (5, 4)])
def test_the_chain_in_hidden_widths_is_the_chain_of_whole_rows(hidden_dims: tuple[int, ...]) -> None:
    """x_(t-1) = (sqrt(g_(t-1)) b_t x^ + sqrt(1 - b_t) (1 - g_(t-1)) x_t) / (1 - g_t), b_t = 1 - g_t / g_(t-1)."""
    denoiser, schedule = made(hidden_dims)
    rows = (torch.rand(3, 7) < 0.4).float()
    expected = []
    for start in rows:
        row = start
        for step in range(STEPS, 0, -1):
            now, before = signals()[step], signals()[step - 1]
            beta = 1 - now / before
            of_guess, of_row = before**0.5 * beta / (1 - now), (1 - beta) ** 0.5 * (1 - before) / (1 - now)
            row = of_guess * guess(denoiser, row, step) + of_row * row
        expected.append(row)
    for given in (rows, rows.to_sparse_csr()):
        found = denoiser.denoised(given, schedule, denoiser.chain())
        torch.testing.assert_close(found, torch.stack(expected).detach(), atol=1e-5, rtol=1e-4)


def test_rows_are_dropped_in_training_alone() -> None:
    denoiser, _ = made()
    rows, steps = torch.randn(3, 7), torch.tensor([1, 2, 3])
    assert torch.equal(denoiser(rows, steps), denoiser(rows, steps))
    denoiser.train()
    assert not torch.equal(denoiser(rows, steps), denoiser(rows, steps))
