from __future__ import annotations

import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metammf.data.folder import load_dataset, save_dataset
from metammf.data.importers.registry import import_dataset
from metammf.errors import ConfigError, DataError, FileFormatError

quick = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(folder, text, name="log.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def rows_of(dataset):
    log, catalog = dataset.interactions, dataset.catalog
    return list(zip(catalog.user_ids.ids[log.users].tolist(), catalog.item_ids.ids[log.items].tolist(), strict=True))


def test_ids_keep_their_type_and_order(tmp_path):
    dataset = import_dataset(write(tmp_path, "user_id,item_id\n007,30\n7,10\n007,10\n"))
    assert dataset.name == "log"
    assert dataset.catalog.user_ids.ids.tolist() == ["007", "7"]
    assert dataset.catalog.item_ids.ids.tolist() == [30, 10]
    assert rows_of(dataset) == [("007", 30), ("7", 10), ("007", 10)]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_every_kind_of_file(tmp_path, ending):
    table = pl.DataFrame({"u": ["x", "y"], "when": [5, 6], "i": [1, 2], "stars": [1.0, 4.0], "other": [None, "z"]})
    path = tmp_path / f"log.{ending}"
    if ending == "parquet":
        table.write_parquet(path)
    else:
        table.write_csv(path, separator="," if ending == "csv" else "\t")
    dataset = import_dataset(path, user_column="u", item_column="i", timestamp_column="when", rating_column="stars")
    assert rows_of(dataset) == [("x", 1), ("y", 2)]
    assert dataset.interactions.timestamps.tolist() == [5, 6]
    assert dataset.interactions.ratings.tolist() == [1, 4]
    kept = import_dataset(path, user_column="u", item_column="i", rating_column="stars", min_rating=2)
    assert rows_of(kept) == [("y", 2)]


def test_repeats_keep_the_earliest(tmp_path):
    text = "user_id,item_id,timestamp,rating\na,x,9,1\na,y,5,2\na,x,3,3\na,x,3,4\n"
    dataset = import_dataset(write(tmp_path, text))
    assert rows_of(dataset) == [("a", "y"), ("a", "x")]
    assert dataset.interactions.timestamps.tolist() == [5, 3]
    assert dataset.interactions.ratings.tolist() == [2, 3]
    assert dataset.provenance["repeats_merged"] == 2
    without = import_dataset(write(tmp_path, "user_id,item_id,rating\na,x,1\na,x,2\n"))
    assert without.interactions.ratings.tolist() == [1]


@pytest.mark.parametrize(
    ("cells", "unit", "expected"),
    [
        (["100", "200"], "s", [100, 200]),
        (["100.0", "200"], "s", [100, 200]),
        (["1577836800123", "1577836801000"], "ms", [1577836800, 1577836801]),
        (["2020-01-01 00:00:00", "2020-01-01 00:00:01.5"], "s", [1577836800, 1577836801]),
        (["2020-01-01T00:00:00Z", "2020-01-01T01:00:00+01:00"], "s", [1577836800, 1577836800]),
        (["2020-01-01", "2020-01-02"], "s", [1577836800, 1577923200]),
    ],
)
def test_timestamps(tmp_path, cells, unit, expected):
    rows = "".join(f"a,{place},{cell}\n" for place, cell in enumerate(cells))
    dataset = import_dataset(write(tmp_path, "user_id,item_id,timestamp\n" + rows), timestamp_unit=unit)
    assert dataset.interactions.timestamps.tolist() == expected


def test_ids_are_text_where_one_of_all_rows_is(tmp_path):
    # The rating leaves the row out, and the row says all the same that ids are text.
    path = write(tmp_path, "user_id,item_id,rating\n1,1,5\n007,2,1\n")
    assert import_dataset(path, min_rating=3).catalog.user_ids.ids.tolist() == ["1"]


def test_an_import_tells_how_far_it_is(tmp_path):
    told = []
    path = write(tmp_path, "user_id,item_id\n" + "a,x\na,y\nb,x\nb,y\nc,z\n")
    import_dataset(path, k_core=2, progress=lambda *now: told.append(now))
    assert told == [("reading rows", 5, 0), ("2-core", 1, 5)]


def test_moments_of_parquet(tmp_path):
    moment = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [moment]}).write_parquet(tmp_path / "log.parquet")
    assert import_dataset(tmp_path / "log.parquet").interactions.timestamps.tolist() == [1577836800]


