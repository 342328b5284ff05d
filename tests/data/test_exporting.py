from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from metammf.data.exporting import export_dataset, with_split
from metammf.data.ids import IdMap
from metammf.data.importers.registry import import_dataset
from metammf.errors import ConfigError, DataError


def in_part_order(dataset):
    """RecBole's form keeps parts apart."""
    order = np.argsort(dataset.parts, kind="stable")
    return replace(dataset, interactions=dataset.interactions.select(order), parts=dataset.parts[order])


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("parts", [True, False])
def test_recbole_round_trip(tmp_path, make_dataset, assert_same, parts, timestamps):
    dataset = make_dataset(parts=parts, timestamps=timestamps)
    export_dataset(dataset, tmp_path / "small", "recbole")
    endings = [".train", ".valid", ".test"] if parts else [""]
    assert sorted(path.name for path in (tmp_path / "small").glob("*.inter")) == sorted(
        f"small{ending}.inter" for ending in endings
    )
    read = import_dataset(tmp_path / "small")
    assert read.provenance["format"] == "recbole"
    assert_same(in_part_order(dataset) if parts else dataset, read, present_only=True)


def test_recbole_files_are_as_recbole_reads_them(tmp_path, make_dataset):
    export_dataset(make_dataset(), tmp_path / "small", "recbole")
    lines = (tmp_path / "small" / "small.train.inter").read_text().splitlines()
    assert lines[0] == "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    assert len(lines) == 36
    header, first, _, third, *_ = (tmp_path / "small" / "small.item").read_text(encoding="utf-8").splitlines()
    assert header == "item_id:token\ttitle:token_seq\tvisual:float_seq\ttextual:float_seq"
    assert len(first.split("\t")[2].split(" ")) == 4
    assert third.endswith("\t")  # the item that lacks the textual features
    assert (tmp_path / "small" / "small.user").read_text().startswith("user_id:token\n")


@pytest.mark.parametrize("timestamps", [True, False])
def test_mmrec_round_trip(tmp_path, make_dataset, assert_same, timestamps):
    dataset = make_dataset(timestamps=timestamps)
    export_dataset(dataset, tmp_path / "small", "mmrec")
    read = import_dataset(tmp_path / "small")
    if not timestamps:
        assert read.interactions.ratings.tolist() == [1.0] * 50
        dataset = replace(dataset, interactions=replace(dataset.interactions, ratings=np.ones(50)))
    assert_same(dataset, read, present_only=True)


def test_mmrec_files_are_as_mmrec_reads_them(tmp_path, make_dataset):
    dataset = make_dataset()
    export_dataset(dataset, tmp_path / "small", "mmrec")
    table = pl.read_csv(tmp_path / "small" / "small.inter", separator="\t")
    assert table.columns == ["userID", "itemID", "rating", "timestamp", "x_label"]
    assert table["x_label"].to_list() == dataset.parts.tolist()
    image, text = (np.load(tmp_path / "small" / f"{name}.npy") for name in ("image_feat", "text_feat"))
    np.testing.assert_array_equal(image, dataset.features.matrices["visual"])
    assert not text[2].any()
    assert (
        pl.read_csv(tmp_path / "small" / "user_ids.csv")["user_id"].to_list() == dataset.catalog.user_ids.ids.tolist()
    )


def test_a_split_can_be_given_to_a_log_without_one(tmp_path, make_dataset):
    dataset = make_dataset(parts=False)
    with pytest.raises(DataError, match="carries no split, which MMRec's form needs"):
        export_dataset(dataset, tmp_path / "m", "mmrec")
    split = dataset.split("leave-one-out")
    labelled = with_split(dataset, split)
    export_dataset(labelled, tmp_path / "m", "mmrec")
    read = import_dataset(tmp_path / "m").split()
    for part in ("train", "validation", "test"):
        assert set(getattr(read, part).keys.tolist()) == set(getattr(split, part).keys.tolist())


def test_histories_that_no_form_can_hold_are_refused(make_dataset):
    dataset = make_dataset(parts=False)
    with pytest.raises(
        DataError, match="split 'cold-user': expected train, validation and test alone, got histories of"
    ):
        with_split(dataset, dataset.split("cold-user", cold_share=0.5))


def test_refusals_leave_nothing(tmp_path, make_dataset):
    dataset = make_dataset()
    with pytest.raises(ConfigError, match="did you mean 'recbole'"):
        export_dataset(dataset, tmp_path / "x", "recbol")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.inter").touch()
    with pytest.raises(DataError, match="not a folder that metammf wrote"):
        export_dataset(dataset, tmp_path / "mine", "mmrec")
    ids = IdMap(["a\tb", *(f"u{number}" for number in range(11))], kind="user")
    tabbed = replace(dataset, catalog=replace(dataset.catalog, user_ids=ids))
    with pytest.raises(DataError, match="an id with a tab"):
        export_dataset(tabbed, tmp_path / "x", "recbole")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_export_is_replaced_by_the_next(tmp_path, make_dataset):
    for seed in (0, 1):
        export_dataset(make_dataset(seed=seed), tmp_path / "x", "recbole")
    export_dataset(make_dataset(), tmp_path / "x", "mmrec")
    assert not (tmp_path / "x" / "x.item").exists()


def test_tabs_in_titles_become_blanks(tmp_path, make_dataset):
    dataset = make_dataset()
    items = pl.DataFrame({"title": ["a\tb\nc", *"bcdefghi"]})
    export_dataset(replace(dataset, catalog=replace(dataset.catalog, items=items)), tmp_path / "x", "recbole")
    assert import_dataset(tmp_path / "x").catalog.titles[0] == "a b c"


@pytest.mark.parametrize("name", ["tiktok", "lfm2k"])
def test_real_data_comes_back(tmp_path, real_data, assert_same, name):
    dataset = import_dataset(real_data / name)
    export_dataset(dataset, tmp_path / name, "mmrec")
    read = import_dataset(tmp_path / name)
    if dataset.interactions.ratings is None:
        dataset = replace(dataset, interactions=replace(dataset.interactions, ratings=np.ones(len(dataset.parts))))
    assert_same(dataset, read)
