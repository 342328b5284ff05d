"""MGCN against its paper, a node at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metammf.errors import ConfigError
from metammf.models.base import Batch, Inputs
from metammf.models.mgcn import MGCN, Fuser, MGCNConfig
from metammf.testing.data import taste_groups
from metammf.testing.naive import edges_of, light
from metammf.testing.naive_item_graphs import alike, raw
from metammf.training.config import TrainingConfig
from metammf.training.fit import fit
from metammf.training.objectives import make_objective

SPLIT = taste_groups(4, cold=1, lacking=True)
INPUTS = Inputs(SPLIT.train, SPLIT.catalog.features)
USERS, ITEMS = INPUTS.num_users, INPUTS.num_items
EDGES = edges_of(SPLIT.train)
WARM = torch.from_numpy(np.concatenate([np.ones(USERS, dtype=bool), SPLIT.train.item_counts > 0]))
NAMES = ("visual", "textual")
BATCH = Batch(torch.tensor([0, 1, 2, 0]), torch.tensor([2, 3, 4, 4]), torch.tensor([[1, 3], [0, 2], [7, 5], [3, 3]]))


def made(**settings: Any) -> MGCN:
    torch.manual_seed(0)
    return MGCN(MGCNConfig(embedding_dim=4, num_neighbours=3, **settings), INPUTS)


def views(model: MGCN, hops: int) -> dict[str, Tensor]:
    """Purifier and item-item view: h^m of all nodes, users first."""
    found = {}
    for name in NAMES:
        layer, gate = model.projections.of(name), model.gates.of(name)
        rows = [
            own * torch.sigmoid(gate.weight @ (layer.weight @ x + layer.bias) + gate.bias)
            for own, x in zip(model.item_table.weight, raw(SPLIT, name), strict=True)
        ]
        items, graph = torch.stack(rows), alike(SPLIT, name, raw(SPLIT, name), 3, weighted=True)
        for _ in range(hops):
            items = graph @ items
        degrees = EDGES.sum(1)
        users = [
            sum(
                (
                    items[item] / float(degrees[user] * degrees[USERS + item]) ** 0.5
                    for item in np.flatnonzero(EDGES[user, USERS:])
                ),
                torch.zeros(4),
            )
            for user in range(USERS)
        ]
        found[name] = torch.cat([torch.stack(users), items])
    return found


def has(name: str, node: int) -> bool:
    """An item that has it; a user one of whose items has it."""
    present = SPLIT.catalog.features.present[name]
    return bool(present[node - USERS] if node >= USERS else present[np.flatnonzero(EDGES[node, USERS:])].any())


def fused(fuser: Fuser, contents: dict[str, Tensor], behaviour: Tensor, node: int) -> Tensor:
    """Attention over what the node has, and the mean of what is specific, as far as the behaviour prefers it."""
    here = [name for name in NAMES if has(name, node)]
    if not here:
        return torch.zeros(4)
    first, _, query = fuser.attention
    scores = {name: query.weight[0] @ torch.tanh(first.weight @ contents[name][node] + first.bias) for name in here}
    total = sum(torch.exp(score) for score in scores.values())
    common = sum(torch.exp(scores[name]) / total * contents[name][node] for name in here)
    specific = []
    for name in here:
        preference = fuser.preferences[NAMES.index(name)]
        gate = torch.sigmoid(preference.weight @ behaviour[node] + preference.bias)
        specific.append(gate * (contents[name][node] - common))
    return common + sum(specific) / len(here)


def naive(model: MGCN, hops: int = 1) -> tuple[Tensor, Tensor]:
    """Behaviour and fused content of all nodes."""
    behaviour = light(EDGES, torch.cat([model.user_table.weight, model.item_table.weight]), 2)
    contents = views(model, hops)
    return behaviour, torch.stack([fused(model.fuser, contents, behaviour, node) for node in range(USERS + ITEMS)])


@pytest.mark.parametrize("hops", [1, 2])
def test_vectors(hops: int) -> None:
    model = made(num_item_layers=hops)
    found = torch.cat(model.vectors())
    with torch.no_grad():
        expected = sum(naive(model, hops))
    torch.testing.assert_close(found[WARM], expected[WARM], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[~WARM], expected[~WARM], atol=1e-3, rtol=1e-3)
    assert found[USERS - 1].equal(model.user_table.weight[-1])  # no history: neither edges nor content


def test_loss_terms() -> None:
    model = made(contrastive_weight=0.3, contrastive_temperature=0.5).train()
    found = model.extended(make_objective(TrainingConfig()))(model, BATCH)
    behaviour, content = naive(model)
    vectors = behaviour + content
    losses = [
        -torch.log(torch.sigmoid(vectors[user] @ (vectors[USERS + positive] - vectors[USERS + negative])))
        for user, positive, negatives in zip(BATCH.users, BATCH.positives, BATCH.negatives, strict=True)
        for negative in negatives
    ]
    expected = {"bpr": torch.stack(losses).mean()}
    for side, nodes in (("users", [0, 1, 2]), ("items", [USERS + item for item in (2, 3, 4)])):
        terms = []
        for node in nodes:
            cosines = [torch.cosine_similarity(content[node], behaviour[other], dim=0) for other in nodes]
            own = torch.cosine_similarity(content[node], behaviour[node], dim=0)
            terms.append(-torch.log(torch.exp(own / 0.5) / sum(torch.exp(cosine / 0.5) for cosine in cosines)))
        expected[f"contrastive of {side}"] = 0.3 * torch.stack(terms).mean()
    assert set(found) == set(expected)
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term, atol=1e-5, rtol=1e-4)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(torch.stack(list(found.values())).sum(), parameters)
    by_hand = torch.autograd.grad(torch.stack(list(expected.values())).sum(), parameters)
    for (name, _), one, other in zip(model.named_parameters(), gradients, by_hand, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3, msg=name)
        assert one.any(), name


def test_views_do_not_outlive_their_step() -> None:
    model = made().train()
    model.extended(make_objective(TrainingConfig()))(model, BATCH)
    assert model.views is None
    model.eval()
    model.vectors()
    assert model.views is None


def test_one_batch_a_step() -> None:
    """The contrastive terms need the views of the call that made the vectors."""
    with pytest.raises(ConfigError, match="batches_per_step"):
        fit(MGCNConfig(embedding_dim=4), SPLIT.development, training=TrainingConfig(batches_per_step=2))


def test_without_the_contrastive_terms_the_objective_stays_as_it_is() -> None:
    standard = make_objective(TrainingConfig())
    assert made(contrastive_weight=0.0).extended(standard) is standard
