"""DiffMM against its paper, one node and one row at a time."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from metammf.errors import ConfigError
from metammf.models.base import Batch, Inputs
from metammf.models.diffmm import DiffMM, DiffMMConfig
from metammf.testing.data import taste_groups
from metammf.testing.naive import check_terms, edges_of, spread, standardized, symmetric
from metammf.testing.probes import LargestTensor
from metammf.training.config import TrainingConfig
from metammf.training.objectives import make_objective

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SPLIT = taste_groups(4, cold=1, lacking=True)
INPUTS = Inputs(SPLIT.train, SPLIT.catalog.features)
USERS, ITEMS = INPUTS.num_users, INPUTS.num_items
WATCHED = SPLIT.train.matrix.toarray() > 0
KNOWN = np.flatnonzero(WATCHED.any(0))
CONFIG = DiffMMConfig(
    embedding_dim=6,
    num_layers=2,
    generated_weight=0.3,
    residual_weight=0.6,
    contrast_weight=0.7,
    contrast_temperature=0.4,
    generated_edges=3,
    generated_edge_dropout=0.3,
    injection_weight=0.2,
    diffusion_steps=3,
    denoiser_dims=(5,),
    denoiser_dropout=0.0,
    time_dim=4,
)
TRAINING = TrainingConfig(num_negatives=2)


def made(config: DiffMMConfig = CONFIG) -> DiffMM:
    torch.manual_seed(0)
    model = DiffMM(config, INPUTS)
    torch.nn.init.normal_(model.modality_logits)  # zero at the start
    model.begin_epoch(torch.Generator().manual_seed(0))
    return model


def batch() -> Batch:
    users, items = (torch.from_numpy(side.astype("int64")) for side in (SPLIT.train.users, SPLIT.train.items))
    negatives = (items.unsqueeze(1) + torch.tensor([1, 3])) % len(KNOWN)
    return Batch(users, items, negatives)


def looped(edges: NDArray[np.bool_]) -> NDArray[np.float64]:
    """D^-1/2 (A + I) D^-1/2."""
    return symmetric(edges | np.eye(len(edges), dtype=np.bool_))


def generated_edges(model: DiffMM, place: int) -> NDArray[np.bool_]:
    edges = np.zeros((USERS + ITEMS, USERS + ITEMS), dtype=np.bool_)
    for user, items in enumerate(model.generated[place].tolist()):
        for item in items:
            if item >= 0:
                edges[user, USERS + item] = edges[USERS + item, user] = True
    return edges


def modality_vectors(model: DiffMM, name: str) -> Tensor:
    """e^m = Norm(W_m F^m + b_m), a learned vector standing for the projection of an item that lacks m."""
    rows = []
    for item in range(ITEMS):
        linear = model.projections[f"of_{name}"]
        row = model.stand_ins[f"of_{name}"]
        if SPLIT.catalog.features.present[name][item]:
            row = linear.weight @ torch.from_numpy(standardized(SPLIT, name)[item]).float() + linear.bias
        rows.append(row / row.norm())
    return torch.stack(rows)


def naive_views(model: DiffMM) -> tuple[Tensor, list[Tensor]]:
    """H, and v^m of each modality; users above items."""
    over = looped(edges_of(SPLIT.train))
    users, items = model.user_table.weight, model.item_table.weight
    kappa = torch.exp(model.modality_logits) / torch.exp(model.modality_logits).sum()
    mixed, own = torch.zeros(USERS + ITEMS, 6), []
    for place, name in enumerate(model.modalities):
        e, over_generated = modality_vectors(model, name), looped(generated_edges(model, place))
        first = spread(over, torch.cat([users, e]))
        second = spread(over, torch.cat([first[:USERS], items]))
        third = spread(over_generated, torch.cat([users, items]))
        mixed = mixed + kappa[place] * (first + second + 0.3 * third)
        v = spread(over_generated, torch.cat([users, e]))
        hops = [v, spread(over, v), spread(over, spread(over, v))]
        own.append(sum(hops, torch.zeros_like(v)))
    hops = [mixed, spread(over, mixed), spread(over, spread(over, mixed))]
    normalized = torch.stack([row / row.norm() for row in mixed])
    return sum(hops, 0.6 * normalized), own


def naive_contrast(first: Tensor, second: Tensor, nodes: list[int], others: list[int]) -> Tensor:
    def similarity(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(x @ y / (x.norm() * y.norm()) / 0.4)

    losses = []
    for node in nodes:
        total = sum((similarity(first[node], second[other]) for other in others), torch.zeros(()))
        losses.append(-torch.log(similarity(first[node], second[node]) / total))
    return torch.stack(losses).mean()


def naive_terms(model: DiffMM) -> dict[str, Tensor]:
    final, own = naive_views(model)
    drawn = batch()
    bpr: list[Tensor] = []
    for user, positive, negatives in zip(
        drawn.users.tolist(), drawn.positives.tolist(), drawn.negatives.tolist(), strict=True
    ):
        differences = [final[user] @ (final[USERS + positive] - final[USERS + negative]) for negative in negatives]
        bpr += [-torch.log(torch.sigmoid(difference)) for difference in differences]
    main = model.config.contrast_anchor == "main"
    pairs = [(final, other) for other in own] if main else list(itertools.combinations(own, 2))
    users, items = sorted(set(drawn.users.tolist())), sorted({USERS + item for item in drawn.positives.tolist()})
    known = [USERS + int(item) for item in KNOWN]
    contrasts = [
        naive_contrast(first, second, users, list(range(USERS))) + naive_contrast(first, second, items, known)
        for first, second in pairs
    ]
    denoising, injection = naive_denoising(model)
    return {
        "bpr": torch.stack(bpr).mean(),
        "contrast": 0.7 * sum(contrasts, torch.zeros(())),
        "denoising": denoising,
        "injection": 0.2 * injection,
    }


def naive_denoising(model: DiffMM) -> tuple[Tensor, Tensor]:
    """All users in the epoch's order; steps and noise drawn modality by modality."""
    torch.manual_seed(1)
    order = model._waiting.tolist()
    signal = [1 - 0.1 * (1e-4 + step / 2 * (0.02 - 1e-4)) for step in range(3)]
    rows = torch.from_numpy(WATCHED[:, KNOWN]).float()
    e_i = model.item_table.weight.detach()[torch.from_numpy(KNOWN)]
    denoising, injection = torch.zeros(()), torch.zeros(())
    for name in model.modalities:
        e = modality_vectors(model, name).detach()[torch.from_numpy(KNOWN)]
        steps, noise = torch.randint(1, 4, (len(order),)).tolist(), torch.randn(len(order), len(KNOWN))
        for place, (user, step) in enumerate(zip(order, steps, strict=True)):
            noisy = signal[step - 1] ** 0.5 * rows[user] + (1 - signal[step - 1]) ** 0.5 * noise[place]
            found = model.denoisers[f"of_{name}"](noisy.unsqueeze(0), torch.tensor([step]))[0]
            denoising = denoising + (found - rows[user]).square().sum() / len(order)
            injection = injection + (found @ e - rows[user] @ e_i).square().sum() / len(order)
    return denoising, injection


