"""Users by what they watched: their own fusion against loops, what a step hides, and users that are new."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from metammf.models.base import Inputs, history_model
from metammf.models.bm3 import BM3, BM3Config
from metammf.models.freedom import FREEDOM, FREEDOMConfig
from metammf.models.gat import GAT, GATConfig
from metammf.models.graphsage import GraphSAGE, GraphSAGEConfig
from metammf.models.grcn import GRCN, GRCNConfig
from metammf.models.lattice import LATTICE, LATTICEConfig
from metammf.models.lightgcn import LightGCN, LightGCNConfig
from metammf.models.metammf import MetaMMF, MetaMMFConfig
from metammf.models.mf import MF, MFConfig
from metammf.models.mgcn import MGCN, MGCNConfig
from metammf.models.mmgcn import MMGCN, MMGCNConfig
from metammf.models.ngcf import NGCF, NGCFConfig
from metammf.models.vbpr import VBPR, VBPRConfig
from metammf.nn.backbone import BackboneKind
from metammf.nn.content import Content
from metammf.nn.meta import LowRankMetaLinear
from metammf.testing.data import taste_groups

if TYPE_CHECKING:
    from metammf.models.nodes import NodeModel

SPLIT = taste_groups(4, cold=1, lacking=True)
INPUTS = Inputs(SPLIT.train, SPLIT.catalog.features)
USERS, ITEMS = INPUTS.num_users, INPUTS.num_items
NOBODY = USERS - 1  # the one without a train interaction
SMALL: dict[str, Any] = {"embedding_dim": 8, "hidden_dims": (5,), "meta_dim": 3, "cp_rank": 2, "user_fusion": "cp"}


def made(seed: int = 0, **settings: Any) -> MetaMMF:
    torch.manual_seed(seed)
    model = MetaMMF(MetaMMFConfig(**(SMALL | settings)), INPUTS)
    for name, parameter in model.named_parameters():
        if "unknown" in name or "vectors" in name:
            torch.nn.init.normal_(parameter)  # zero at the start
    return model


def watched(user: int, *, less: set[int] = frozenset()) -> list[int]:
    return [item for item in SPLIT.train.items[SPLIT.train.users == user].tolist() if item not in less]


def preference(model: MetaMMF, items: list[int]) -> Tensor:
    """Each modality's mean over the items that have it, side by side; the learned vector where none has."""
    scaled = model.scale(model.content.rows(torch.arange(ITEMS)))
    parts = []
    for name in model.modalities:
        having = [scaled.values[name][item] for item in items if scaled.present[name][item]]
        parts.append(torch.stack(having).mean(0) if having else model.user_fusion.concat.vectors[f"of_{name}"])
    return torch.cat(parts)


def own_network(fusion: Any, x: Tensor) -> Tensor:
    """s = MLP(p), W^n + sum_s s_s T^n[s] formed, h^n = act(h^(n-1) W^n)."""
    meta = fusion.meta.out(torch.relu(fusion.meta.hidden(x)))
    for depth, layer in enumerate(fusion.layers):
        dynamic = layer.dense_factors() if isinstance(layer, LowRankMetaLinear) else layer.dynamic
        x = x @ (layer.shared + sum(s * slice_ for s, slice_ in zip(meta, dynamic, strict=True)))
        if depth < len(fusion.layers) - 1:
            x = torch.where(x > 0, x, 0.01 * x)
    return x


def e_u(model: MetaMMF, items: list[int], ids: Tensor) -> Tensor:
    fused = own_network(model.user_fusion, preference(model, items))
    return torch.cat([fused, ids]) if model.combine == "concat" else fused + ids


