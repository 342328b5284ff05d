from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from metammf.data.dataset import Catalog
from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.interactions import Interactions
from metammf.errors import DataError


def test_counts_and_titles(make_dataset):
    dataset = make_dataset()
    assert (dataset.num_users, dataset.num_items) == (12, 9)
    assert dataset.catalog.titles[0] == "Ünder"
    assert dataset.features is dataset.catalog.features
    assert replace(dataset.catalog, items=pl.DataFrame()).titles is None


def test_a_catalog_with_further_items_has_features_of_none(make_dataset):
    catalog = make_dataset().catalog
    wider = catalog.with_items([100, 101], ["New", "Newer"])
    assert wider.item_ids.ids.tolist() == [*catalog.item_ids.ids.tolist(), 100, 101]
    assert wider.titles == [*catalog.titles, "New", "Newer"]
    assert wider.features.widths == catalog.features.widths
    assert not any(mask.any() for mask in wider.features.present.values())
    assert catalog.with_items([100]).titles[-1] is None
    assert replace(catalog, items=pl.DataFrame()).with_items([100], ["New"]).titles is None
    with pytest.raises(DataError, match="in the data set already"):
        catalog.with_items(catalog.item_ids.ids[:1].tolist())


def test_a_catalog_of_unequal_counts_is_refused():
    with pytest.raises(DataError, match="features of 2 items, but there are 3 item ids"):
        Catalog(IdMap([1], kind="user"), IdMap([1, 2, 3]), ItemFeatures({}, num_items=2))
    with pytest.raises(DataError, match="items table of 1 rows"):
        Catalog(IdMap([1], kind="user"), IdMap([1, 2]), ItemFeatures({}, num_items=2), pl.DataFrame({"title": ["one"]}))


def test_a_data_set_of_unequal_counts_is_refused(make_dataset):
    dataset = make_dataset()
    with pytest.raises(DataError, match="interactions over 3 x 3, ids over 12 x 9"):
        replace(dataset, interactions=Interactions([0], [0], 3, 3))
    with pytest.raises(DataError, match="no interaction"):
        replace(dataset, interactions=Interactions([], [], 12, 9), parts=None)
    with pytest.raises(DataError, match="50 interactions, but 3 part labels"):
        replace(dataset, parts=np.zeros(3, dtype=np.int8))
    with pytest.raises(DataError, match=r"must be 0, 1 or 2, got 0\.\.3"):
        replace(dataset, parts=np.append(np.zeros(49, dtype=np.int8), np.int8(3)))
