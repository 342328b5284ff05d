from __future__ import annotations

import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metammf.data.readers import tables
from metammf.errors import FileFormatError


def series(values, name="c", **options):
    return pl.Series(name, values, **options)


def test_text_is_read_as_text_whatever_it_looks_like(tmp_path):
    (tmp_path / "a.csv").write_text('id,name\n007,"a, b"\n8,NA\n')
    table = tables.read_table(tmp_path / "a.csv", ("id",), ("name", "absent"))
    assert table.to_dict(as_series=False) == {"id": ["007", "8"], "name": ["a, b", "NA"]}
    (tmp_path / "b.tsv").write_text('id\tname\n1\t"x\ty"\n')
    assert tables.read_table(tmp_path / "b.tsv", ("name",))["name"].to_list() == ["x\ty"]
    (tmp_path / "b.inter").write_text('id\tname\n1\t"x\n')
    assert tables.read_table(tmp_path / "b.inter", ("name",))["name"].to_list() == ['"x']


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_names(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfid,name\r\n1,x\r\n")
    table = tables.read_table(tmp_path / "a.csv", ("id", "name"))
    assert table.rows() == [("1", "x")]


def test_blank_lines_are_no_rows(tmp_path):
    (tmp_path / "a.csv").write_text("id,name\n\n1,x\n2,\n\n")
    assert tables.read_table(tmp_path / "a.csv", ("id", "name")).rows() == [("1", "x"), ("2", None)]


def test_a_name_with_wildcards_is_a_name(tmp_path):
    (tmp_path / "a[1]*.csv").write_text("id\n1\n")
    (tmp_path / "a1.csv").write_text("id\n2\n")
    assert tables.read_table(tmp_path / "a[1]*.csv", ("id",))["id"].to_list() == ["1"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty; expected a table"),
        ("a.csv", b"idd,name\n1,x\n", "has no column 'id' .did you mean 'idd'.*its columns are idd, name"),
        (
            "a.tsv",
            b"id,name\n1,x\n",
            "header 'id,name' is one column: .* by commas; expected tabs in a file that ends in .tsv",
        ),
        ("a.csv", b"id|name\n1|x\n", "by vertical bars; expected commas in a file that ends in .csv"),
        ("a.csv", b"id,name\n1,x\n2,\xff\xfe\n", "line 3 is not UTF-8 text"),
        ("a.csv", b"id,name\n1,x,3,4\n", r"row 1 .line 2. has 4 fields; expected at most 2, as the header has"),
        ("a.inter", b"id\tname\n1\tx\ty\n", r"row 1 .line 2. has 3 fields"),
        ("a.csv", b'id,name\n1,x\n2,"y\n' + b"3,z\n" * 4, r"quote that opens in row 2 .line 3. is never closed"),
        ("a.csv", b'id,"name\n1,x\n', "a quote that opens in the header is never closed; expected quotes in pairs"),
        ("a.csv", b'id,name\n1,"x"y\n', "cannot be read as a table: could not parse"),
        ("a.csv", b"id,id\n1,2\n", "has two columns 'id'"),
        ("a.parquet", b"PAR1 no parquet PAR1", "cannot be read as a table"),
        ("a.parquet", b"x", "cannot be read as a table"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=message) as caught:
        tables.read_table(path, ("id",))
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("column", "places"),
    [
        (series(["b", "a", "A", None]), [1, 0, None, None]),
        (series(["a", "b"], dtype=pl.Categorical), [0, 1]),
        (series([0, 1]), [None, None]),
        (series([["a"]]), [None]),
    ],
)
def test_labels_have_places_among_the_known_ones(column, places):
    found = tables.labels(column, ("a", "b"))
    assert (found.dtype, found.to_list()) == (pl.Int8, places)


def test_missing_files(tmp_path):
    with pytest.raises(FileFormatError, match=r"cannot be read .No such file"):
        tables.read_table(tmp_path / "none.csv")
    with pytest.raises(FileFormatError, match="is a folder; expected a table"):
        tables.read_table(tmp_path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "2"], [1, 2]),
        (["0", "-3"], [0, -3]),
        (["007", "8"], ["007", "8"]),
        (["1", "x"], ["1", "x"]),
        (["1.0", "2"], ["1.0", "2"]),
        (["9" * 18], [10**18 - 1]),
        (["9" * 19], ["9" * 19]),
        ([" 1"], [" 1"]),
        (["-0"], ["-0"]),
        ([3, 4], [3, 4]),
    ],
)
def test_ids_keep_their_type(values, expected):
    assert tables.ids(series(values), "x").to_list() == expected


