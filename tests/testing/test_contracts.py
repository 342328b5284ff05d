"""The contract notices what it is to notice: models that are wrong on purpose, each in one way."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from metammf.models.metammf import MetaMMF, MetaMMFConfig
from metammf.models.mf import MF, MFConfig
from metammf.testing.contracts import check_model
from metammf.testing.data import scrambled, taste_groups

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class Config(MFConfig):
    """Found by its place."""

    name: str = "wrong:Model"  # type: ignore[assignment]  # as an outsider's


class ContentConfig(MetaMMFConfig):
    """Likewise."""

    name: str = "wrong:Model"  # type: ignore[assignment]  # as an outsider's


class DeadWeight(MF):
    """A parameter that nothing uses."""

    config_type = Config

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.unused = nn.Parameter(torch.ones(3))


class Unseeded(MF):
    """Draws from a generator of its own."""

    config_type = Config

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(users, items)[0] + np.random.default_rng().random() * 0.1, super().forward(users, items)[
            1
        ]


class LearnsNothing(MF):
    """Its gradients lead nowhere."""

    config_type = Config

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        found = super().forward(users, items)
        return found[0] * 0 + 1, found[1]


class PeeksAtAbsence(MetaMMF):
    """Reads what stands in place of a modality that is not there."""

    config_type = ContentConfig

    def encode_items(self, content: Any) -> Tensor:
        return super().encode_items(content) + 1e-3 * content.values["visual"].mean(1, keepdim=True)


class OtherPathForNewItems(MetaMMF):
    """Gives a new item another vector than a cold one of the same content."""

    config_type = ContentConfig

    def encode_items(self, content: Any) -> Tensor:
        return 2 * super().encode_items(content)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (DeadWeight, "does not move: .'unused'"),
        (Unseeded, "two fits of one seed differ"),
        (LearnsNothing, "does not move|own group first"),
        (PeeksAtAbsence, "another way than one added tomorrow|tells"),
        (OtherPathForNewItems, "another way than one added tomorrow"),
    ],
)
def test_what_is_wrong_is_noticed(kind: type, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("wrong")
    module.Model = kind  # type: ignore[attr-defined]  # made up here
    monkeypatch.setitem(sys.modules, "wrong", module)
    config = Config(embedding_dim=3)
    if kind.config_type is ContentConfig:
        config = ContentConfig(backbone="mf", embedding_dim=8, hidden_dims=(), meta_dim=2, cp_rank=2)
    with pytest.raises(AssertionError, match=message):
        check_model(config, tmp_path)


@pytest.mark.parametrize(("cold", "lacking"), [(0, False), (2, True)])
def test_taste_groups_are_as_told(cold: int, lacking: bool) -> None:
    split = taste_groups(6, cold=cold, lacking=lacking)
    for part in (split.train, split.validation, split.test):
        assert (part.users % 2 == part.items % 2).all()
    assert (split.train.item_counts[:12] == 4).all()
    assert (split.validation.item_counts[:12] == 1).all()
    assert (split.test.item_counts[:12] == 1).all()
    assert split.cold_items.sum() == 2 * cold
    assert split.train.user_counts[-1] == 0
    assert all(mask.all() != lacking for mask in split.catalog.features.present.values())
    for name, matrix in split.catalog.features.matrices.items():
        centres = [matrix[group::2].mean(0) for group in range(2)]
        nearest = [np.argmin([np.linalg.norm(row - centre) for centre in centres]) for row in matrix]
        assert nearest == [item % 2 for item in range(len(matrix))], name


def test_scrambled_avoids_and_keeps_the_size() -> None:
    split = taste_groups(6)
    found = scrambled(split.test, avoid=(split.train, split.validation))
    assert len(found) == len(split.test)
    assert not np.intersect1d(found.keys, np.concatenate([split.train.keys, split.validation.keys])).size
