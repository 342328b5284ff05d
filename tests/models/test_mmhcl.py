"""MMHCL against its paper, one node and one pair at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from metammf.errors import ConfigError
from metammf.models.base import Batch, Inputs
from metammf.models.mmhcl import MMHCL, MMHCLConfig
from metammf.models.nodes import scaled_features
from metammf.testing.data import taste_groups
from metammf.testing.naive import check_terms, edges_of, light, spread
from metammf.training.config import TrainingConfig
from metammf.training.objectives import make_objective

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SPLIT = taste_groups(4, cold=1, lacking=True)
INPUTS = Inputs(SPLIT.train, SPLIT.catalog.features)
USERS, ITEMS = INPUTS.num_users, INPUTS.num_items
WATCHED = SPLIT.train.matrix.toarray() > 0
KNOWN = WATCHED.any(0)
CONFIG = MMHCLConfig(embedding_dim=6, num_neighbours=3, user_weight=0.3, item_weight=0.7, contrast_temperature=0.4)
TRAINING = TrainingConfig(num_negatives=2, l2_reg=0.1)


def made(config: MMHCLConfig = CONFIG) -> MMHCL:
    torch.manual_seed(0)
    return MMHCL(config, INPUTS)


def batch() -> Batch:
    users, items = (torch.from_numpy(side.astype("int64")) for side in (SPLIT.train.users, SPLIT.train.items))
    negatives = (items.unsqueeze(1) + torch.tensor([1, 3])) % int(KNOWN.sum())
    return Batch(users, items, negatives)


def terms(model: MMHCL) -> Mapping[str, Tensor]:
    torch.manual_seed(1)
    return model.extended(make_objective(TRAINING))(model, batch())


def user_weights() -> NDArray[np.float64]:
    """How many items two users share, themselves apart, each row divided by its sum."""
    shared = np.zeros((USERS, USERS))
    for user in range(USERS):
        for other in range(USERS):
            if user != other:
                shared[user, other] = sum(WATCHED[user, item] and WATCHED[other, item] for item in range(ITEMS))
    return np.array([row / row.sum() if row.any() else row for row in shared])


def members() -> dict[tuple[str, int], list[int]]:
    """Which items, of those that may be asked for, have an item among their nearest known ones: hyperedge -> items."""
    features = SPLIT.catalog.features
    edges: dict[tuple[str, int], list[int]] = {}
    for name in features.modalities:
        rows = features.matrices[name].astype(np.float64)
        for item in range(ITEMS):
            if not features.present[name][item]:
                continue
            cosines = {
                other: float(rows[item] @ rows[other] / np.linalg.norm(rows[item]) / np.linalg.norm(rows[other]))
                for other in range(ITEMS)
                if KNOWN[other] and features.present[name][other]
            }
            for other in sorted(cosines, key=lambda one: (-round(cosines[one], 6), one))[:3]:
                if cosines[other] > 0:
                    edges.setdefault((name, other), []).append(item)
    return edges


def item_weights() -> NDArray[np.float64]:
    """By how many hyperedges two known items are neighbours, over the root of both row sums; a cold one is a further row."""
    shared = np.zeros((ITEMS, ITEMS))
    for items in members().values():
        for item in items:
            for other in items:
                shared[item, other] += KNOWN[other]
    degrees = shared.sum(1)
    out = np.zeros_like(shared)
    for item, other in zip(*np.nonzero(shared), strict=True):
        out[item, other] = shared[item, other] / (degrees[item] * degrees[other]) ** 0.5
    return out


def unit(x: Tensor) -> Tensor:
    return x / x.norm().clamp(min=1e-12)


def naive_views(model: MMHCL) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    first = light(edges_of(SPLIT.train), torch.cat([model.user_table.weight, model.item_table.weight]), 2)
    second_users, second_items = model.second_users.weight, model.second_items.weight
    for _ in range(3):
        second_users = spread(user_weights(), second_users)
    for _ in range(2):
        second_items = spread(item_weights(), second_items)
    users = torch.stack([first[user] + unit(second_users[user]) for user in range(USERS)])
    items = torch.stack([first[USERS + item] + unit(second_items[item]) for item in range(ITEMS)])
    return users, items, second_users, second_items


def naive_contrast(first: Tensor, second: Tensor, nodes: list[int]) -> Tensor:
    def similarity(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(unit(x) @ unit(y) / 0.4)

    losses = []
    for node in nodes:
        total = sum((similarity(first[node], second[other]) for other in nodes), torch.zeros(()))
        total = total + sum(
            (similarity(first[node], first[other]) for other in nodes if other != node), torch.zeros(())
        )
        losses.append(-torch.log(similarity(first[node], second[node]) / total))
    return torch.stack(losses).mean()


def naive_terms(model: MMHCL) -> dict[str, Tensor]:
    users, items, second_users, second_items = naive_views(model)
    drawn = batch()
    bpr, squares = [], torch.zeros(())
    tables = ((model.user_table, model.second_users), (model.item_table, model.second_items))
    for user, positive, negatives in zip(
        drawn.users.tolist(), drawn.positives.tolist(), drawn.negatives.tolist(), strict=True
    ):
        differences = [users[user] @ (items[positive] - items[negative]) for negative in negatives]
        bpr += [-torch.log(torch.sigmoid(difference)) for difference in differences]
        for side, nodes in zip(tables, ([user], [positive, *negatives]), strict=True):
            for table in side:
                squares = squares + sum((table.weight[node].square().sum() for node in nodes), torch.zeros(()))
    with_neighbours = [user for user in range(USERS) if user_weights()[user].any()]
    return {
        "bpr": torch.stack(bpr).mean(),
        "l2": 0.1 * 0.5 * squares / len(drawn.users),
        "contrast_of_users": 0.3 * naive_contrast(users, second_users, with_neighbours),
        "contrast_of_items": 0.7 * naive_contrast(items, second_items, placed_items()),
    }


def placed_items() -> list[int]:
    return [item for item in range(ITEMS) if KNOWN[item] and item_weights()[item].any()]


def test_vectors_of_all_nodes() -> None:
    """Those of cold items too: rows beside the hypergraph."""
    model = made()
    with torch.no_grad():
        users, items, *_ = naive_views(model)
    found_users, found_items = model.vectors()
    torch.testing.assert_close(found_users, users, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        found_items, items, atol=1e-3, rtol=1e-3
    )  # a new item meets directions in half precision
    torch.testing.assert_close(found_items[KNOWN], items[KNOWN], atol=1e-5, rtol=1e-4)
    assert found_items[~KNOWN].ne(0).any(1).all()


def test_every_term_and_its_gradients() -> None:
    model = made()
    found, expected = terms(model), naive_terms(model)
    check_terms(found, expected, model.parameters(), tolerances=(1e-5, 1e-4), gradient_tolerances=(1e-5, 1e-3))


def test_a_sample_stands_for_all_nodes() -> None:
    model = made(CONFIG.model_copy(update={"contrasted_nodes": 4}))
    found = terms(model)
    torch.manual_seed(1)
    users, items, second_users, second_items = naive_views(model)
    shared = [user for user in range(USERS) if user_weights()[user].any()]
    some_users = [shared[place] for place in torch.randperm(len(shared))[:4].tolist()]
    some_items = [placed_items()[place] for place in torch.randperm(len(placed_items()))[:4].tolist()]
    torch.testing.assert_close(found["contrast_of_users"], 0.3 * naive_contrast(users, second_users, some_users))
    torch.testing.assert_close(found["contrast_of_items"], 0.7 * naive_contrast(items, second_items, some_items))


def test_nothing_is_contrasted_at_no_weight() -> None:
    assert set(terms(made(CONFIG.model_copy(update={"user_weight": 0.0, "item_weight": 0.0})))) == {"bpr", "l2"}


def test_content_is_needed() -> None:
    with pytest.raises(ConfigError, match="no features"):
        MMHCL(CONFIG, Inputs(SPLIT.train, SPLIT.catalog.features.only(())))


def test_features_are_those_of_the_data_set() -> None:
    content = scaled_features(made().scaler, INPUTS)
    for name, present in SPLIT.catalog.features.present.items():
        expected = np.where(present[:, None], SPLIT.catalog.features.matrices[name], 0)
        torch.testing.assert_close(content.values[name], torch.from_numpy(expected))
