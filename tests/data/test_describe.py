from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metammf.data.describe import describe, gini
from metammf.data.features import ItemFeatures
from metammf.data.importers.registry import import_dataset


@given(hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 50)))
def test_gini_is_half_the_mean_difference_over_the_mean(counts):
    differences = np.abs(counts[:, None] - counts[None, :]).mean()
    expected = differences / (2 * counts.mean()) if counts.sum() else 0.0
    assert gini(counts) == pytest.approx(expected, abs=1e-12)


def test_counts_of_a_small_data_set(make_dataset):
    dataset = make_dataset()
    found = describe(dataset)
    assert (found.num_users, found.num_items, found.num_interactions) == (12, 9, 50)
    assert found.density == 50 / 108
    assert (found.users.without, found.items.without) == (1, 1)
    assert found.users.mean == pytest.approx(50 / 12)
    assert found.users.most == dataset.interactions.user_counts.max()
    assert (found.first_timestamp, found.last_timestamp) == (
        dataset.interactions.timestamps.min(),
        dataset.interactions.timestamps.max(),
    )
    assert found.titles == pytest.approx(8 / 9)
    assert found.licence == "CC0"
    assert [part.interactions for part in found.parts] == [35, 7, 8]
    counts = np.sort(dataset.interactions.item_counts)[::-1]
    assert found.long_tail.share_top_20 == pytest.approx(counts[:2].sum() / 50)
    assert found.long_tail.items_below_5 == (counts < 5).sum()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["modalities"][1]["missing_share"] == pytest.approx(
        2 / 9
    )


def test_cold_items_of_each_part(make_dataset):
    dataset = make_dataset()
    parts = np.where(dataset.interactions.items == 3, 2, 0).astype(np.int8)
    parts[np.flatnonzero(parts == 0)[:3]] = 2
    test = describe(replace(dataset, parts=parts)).parts[2]
    assert (test.cold_items, test.cold_interactions) == (1, (dataset.interactions.items == 3).sum())


def test_nothing_to_tell(make_dataset):
    dataset = make_dataset(parts=False, timestamps=False)
    bare = replace(dataset.catalog, items=pl.DataFrame(), features=ItemFeatures({}, num_items=9))
    found = describe(replace(dataset, catalog=bare))
    assert (found.parts, found.modalities, found.first_timestamp, found.titles) == ((), (), None, None)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_constant_columns_rows_and_duplicates(make_dataset, monkeypatch, dtype):
    monkeypatch.setattr("metammf.data.describe._CHUNK_VALUES", 8)  # a few rows a chunk
    matrix = np.random.default_rng(0).standard_normal((9, 4)).astype(dtype)
    matrix[:, 2] = 1
    matrix[3] = 1
    matrix[5], matrix[7] = matrix[1], matrix[1]
    matrix[0] = 7  # not counted: the item lacks the modality
    present = np.ones(9, dtype=np.bool_)
    present[0] = False
    catalog = replace(make_dataset().catalog, features=ItemFeatures({"m": matrix}, {"m": present}))
    found = describe(replace(make_dataset(), catalog=catalog)).modalities[0]
    assert (found.constant_columns, found.constant_rows, found.duplicate_rows) == (1, 1, 2)
    assert found.width == 4
    assert found.missing_share == pytest.approx(1 / 9)


def test_a_modality_that_every_item_lacks(make_dataset):
    features = ItemFeatures({"m": np.zeros((9, 2))}, {"m": np.zeros(9, dtype=np.bool_)})
    found = describe(replace(make_dataset(), catalog=replace(make_dataset().catalog, features=features)))
    assert found.modalities[0].missing_share == 1
    assert found.modalities[0].constant_columns == 0
    assert found.modalities[0].lift.verdict == "too few pairs"


def test_tiktok(real_data):
    found = describe(import_dataset(real_data / "tiktok"))
    assert [(part.interactions, part.cold_interactions) for part in found.parts] == [
        (59541, 0),
        (3051, 223),
        (6130, 449),
    ]
    assert [modality.lift.verdict for modality in found.modalities] == ["follows taste"] * 2


def test_movielens_has_constant_columns(real_data):
    found = {modality.name: modality for modality in describe(import_dataset(real_data / "movielens-small")).modalities}
    assert found["visual"].constant_columns > 0
    assert found["visual"].missing_share == found["acoustic"].missing_share > 0.7
    assert found["textual"].lift.verdict == "follows taste"
