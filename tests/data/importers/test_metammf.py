from __future__ import annotations

import numpy as np
import pytest

from metammf.data.importers.registry import import_dataset
from metammf.errors import FileFormatError

USERS, ITEMS = 4, 5
TRAIN, VALIDATION, TEST = [(0, 0), (0, 1), (1, 2), (2, 4)], [(0, 2), (3, 0)], [(0, 3), (0, 4), (2, 0)]


def rows_of(cells, offset):
    """The form of val_full.npy: a user and the items, rows of unequal length."""
    grouped: dict[int, list[int]] = {}
    for user, item in cells:
        grouped.setdefault(user, [user]).append(item + offset)
    array = np.empty(len(grouped), dtype=object)
    for place, row in enumerate(grouped.values()):
        array[place] = row
    return array


def write(folder, offset=USERS, ending=""):
    np.save(folder / f"train{ending}.npy", np.array(TRAIN) + np.array([0, offset]))
    np.save(folder / f"val_full{ending}.npy", rows_of(VALIDATION, offset))
    np.save(folder / f"test_full{ending}.npy", rows_of(TEST, offset))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path)
    for name in ("v_feat", "feat_a", "FeatureText_stl_normal"):
        np.save(tmp_path / f"{name}.npy", np.ones((ITEMS, 2), dtype=np.float32))
    return tmp_path


def cells_of(part):
    return list(zip(part.users.tolist(), part.items.tolist(), strict=True))


@pytest.mark.parametrize("offset", [0, USERS])
def test_items_begin_at_zero_wherever_they_are_numbered_from(folder, offset):
    write(folder, offset)
    split = import_dataset(folder).split()
    assert (cells_of(split.train), cells_of(split.validation), cells_of(split.test)) == (TRAIN, VALIDATION, TEST)
    assert (split.catalog.num_users, split.catalog.num_items) == (USERS, ITEMS)
    assert split.catalog.features.modalities == ("visual", "acoustic", "textual")


def test_names_of_the_sample(tmp_path):
    write(tmp_path, ending="_sample")
    np.save(tmp_path / "v_feat_sample.npy", np.ones((ITEMS, 2)))
    dataset = import_dataset(tmp_path)
    assert dataset.features.modalities == ("visual",)
    assert dataset.provenance["options"] == {"items_numbered_from": USERS}


@pytest.mark.parametrize("kind", [set, list, np.array])
def test_a_dict_of_items_per_user_is_a_log_without_a_split(folder, kind):
    for path in folder.glob("t*.npy"):
        path.unlink()
    (folder / "val_full.npy").unlink()
    items = {np.int64(user): kind([item + USERS for u, item in TRAIN if u == user]) for user in range(3)}
    np.save(folder / "user_item_dict.npy", items)
    dataset = import_dataset(folder, num_users=USERS)
    assert dataset.parts is None
    assert set(cells_of(dataset.interactions)) == set(TRAIN)
    assert dataset.num_users == USERS


def test_pairs_and_even_rows_will_do(folder):
    np.save(folder / "val_full.npy", np.array(VALIDATION) + np.array([0, USERS]))
    np.save(folder / "test_full.npy", np.array([(0, 3 + USERS, 4 + USERS), (2, 0 + USERS, 1 + USERS)]))
    split = import_dataset(folder).split()
    assert cells_of(split.validation) == VALIDATION
    assert cells_of(split.test) == [(0, 3), (0, 4), (2, 0), (2, 1)]


def test_users_without_interactions_come_last(tmp_path):
    np.save(tmp_path / "train.npy", np.array([(0, 10), (1, 14)]))
    np.save(tmp_path / "val_full.npy", rows_of([(0, 11)], 0))
    np.save(tmp_path / "test_full.npy", rows_of([(1, 12)], 0))
    np.save(tmp_path / "v_feat.npy", np.ones((5, 2)))
    dataset = import_dataset(tmp_path)
    assert (dataset.num_users, dataset.num_items) == (10, 5)


def test_without_features_items_are_counted(folder):
    for name in ("v_feat", "feat_a", "FeatureText_stl_normal"):
        (folder / f"{name}.npy").unlink()
    assert import_dataset(folder).num_items == ITEMS


def test_a_numbering_that_cannot_be_told_asks(tmp_path):
    np.save(tmp_path / "train.npy", np.array([(0, 2)]))
    np.save(tmp_path / "val_full.npy", rows_of([(0, 3)], 0))
    np.save(tmp_path / "test_full.npy", rows_of([(0, 4)], 0))
    np.save(tmp_path / "v_feat.npy", np.ones((8, 2)))
    with pytest.raises(FileFormatError, match="does not tell whether items are numbered from 0"):
        import_dataset(tmp_path)
    assert import_dataset(tmp_path, num_users=1).interactions.items.tolist() == [1, 2, 3]
    assert import_dataset(tmp_path, num_users=0).interactions.items.tolist() == [2, 3, 4]


class Call:
    def __reduce__(self):
        return print, ("pwned",)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("train", np.array([(0, 4), (0, 99)]), "items are numbered 4 to 99 beside users 0 to 3 and 5 rows of features"),
        ("train", np.array([(0, 4), (-1, 5)]), "number -1 is out of range"),
        ("train", np.array([(0.5, 4)]), "whole numbers"),
        ("train", np.array([Call()], dtype=object), "the pickle asks for builtins.print: refused"),
        ("train", {0: [Call()]}, "the pickle asks for builtins.print: refused"),
        ("train", {0: 5}, "user 0 has a int; expected a list or set of items"),
        ("train", {0: ["a"]}, "holds 'a' among its users and items"),
        ("train", "text", r"holds .*; expected pairs"),
        ("val_full", rows_of([(0, 0)], USERS), "parts overlap: 1 pairs"),
        ("test_full", np.zeros((0, 2), dtype=np.int64), "the test part is empty"),
        ("test_full", np.array([None, [1, 5]], dtype=object), r"row 0 .from 0. is a NoneType"),
        ("v_feat", np.ones((4, 2)), "has 4 rows; expected 5|has 5 rows; expected 4"),
        ("feat_v", np.ones((5, 2)), "is of modality 'visual', and so is feat_v.npy"),
    ],
)
def test_bad_folders_are_refused(folder, capsys, name, value, message):
    np.save(folder / f"{name}.npy", value)
    with pytest.raises(FileFormatError, match=message):
        import_dataset(folder)
    assert not capsys.readouterr().out


def test_the_form_with_sampled_negatives_is_refused(folder):
    for part in ("val_full", "test_full"):
        (folder / f"{part}.npy").unlink()
    np.save(folder / "test.npy", rows_of(TEST, USERS))
    rows = np.empty(1, dtype=object)
    rows[0] = [0, *range(4, 1006)]
    np.save(folder / "val.npy", rows)
    with pytest.raises(FileFormatError, match=r"the form with sampled negatives; expected val_full\.npy"):
        import_dataset(folder)


def test_a_missing_part_is_named(folder):
    (folder / "val_full.npy").unlink()
    with pytest.raises(FileFormatError, match=r"val_full\.npy: no such file; expected the part that goes with train"):
        import_dataset(folder)
    for path in folder.glob("t*.npy"):
        path.unlink()
    with pytest.raises(FileFormatError, match=r"train\.npy or user_item_dict\.npy"):
        import_dataset(folder, "metammf")


def test_features_that_torch_saved_are_not_passed_over(folder):
    (folder / "feat_t.pt").touch()
    with pytest.raises(FileFormatError, match=r"feat_t\.pt: is a file of torch.*; expected feat_t\.npy"):
        import_dataset(folder)
