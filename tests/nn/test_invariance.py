"""Gates and the variance of gradients."""

from __future__ import annotations

import pytest
import torch

from metammf.nn.invariance import StochasticGate, gradient_variance


def test_gates_are_bounded_and_noisy_in_training_alone() -> None:
    torch.manual_seed(0)
    gate = StochasticGate(5, noise=0.2)
    with torch.no_grad():
        gate.mu.copy_(torch.tensor([-2.0, -0.5, 0.0, 0.25, 3.0]))
    settled = torch.tensor([0.0, 0.0, 0.5, 0.75, 1.0])
    assert torch.equal(gate.expected(), settled)
    drawn = torch.stack([gate() for _ in range(2000)])
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert drawn[:, 2].std().item() == pytest.approx(0.2, rel=0.1)
    assert (drawn[:, [0, 4]] == settled[[0, 4]]).all()
    gate.eval()
    assert torch.equal(gate(), settled)


def test_variance_feature_by_feature() -> None:
    gradients, gate = torch.randn(3, 4, 5), torch.rand(5)
    expected = 0.0
    for d in range(4):
        for f in range(5):
            mean = sum(float(gradients[e, d, f]) for e in range(3)) / 3
            scatter = sum((float(gradients[e, d, f]) - mean) ** 2 for e in range(3))
            expected += (scatter * float(gate[f])) ** 2
    assert float(gradient_variance(gradients, gate)) == pytest.approx(expected, rel=1e-4)
    assert float(gradient_variance(gradients[:1].expand(3, 4, 5), gate)) == pytest.approx(0, abs=1e-9)
