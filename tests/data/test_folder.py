from __future__ import annotations

import datetime
import json
import os
import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from metammf.data.features import ItemFeatures
from metammf.data.folder import load_dataset, load_features, save_dataset
from metammf.errors import DataError, FileFormatError
from metammf.files import sha256


@pytest.fixture
def folder(tmp_path, make_dataset):
    save_dataset(make_dataset(), tmp_path / "small")
    return tmp_path / "small"


def rewrite(path, *expressions, **columns):
    table = pl.read_parquet(path)
    table.with_columns(*expressions, **columns).write_parquet(path)


@pytest.mark.parametrize("parts", [True, False])
@pytest.mark.parametrize("timestamps", [True, False])
def test_round_trip(tmp_path, make_dataset, assert_same, parts, timestamps):
    dataset = make_dataset(parts=parts, timestamps=timestamps)
    save_dataset(dataset, tmp_path / "d")
    read = load_dataset(tmp_path / "d")
    assert_same(dataset, read)
    assert (read.name, read.provenance, read.path) == ("small", dataset.provenance, tmp_path / "d")
    assert all(isinstance(matrix, np.memmap) for matrix in read.features.matrices.values())
    assert read.features.matrices["textual"].dtype == np.float16


def test_what_lies_there(folder):
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == [
        "dataset.json",
        "features/textual.npy",
        "features/visual.npy",
        "interactions.parquet",
        "items.parquet",
        "users.parquet",
    ]
    log = pl.read_parquet(folder / "interactions.parquet")
    assert log.schema == {
        "user_id": pl.String,
        "item_id": pl.Int64,
        "timestamp": pl.Int64,
        "rating": pl.Float32,
        "split": pl.String,
    }
    assert set(log["split"]) == {"train", "validation", "test"}
    items = pl.read_parquet(folder / "items.parquet")
    assert items.columns == ["item_id", "title", "has_textual"]
    about = json.loads((folder / "dataset.json").read_text())
    assert about["counts"] == {"users": 12, "items": 9, "interactions": 50}
    assert about["licence"] == "CC0"
    assert about["files"]["items.parquet"]["sha256"] == sha256(folder / "items.parquet")
    assert str(folder) not in (folder / "dataset.json").read_text()


def test_saving_a_loaded_folder_over_itself_keeps_it_whole(folder, make_dataset, assert_same):
    save_dataset(load_dataset(folder), folder)
    assert_same(make_dataset(), load_dataset(folder))


def test_a_foreign_folder_is_not_replaced(tmp_path, make_dataset):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(DataError, match="not a folder that metammf wrote"):
        save_dataset(make_dataset(), tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_a_failure_while_saving_leaves_nothing(tmp_path, make_dataset, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metammf.data.folder.write_matrix", fail)
    with pytest.raises(DataError, match=r"cannot write .*No space left"):
        save_dataset(make_dataset(), tmp_path / "d")
    assert not list(tmp_path.iterdir())


def test_a_modality_that_is_no_file_name_is_refused(tmp_path, make_dataset):
    dataset = make_dataset()
    features = ItemFeatures({"../../evil": np.zeros((9, 2))})
    with pytest.raises(DataError, match="a name of letters"):
        save_dataset(replace(dataset, catalog=replace(dataset.catalog, features=features)), tmp_path / "d")
    assert not list(tmp_path.iterdir())


def test_other_floats_become_float32(tmp_path, make_dataset):
    dataset = make_dataset()
    features = ItemFeatures({"wide": np.ones((9, 2)), "big": np.ones((9, 2), dtype=">f4")})
    save_dataset(replace(dataset, catalog=replace(dataset.catalog, features=features)), tmp_path / "d")
    read = load_dataset(tmp_path / "d")
    assert {matrix.dtype for matrix in read.features.matrices.values()} == {np.dtype(np.float32)}
    assert read.features.modalities == ("wide", "big")


def test_a_folder_written_by_hand_loads(tmp_path):
    folder = tmp_path / "mine"
    (folder / "features").mkdir(parents=True)
    pl.DataFrame({"user_id": ["b", "a", "b"], "item_id": ["x", "x", "y"]}).write_parquet(
        folder / "interactions.parquet"
    )
    pl.DataFrame({"item_id": ["y", "x", "z"], "has_audio2": [True, False, True]}).write_parquet(
        folder / "items.parquet"
    )
    for name in ("textual", "audio2", "visual"):
        np.save(folder / "features" / f"{name}.npy", np.eye(3, dtype=np.float32))
    dataset = load_dataset(folder)
    assert dataset.name == "mine"
    assert dataset.catalog.user_ids.ids.tolist() == ["b", "a"]
    assert dataset.interactions.items.tolist() == [1, 1, 0]
    assert dataset.features.modalities == ("visual", "textual", "audio2")
    assert dataset.features.present["audio2"].tolist() == [True, False, True]
    assert dataset.parts is None
    assert dict(dataset.hashes)["items.parquet"] == sha256(folder / "items.parquet")
    assert set(dataset.hashes) == {
        "interactions.parquet",
        "items.parquet",
        "features/audio2.npy",
        "features/textual.npy",
        "features/visual.npy",
    }


def test_ids_of_numbers_and_categories_and_moments(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    moments = [datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 2)]
    log = {"user_id": pl.Series([7, 8], dtype=pl.UInt8), "item_id": ["1", "2"], "timestamp": moments}
    pl.DataFrame(log).write_parquet(folder / "interactions.parquet")
    pl.DataFrame({"item_id": pl.Series(["2", "1"], dtype=pl.Categorical)}).write_parquet(folder / "items.parquet")
    dataset = load_dataset(folder)
    assert dataset.catalog.user_ids.ids.tolist() == [7, 8]
    assert dataset.interactions.items.tolist() == [1, 0]
    assert dataset.interactions.timestamps.tolist() == [1577836800, 1577923200]


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Null])
def test_titles_of_other_kinds_of_text(folder, dtype):
    titles = pl.Series([None if dtype == pl.Null else f"t{item}" for item in range(9)], dtype=dtype)
    rewrite(folder / "items.parquet", title=titles)
    assert load_dataset(folder).catalog.titles == [None if dtype == pl.Null else f"t{item}" for item in range(9)]


