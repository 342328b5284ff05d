"""GRCN against its equations, an edge and a modality at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metammf.data.features import ItemFeatures
from metammf.models.base import Inputs
from metammf.models.grcn import GRCN, GRCNConfig
from metammf.testing.data import taste_groups

SPLIT = taste_groups(4, cold=1, lacking=True)
FEATURES, TRAIN = SPLIT.catalog.features, SPLIT.train
USERS, ITEMS = TRAIN.num_users, TRAIN.num_items
WATCHED = TRAIN.matrix.toarray() > 0
NAMES = FEATURES.modalities


def made(**settings: Any) -> GRCN:
    torch.manual_seed(0)
    sizes = {"embedding_dim": 4, "content_dim": 3, "feature_scaling": "none", "init_std": 0.5}
    model = GRCN(GRCNConfig(**sizes | settings), Inputs(TRAIN, FEATURES))
    free = [model.backbone.user_confidence, model.backbone.item_confidence]
    for parameter in [model.item_ids.unknown, *model.concat.vectors.values(), *free]:
        torch.nn.init.normal_(parameter)  # zero, or one, at the start
    return model


def unit(x: Tensor) -> Tensor:
    return x / x.norm()


def content(model: GRCN, name: str, item: int) -> Tensor:
    """LeakyReLU(W i + b), of a learned vector where the item lacks the modality."""
    layer = model.project[f"of_{name}"]
    has = FEATURES.present[name][item]
    told = torch.from_numpy(FEATURES.matrices[name][item]) if has else model.concat.vectors[f"of_{name}"]
    mapped = layer.weight @ told + layer.bias
    return torch.where(mapped > 0, mapped, 0.01 * mapped)


def softmax_over(logits: dict[int, Tensor]) -> dict[int, Tensor]:
    """By node; nothing of nothing."""
    total = sum(logit.exp() for logit in logits.values())
    return {node: logit.exp() / total for node, logit in logits.items()}


def naive(model: GRCN, config: GRCNConfig) -> tuple[Tensor, Tensor]:
    scaled = unit if config.unit_vectors else lambda x: x
    own = [[scaled(row) for row in torch.split(model.user_table.weight[user], [4, 3, 3])] for user in range(USERS)]
    contents = [[scaled(content(model, name, item)) for name in NAMES] for item in range(ITEMS)]
    shares: dict[tuple[str, int, int, int], Tensor] = {}
    for place, name in enumerate(NAMES):
        has = FEATURES.present[name]
        for user in range(USERS):
            around = [item for item in np.flatnonzero(WATCHED[user]) if has[item]]
            for _ in range(config.num_routings):
                mine = own[user][1 + place]
                p = softmax_over({item: mine @ contents[item][place] for item in around})
                own[user][1 + place] = scaled(mine + sum(p[item] * contents[item][place] for item in around))
            mine = own[user][1 + place]
            for item, share in softmax_over({item: mine @ contents[item][place] for item in around}).items():
                shares["user", place, user, item] = share
        for item in range(ITEMS):
            around = np.flatnonzero(WATCHED[:, item]) if has[item] else []
            logits = {user: own[user][1 + place] @ contents[item][place] for user in around}
            for user, share in softmax_over(logits).items():
                shares["item", place, item, user] = share

    def weight(side: str, node: int, other: int) -> Tensor:
        confidence = model.backbone.user_confidence if side == "user" else model.backbone.item_confidence
        told = [
            confidence[node, place] * shares[side, place, node, other]
            for place in range(len(NAMES))
            if (side, place, node, other) in shares
        ]
        if not told:
            return torch.tensor(1.0 / float((WATCHED if side == "user" else WATCHED.T)[node].sum()))
        best = torch.stack(told).max()
        return best.clamp(min=0) if config.pruning == "hard" else best

    warm = TRAIN.item_counts > 0
    ids = [row[0] for row in own]
    rows = [model.item_ids.table.weight[item] if warm[item] else model.item_ids.unknown for item in range(ITEMS)]
    item_ids = [scaled(row) for row in rows]
    totals, item_totals = list(ids), list(item_ids)
    for _ in range(config.num_layers):
        after = [
            sum((weight("user", user, item) * item_ids[item] for item in np.flatnonzero(WATCHED[user])), torch.zeros(4))
            for user in range(USERS)
        ]
        item_ids = [
            sum((weight("item", item, user) * ids[user] for user in np.flatnonzero(WATCHED[:, item])), torch.zeros(4))
            for item in range(ITEMS)
        ]
        ids = after
        totals = [total + row for total, row in zip(totals, ids, strict=True)]
        item_totals = [total + row for total, row in zip(item_totals, item_ids, strict=True)]
    preferences = [row[1:] for row in own]
    if config.content_hop:
        hop = [
            [
                mine + sum(shares.get(("user", place, user, item), 0) * contents[item][place] for item in range(ITEMS))
                for place, mine in enumerate(preferences[user])
            ]
            for user in range(USERS)
        ]
        contents = [
            [
                mine
                + sum(shares.get(("item", place, item, user), 0) * preferences[user][place] for user in range(USERS))
                for place, mine in enumerate(contents[item])
            ]
            for item in range(ITEMS)
        ]
        preferences = hop
    return (
        torch.stack([torch.cat([total, *row]) for total, row in zip(totals, preferences, strict=True)]),
        torch.stack([torch.cat([total, *row]) for total, row in zip(item_totals, contents, strict=True)]),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"unit_vectors": False, "num_routings": 2},
        {"pruning": "hard", "num_layers": 3},
        {"content_hop": True, "num_routings": 0},
    ],
    ids=str,
)
def test_forward(settings: dict[str, Any]) -> None:
    model = made(**settings)
    with torch.no_grad():
        expected = naive(model, GRCNConfig(**settings))
    torch.testing.assert_close(model.vectors(), expected, atol=1e-5, rtol=1e-4)


def test_an_edge_of_which_no_modality_tells_has_the_weight_of_a_mean() -> None:
    absent = {name: mask.copy() for name, mask in FEATURES.present.items()}
    for mask in absent.values():
        mask[0] = False
    model = GRCN(GRCNConfig(embedding_dim=4, content_dim=3), Inputs(TRAIN, ItemFeatures(FEATURES.matrices, absent)))
    edges = model.backbone.graph.edges()[0]
    silent = ~model.backbone.present[edges.indices]
    shares = torch.rand(len(edges.rows), 2)
    degrees = model.backbone.graph.user_degrees
    weights = model.backbone._refined(edges, shares, model.backbone.user_confidence, silent, degrees).detach()
    alone = edges.indices == 0
    assert torch.equal(weights[alone], 1 / degrees.flatten()[edges.rows[alone]])
    torch.testing.assert_close(weights[~silent.any(1)], shares[~silent.any(1)].amax(1))


def test_edges_that_a_step_leaves_out_carry_nothing() -> None:
    model = made().eval()
    whole = model.backbone.graph
    users, items = (torch.from_numpy(found) for found in np.nonzero(WATCHED))
    gone = users < 3
    inputs = model.item_inputs(torch.arange(ITEMS))
    found = model.backbone(model.user_table.weight, inputs, whole.without((users[gone], items[gone])))[0]
    ids, *preferences = torch.split(model.user_table.weight[:3], [4, 3, 3], dim=1)
    expected = torch.cat([torch.nn.functional.normalize(part, dim=1) for part in (ids, *preferences)], dim=1)
    torch.testing.assert_close(found[:3], expected)
