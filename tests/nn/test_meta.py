"""Generated layers against their literal definition: item i's own weight W_i = W + sum_s s_is T[s], formed in a loop."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from metammf.nn.meta import LowRankMetaLinear, MetaExtractor, MetaLinear, StaticLinear
from metammf.testing.probes import LargestTensor

B, S, I, O, R = 7, 3, 6, 4, 5  # noqa: E741 - the letters of the formulae


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def literal(x: Tensor, meta: Tensor, shared: Tensor, dynamic: Tensor) -> Tensor:
    rows = []
    for item in range(len(x)):
        weight = shared.clone()
        for channel in range(meta.shape[1]):
            weight = weight + meta[item, channel] * dynamic[channel]
        rows.append(x[item] @ weight)
    return torch.stack(rows)


def inputs(count: int = B) -> tuple[Tensor, Tensor]:
    return torch.randn(count, I, dtype=torch.float64), torch.randn(count, S, dtype=torch.float64)


def test_dense_equals_the_literal_definition() -> None:
    layer = MetaLinear(S, I, O).double()
    x, meta = inputs()
    torch.testing.assert_close(layer(x, meta), literal(x, meta, layer.shared, layer.dynamic))


def test_low_rank_equals_the_literal_definition() -> None:
    layer = LowRankMetaLinear(S, I, O, R).double()
    x, meta = inputs()
    dynamic = torch.zeros(S, I, O, dtype=torch.float64)
    for s in range(S):
        for r in range(R):
            dynamic[s] += layer.factor_meta[s, r] * torch.outer(layer.factor_in[:, r], layer.factor_out[r])
    torch.testing.assert_close(layer.dense_factors(), dynamic)
    torch.testing.assert_close(layer(x, meta), literal(x, meta, layer.shared, dynamic))


def test_low_rank_equals_dense_built_from_its_factors() -> None:
    low_rank, dense = LowRankMetaLinear(S, I, O, R).double(), MetaLinear(S, I, O).double()
    with torch.no_grad():
        dense.shared.copy_(low_rank.shared)
        dense.dynamic.copy_(low_rank.dense_factors())
    x, meta = inputs()
    outputs = [layer(x, meta) for layer in (low_rank, dense)]
    torch.testing.assert_close(*outputs)
    gradients = [
        torch.autograd.grad(output.square().sum(), layer.shared)[0]
        for output, layer in zip(outputs, (low_rank, dense), strict=True)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("meta_dim", "cp_rank"), [(5, 16), (5, 2), (1, 4), (4, 4), (3, 1)])
def test_meta_channels_generate_distinct_directions(meta_dim: int, cp_rank: int) -> None:
    slices = LowRankMetaLinear(meta_dim, 12, 9, cp_rank).double().dense_factors().reshape(meta_dim, -1)
    assert torch.linalg.matrix_rank(slices) == min(meta_dim, cp_rank)


def test_constant_over_the_rank_collapses_to_one_matrix_times_a_scalar() -> None:
    """The form of the authors' public code: all S slices parallel, an item's weight is W plus a scalar times A B."""
    layer = LowRankMetaLinear(S, I, O, R).double()
    channels = torch.randn(S, 1, dtype=torch.float64)
    with torch.no_grad():
        layer.factor_meta.copy_(channels.expand(S, R))
    x, meta = inputs()
    one = layer.factor_in @ layer.factor_out
    expected = torch.stack([x[i] @ (layer.shared + (meta[i] @ channels) * one) for i in range(B)])
    torch.testing.assert_close(layer(x, meta), expected)
    assert torch.linalg.matrix_rank(layer.dense_factors().reshape(S, -1)) == 1


def make(kind: str, in_dim: int = I, out_dim: int = O) -> nn.Module:
    if kind == "static":
        return StaticLinear(in_dim, out_dim)
    return MetaLinear(S, in_dim, out_dim) if kind == "dense" else LowRankMetaLinear(S, in_dim, out_dim, R)


@pytest.mark.parametrize("kind", ["static", "dense", "cp"])
def test_gradients(kind: str) -> None:
    layer = make(kind).double()
    names = [name for name, _ in layer.named_parameters()]

    def run(x: Tensor, meta: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, meta))

    x, meta = inputs(3)
    x.requires_grad_()
    meta.requires_grad_(kind != "static")
    parameters = [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]
    assert torch.autograd.gradcheck(run, (x, meta, *parameters))


def test_static_is_the_same_layer_less_its_dynamic_part() -> None:
    static, dense = StaticLinear(I, O).double(), MetaLinear(S, I, O).double()
    x, meta = inputs()
    with torch.no_grad():
        dense.shared.copy_(static.shared)
        dense.dynamic.zero_()
    torch.testing.assert_close(static(x, meta), dense(x, meta))
    torch.testing.assert_close(static(x, meta), dense(x, torch.zeros_like(meta)))


@pytest.mark.parametrize("kind", ["dense", "cp"])
def test_weights_are_never_formed(kind: str) -> None:
    """Forward and backward: no tensor larger than the input, when the items' own weights are 24 times that."""
    layer = make(kind, 32, 24)
    x, meta = torch.randn(512, 32, requires_grad=True), torch.randn(512, S, requires_grad=True)
    with LargestTensor() as largest:
        layer(x, meta).square().sum().backward()
    assert largest.numel == x.numel(), largest.operation


def test_formed_weights_would_be_noticed() -> None:
    layer = MetaLinear(S, 32, 24)
    with LargestTensor() as largest:
        torch.einsum("bs,sio->bio", torch.randn(512, S), layer.dynamic)
    assert largest.numel == 512 * 32 * 24


def test_both_forms_start_at_the_size_that_is_asked_for() -> None:
    for scale in (1.0, 0.1):
        dense = MetaLinear(5, 200, 100, scale)
        low_rank = LowRankMetaLinear(5, 200, 100, 16, scale)
        expected = scale * (2 / 300) ** 0.5
        assert dense.dynamic.std().item() == pytest.approx(expected, rel=0.05)
        assert low_rank.dense_factors().std().item() == pytest.approx(expected, rel=0.25)


def test_extractor_is_a_two_layer_perceptron() -> None:
    x = torch.randn(B, I)
    for bounded in (False, True):
        extractor = MetaExtractor(I, S, bounded=bounded)
        hidden = (x @ extractor.hidden.weight.T + extractor.hidden.bias).clamp(min=0)
        expected = hidden @ extractor.out.weight.T + extractor.out.bias
        torch.testing.assert_close(extractor(x), expected.tanh() if bounded else expected)


@pytest.mark.parametrize(("most", "width"), [(None, I), (2, 2), (I + 1, I)])
def test_the_extractors_hidden_layer_is_no_wider_than_asked_or_than_the_features(most: int | None, width: int) -> None:
    extractor = MetaExtractor(I, S, hidden_dim=most)
    assert (extractor.hidden.out_features, extractor.out.in_features) == (width, width)
    assert extractor(torch.randn(B, I)).shape == (B, S)


def test_shapes_are_checked_in_tests() -> None:
    layer = MetaLinear(S, I, O)
    with pytest.raises(TypeCheckError):
        layer(torch.randn(3, I), torch.randn(4, S))
