"""What the models with item graphs share: memory, items that nobody can be compared with, items that are new."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from metammf.data.features import ItemFeatures
from metammf.data.interactions import Interactions
from metammf.models.base import Batch, Inputs
from metammf.models.freedom import FREEDOM, FREEDOMConfig
from metammf.models.lattice import LATTICE, LATTICEConfig
from metammf.models.mgcn import MGCN, MGCNConfig
from metammf.nn import content_graph, projection
from metammf.nn.content import Content
from metammf.testing.data import taste_groups
from metammf.testing.probes import LargestTensor
from metammf.training.config import TrainingConfig
from metammf.training.objectives import make_objective

if TYPE_CHECKING:
    from metammf.models.item_graphs import ItemGraphModel

SPLIT = taste_groups(4, cold=1, lacking=True)
KINDS = [(FREEDOM, FREEDOMConfig), (LATTICE, LATTICEConfig), (MGCN, MGCNConfig)]


def made(kind: type, config: type, inputs: Inputs) -> ItemGraphModel:
    torch.manual_seed(0)
    return kind(config(embedding_dim=4, num_neighbours=3), inputs)


@pytest.mark.parametrize(("kind", "config"), KINDS)
def test_never_items_by_items(kind: type, config: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Building, a step and an evaluation of 600 items: no tensor beyond a few numbers an item, or a block."""
    monkeypatch.setattr(content_graph, "BLOCK", 6000)
    monkeypatch.setattr(projection, "_CHUNK_ROWS", 100)
    rng = np.random.default_rng(0)
    users, items = np.divmod(rng.choice(40 * 600, 900, replace=False), 600)
    train = Interactions(users.astype(np.int32), items.astype(np.int32), 40, 600)
    features = ItemFeatures({name: rng.standard_normal((600, 8), np.float32) for name in ("visual", "textual")})
    with LargestTensor() as largest:
        model = made(kind, config, Inputs(train, features)).train()
        model.begin_epoch(torch.Generator().manual_seed(0))
        some = torch.from_numpy(users[:30]), torch.from_numpy(items[:30])
        batch = Batch(*some, torch.from_numpy(items[30:60]).unsqueeze(1))
        terms = model.extended(make_objective(TrainingConfig()))(model, batch)
        torch.stack(list(terms.values())).sum().backward()
        model.vectors()
        with torch.no_grad():
            model.eval().encode_items(model.content.rows(torch.arange(600)))
    assert largest.numel <= 64 * 640 < 600 * 600 / 8, largest.operation


@pytest.mark.parametrize(("kind", "config"), KINDS)
def test_free_vectors_of_items_without_interactions_stay_zero(kind: type, config: type) -> None:
    model = made(kind, config, Inputs(SPLIT.train, SPLIT.catalog.features)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        users, items = model(torch.arange(model.num_users), torch.arange(8))
        (users @ items.T).square().sum().backward()
        optimizer.step()
    assert not model.item_table.weight[8:].any()
    assert model.item_table.weight[:8].all()


@pytest.mark.parametrize(("kind", "config"), KINDS)
def test_an_item_that_can_be_compared_with_nobody(kind: type, config: type) -> None:
    """It lacks all modalities, or has nothing but zeros: the same, and a vector all the same."""
    model = made(kind, config, Inputs(SPLIT.train, SPLIT.catalog.features))
    model.vectors()
    model.eval()
    nothing = {name: torch.zeros(1, width) for name, width in SPLIT.catalog.features.widths.items()}
    absent, present = (dict.fromkeys(nothing, torch.tensor([there])) for there in (False, True))
    with torch.no_grad():
        found = [model.encode_items(Content(nothing, mask)) for mask in (absent, present)]
    assert torch.equal(*found)
    assert found[0].isfinite().all()


@pytest.mark.parametrize(("kind", "config"), KINDS)
def test_neighbours_are_known_items_alone(kind: type, config: type) -> None:
    """What an item without interactions holds moves no other vector."""
    features = SPLIT.catalog.features
    other = {name: matrix.copy() for name, matrix in features.matrices.items()}
    for matrix in other.values():
        matrix[9] = matrix[0]
    first, second = (
        made(kind, config, Inputs(SPLIT.train, each)).vectors()[1]
        for each in (features, ItemFeatures(other, features.present))
    )
    assert torch.equal(first[:9], second[:9])
    assert not torch.allclose(first[9], second[9])