@pytest.mark.parametrize("name", ["LOG.CSV", "Log.Parquet"])
def test_endings_in_capitals(tmp_path, name):
    table = pl.DataFrame({"user_id": ["a"], "item_id": ["x"]})
    (table.write_parquet if "arquet" in name else table.write_csv)(tmp_path / name)
    assert import_dataset(tmp_path / name).catalog.user_ids.ids.tolist() == ["a"]


def test_text_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "log.csv").write_bytes("user_id,item_id\na,b\n".encode("utf-16"))
    with pytest.raises(FileFormatError, match="is UTF-16 text"):
        import_dataset(tmp_path / "log.csv")


@quick
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=40), st.integers(1, 4))
def test_the_k_core_is_the_largest_part_where_all_have_k(tmp_path, cells, k):
    kept = set(cells)
    while True:
        fewer = {
            (user, item)
            for user, item in kept
            if sum(u == user for u, _ in kept) >= k and sum(i == item for _, i in kept) >= k
        }
        if fewer == kept:
            break
        kept = fewer
    path = write(tmp_path, "user_id,item_id\n" + "".join(f"{user},{item}\n" for user, item in cells))
    if not kept:
        with pytest.raises(FileFormatError, match=f"nothing is left of the {k}-core"):
            import_dataset(path, k_core=k)
        return
    dataset = import_dataset(path, k_core=k)
    assert set(rows_of(dataset)) == kept
    assert dataset.interactions.user_counts.min() >= k
    assert dataset.interactions.item_counts.min() >= k


