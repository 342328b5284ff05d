"""A small data set with everything in it, and a check that two data sets are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl
import pytest

from metammf.data.dataset import Catalog, Dataset
from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.interactions import Interactions

if TYPE_CHECKING:
    from collections.abc import Callable


class MakeDataset(Protocol):
    def __call__(self, *, parts: bool = ..., timestamps: bool = ..., seed: int = ...) -> Dataset: ...


@pytest.fixture(scope="session")
def make_dataset() -> MakeDataset:
    """Twelve users (the last without interactions), nine items (the last likewise), two modalities of which one lacks."""

    def make(*, parts: bool = True, timestamps: bool = True, seed: int = 0) -> Dataset:
        rng = np.random.default_rng(seed)
        cells = rng.permutation(11 * 8)[:50]
        log = Interactions(
            cells // 8,
            cells % 8,
            12,
            9,
            rng.integers(10**9, 2 * 10**9, 50) if timestamps else None,
            rng.choice([1.0, 3.5, 5.0], 50) if timestamps else None,
        )
        lacking = np.ones(9, dtype=np.bool_)
        lacking[[2, 8]] = False
        features = ItemFeatures(
            {
                "visual": rng.standard_normal((9, 4)).astype(np.float32),
                "textual": rng.standard_normal((9, 3)).astype(np.float16),
            },
            {"textual": lacking},
        )
        titles = pl.DataFrame({"title": ["Ünder", 'a "quoted" one', "tab", None, "e", "f", "g, with comma", "h", "i"]})
        catalog = Catalog(
            IdMap([f"u{number}" for number in rng.permutation(12)], kind="user"),
            IdMap(rng.permutation(100)[:9] + 5),
            features,
            titles,
        )
        labels = np.repeat(np.array([0, 1, 2], dtype=np.int8), [35, 7, 8]) if parts else None
        return Dataset("small", log, catalog, labels, {"licence": "CC0", "format": "test"})

    return make


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    """Compare all that a data set holds; `present_only` leaves out the rows of what items lack."""

    def check(first: Dataset, second: Dataset, *, present_only: bool = False) -> None:
        assert first.catalog.user_ids == second.catalog.user_ids
        assert first.catalog.item_ids == second.catalog.item_ids
        np.testing.assert_array_equal(first.interactions.keys, second.interactions.keys)
        for name in ("timestamps", "ratings"):
            np.testing.assert_array_equal(getattr(first.interactions, name), getattr(second.interactions, name))
        np.testing.assert_array_equal(first.parts, second.parts)
        assert first.features.modalities == second.features.modalities
        for name, matrix in first.features.matrices.items():
            mask = first.features.present[name]
            np.testing.assert_array_equal(mask, second.features.present[name])
            rows = mask if present_only else slice(None)
            np.testing.assert_array_equal(matrix[rows], second.features.matrices[name][rows])
        assert first.catalog.titles == second.catalog.titles

    return check