def test_hashes_are_recorded_ones_while_files_are_as_recorded(folder, monkeypatch):
    def fail(path):
        raise AssertionError(f"{path} was read")

    with monkeypatch.context() as patch:
        patch.setattr("metammf.data.folder.sha256", fail)
        recorded = dict(load_dataset(folder).hashes)
    assert recorded == {name: sha256(folder / name) for name in recorded}
    path = folder / "features" / "visual.npy"
    np.save(path, np.load(path) + 1)
    later = (folder / "dataset.json").stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))
    assert load_dataset(folder).hashes["features/visual.npy"] == sha256(path) != recorded["features/visual.npy"]


def test_items_and_features_alone(folder):
    (folder / "interactions.parquet").unlink()
    ids, features, items = load_features(folder)
    assert (len(ids), features.modalities, items.columns) == (9, ("visual", "textual"), ["title"])
    with pytest.raises(DataError, match="no such folder"):
        load_features(folder / "none")


def test_no_folder_a_file_or_another_form(tmp_path, folder):
    with pytest.raises(DataError, match="no such folder"):
        load_dataset(tmp_path / "none")
    with pytest.raises(DataError, match="is a file, not a folder"):
        load_dataset(folder / "items.parquet")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with pytest.raises(FileFormatError, match=r"interactions\.parquet: no such file"):
        load_dataset(foreign)
    (foreign / "trnMat.pkl").touch()
    with pytest.raises(
        DataError, match=r"looks like the tiktok form: run `metammf data import .* OUT --format tiktok`"
    ):
        load_dataset(foreign)


def spoil_log(**columns):
    return lambda folder: rewrite(folder / "interactions.parquet", **columns)


def drop_column(name, column):
    return lambda folder: pl.read_parquet(folder / name).drop(column).write_parquet(folder / name)


def repeat_row(name):
    def spoil(folder):
        table = pl.read_parquet(folder / name)
        pl.concat([table, table[3]]).write_parquet(folder / name)

    return spoil


def spoil_features(change):
    return lambda folder: np.save(folder / "features/visual.npy", change(np.load(folder / "features/visual.npy")))


def with_value(row, column, value):
    def change(matrix):
        matrix[row, column] = value
        return matrix

    return change


