"""Losses against their formulae in plain Python, and at scores where a careless form overflows."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metammf.nn import losses
from metammf.nn.losses import bce_loss, bpr_loss, contrastive_loss, masked_logsumexp, sampled_softmax_loss

SCORES = st.floats(-8, 8)
BATCH = st.integers(1, 4).flatmap(
    lambda count: st.tuples(
        st.lists(SCORES, min_size=count, max_size=count),
        st.integers(1, 4).flatmap(
            lambda width: st.lists(st.lists(SCORES, min_size=width, max_size=width), min_size=count, max_size=count)
        ),
    )
)


def softmax_loss(positives: Tensor, negatives: Tensor, masked: Tensor) -> Tensor:
    """The loss of scores (B,) and (B, M), by way of products: each row's scores are its own columns."""
    rows, columns = negatives, torch.eye(negatives.shape[1], dtype=negatives.dtype)
    others = masked_logsumexp(rows, columns, torch.zeros_like(negatives[0]), masked.nonzero().T)
    return sampled_softmax_loss(positives, others)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@given(batch=BATCH)
@settings(max_examples=40, deadline=None)
def test_against_plain_python(batch: tuple[list[float], list[list[float]]]) -> None:
    positives, negatives = batch
    pairs = [(p, n) for p, row in zip(positives, negatives, strict=True) for n in row]
    tensors = torch.tensor(positives, dtype=torch.float64), torch.tensor(negatives, dtype=torch.float64)
    bpr = sum(-math.log(sigmoid(p - n)) for p, n in pairs) / len(pairs)
    assert bpr_loss(*tensors).item() == pytest.approx(bpr)
    bce = sum(
        -math.log(sigmoid(p)) - sum(math.log(1 - sigmoid(n)) for n in row) / len(row)
        for p, row in zip(positives, negatives, strict=True)
    ) / len(positives)
    assert bce_loss(*tensors).item() == pytest.approx(bce)
    masked = torch.arange(tensors[1].numel()).view_as(tensors[1]) % 3 == 1
    softmax = 0.0
    for p, row, lacks in zip(positives, negatives, masked.tolist(), strict=True):
        kept = [math.exp(n) for n, lack in zip(row, lacks, strict=True) if not lack]
        softmax -= math.log(math.exp(p) / (math.exp(p) + sum(kept)))
    assert softmax_loss(*tensors, masked).item() == pytest.approx(softmax / len(positives), abs=1e-9)


@pytest.mark.parametrize("gap", [-1e4, 1e4])
def test_extreme_scores_are_finite_with_a_gradient_where_it_is_needed(gap: float) -> None:
    for loss in (bpr_loss, bce_loss, lambda p, n: softmax_loss(p, n, torch.zeros_like(n, dtype=torch.bool))):
        positives = torch.tensor([gap / 2], requires_grad=True)
        negatives = torch.tensor([[-gap / 2]], requires_grad=True)
        value = loss(positives, negatives)
        value.backward()
        assert torch.isfinite(value)
        assert positives.grad is not None
        wrong = gap < 0
        assert value.item() >= 1e4 - 1 if wrong else value.item() == pytest.approx(0, abs=1e-6)
        assert positives.grad.item() == pytest.approx(-1 if wrong else 0)


def test_softmax_with_every_negative_masked_is_zero() -> None:
    positives = torch.tensor([3.0], requires_grad=True)
    loss = softmax_loss(positives, torch.randn(1, 4), torch.ones(1, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(positives.grad, torch.zeros(1))


def test_softmax_over_all_items_is_cross_entropy() -> None:
    scores = torch.randn(6, 9, dtype=torch.float64)
    truth = torch.arange(6)
    positives = scores[truth, truth]
    masked = torch.nn.functional.one_hot(truth, 9).bool()
    expected = torch.nn.functional.cross_entropy(scores, truth)
    torch.testing.assert_close(softmax_loss(positives, scores, masked), expected)


@pytest.mark.parametrize("loss", [bpr_loss, bce_loss])
def test_gradcheck(loss: object) -> None:
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((4,), (4, 3))]
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("block", [1, 100, 1 << 20])
def test_blocks_of_rows_are_the_whole(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Values and gradients against the scores written out, a row that is masked throughout among them."""
    monkeypatch.setattr(losses, "_BLOCK_SCORES", block)
    torch.manual_seed(0)
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((50, 3), (7, 3), (7,))]
    masked = torch.rand(50, 7) < 0.3
    masked[17] = True
    weights = torch.rand(50, dtype=torch.float64) * ~masked.all(1)

    def naive(rows: Tensor, columns: Tensor, bias: Tensor) -> Tensor:
        scores = 0.7 * rows @ columns.T + bias
        return scores.masked_fill(masked, torch.finfo(torch.float64).min / 2).logsumexp(1)

    found, expected = masked_logsumexp(*inputs, masked.nonzero().T, scale=0.7), naive(*inputs)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((value * weights).sum(), inputs) for value in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_vectors_of_half_precision_are_scored_in_full() -> None:
    rows, columns = torch.randn(5, 3).bfloat16(), torch.randn(4, 3).bfloat16()
    masked = torch.zeros(2, 0, dtype=torch.int64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = masked_logsumexp(rows, columns, torch.zeros(4), masked)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (rows.float() @ columns.float().T).logsumexp(1))


@pytest.mark.parametrize("masked", [False, True])
def test_contrast_against_a_loop(masked: bool) -> None:
    torch.manual_seed(0)
    anchors, candidates = torch.randn(5, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    positives = torch.tensor([2, 2, 0, 6, 1])
    left_out = torch.tensor([[0, 0, 3], [1, 4, 0]]) if masked else None
    pairs = set() if left_out is None else set(zip(*left_out.tolist(), strict=True))
    expected = []
    for row, positive in enumerate(positives.tolist()):
        cosines = [float(anchors[row] @ other / anchors[row].norm() / other.norm()) / 0.3 for other in candidates]
        kept = [math.exp(cosine) for place, cosine in enumerate(cosines) if (row, place) not in pairs]
        expected.append(math.log(sum(kept)) - cosines[positive])
    found = contrastive_loss(anchors, candidates, positives, 0.3, masked=left_out)
    assert found.item() == pytest.approx(sum(expected) / 5)
