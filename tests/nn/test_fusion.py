"""Fusions against one item at a time, and what all kinds of them have in common."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from metammf.nn.content import Content
from metammf.nn.fusion import (
    AttentionFusion,
    DynamicOptions,
    FusionKind,
    FusionNetwork,
    GatedFusion,
    SumFusion,
    make_fusion,
)
from metammf.nn.meta import LowRankMetaLinear
from metammf.testing.probes import LargestTensor

WIDTHS = {"visual": 5, "acoustic": 3, "textual": 4}
LAYERS = (8, 6)
KINDS: tuple[FusionKind, ...] = get_args(FusionKind)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def content(count: int = 9) -> Content:
    """Items that have all modalities, all but one, and none (the last)."""
    present = {name: torch.ones(count, dtype=torch.bool) for name in WIDTHS}
    present["visual"][1] = present["acoustic"][2] = present["textual"][3] = False
    for mask in present.values():
        mask[-1] = False
    return Content({name: torch.randn(count, width) for name, width in WIDTHS.items()}, present)


def fusion(kind: FusionKind, layers: tuple[int, ...] = LAYERS) -> nn.Module:
    made = make_fusion(kind, WIDTHS, layers, options=DynamicOptions(3, 4))
    for name, parameter in made.named_parameters():
        if "vectors" in name:
            nn.init.normal_(parameter)  # zero at the start, which would hide whether they are used
    return made


def by_hand(network: FusionNetwork, source: Content, item: int) -> Tensor:
    """h^0 = x_i, h^n = LeakyReLU(h^(n-1) W_i^n), W_i^n formed, from the definition in the paper."""
    x = torch.cat(
        [
            source.values[name][item] if source.present[name][item] else network.concat.vectors[f"of_{name}"]
            for name in WIDTHS
        ]
    )
    meta = torch.zeros(0)
    if network.meta is not None:
        hidden = (network.meta.hidden.weight @ x + network.meta.hidden.bias).clamp(min=0)
        meta = network.meta.out.weight @ hidden + network.meta.out.bias
    for depth, layer in enumerate(network.layers):
        weight = layer.shared
        if len(meta):
            dynamic = layer.dense_factors() if isinstance(layer, LowRankMetaLinear) else layer.dynamic
            for channel in range(len(meta)):
                weight = weight + meta[channel] * dynamic[channel]
        x = x @ weight
        if depth < len(network.layers) - 1:
            x = torch.where(x > 0, x, 0.01 * x)
    return x


@pytest.mark.parametrize("layers", [(4,), (8, 6), (10, 8, 6, 4)])
@pytest.mark.parametrize("kind", ["cp", "dense", "concat"])
def test_network_equals_one_item_at_a_time(kind: FusionKind, layers: tuple[int, ...]) -> None:
    network, source = fusion(kind, layers).eval(), content()
    expected = torch.stack([by_hand(network, source, item) for item in range(9)])
    torch.testing.assert_close(network(source), expected, atol=1e-5, rtol=1e-4)


def test_static_twin_is_the_dynamic_network_less_its_dynamic_part() -> None:
    dynamic, static, source = fusion("dense"), fusion("concat"), content()
    with torch.no_grad():
        for layer in dynamic.layers:
            layer.dynamic.zero_()
    missing, unexpected = static.load_state_dict(dynamic.state_dict(), strict=False)
    assert not missing
    assert {name.partition(".")[0] for name in unexpected} == {"meta", "layers"}
    torch.testing.assert_close(static(source), dynamic(source))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_finite_and_trains_every_parameter(kind: FusionKind) -> None:
    made, source = fusion(kind), content()
    out = made(source)
    assert out.shape == (9, LAYERS[-1])
    assert torch.isfinite(out).all()
    out.square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, f"{name} is never used"
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poison", [7.0, 3e38])
def test_content_that_an_item_lacks_never_tells(kind: FusionKind, poison: float) -> None:
    made, source = fusion(kind).eval(), content()
    poisoned = Content(
        {name: torch.where(source.present[name].unsqueeze(1), value, poison) for name, value in source.values.items()},
        source.present,
    )
    assert torch.equal(made(source), made(poisoned))


@pytest.mark.parametrize("kind", KINDS)
def test_a_lacking_modality_is_not_a_zero(kind: FusionKind) -> None:
    made, source = fusion(kind).eval(), content()
    zero = Content({**source.values, "visual": torch.zeros(9, 5)}, {**source.present, "visual": torch.ones(9) > 0})
    assert not torch.allclose(made(source.without("visual"))[:8], made(zero)[:8])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_see_each_other(kind: FusionKind) -> None:
    made, source = fusion(kind).eval(), content()
    one_by_one = torch.cat([made(source.map(lambda tensor, at=at: tensor[at : at + 1])) for at in range(9)])
    torch.testing.assert_close(made(source), one_by_one, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_in_which_modalities_come_does_not_matter(kind: FusionKind) -> None:
    made, source = fusion(kind).eval(), content()
    turned = Content(dict(reversed(source.values.items())), dict(reversed(source.present.items())))
    assert torch.equal(made(source), made(turned))


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_that_of_activations(kind: FusionKind) -> None:
    count = 400
    made, source = fusion(kind), content(count)
    with LargestTensor() as largest:
        made(source).square().sum().backward()
    assert largest.numel <= count * 24, largest.operation  # features are 12 wide; the widest is 3 modalities x 8


@pytest.mark.parametrize("kind", KINDS)
def test_one_modality_is_enough(kind: FusionKind) -> None:
    made = make_fusion(kind, {"visual": 5}, (4,), options=DynamicOptions(2, 2))
    source = Content({"visual": torch.randn(3, 5)}, {"visual": torch.tensor([True, True, False])})
    assert torch.isfinite(made(source)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_of_training_alone(kind: FusionKind) -> None:
    made, source = make_fusion(kind, WIDTHS, LAYERS, dropout=0.5), content()
    assert not torch.equal(made(source), made(source))
    made.eval()
    assert torch.equal(made(source), made(source))


def projections(made: SumFusion | GatedFusion | AttentionFusion, source: Content) -> list[Tensor]:
    return [project(source.values[name]) for name, project in zip(WIDTHS, made.projections, strict=True)]


def test_sum_is_the_mean_over_what_is_there() -> None:
    made, source = fusion("sum"), content()
    visual, acoustic, textual = projections(made, source)
    out = made(source)
    torch.testing.assert_close(out[0], (visual + acoustic + textual)[0] / 3)
    torch.testing.assert_close(out[1], (acoustic + textual)[1] / 2)
    assert not out[8].any()


def test_gated_lets_entries_through() -> None:
    made, source = fusion("gated"), content()
    gates = torch.sigmoid(made.gate(made.concat(source))).view(9, 3, LAYERS[-1])
    parts = [gate * part for gate, part in zip(gates.unbind(1), projections(made, source), strict=True)]
    torch.testing.assert_close(made(source)[0], sum(parts)[0])
    torch.testing.assert_close(made(source)[2], (parts[0] + parts[2])[2])


def test_attention_is_a_softmax_over_what_is_there() -> None:
    made, source = fusion("attention"), content()
    parts = projections(made, source)
    logits = torch.cat([made.query(torch.tanh(made.key(part))) for part in parts], dim=1)
    weights = torch.softmax(logits[0], dim=0)
    torch.testing.assert_close(made(source)[0], sum(w * part[0] for w, part in zip(weights, parts, strict=True)))
    weights = torch.softmax(logits[1, 1:], dim=0)
    torch.testing.assert_close(made(source)[1], weights[0] * parts[1][1] + weights[1] * parts[2][1])


@pytest.mark.parametrize("kind", ["cp", "dense"])
def test_gradcheck_through_the_whole_network(kind: FusionKind) -> None:
    network, source = fusion(kind, (3, 2)).double(), content(5)
    names = tuple(WIDTHS)

    def run(*values: Tensor) -> Tensor:
        return network(Content(dict(zip(names, values, strict=True)), source.present))

    assert torch.autograd.gradcheck(run, tuple(source.values[name].double().requires_grad_() for name in names))
