from __future__ import annotations

import numpy as np
import pytest

from metammf.data.importers.registry import import_dataset
from metammf.errors import FileFormatError

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ROWS = ["b\t10\t4\t5.5\n", "a\t20\t2\t6\n", "b\t30\t5\t7\n"]
ITEMS = (
    "item_id:token\tmovie_title:token_seq\tclass:token\tclip:float_seq\timage_feat:float_seq\n"
    "40\tForty\tx\t\t1 2\n10\tTen words\ty\t0.5 1.5 2\t3 4\n30\t\tz\t1 1 1\t5 6\n"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "set.inter").write_text(HEADER + "".join(ROWS))
    return tmp_path


def test_a_log_alone(folder):
    dataset = import_dataset(folder)
    assert dataset.name == "set"
    assert dataset.catalog.user_ids.ids.tolist() == ["b", "a"]
    assert dataset.catalog.item_ids.ids.tolist() == [10, 20, 30]
    assert dataset.interactions.timestamps.tolist() == [5, 6, 7]
    assert dataset.interactions.ratings.tolist() == [4, 2, 5]
    assert (dataset.parts, dataset.features.modalities) == (None, ())


def test_items_and_users_give_the_order_titles_and_features(folder):
    (folder / "set.item").write_text(ITEMS)
    (folder / "set.user").write_text("user_id:token\tage:float\nc\t3\na\t4\n")
    dataset = import_dataset(folder)
    assert dataset.catalog.user_ids.ids.tolist() == ["c", "a", "b"]
    assert dataset.catalog.item_ids.ids.tolist() == [40, 10, 30, 20]
    assert dataset.catalog.titles == ["Forty", "Ten words", None, None]
    assert dataset.catalog.items["class"].to_list() == ["x", "y", "z", None]
    features = dataset.features
    assert features.widths == {"visual": 2, "clip": 3}
    assert features.present["clip"].tolist() == [False, True, True, False]
    assert features.present["visual"].tolist() == [True, True, True, False]
    assert features.matrices["clip"][1].tolist() == [0.5, 1.5, 2]
    assert dataset.interactions.items.tolist() == [1, 3, 2]


def test_a_threshold(folder):
    dataset = import_dataset(folder, min_rating=4)
    assert dataset.catalog.item_ids.ids.tolist() == [10, 30]
    with pytest.raises(FileFormatError, match="holds no interaction of 9"):
        import_dataset(folder, min_rating=9)


def test_files_a_part_are_the_published_split(tmp_path):
    for ending, row in zip((".train", ".valid", ".test"), ROWS, strict=True):
        (tmp_path / f"set{ending}.inter").write_text(HEADER + row)
    dataset = import_dataset(tmp_path)
    assert (dataset.name, dataset.parts.tolist()) == ("set", [0, 1, 2])
    (tmp_path / "set.test.inter").write_text(HEADER + ROWS[0])
    with pytest.raises(FileFormatError, match="parts overlap"):
        import_dataset(tmp_path)
    (tmp_path / "set.test.inter").unlink()
    with pytest.raises(FileFormatError, match=r"has no file \*\.test\.inter"):
        import_dataset(tmp_path)


def test_other_field_names(tmp_path):
    (tmp_path / "set.inter").write_text("uid:token\tiid:token\nx\ty\n")
    assert len(import_dataset(tmp_path, user_column="uid", item_column="iid").interactions) == 1
    with pytest.raises(FileFormatError, match=r"has no field 'user_id'.*its fields are uid, iid"):
        import_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("set.inter", "user_id:token\titem_id\n1\t2\n", "column 'item_id' has no known type"),
        ("set.inter", HEADER + "b\t\t4\t5\n", r"row 1, column 'item_id:token' is missing"),
        ("set.inter", HEADER + "b\t1\tgood\t5\n", r"column 'rating:float' is 'good'"),
        ("set.inter", HEADER + "b\t1\t1\tnan\n", "expected a finite number"),
        ("set.inter", HEADER, "holds no interaction"),
        ("set.item", "item_id:token\n1\n1\n", "row 2: item id '1' comes a second time"),
        ("set.item", ITEMS.replace("5 6", "5 6 7"), "holds rows of 2 to 3 numbers"),
        ("set.item", ITEMS.replace("5 6", "5 x"), "is 'x'; expected a number"),
        ("set.item", ITEMS.replace("5 6", "5 1e300"), "is 1e.300; expected numbers that single precision holds"),
        ("set.item", "name:token\na\n", "has no field 'item_id'"),
        ("set.item", "item_id:token\tf:float_seq\n1\t\n", "holds no number"),
        ("other.inter", HEADER, r"holds 2 \.inter files"),
    ],
)
def test_bad_files_are_refused(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(FileFormatError, match=message):
        import_dataset(folder, "recbole")


def test_numbers_survive_as_float32(folder):
    values = np.float32([0.1, 1 / 3, 1e-30])
    cells = " ".join(map(str, values.tolist()))
    (folder / "set.item").write_text(f"item_id:token\tv:float_seq\n10\t{cells}\n")
    np.testing.assert_array_equal(import_dataset(folder).features.matrices["v"][0], values)
