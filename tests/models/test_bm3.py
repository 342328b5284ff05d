"""BM3 against its paper, one train interaction at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from metammf.errors import ConfigError
from metammf.models.base import Batch, Inputs
from metammf.models.bm3 import BM3, BM3Config
from metammf.testing.data import taste_groups
from metammf.testing.naive import check_terms, edges_of, light, standardized
from metammf.training.config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

SPLIT = taste_groups(4, cold=1, lacking=True)
INPUTS = Inputs(SPLIT.train, SPLIT.catalog.features)
USERS = INPUTS.num_users
CONFIG = BM3Config(embedding_dim=6, num_layers=2, dropout=0.4, alignment_weight=0.7, l2_weight=0.3)


def made(config: BM3Config = CONFIG) -> BM3:
    torch.manual_seed(0)
    model = BM3(config, INPUTS)
    for linear in (model.predictor, *model.projections.values()):
        torch.nn.init.normal_(linear.bias)
    return model


def batch(*, without: str | None = None) -> Batch:
    """All train interactions, or those of items that lack a modality; no negatives."""
    users, items = (torch.from_numpy(side.astype("int64")) for side in (SPLIT.train.users, SPLIT.train.items))
    if without is not None:
        chosen = torch.from_numpy(~SPLIT.catalog.features.present[without])[items]
        users, items = users[chosen], items[chosen]
    return Batch(users, items, items.new_empty(len(items), 0))


def terms(model: BM3, drawn: Batch, l2_reg: float = 0.0) -> Mapping[str, Tensor]:
    objective = model.objective(TrainingConfig(l2_reg=l2_reg))
    torch.manual_seed(1)
    return objective(model, drawn)


def representations(model: BM3) -> tuple[Tensor, Tensor]:
    """h_u = mean over hops; h_i = mean over hops plus the free vector."""
    hops = light(edges_of(SPLIT.train), torch.cat([model.user_table.weight, model.item_table.weight]), 2)
    return hops[:USERS], hops[USERS:] + model.item_table.weight


def predicted(model: BM3, h: Tensor) -> Tensor:
    return model.predictor.weight @ h + model.predictor.bias


def distance(x: Tensor, y: Tensor) -> Tensor:
    """C(x, y)."""
    return -(x @ y) / (x.norm() * y.norm())


def naive_terms(model: BM3, drawn: Batch) -> dict[str, Tensor]:
    """The losses of the paper's section 3; masks drawn in the order users, items, modalities."""
    torch.manual_seed(1)
    shape = len(drawn.users), 6
    masks = {name: functional.dropout(torch.ones(shape), 0.4) for name in ("users", "items", *model.modalities)}
    users, items = representations(model)
    zero = torch.zeros(())
    sums = {"reconstruction": zero, "propagated_l2": zero, "l2": zero}
    between, within = dict.fromkeys(model.modalities, zero), dict.fromkeys(model.modalities, zero)
    counts = dict.fromkeys(model.modalities, 0)
    present = SPLIT.catalog.features.present
    for pair, (user, item) in enumerate(zip(drawn.users.tolist(), drawn.positives.tolist(), strict=True)):
        h_u, h_i = users[user], items[item]
        target_u, target_i = h_u.detach() * masks["users"][pair], h_i.detach() * masks["items"][pair]
        sums["reconstruction"] = (
            sums["reconstruction"]
            + distance(predicted(model, h_u), target_i)
            + distance(target_u, predicted(model, h_i))
        )
        sums["propagated_l2"] = sums["propagated_l2"] + 0.3 * (h_u @ h_u + h_i @ h_i)
        free = model.user_table.weight[user], model.item_table.weight[item]
        sums["l2"] = sums["l2"] + 0.5 * 0.2 * sum(x @ x for x in free)
        for name in model.modalities:
            if not present[name][item]:
                continue
            linear = model.projections[f"of_{name}"]
            h_m = linear.weight @ torch.from_numpy(standardized(SPLIT, name)[item]).float() + linear.bias
            counts[name] += 1
            between[name] = between[name] + distance(predicted(model, h_m), target_i)
            within[name] = within[name] + distance(predicted(model, h_m), h_m.detach() * masks[name][pair])
    means = {name: total / len(drawn.users) for name, total in sums.items()}
    for key, totals in (("between_modalities", between), ("within_modalities", within)):
        means[key] = 0.7 * sum((totals[name] / max(1, counts[name]) for name in model.modalities), zero)
    return means


def test_vectors_are_the_predictor_s_of_the_paper_s_representations() -> None:
    model = made()
    with torch.no_grad():
        expected = [torch.stack([predicted(model, h) for h in side]) for side in representations(model)]
    for found, side in zip(model.vectors(), expected, strict=True):
        torch.testing.assert_close(found, side, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("without", [None, "visual"])
def test_every_term_and_its_gradients(without: str | None) -> None:
    """Gradients tell that none enters a target."""
    model, drawn = made(), batch(without=without)
    assert len(drawn.users)
    found, expected = terms(model, drawn, l2_reg=0.2), naive_terms(model, drawn)
    check_terms(found, expected, model.parameters(), tolerances=(1e-5, 1e-4), gradient_tolerances=(1e-5, 1e-4))


def test_an_absent_modality_takes_no_part() -> None:
    """Where no item of the batch has one, its alignments are zero, and its parameters stay."""
    model, drawn = made(CONFIG.model_copy(update={"modalities": ("visual",)})), batch(without="visual")
    found = terms(model, drawn)
    assert found["between_modalities"] == found["within_modalities"] == 0
    sum(found.values(), torch.zeros(())).backward()
    assert not model.projections["of_visual"].weight.grad.any()


def test_content_is_needed_and_gives_no_vector() -> None:
    with pytest.raises(ConfigError, match="no features"):
        BM3(CONFIG, Inputs(SPLIT.train, SPLIT.catalog.features.only(())))
    assert not made().content_aware