def test_items_and_features_beside_it(tmp_path):
    log = write(tmp_path, "user_id,item_id\na,2\nb,2\nb,1\n")
    items = write(tmp_path, "item_id,title\n1,One\n2,Two\n3,Three\n", "items.csv")
    features = tmp_path / "features"
    features.mkdir()
    np.save(features / "image_feat.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    dataset = import_dataset(log, items=items, features=features)
    assert dataset.catalog.item_ids.ids.tolist() == [1, 2, 3]
    assert dataset.catalog.titles == ["One", "Two", "Three"]
    assert dataset.features.matrices["visual"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert set(dataset.provenance["sources"]) == {"log.csv", "items.csv", "image_feat.npy"}
    core = import_dataset(log, items=items, features=features, k_core=1)
    assert core.catalog.titles == ["One", "Two"]
    assert core.features.num_items == 2


@pytest.fixture
def lacking(tmp_path):
    """A log, and a call that imports it with a table of two items and the features of a modality ``v``."""
    log = write(tmp_path, "user_id,item_id\na,x\nb,y\n")
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "v.npy", np.ones((2, 3), dtype=np.float32))
    return lambda items: import_dataset(log, items=items, features=tmp_path / "features")


@pytest.mark.parametrize("cells", [("true", "false"), ("TRUE", "False"), ("1", "0")])
def test_a_table_of_text_says_which_items_lack_what(tmp_path, lacking, cells):
    text = "item_id,title,has_v,has_w\n" + "".join(
        f"{name},T,{cell},?\n" for name, cell in zip("xy", cells, strict=True)
    )
    dataset = lacking(write(tmp_path, text, "items.csv"))
    assert dataset.features.present["v"].tolist() == [True, False]
    assert dataset.catalog.items.columns == ["title", "has_w"]
    save_dataset(dataset, tmp_path / "saved")
    assert load_dataset(tmp_path / "saved").features.present["v"].tolist() == [True, False]


@pytest.mark.parametrize("values", [[False, True], [0, 1]])
def test_a_typed_table_says_which_items_lack_what(tmp_path, lacking, values):
    pl.DataFrame({"item_id": ["x", "y"], "has_v": values}).write_parquet(tmp_path / "items.parquet")
    assert lacking(tmp_path / "items.parquet").features.present["v"].tolist() == [False, True]


@pytest.mark.parametrize(("cell", "found"), [("yes", "is 'yes'"), ("", "is missing"), ("2", "is '2'")])
def test_a_mask_of_neither_true_nor_false_is_refused(tmp_path, lacking, cell, found):
    items = write(tmp_path, f"item_id,has_v\nx,1\ny,{cell}\n", "items.csv")
    with pytest.raises(FileFormatError, match=rf"items\.csv: row 2, column 'has_v' {found}; expected true or false"):
        lacking(items)


def test_a_table_of_ids_alone_is_enough(tmp_path, lacking):
    dataset = lacking(write(tmp_path, "item_id\nx\ny\n", "items.csv"))
    assert dataset.features.num_items == dataset.num_items == 2
    assert import_dataset(tmp_path / "log.csv", items=tmp_path / "items.csv").num_items == 2


SPLIT = "user_id,item_id,rating,split\n"


def test_a_published_split_is_kept(tmp_path):
    text = SPLIT + "a,x,5,train\na,y,1,train\na,z,5,test\nb,x,4,validation\nb,z,3,train\na,x,5,train\n"
    dataset = import_dataset(write(tmp_path, text))
    assert dataset.parts.tolist() == [0, 0, 2, 1, 0]
    assert "notes" not in dataset.provenance
    kept = import_dataset(tmp_path / "log.csv", min_rating=3, k_core=1)
    assert list(zip(rows_of(kept), kept.parts.tolist(), strict=True)) == [
        (("a", "x"), 0),
        (("a", "z"), 2),
        (("b", "x"), 1),
        (("b", "z"), 0),
    ]


def test_the_split_of_a_data_set_in_our_layout_is_kept(tmp_path, make_dataset):
    dataset = make_dataset()
    save_dataset(dataset, tmp_path / "data")
    back = import_dataset(tmp_path / "data" / "interactions.parquet", items=tmp_path / "data" / "items.parquet")
    assert back.parts.tolist() == dataset.parts.tolist()
    assert back.split().method == "published"


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        ("a,x,5,train\na,y,5,dev\n", {}, "row 2 is 'dev'"),
        ("a,x,5,train\na,y,5,\n", {}, "row 2 is missing"),
        ("a,x,5,train\na,y,5,train\n", {}, "the test part is empty"),
        ("a,x,5,train\na,y,1,test\n", {"min_rating": 2}, "the test part is empty"),
        ("a,x,5,train\na,y,5,train\nb,x,5,train\nb,y,5,train\nb,z,5,test\n", {"k_core": 2}, "the test part is empty"),
        ("a,x,5,train\na,x,5,test\na,y,5,test\n", {}, "parts overlap: 1 pairs stand in two of them"),
    ],
)
def test_a_column_split_that_is_none_is_left_out_with_a_word(tmp_path, rows, options, reason):
    dataset = import_dataset(write(tmp_path, SPLIT + rows), **options)
    assert dataset.parts is None
    assert dataset.provenance["notes"] == [
        f"column 'split' was not read as a split of train, validation, test: {reason}"
    ]
    bare = write(tmp_path, (SPLIT + rows).replace("split", "other"), "bare.csv")
    assert rows_of(dataset) == rows_of(import_dataset(bare, **options))


def test_a_split_of_numbers_is_none(tmp_path):
    table = pl.DataFrame({"user_id": [1, 2], "item_id": [1, 2], "split": [0, 2]})
    table.write_parquet(tmp_path / "log.parquet")
    dataset = import_dataset(tmp_path / "log.parquet")
    assert dataset.parts is None
    assert dataset.provenance["notes"][0].endswith("row 1 is 0")


def test_a_column_split_may_be_something_else(tmp_path):
    path = write(tmp_path, "user_id,split\na,train\na,test\n")
    assert rows_of(import_dataset(path, item_column="split")) == [("a", "train"), ("a", "test")]