def test_ids_of_parquet_keep_the_type_they_have_there():
    assert tables.ids(series(["7", "8"]), "log.parquet").to_list() == ["7", "8"]
    assert tables.ids(series([7, 8]), "log.parquet").to_list() == [7, 8]
    assert tables.ids(series(["7", "8"]), "log.csv").to_list() == [7, 8]


@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=6))
def test_ids_never_merge(values):
    read = tables.ids(series(values, dtype=pl.String), "x")
    assert len(set(read.to_list())) == len(set(values))
    assert [str(value) for value in read.to_list()] == values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", None], "row 2, column 'c' is missing; expected an id"),
        (["a", ""], "row 2, column 'c' is missing; expected an id"),
        ([1, None], "row 2, column 'c' is missing"),
        ([1.5], "column 'c' is of Float64"),
        ([True], "column 'c' is of Boolean"),
        (pl.Series([2**63], dtype=pl.UInt64), "is 9223372036854775808; expected a whole number below"),
    ],
)
def test_bad_ids_are_refused(values, message):
    with pytest.raises(FileFormatError, match=message):
        tables.ids(series(values), "x")


def test_whole_numbers():
    assert tables.whole(series(["1", "2.0", " 3 "]), "x").tolist() == [1, 2, 3]
    assert tables.whole(series([str(2**60 + 1)]), "x").tolist() == [2**60 + 1]
    assert tables.whole(series([1.0, 2.0]), "x").tolist() == [1, 2]
    for zone in (datetime.UTC, None):
        moment = datetime.datetime(2020, 1, 1, tzinfo=zone)
        assert tables.whole(series([moment]), "x").tolist() == [1577836800]
    assert tables.whole(series([datetime.date(2020, 1, 1)]), "x").tolist() == [1577836800]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["1", "1.5"], "row 2, column 'c' is '1.5'; expected a whole number"),
        (["x"], "row 1, column 'c' is 'x'; expected a number"),
        (["1", None], "row 2, column 'c' is missing"),
        ([1, None], "row 2, column 'c' is missing"),
        (["nan"], "expected a finite number"),
        (["1e300"], "expected a whole number"),
        ([datetime.date(2020, 1, 1), None], "row 2, column 'c' is missing"),
        ([[1]], "is of List"),
    ],
)
def test_what_is_no_whole_number_is_refused(values, message):
    with pytest.raises(FileFormatError, match=message):
        tables.whole(series(values), "x")


def test_floats():
    assert tables.floats(series([" 1.5", "2"]), "x").tolist() == [1.5, 2.0]
    for values, message in (([1.0, float("inf")], "row 2, column 'c' is inf"), (["a"], "is 'a'; expected a number")):
        with pytest.raises(FileFormatError, match=message):
            tables.floats(series(values), "x")


@given(st.lists(st.integers(0, 20), max_size=20))
def test_index_ids_is_the_place_among_the_known(values):
    known = pl.Series("id", np.random.default_rng(0).permutation(21))
    places = tables.index_ids(series(values, dtype=pl.Int64), known, "x", "item")
    assert known.gather(places).to_list() == values


def test_an_unknown_id_is_named():
    with pytest.raises(FileFormatError, match="row 2, column 'c' is 9: unknown item id; expected one of the 2 items"):
        tables.index_ids(series([1, 9]), pl.Series([1, 2]), "x", "item")
    assert tables.index_ids(series(["1"]), pl.Series([2, 1]), "x", "item").tolist() == [1]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_damaged_parquet_gives_our_error_or_a_table(tmp_path, data):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"id": [f"u{number}" for number in range(30)], "when": range(30)}).write_parquet(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    path.write_bytes(content)
    try:
        table = tables.read_table(path, ("id",), ("when",))
        tables.ids(table["id"], path)
    except FileFormatError:
        return
    assert "id" in table.columns


def test_flags():
    assert tables.flags(series(["true", "False", "1", "0"]), "x").tolist() == [True, False, True, False]
    with pytest.raises(FileFormatError, match=r"row 2, column .* is 'yes'; expected true or false"):
        tables.flags(series(["true", "yes"]), "x")
