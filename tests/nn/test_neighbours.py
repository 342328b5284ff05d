"""Borrowing by content against a loop over items."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metammf.nn import neighbours
from metammf.nn.neighbours import ContentNeighbours
from metammf.testing.probes import LargestTensor


def inputs(isolated: int = 5, connected: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(isolated, 4), torch.randn(isolated, 3), torch.randn(connected, 3), torch.randn(connected, 4)


def by_hand(
    vectors: Tensor, keys: Tensor, known_keys: Tensor, known: Tensor, temperature: float, alpha: float
) -> Tensor:
    rows = []
    for vector, key in zip(vectors, keys, strict=True):
        cosines = torch.stack([torch.cosine_similarity(key, other, dim=0) for other in known_keys])
        weights = torch.softmax(cosines / temperature, dim=0)
        rows.append(vector + alpha * sum(weight * row for weight, row in zip(weights, known, strict=True)))
    return torch.stack(rows)


@pytest.mark.parametrize("at_once", [1 << 24, 14, 1])
def test_equals_a_loop_in_blocks_of_any_size(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_WEIGHTS_AT_ONCE", at_once)
    module = ContentNeighbours(0.3)
    torch.nn.init.constant_(module.weight, 0.7)
    with torch.no_grad():
        torch.testing.assert_close(module(*inputs()), by_hand(*inputs(), 0.3, 0.7))


def test_a_step_that_could_hold_too_much_takes_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_WEIGHTS_AT_ONCE", 400)
    given = [value.requires_grad_() for value in inputs(20, 500)]
    with LargestTensor() as largest:
        out = ContentNeighbours()(*given)
        out.sum().backward()
    assert torch.isfinite(out).all()
    assert largest.numel <= 500 * 4, largest.operation


def test_nobody_to_borrow_from_and_nobody_to_lend_to() -> None:
    vectors, keys, known_keys, known = inputs()
    module = ContentNeighbours()
    assert torch.equal(module(vectors, keys, known_keys[:0], known[:0]), vectors)
    assert module(vectors[:0], keys[:0], known_keys, known).shape == (0, 4)