HEAD = "user_id,item_id,timestamp,rating\n"


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        ("", {}, FileFormatError, "is empty"),
        (HEAD, {}, FileFormatError, "holds no interaction"),
        (
            "user,item_id\na,b\n",
            {},
            FileFormatError,
            r"has no column 'user_id' \(did you mean 'user'\?\); its .*; user_column \(--user-column\) names another",
        ),
        ("user_id,item\na,b\n", {}, FileFormatError, r"item_column \(--item-column\) names another"),
        (
            "user_id;item_id\na;b\n",
            {},
            FileFormatError,
            "header 'user_id;item_id' is one column: .* by semicolons; expected commas in a file that ends in .csv",
        ),
        (HEAD + "a,,1,1\n", {}, FileFormatError, "row 1, column 'item_id' is missing"),
        (
            HEAD + "a,b,soon,1\n",
            {},
            FileFormatError,
            "row 1, column 'timestamp' is 'soon'; expected a number or an ISO",
        ),
        (HEAD + "a,b,1,1\na,c,soon,1\n", {}, FileFormatError, "row 2, column 'timestamp' is 'soon'"),
        (
            HEAD + "a,b,2020-01-01,1\na,c,7,1\n",
            {},
            FileFormatError,
            "row 2, column 'timestamp' is '7'; expected a number or an ISO",
        ),
        (HEAD + "a,b,7,1\na,c,2020-01-01,1\n", {}, FileFormatError, "row 2, column 'timestamp' is '2020-01-01'"),
        (HEAD + "a,b,1577836800123,1\n", {}, FileFormatError, "for milliseconds: timestamp_unit ms"),
        (HEAD + "a,b,1,inf\n", {}, FileFormatError, "row 1, column 'rating' is"),
        (HEAD + "a,b,1,2\n", {"min_rating": 3}, FileFormatError, "none of 1 ratings reaches 3"),
        ("user_id,item_id\na,b\n", {"min_rating": 3}, FileFormatError, "has no column 'rating'"),
        (HEAD + "a,b,1,2\n", {"k_core": 0}, ConfigError, "k_core must be at least 1"),
        (HEAD + "a,b,1,2\n", {"timestamp_unit": "h"}, ConfigError, "expected one of s, ms, us"),
        (HEAD + "a,b,1,2\n", {"features": "x"}, ConfigError, "features need items"),
        (
            HEAD + "a,b,1,2\n",
            {"user_column": "item_id"},
            ConfigError,
            "column 'item_id' is asked for as both user_column and item_column",
        ),
        (
            HEAD + "a,b,1,2\n",
            {"rating_column": "timestamp"},
            ConfigError,
            "column 'timestamp' is asked for as both timestamp_column and rating_column",
        ),
        (HEAD + "a,b,1,2\n", {"items": "none.csv"}, FileFormatError, r"none\.csv: cannot be read"),
    ],
)
def test_bad_logs_are_refused(tmp_path, text, options, error, message):
    with pytest.raises(error, match=message):
        import_dataset(write(tmp_path, text), **options)


def test_bad_items_are_refused(tmp_path):
    log = write(tmp_path, "user_id,item_id\na,2\n")
    for text, message in (
        ("item_id\n1\n1\n", "row 2: item id 1 comes a second time"),
        ("item_id\n1\n", "row 1, column 'item_id' is 2: unknown item id"),
        ("id\n1\n", "has no column 'item_id'.*--item-column"),
    ):
        with pytest.raises(FileFormatError, match=message):
            import_dataset(log, items=write(tmp_path, text, "items.csv"))
    (tmp_path / "empty").mkdir()
    items = write(tmp_path, "item_id\n2\n", "items.csv")
    with pytest.raises(FileFormatError, match=r"holds no \.npy file"):
        import_dataset(log, items=items, features=tmp_path / "empty")
    np.save(tmp_path / "empty" / "v.npy", np.ones((1, 2)))
    np.savez(tmp_path / "empty" / "w.npz", np.ones((1, 2)))
    with pytest.raises(FileFormatError, match=r"w\.npz: is an \.npz file.*; expected an \.npy file for each modality"):
        import_dataset(log, items=items, features=tmp_path / "empty")


@quick
@given(st.binary(max_size=200))
def test_any_bytes_give_our_error_or_a_data_set(tmp_path, content):
    path = tmp_path / "log.csv"
    path.write_bytes(b"user_id,item_id,timestamp\na,b,1\n" + content)
    try:
        assert len(import_dataset(path).interactions) > 0
    except DataError:
        return
