"""The streamed reading of a log gives what reading its columns whole gives, and names the rows that are wrong."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metammf.data.readers import logs, tables
from metammf.errors import FileFormatError

if TYPE_CHECKING:
    from pathlib import Path

quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
numbers = st.integers(-(2**62), 2**62) | st.integers(0, 9)
names = st.text(st.characters(exclude_characters='\r\n",', exclude_categories=("C", "Z")), min_size=1, max_size=6)


def whole(path: Path) -> logs.Value:
    return logs.Value(partial(tables.whole, path=path), pl.Int64)


def read(path: Path, ids=("user", "item"), values=("when",), **options) -> logs.Rows:
    return logs.read_log(tables.scan_table(path), path, ids, {name: whole(path) for name in values}, **options)


def written(path: Path, table: pl.DataFrame) -> Path:
    (table.write_parquet if path.suffix == ".parquet" else table.write_csv)(path)
    return path


@quick
@given(
    st.sampled_from(["log.csv", "log.parquet"]),
    st.lists(st.tuples(numbers, names, st.integers(-(2**40), 2**40)), max_size=30),
    st.integers(1, 7),
)
def test_a_streamed_log_is_as_its_columns_read_whole(tmp_path, name, rows, chunk):
    schema = {"user": pl.Int64, "item": pl.String, "when": pl.Int64}
    path = written(tmp_path / name, pl.DataFrame(rows, schema=schema, orient="row"))
    table = tables.read_table(path, ("user", "item", "when"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "_SLICE", chunk)
        found = read(path)
    np.testing.assert_array_equal(found.values["when"], tables.whole(table["when"], path))
    for column in ("user", "item"):
        naive = tables.ids(table[column], path)
        coded = found.ids[column].typed(path)
        distinct = naive.unique(maintain_order=True)
        assert coded.ids.to_list() == distinct.to_list()
        assert coded.ids.dtype == naive.dtype or not len(naive)
        assert coded.codes.tolist() == tables.index_ids(naive, distinct, path, "any").tolist()
        assert [naive[row] for row in coded.first.tolist()] == distinct.to_list()


@quick
@given(st.lists(names, min_size=1, max_size=30), st.data())
def test_selected_rows_are_numbered_anew(tmp_path, values, data):
    path = written(tmp_path / "log.parquet", pl.DataFrame({"user": values}))
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    kept = [value for value, is_kept in zip(values, chosen, strict=True) if is_kept]
    found = read(path, ("user",), ()).ids["user"].select(chosen)
    assert found.ids.gather(found.codes).to_list() == kept
    assert found.ids.to_list() == list(dict.fromkeys(kept))
    assert [values[row] for row in found.first.tolist()] == found.ids.to_list()


@quick
@given(st.lists(st.lists(names, max_size=10), min_size=1, max_size=3))
def test_files_one_after_another_are_one_column(tmp_path, files):
    columns = []
    for number, values in enumerate(files):
        path = written(tmp_path / f"{number}.parquet", pl.DataFrame({"user": pl.Series(values, dtype=pl.String)}))
        columns.append(read(path, ("user",), ()).ids["user"])
    joined, everything = logs.one_after_another(columns), [value for values in files for value in values]
    assert joined.ids.gather(joined.codes).to_list() == everything
    assert joined.ids.to_list() == list(dict.fromkeys(everything))


@pytest.mark.parametrize("low", [-5, 2**62])
def test_whole_numbers_are_coded_dense_or_apart(tmp_path, low):
    values = [low + step for step in (7, 0, 7, 3)] + [0] * (low > 0)
    path = written(tmp_path / "log.parquet", pl.DataFrame({"user": values}))
    found = read(path, ("user",), ()).ids["user"]
    assert found.ids.to_list() == list(dict.fromkeys(values))
    assert found.codes.tolist() == [0, 1, 0, 2] + [3] * (low > 0)


MANY = 250_000


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("user", "", "row 200001, column 'user' is missing; expected an id"),
        ("when", "soon", "row 200001, column 'when' is 'soon'; expected a number"),
        ("when", "1.5", "row 200001, column 'when' is '1.5'; expected a whole number"),
    ],
)
def test_what_is_wrong_far_down_is_named_by_its_row_of_the_file(tmp_path, column, cell, message):
    table = pl.DataFrame({"user": np.arange(MANY) % 1000, "item": np.arange(MANY) // 1000, "when": 1}).cast(pl.String)
    cells = table[column].to_list()
    cells[200_000] = cell
    path = written(tmp_path / "log.csv", table.with_columns(pl.Series(column, cells)))
    with pytest.raises(FileFormatError, match=message):
        read(path)


def test_rows_are_counted_and_stay_in_order(tmp_path):
    users = np.random.default_rng(0).integers(0, 10**6, MANY)
    path = written(tmp_path / "log.csv", pl.DataFrame({"user": users, "item": np.arange(MANY), "when": 1}))
    told = []
    found = read(path, progress=lambda what, done, total: told.append((what, done, total)))
    assert {(what, total) for what, _, total in told} == {("reading rows", 0)}
    assert max(done for _, done, _ in told) == MANY
    assert found.ids["user"].typed(path).ids.to_numpy()[found.ids["user"].codes].tolist() == users.tolist()
    assert found.ids["item"].codes.tolist() == list(range(MANY))


def test_an_id_that_is_not_known_is_named_by_its_first_row(tmp_path):
    path = written(tmp_path / "log.csv", pl.DataFrame({"user": ["a", "b", "c", "b"]}))
    column = read(path, ("user",), ()).ids["user"]
    assert column.places(pl.Series(["c", "b", "a"]), path, "user").tolist() == [2, 1, 0, 1]
    with pytest.raises(FileFormatError, match="row 2, column 'user' is 'b': unknown user id; expected one of the 2"):
        column.places(pl.Series(["c", "a"]), path, "user")


@pytest.mark.parametrize("values", [[1.5], [True], [None]])
def test_ids_of_another_type_are_refused(tmp_path, values):
    path = written(tmp_path / "log.parquet", pl.DataFrame({"user": values}))
    with pytest.raises(FileFormatError, match=r"column 'user' is of .*expected ids"):
        read(path, ("user",), ())


@pytest.mark.parametrize("ids", [[2**63 - 1, 2**63 - 3], [-(2**63), -(2**63) + 1], [-(2**63), 2**63 - 1]])
def test_ids_at_the_ends_of_64_bits(tmp_path, ids):
    path = written(tmp_path / "log.parquet", pl.DataFrame({"user": ids}))
    found = read(path, ("user",), ()).ids["user"]
    assert found.ids.dtype == pl.Int64
    assert found.ids.gather(found.codes).to_list() == ids


@pytest.mark.parametrize("dtype", [pl.Duration("us"), pl.Time])
def test_what_is_no_moment_is_refused(tmp_path, dtype):
    table = pl.DataFrame({"user": [1], "when": pl.Series([1], dtype=pl.Int64).cast(dtype)})
    with pytest.raises(FileFormatError, match="column 'when' is of"):
        read(written(tmp_path / "log.parquet", table), ("user",), ("when",))