def cut(name, keep):
    def spoil(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return spoil


def overlap(folder):
    path = folder / "interactions.parquet"
    table = pl.read_parquet(path)
    pl.concat([table, table[0].with_columns(split=pl.lit("test"))]).write_parquet(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_column("interactions.parquet", "item_id"), r"interactions\.parquet: has no column 'item_id'"),
        (drop_column("items.parquet", "item_id"), r"items\.parquet: has no column 'item_id'"),
        (drop_column("users.parquet", "user_id"), r"users\.parquet: "),
        (spoil_log(item_id=pl.lit(10**6)), r"row 1, column 'item_id' is 1000000: unknown item id"),
        (spoil_log(user_id=pl.lit("nobody")), r"'nobody': unknown user id; expected one of the 12 users"),
        (spoil_log(user_id=pl.lit(None, dtype=pl.String)), "row 1, column 'user_id' is missing"),
        (spoil_log(item_id=pl.lit(1.5)), "column 'item_id' is of Float64"),
        (spoil_log(timestamp=pl.lit(None, dtype=pl.Int64)), "row 1, column 'timestamp' is missing"),
        (spoil_log(rating=pl.lit(float("nan"))), "row 1, column 'rating' is nan; expected a finite number"),
        (spoil_log(split=pl.lit("dev")), "row 1, column 'split' is 'dev'; expected train, validation or test"),
        (spoil_log(split=pl.lit(3)), "column 'split' is of Int32"),
        (spoil_log(split=pl.lit("train")), "the test part is empty"),
        (repeat_row("interactions.parquet"), r"rows 4 \(train\) and 51 \(train\) are one pair"),
        (overlap, r"rows 1 \(train\) and 51 \(test\) are one pair"),
        (repeat_row("items.parquet"), r"items\.parquet: row 10: item id \d+ comes a second time"),
        (repeat_row("users.parquet"), r"users\.parquet: row 13: user id 'u\d+' comes a second time"),
        (spoil_features(with_value(3, 1, np.nan)), r"visual\.npy: row 3, column 1 .from 0. is nan"),
        (spoil_features(with_value(0, 0, np.inf)), r"visual\.npy: row 0, column 0 .from 0. is inf"),
        (spoil_features(lambda matrix: matrix[:5]), r"visual\.npy: has 5 rows; expected 9"),
        (spoil_features(lambda matrix: matrix.astype(object)), r"visual\.npy: holds Python objects"),
        (cut("features/visual.npy", 0.9), r"visual\.npy: is cut short"),
        (cut("interactions.parquet", 0.5), r"interactions\.parquet: cannot be read as a table"),
        (cut("items.parquet", 0), r"items\.parquet: is empty"),
        (cut("dataset.json", 0.5), r"dataset\.json: not readable as JSON"),
        (lambda folder: (folder / "dataset.json").write_text("[]"), r"dataset\.json: is not a description"),
        (
            lambda folder: (folder / "dataset.json").write_text('{"modalities": [["visual"]]}'),
            "a modality that is no text",
        ),
        (lambda folder: (folder / "dataset.json").write_text('{"version": 9}'), "is of version 9; expected version 1"),
        (
            lambda folder: (folder / "features/visual.npy").unlink(),
            r"visual\.npy: no such file; expected as dataset.json",
        ),
        (lambda folder: (folder / "items.parquet").unlink(), r"items\.parquet: cannot be read"),
        (
            lambda folder: rewrite(folder / "items.parquet", has_textual=pl.lit(1)),
            "column 'has_textual' is of Int32; expected booleans",
        ),
        (lambda folder: rewrite(folder / "items.parquet", title=pl.lit(1)), "column 'title' is of Int32"),
        (
            lambda folder: (
                pl.read_parquet(folder / "interactions.parquet").clear().write_parquet(folder / "interactions.parquet")
            ),
            "holds no interaction",
        ),
    ],
)
def test_bad_folders_are_refused(folder, spoil, message):
    spoil(folder)
    with pytest.raises(DataError, match=message):
        load_dataset(folder)


def test_large_features_are_neither_loaded_nor_copied_whole(tmp_path, make_dataset):
    dataset, count = make_dataset(), 40_000
    path = tmp_path / "big.npy"
    matrix = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, 512))
    matrix[:] = 1
    big = replace(
        dataset,
        interactions=type(dataset.interactions)(dataset.interactions.users, dataset.interactions.items, 12, count),
        catalog=replace(
            dataset.catalog,
            item_ids=type(dataset.catalog.item_ids).of_range(count),
            features=ItemFeatures({"visual": np.load(path, mmap_mode="r")}),
            items=pl.DataFrame(),
        ),
    )
    tracemalloc.start()
    save_dataset(big, tmp_path / "d")
    load_dataset(tmp_path / "d")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < matrix.nbytes * 0.9
    shutil.rmtree(tmp_path / "d")


def test_further_modalities_come_by_name_whatever_the_hashes(tmp_path):
    """A set's order differs from process to process; the order of modalities decides what a network learns."""
    (tmp_path / "features").mkdir()
    pl.DataFrame({"item_id": [1, 2]}).write_parquet(tmp_path / "items.parquet")
    for name in ("zeta", "visual", "beta", "alpha", "gamma", "delta"):
        np.save(tmp_path / "features" / f"{name}.npy", np.ones((2, 2), dtype=np.float32))
    _, features, _ = load_features(tmp_path, modalities=["zeta"])
    assert features.modalities == ("zeta", "visual", "alpha", "beta", "delta", "gamma")
