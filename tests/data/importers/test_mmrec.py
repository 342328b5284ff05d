from __future__ import annotations

import numpy as np
import pytest

from metammf.data.importers.registry import import_dataset
from metammf.errors import FileFormatError

ROWS = [(0, 1, 5, 0), (0, 2, 3, 2), (2, 0, 1, 0), (2, 3, 4, 1), (3, 3, 2, 0)]


def write(folder, rows=ROWS, header="userID\titemID\trating\tx_label"):
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    (folder / "set.inter").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("image_feat", "text_feat", "audio_feat", "all-MiniLM-L6-v2", "v_feat"):
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((5, 2)).astype(np.float32))
    (tmp_path / "titles.csv").write_text('itemID,title\n1,"One, two"\n0,Zero\n')
    return tmp_path


def test_numbers_are_ids_and_every_npy_a_modality(folder):
    dataset = import_dataset(folder)
    assert dataset.name == "set"
    assert dataset.catalog.user_ids.ids.tolist() == [0, 1, 2, 3]
    assert dataset.catalog.item_ids.ids.tolist() == [0, 1, 2, 3, 4]
    assert dataset.features.modalities == ("visual", "acoustic", "textual", "all-MiniLM-L6-v2", "v_feat")
    assert dataset.catalog.titles == ["Zero", "One, two", None, None, None]
    assert dataset.parts.tolist() == [0, 2, 0, 1, 0]
    assert dataset.interactions.ratings.tolist() == [5, 3, 1, 4, 2]
    assert dataset.interactions.timestamps is None


def test_timestamps_and_other_orders_of_columns(folder):
    write(folder, [(7, 0, 1, 0), (8, 2, 0, 1), (9, 1, 1, 1)], "timestamp\tx_label\tuserID\titemID")
    dataset = import_dataset(folder)
    assert dataset.interactions.timestamps.tolist() == [7, 8, 9]
    assert dataset.interactions.ratings is None
    assert dataset.parts.tolist() == [0, 2, 1]


def test_no_features_no_titles_no_labels(tmp_path):
    write(tmp_path, [(0, 4), (1, 2)], "userID\titemID")
    dataset = import_dataset(tmp_path)
    assert (dataset.num_items, dataset.features.modalities, dataset.parts, dataset.catalog.titles) == (
        5,
        (),
        None,
        None,
    )


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([(0, 1, 1)], "userID\titem\tx_label", "has no column 'itemID'"),
        ([(0, 5, 1, 0)], None, r"row 1: itemID 5; expected below 5, the rows of the features"),
        ([(0, -1, 1, 0)], None, "row 1, column 'itemID' is -1"),
        ([(-2, 1, 1, 0)], None, "row 1, column 'userID' is -2"),
        ([(2**40, 1, 1, 0)], None, "column 'userID' is 1099511627776"),
        ([(2**30, 1, 1, 0), (0, 1, 1, 2)], None, "declares 1073741825 users for 2 interactions"),
        ([("a", 1, 1, 0)], None, "row 1, column 'userID' is 'a'; expected a number"),
        ([("", 1, 1, 0)], None, "row 1, column 'userID' is missing"),
        ([(0, 1, 1, 3)], None, "row 1, column 'x_label' is 3; expected 0 to 2"),
        ([(0, 1, "x", 0)], None, "column 'rating' is 'x'"),
        ([(0, 1, 1, 0), (0, 1, 1, 2)], None, "parts overlap: 1 pairs"),
        ([(0, 1, 1, 0), (0, 2, 1, 0)], None, "the test part is empty"),
        ([(0, 1, 1, 2), (0, 2, 1, 1)], None, "the train part is empty"),
        ([], None, "holds no interaction"),
    ],
)
def test_bad_tables_are_refused(folder, rows, header, message):
    write(folder, rows, header or "userID\titemID\trating\tx_label")
    with pytest.raises(FileFormatError, match=message):
        import_dataset(folder, "mmrec")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("titles.csv", "itemID,title\n0,a\n0,b\n", "itemID 0 comes twice"),
        ("titles.csv", "itemID,title\n9,a\n", "is 9; expected 0 to 4"),
        ("titles.csv", "item,title\n9,a\n", "has no column 'itemID'"),
        ("titles.csv", b"itemID,title\n0,\xff\n", "line 2 is not UTF-8"),
        ("user_ids.csv", "userID,user_id\n1,a\n", "does not list the user numbers 0 to 3 in order"),
        ("image_feat.npy", b"\x93NUMPY", r"image_feat\.npy"),
        ("other.inter", "userID\titemID\n", "holds 2 .inter files; expected one"),
    ],
)
def test_bad_files_beside_it_are_refused(folder, name, content, message):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FileFormatError, match=message):
        import_dataset(folder, "mmrec")


def test_features_of_unequal_rows_are_refused(folder):
    np.save(folder / "text_feat.npy", np.zeros((4, 2)))
    with pytest.raises(FileFormatError, match="rows; expected"):
        import_dataset(folder)


def test_the_real_one(real_data):
    dataset = import_dataset(real_data / "lfm2k")
    assert (dataset.num_users, dataset.num_items) == (1858, 1425)
    assert np.bincount(dataset.parts).tolist() == [44327, 4799, 7219]
    assert dataset.features.widths == {"all-MiniLM-L6-v2": 384, "vggish": 128, "whisper": 512}
    assert dataset.catalog.titles[:2] == ["Groove Armada", "Faithless"]