def terms(model: DiffMM) -> Mapping[str, Tensor]:
    torch.manual_seed(1)
    return model.extended(make_objective(TRAINING))(model, batch())


def test_vectors_of_all_nodes() -> None:
    """Those of cold items too: no edges, no free vector."""
    model = made()
    with torch.no_grad():
        expected, _ = naive_views(model)
    torch.testing.assert_close(torch.cat(model.vectors()), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("anchor", ["main", "modality"])
def test_every_term_and_its_gradients(anchor: str) -> None:
    """Gradients tell that the denoisers' loss reaches the denoisers alone."""
    model = made(CONFIG.model_copy(update={"contrast_anchor": anchor}))
    expected = naive_terms(model)  # first, for the users that a step takes from those who wait
    found = terms(model)
    check_terms(found, expected, model.parameters(), tolerances=(1e-4, 1e-4), gradient_tolerances=(1e-4, 1e-3))


def test_a_generated_graph_holds_the_largest_entries_of_the_denoised_rows() -> None:
    model = made(CONFIG.model_copy(update={"generated_edge_dropout": 0.0}))
    rows = torch.from_numpy(WATCHED[:, KNOWN]).float()
    for place, name in enumerate(model.modalities):
        denoiser = model.denoisers[f"of_{name}"]
        for user in range(USERS):
            if not WATCHED[user].any():
                assert (model.generated[place, user] == -1).all()
                continue
            row = denoiser.denoised(rows[[user]], model.schedule, denoiser.chain())[0]
            best = sorted(range(len(KNOWN)), key=lambda item: -float(row[item]))[:3]
            assert model.generated[place, user].tolist() == KNOWN[best].tolist()


def test_an_epoch_drops_edges_and_takes_all_users_along() -> None:
    model = made(CONFIG.model_copy(update={"generated_edge_dropout": 0.5}))
    dropped = (model.generated[:, WATCHED.any(1)] < 0).float().mean().item()
    assert 0.3 < dropped < 0.7
    seen = torch.cat([model.next_users(size) for size in (7, 7, len(SPLIT.train) - 14)])
    assert sorted(seen.tolist()) == np.flatnonzero(WATCHED.any(1)).tolist()
    assert not len(model.next_users(7))


def test_a_step_for_which_no_user_is_left_trains_all_but_the_denoisers() -> None:
    """Shares are rounded up: small batches take all users along before the epoch is over."""
    model = made()
    model.next_users(len(SPLIT.train))
    found = terms(model)
    assert found["denoising"] == found["injection"] == 0
    torch.stack(list(found.values())).sum().backward()
    assert all(parameter.grad is None for parameter in model.denoisers.parameters())
    assert model.user_table.weight.grad is not None
    assert torch.isfinite(model.user_table.weight.grad).all()


def test_weights_bring_their_graph() -> None:
    """What is loaded scores by the graphs that it was saved with."""
    model, other = made(), made()
    other.begin_epoch(torch.Generator().manual_seed(5))
    other.vectors()
    assert not torch.equal(model.generated, other.generated)
    other.load_state_dict(model.state_dict())
    for found, expected in zip(other.vectors(), model.vectors(), strict=True):
        assert torch.equal(found, expected)


def test_users_are_diffused_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made()
    monkeypatch.setattr("metammf.models.diffmm._DIFFUSED_AT_ONCE", 2 * len(KNOWN))
    blocks = made()
    assert torch.equal(whole.generated, blocks.generated)
    with LargestTensor() as largest:
        blocks.begin_epoch(torch.Generator().manual_seed(0))
    assert largest.numel < len(whole.active) * len(KNOWN), largest.operation


def test_content_is_needed() -> None:
    with pytest.raises(ConfigError, match="no features"):
        DiffMM(CONFIG, Inputs(SPLIT.train, SPLIT.catalog.features.only(())))
