from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metammf.data.features import ItemFeatures
from metammf.errors import DataError


def features(num_items=6, lacking=()):
    rng = np.random.default_rng(0)
    mask = np.ones(num_items, dtype=np.bool_)
    mask[list(lacking)] = False
    return ItemFeatures(
        {"visual": rng.standard_normal((num_items, 3)), "acoustic": rng.standard_normal((num_items, 2))},
        {"acoustic": mask},
    )


def test_names_widths_and_masks():
    found = features(lacking=[1])
    assert found.modalities == ("visual", "acoustic")
    assert found.widths == {"visual": 3, "acoustic": 2}
    assert found.num_items == 6
    assert found.present["visual"].all()
    assert found.present["acoustic"].tolist() == [True, False, True, True, True, True]
    with pytest.raises(ValueError, match="read-only"):
        found.present["visual"][0] = False


def test_no_modality_at_all():
    assert ItemFeatures({}, num_items=4).num_items == 4


@pytest.mark.parametrize(
    ("matrices", "present", "message"),
    [
        ({"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}, {}, "expected 3 rows, one an item, got 4"),
        ({"a": np.zeros(3)}, {}, "expected floats of shape"),
        ({"a": np.zeros((3, 0))}, {}, "expected floats of shape"),
        ({"a": np.zeros((3, 2), dtype=np.int64)}, {}, "got int64"),
        ({"visual": np.zeros((3, 2))}, {"visua": np.ones(3, dtype=np.bool_)}, "did you mean 'visual'"),
        ({"a": np.zeros((3, 2))}, {"a": np.ones(2, dtype=np.bool_)}, "expected booleans of shape"),
        ({"a": np.zeros((3, 2))}, {"a": np.ones(3)}, "got float64"),
    ],
)
def test_bad_shapes_are_refused(matrices, present, message):
    with pytest.raises(DataError, match=message):
        ItemFeatures(matrices, present)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value):
    matrix = np.zeros((5, 3))
    matrix[3, 1] = value
    with pytest.raises(DataError, match=r"row 3, column 1 is (nan|-?inf)"):
        ItemFeatures({"visual": matrix}).check_finite()
    assert features().check_finite().num_items == 6


def test_only_and_select():
    found = features(lacking=[1])
    assert found.only(["acoustic"]).modalities == ("acoustic",)
    with pytest.raises(DataError, match="did you mean 'visual'"):
        found.only(["visul"])
    part = found.select(np.array([1, 4]))
    assert part.num_items == 2
    assert part.present["acoustic"].tolist() == [False, True]
    np.testing.assert_array_equal(part.matrices["visual"], found.matrices["visual"][[1, 4]])
    assert ItemFeatures({}, num_items=4).select(np.array([True, False, True, False])).num_items == 2


@given(st.integers(0, 100), st.sets(st.integers(0, 5), max_size=4))
def test_a_shuffle_keeps_rows_masks_and_what_belongs_together(seed, lacking):
    found = features(lacking=lacking)
    shuffled = found.placebo("shuffle", seed)
    for name in found.modalities:
        mask = found.present[name]
        np.testing.assert_array_equal(mask, shuffled.present[name])
        rows, others = (sorted(map(tuple, each.matrices[name][mask].tolist())) for each in (found, shuffled))
        assert rows == others


def test_a_shuffle_is_one_permutation_for_all_modalities():
    base = np.arange(20, dtype=np.float32)[:, None]
    shuffled = ItemFeatures({"a": base, "b": base + 100}).placebo("shuffle", 3)
    np.testing.assert_array_equal(shuffled.matrices["a"] + 100, shuffled.matrices["b"])
    assert (shuffled.matrices["a"] != base).all()


def test_a_shuffle_gives_all_that_one_other_item_of_the_same_modalities_has():
    base = np.arange(30, dtype=np.float32)[:, None]
    lacks = np.arange(30) % 3 != 0
    shuffled = ItemFeatures({"a": base, "b": base + 100}, {"b": lacks}).placebo("shuffle", 3)
    donors = shuffled.matrices["a"][:, 0].astype(int)
    assert (donors != np.arange(30)).all()
    assert (lacks[donors] == lacks).all()
    np.testing.assert_array_equal(shuffled.matrices["b"], base[donors] + 100)


def test_dropped_features_are_lacking_everywhere_and_take_no_memory():
    dropped = features(lacking=[2]).placebo("drop", 0)
    assert dropped.widths == features().widths
    assert not any(mask.any() for mask in dropped.present.values())
    assert all(matrix.strides == (0, 0) for matrix in dropped.matrices.values())


def test_noise_keeps_shapes_and_masks_and_is_seeded():
    found = features(lacking=[2])
    noise, again, other = (found.placebo("noise", seed) for seed in (1, 1, 2))
    assert noise.widths == found.widths
    np.testing.assert_array_equal(noise.present["acoustic"], found.present["acoustic"])
    np.testing.assert_array_equal(noise.matrices["visual"], again.matrices["visual"])
    assert not np.array_equal(noise.matrices["visual"], other.matrices["visual"])
    with pytest.raises(DataError, match="expected one of noise, shuffle, drop"):
        found.placebo("zeros", 0)