@pytest.mark.parametrize("combine", ["concat", "sum"])
@pytest.mark.parametrize("fusion", ["cp", "dense"])
def test_a_user_s_own_fusion(fusion: str, combine: str) -> None:
    model = made(backbone="mf", user_fusion=fusion, combine=combine)
    with torch.no_grad():
        expected = [e_u(model, watched(user), model.user_table.weight[user]) for user in range(USERS)]
    torch.testing.assert_close(model.vectors()[0], torch.stack(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backbone", ["lightgcn", "graphsage", "gat"])
def test_the_backbone_propagates_it(backbone: str) -> None:
    model = made(backbone=backbone).eval()
    with torch.no_grad():
        users = torch.stack([e_u(model, watched(user), model.user_table.weight[user]) for user in range(USERS)])
        expected = model.backbone(users, model.item_inputs(torch.arange(ITEMS)))[0]
    torch.testing.assert_close(model.vectors()[0], expected, atol=1e-5, rtol=1e-4)


def test_static_twins_and_other_fusions_fit_users_too() -> None:
    for kind in ("concat", "sum", "gated", "attention"):
        users = made(backbone="mf", user_fusion=kind).vectors()[0]
        assert users.shape == (USERS, 8)
        assert users.isfinite().all()


@pytest.mark.parametrize("backbone", ["mf", "lightgcn"])
def test_what_a_step_predicts_is_not_in_the_history_that_predicts_it(backbone: str) -> None:
    """The inputs of users in training are those of the histories less all targets, isolated items too."""
    model = made(backbone=backbone, hide_targets=True, simulated_cold=0.3, id_dropout=0.0).train()
    targets = [(0, watched(0)[0]), (0, watched(0)[1]), (3, watched(3)[0])]
    users, items = torch.tensor(targets).T
    model.begin_step(users, items)
    assert model.isolated is not None
    lone = set(torch.nonzero(model.isolated).flatten().tolist())
    with torch.no_grad():
        asked = None if backbone == "lightgcn" else torch.tensor([0, 3, 5])
        found = model.user_inputs(asked)
        for place, user in enumerate(range(USERS) if asked is None else asked.tolist()):
            hidden = {item for other, item in targets if other == user} | lone
            expected = e_u(model, watched(user, less=hidden), model.user_table.weight[user])
            torch.testing.assert_close(found[place], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("hidden", [True, False])
def test_a_target_s_content_tells_only_where_it_is_not_hidden(hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(backbone="mf", hide_targets=hidden, fusion_dropout=0.0).train()
    user, item = 0, watched(0)[0]
    rows = model.content.rows

    def louder(items: Tensor) -> Content:
        content = rows(items)
        factor = torch.where(items == item, 10.0, 1.0).unsqueeze(1)
        return Content({name: value * factor for name, value in content.values.items()}, content.present)

    model.begin_step(torch.tensor([user]), torch.tensor([item]))
    before = model.user_inputs(torch.tensor([user]))
    monkeypatch.setattr(model.content, "rows", louder)
    assert torch.equal(before, model.user_inputs(torch.tensor([user]))) == hidden


def test_users_of_a_batch_alone_are_computed_under_mf(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(backbone="mf").train()
    asked: list[int] = []
    rows = model.content.rows
    monkeypatch.setattr(model.content, "rows", lambda items: (asked.extend(items.tolist()), rows(items))[1])
    model.user_inputs(torch.tensor([2, 4]))
    assert asked == sorted({*watched(2), *watched(4)})


@pytest.mark.parametrize("combine", ["concat", "sum"])
@pytest.mark.parametrize("backbone", get_args(BackboneKind))
def test_a_known_user_without_a_vector_of_its_own_is_folded_in_as_it_was_trained(backbone: str, combine: str) -> None:
    """All that a new user lacks is e_u^c: where that is the unknown row, there is no difference."""
    model = made(backbone=backbone, combine=combine, simulated_cold_users=0.2).eval()
    assert model.unknown_user is not None
    with torch.no_grad():
        model.user_table.weight.copy_(model.unknown_user.unknown.expand_as(model.user_table.weight))
        found = model.encode_users(INPUTS.graph.histories(torch.arange(USERS)), model.item_memory())
    torch.testing.assert_close(found, model.vectors()[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (BM3, BM3Config),
        (FREEDOM, FREEDOMConfig),
        (GAT, GATConfig),
        (GraphSAGE, GraphSAGEConfig),
        (LATTICE, LATTICEConfig),
        (LightGCN, LightGCNConfig),
        (MGCN, MGCNConfig),
        (MMGCN, partial(MMGCNConfig, content_dim=3)),
        (NGCF, partial(NGCFConfig, layer_dims=(5, 3))),
    ],
)
def test_a_known_user_is_folded_in_by_its_edges_as_one_without_a_vector_of_its_own(kind: Any, config: Any) -> None:
    torch.manual_seed(0)
    model = kind(config(embedding_dim=4), INPUTS).eval()
    assert history_model(model) is model
    with torch.no_grad():
        model.user_table.weight.zero_()
        found = model.encode_users(INPUTS.graph.histories(torch.arange(USERS)), model.item_memory())
    torch.testing.assert_close(found, model.vectors()[0])


def test_who_can_fold_users_in() -> None:
    able = [made(backbone="mf"), made(backbone="lightgcn", user_fusion=None), LightGCN(LightGCNConfig(), INPUTS)]
    unable: list[NodeModel] = [
        made(backbone="mf", user_fusion=None),
        MF(MFConfig(), INPUTS),
        VBPR(VBPRConfig(), INPUTS),
        LightGCN(LightGCNConfig(num_layers=0), INPUTS),
        LATTICE(LATTICEConfig(backbone="mf"), INPUTS),
        GRCN(GRCNConfig(), INPUTS),
    ]
    assert all(history_model(model) is not None for model in able)
    assert not any(history_model(model) is not None for model in unable)


def test_attention_that_no_step_taught_to_do_without_users_own_vectors_is_told() -> None:
    assert made(backbone="gat").may_misjudge_new_users
    assert GAT(GATConfig(embedding_dim=4), INPUTS).may_misjudge_new_users
    assert not made(backbone="gat", simulated_cold_users=0.2).may_misjudge_new_users
    assert not made(backbone="graphsage").may_misjudge_new_users
    assert not made(backbone="mf", user_fusion=None).may_misjudge_new_users


def test_simulated_cold_users_get_the_unknown_row_in_training_alone() -> None:
    model = made(backbone="lightgcn", simulated_cold_users=0.4, user_fusion=None)
    assert model.unknown_user is not None
    unknown = model.unknown_user.unknown
    torch.manual_seed(0)
    shares = [(model.user_inputs()[:NOBODY] == unknown).all(1).float().mean().item() for _ in range(100)]
    assert np.mean(shares) == pytest.approx(0.4, abs=0.05)
    model.eval()
    inputs = model.user_inputs()
    assert torch.equal(inputs[:NOBODY], model.user_table.weight[:NOBODY])
    assert torch.equal(inputs[NOBODY], unknown)  # of whom nothing was learned
    assert model.knows_nobody
    assert not made().knows_nobody


@pytest.mark.parametrize("backbone", ["lightgcn", "graphsage", "gat"])
def test_an_item_that_is_new_is_remembered_as_one_without_edges(backbone: str) -> None:
    model = made(backbone=backbone).eval()
    cold = torch.nonzero(INPUTS.cold_items).flatten()
    with torch.no_grad():
        memory, new = model.item_memory(), model.new_item_memory(model.content.rows(cold))
    assert memory.keys() == new.keys() == {"layer_0", "layer_1", "content"}
    for name in memory:
        torch.testing.assert_close(new[name], memory[name][cold])


@pytest.mark.parametrize("name", ["hide_targets", "edge_dropout", "simulated_cold_users"])
def test_what_needs_histories_is_refused_without(name: str) -> None:
    value: Any = True if name == "hide_targets" else 0.2
    with pytest.raises(ValueError, match=f"{name} needs user_fusion"):
        MetaMMFConfig(**{"backbone": "mf", name: value})
    assert MetaMMFConfig(**{"backbone": "mf", "user_fusion": "cp", name: value})
