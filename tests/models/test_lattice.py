"""LATTICE against its paper, a pair of items at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metammf.models.base import Inputs
from metammf.models.lattice import LATTICE, LATTICEConfig
from metammf.nn.content_graph import LearnedGraph
from metammf.testing.data import taste_groups
from metammf.testing.naive import edges_of, light
from metammf.testing.naive_item_graphs import alike, mixed, raw

SPLIT = taste_groups(4, cold=1, lacking=True)
INPUTS = Inputs(SPLIT.train, SPLIT.catalog.features)
USERS, ITEMS = INPUTS.num_users, INPUTS.num_items
WARM = torch.from_numpy(SPLIT.train.item_counts > 0)
EVERYBODY = torch.arange(USERS), torch.arange(ITEMS)
NAMES = ("visual", "textual")


def made(**settings: Any) -> LATTICE:
    torch.manual_seed(0)
    config = LATTICEConfig(embedding_dim=4, feature_dim=3, num_neighbours=3, **{"initial_share": 0.6, **settings})
    model = LATTICE(config, INPUTS)
    torch.nn.init.normal_(model.modality_weights)  # zero at the start
    return model


def naive(model: LATTICE, hops: int = 1, share: float = 0.6) -> tuple[Tensor, Tensor]:
    """Eqs. 1-10 with MF or LightGCN."""
    graphs = []
    for name in NAMES:
        layer = model.projections.of(name)
        projected = torch.stack([layer.weight @ row + layer.bias for row in raw(SPLIT, name)])
        initial = alike(SPLIT, name, raw(SPLIT, name), 3, weighted=True)
        graphs.append(share * initial + (1 - share) * alike(SPLIT, name, projected, 3, weighted=True))
    weights = torch.exp(model.modality_weights)
    graph = mixed(SPLIT, graphs, list(weights / weights.sum()))
    ids = hidden = model.item_table.weight
    for _ in range(hops):
        hidden = graph @ hidden
    both = torch.cat([model.user_table.weight, ids])
    if model.backbone.propagates:
        both = light(edges_of(SPLIT.train), both, 2)
    norms = hidden.square().sum(1, keepdim=True).clamp(min=1e-24).sqrt()  # an item that has no modality is like nobody
    return both[:USERS], both[USERS:] + hidden / norms


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("backbone", ["mf", "lightgcn"])
def test_vectors(backbone: str, hops: int) -> None:
    model = made(backbone=backbone, num_item_layers=hops)
    users, items = model.vectors()
    with torch.no_grad():
        expected_users, expected_items = naive(model, hops)
    torch.testing.assert_close(users, expected_users)
    torch.testing.assert_close(items[WARM], expected_items[WARM], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(items[~WARM], expected_items[~WARM], atol=2e-3, rtol=1e-3)


def test_gradients_reach_projections_and_modality_weights() -> None:
    model = made().train()
    model.begin_epoch(torch.Generator())
    users, items = model(*EVERYBODY)
    expected_users, expected_items = naive(model)
    torch.testing.assert_close(items[WARM], expected_items[WARM], atol=1e-5, rtol=1e-4)
    weight = torch.randn(int(WARM.sum()), 4)
    parameters = list(model.parameters())
    found = torch.autograd.grad((items[WARM] * weight).sum() + users.square().sum(), parameters)
    expected = torch.autograd.grad((expected_items[WARM] * weight).sum() + expected_users.square().sum(), parameters)
    for (name, _), one, other in zip(model.named_parameters(), found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3, msg=name)
        assert one.any(), name


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the searches for neighbours."""
    counted: list[int] = []
    rebuild = LearnedGraph.rebuild

    def counting(graph: LearnedGraph, *arguments: Any) -> None:
        counted.append(1)
        rebuild(graph, *arguments)

    monkeypatch.setattr(LearnedGraph, "rebuild", counting)
    return counted


def test_neighbours_are_found_once_an_epoch(searches: list[int]) -> None:
    model = made().train()
    for epoch in (1, 2):
        model.begin_epoch(torch.Generator())
        for _ in range(3):
            model(*EVERYBODY)
        model.vectors()  # an evaluation, whose neighbours serve the next epoch
        assert len(searches) == len(NAMES) * (1 + epoch)


def test_other_weights_have_other_neighbours(searches: list[int]) -> None:
    """As when the best epoch's weights are taken at the end."""
    model, other = made(), made()
    with torch.no_grad():
        for parameter in other.projections.parameters():
            parameter.normal_()
    expected = other.vectors()[1]
    assert not torch.allclose(model.vectors()[1], expected)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model.vectors()[1], expected)
    assert len(searches) == 3 * len(NAMES)


def test_a_step_before_any_epoch_finds_its_neighbours() -> None:
    model = made().train()
    torch.testing.assert_close(model(*EVERYBODY)[1][WARM], naive(model)[1][WARM], atol=1e-5, rtol=1e-4)


def test_initial_graphs_alone() -> None:
    model = made(initial_share=1.0)
    assert not list(model.projections.parameters())
    assert model.vectors()[1].isfinite().all()


def test_graphsage_too() -> None:
    users, items = made(backbone="graphsage").vectors()
    assert users.shape == (USERS, 4)
    assert items.isfinite().all()
