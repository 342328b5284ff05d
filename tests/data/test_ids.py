from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metammf.data.ids import IdMap
from metammf.errors import DataError, UnknownIdError

integers = st.lists(st.integers(-(2**62), 2**62), unique=True, max_size=30)
strings = st.lists(st.text(max_size=8), unique=True, max_size=30)


@given(st.one_of(integers, strings))
def test_indices_and_outside_are_inverse(values):
    ids = IdMap(values)
    assert len(ids) == len(values)
    np.testing.assert_array_equal(ids.indices(values), np.arange(len(values)))
    assert list(ids.ids.tolist()) == values
    for index, value in enumerate(values):
        assert ids.index(value) == index
        assert value in ids


@given(integers)
def test_a_number_is_found_by_its_text(values):
    ids = IdMap(values)
    assert all(ids.index(str(value)) == index for index, value in enumerate(values))


@given(integers, st.lists(st.integers(), max_size=5))
def test_extending_keeps_the_present_indices(values, more):
    ids = IdMap(values)
    new = [value for value in dict.fromkeys(more) if value not in ids and abs(value) < 2**62]
    longer = ids.extend(new)
    assert longer.ids.tolist() == [*values, *new]
    np.testing.assert_array_equal(longer.indices(values), np.arange(len(values)))


@given(st.one_of(integers, strings), st.lists(st.one_of(st.integers(), st.text(max_size=4), st.floats(), st.none())))
def test_looking_up_is_what_a_dictionary_does(values, asked):
    ids, naive = IdMap(values), {value: index for index, value in enumerate(values)}
    for value in [*asked, *map(str, values), *values]:
        spelt = value
        if (
            ids.is_integer
            and isinstance(value, str)
            and value.strip().removeprefix("-").isdecimal()
            and value.isascii()
        ):
            spelt = int(value)
        elif not ids.is_integer and isinstance(value, int):
            spelt = str(value)
        assert (value in ids) == (spelt in naive)
        if spelt in naive:
            assert ids.index(value) == naive[spelt]


@given(integers.filter(len), st.data())
def test_many_at_once_are_what_they_are_one_by_one(values, data):
    ids = IdMap(values)
    asked = data.draw(st.lists(st.sampled_from(values)))
    expected = [ids.index(value) for value in asked]
    for form in (asked, np.array(asked, dtype=np.int64), map(str, asked), iter(asked)):
        np.testing.assert_array_equal(ids.indices(form), expected)


def test_an_unknown_one_among_many_is_named():
    for asked in ([1, 5], np.array([1, 5]), np.array([1, 5], dtype=np.uint64), [1, "5"], [1, 5, 2**70]):
        with pytest.raises(UnknownIdError, match="unknown item id"):
            IdMap([2, 1]).indices(asked)
    with pytest.raises(DataError, match="below 2"):
        IdMap(np.array([2**63], dtype=np.uint64))


def test_an_unknown_one_is_told_beside_one_that_is_known():
    for known, asked, told in (
        (
            ["user-1", "user-2"],
            "usr-1",
            "unknown user id 'usr-1' (did you mean 'user-1'?); expected one of 2, such as 'user-1'",
        ),
        ([7, 8, 9], "nobody", "unknown user id 'nobody'; expected one of 3, such as 7"),
        ([], 1, "unknown user id 1; expected none, since there is none"),
    ):
        with pytest.raises(UnknownIdError) as error:
            IdMap(known, kind="user").index(asked)
        assert str(error.value) == told


def test_leading_zeros_are_another_id():
    ids = IdMap(["7", "007"])
    assert (ids.index("7"), ids.index("007"), ids.index(7)) == (0, 1, 0)


def test_it_is_frozen():
    ids = IdMap([3, 1])
    with pytest.raises(ValueError, match="read-only"):
        ids.ids[0] = 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "b", "a"], "'a' comes 2 times"),
        ([1, 2, 1], "1 comes 2 times"),
        (["a", 1], "got 1 in row 1"),
        ([1, None], "got 1 in row 0"),
        ([1.5], "got 1.5"),
        (np.array([[1]]), "one axis"),
        (np.array([1.0]), "dtype float64"),
        ([True], "got True"),
    ],
)
def test_bad_ids_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        IdMap(values)


def test_an_unknown_id_names_the_nearest():
    with pytest.raises(UnknownIdError, match=r"unknown user id 'user-43' .did you mean 'user-42'"):
        IdMap(["user-42", "x"], kind="user").index("user-43")
    with pytest.raises(UnknownIdError, match="unknown item id 9"):
        IdMap([1]).index(9)
    with pytest.raises(UnknownIdError):
        IdMap([1]).index([1])


def test_extending_refuses_what_is_there_and_other_types():
    with pytest.raises(DataError, match="in the data set already"):
        IdMap([1, 2]).extend([2])
    with pytest.raises(DataError, match="expected a whole number"):
        IdMap([1, 2]).extend(["x"])


def test_equality_is_of_ids():
    assert IdMap([1, 2]) == IdMap([1, 2])
    assert IdMap([1, 2]) != IdMap([2, 1])
    assert hash(IdMap([1, 2])) == hash(IdMap([1, 2]))
    assert IdMap.of_range(3) == IdMap([0, 1, 2])
    assert repr(IdMap([1], kind="user")) == "IdMap(1 user ids)"
