from __future__ import annotations

import os
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from metammf.data.importers.registry import import_dataset
from metammf.errors import DataError, FileFormatError

SHAPE = (5, 6)
PARTS = {"trnMat": [(0, 1), (1, 2), (3, 0)], "valMat": [(0, 2)], "tstMat": [(1, 4), (3, 5)]}


def matrix(cells, shape=SHAPE, values=None, form="coo_matrix"):
    rows, columns = (np.array([cell[axis] for cell in cells]) for axis in (0, 1))
    coo = sparse.coo_matrix((np.ones(len(cells)) if values is None else values, (rows, columns)), shape=shape)
    return coo if form == "coo_matrix" else getattr(sparse, form)(coo)


def write(folder, name, value):
    (folder / f"{name}.pkl").write_bytes(pickle.dumps(value, 3))


@pytest.fixture
def folder(tmp_path):
    for name, cells in PARTS.items():
        write(tmp_path, name, matrix(cells))
    rng = np.random.default_rng(0)
    for name, width in (("image", 4), ("audio", 3), ("text", 2), ("depth", 1)):
        np.save(tmp_path / f"{name}_feat.npy", rng.standard_normal((6, width)).astype(np.float16))
    np.save(tmp_path / "other.npy", np.zeros(3))
    return tmp_path


def test_ids_are_numbers_and_empty_rows_and_columns_stay(folder):
    dataset = import_dataset(folder)
    assert dataset.name == folder.name
    assert dataset.catalog.user_ids.ids.tolist() == [0, 1, 2, 3, 4]
    assert dataset.catalog.item_ids.ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert dataset.features.widths == {"visual": 4, "acoustic": 3, "textual": 2, "depth": 1}
    split = dataset.split()
    for part, name in ((split.train, "trnMat"), (split.validation, "valMat"), (split.test, "tstMat")):
        assert list(zip(part.users.tolist(), part.items.tolist(), strict=True)) == PARTS[name]
    assert dataset.provenance["format"] == "tiktok"
    assert set(dataset.provenance["sources"]) == {
        *(f"{name}.pkl" for name in PARTS),
        *(f"{name}_feat.npy" for name in ("image", "audio", "text", "depth")),
    }


@pytest.mark.parametrize("form", ["coo_matrix", "csr_matrix", "csc_matrix", "coo_array", "csr_array", "csc_array"])
def test_every_sparse_form(folder, form, assert_same):
    expected = import_dataset(folder)
    for name, cells in PARTS.items():
        write(folder, name, matrix(cells, form=form))
    read = import_dataset(folder)
    assert set(read.interactions.keys.tolist()) == set(expected.interactions.keys.tolist())
    assert read.provenance["sources"] != expected.provenance["sources"] or form == "coo_matrix"


def test_stored_zeros_are_none_and_repeats_are_one(folder):
    write(folder, "trnMat", matrix([(0, 1), (0, 1), (1, 2), (4, 4)], values=[1, 1, 5, 0]))
    dataset = import_dataset(folder)
    assert sorted(dataset.split().train.keys.tolist()) == [1, 8]
    assert dataset.provenance["repeats_merged"] == 1


def poke(name, **changes):
    """Write a COO matrix whose attributes are not what SciPy would let them be."""

    def spoil(folder):
        value = matrix(PARTS[name])
        state = {"_shape": value.shape, "row": value.row, "col": value.col, "data": value.data} | changes
        data = b"\x80\x02cscipy.sparse.coo\ncoo_matrix\n)\x81" + pickle.dumps(state, 2)[2:-1] + b"b."
        (folder / f"{name}.pkl").write_bytes(data)

    return spoil


class Call:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "valMat.pkl").unlink(), r"valMat\.pkl: no such file; expected the three parts"),
        (lambda folder: (folder / "trnMat.pkl").unlink(), r"trnMat\.pkl: no such file"),
        (lambda folder: write(folder, "tstMat", matrix([(0, 0)], (5, 7))), r"tstMat\.pkl: is of shape \(5, 7\)"),
        (lambda folder: write(folder, "valMat", matrix([])), r"valMat\.pkl: holds no interaction"),
        (lambda folder: write(folder, "tstMat", matrix([(0, 0)], values=[0.0])), r"tstMat\.pkl: holds no interaction"),
        (lambda folder: write(folder, "tstMat", matrix([(0, 0)], values=[np.nan])), "NaN or infinite"),
        (
            lambda folder: write(folder, "tstMat", matrix([(0, 1), (1, 2), (4, 4)])),
            "parts overlap: 2 pairs stand in two of them, the first: user 0, item 1, in test and train",
        ),
        (lambda folder: write(folder, "tstMat", np.eye(3)), "holds a ndarray; expected a SciPy matrix"),
        (lambda folder: write(folder, "tstMat", Call()), r"tstMat\.pkl: the pickle asks for .*system: refused"),
        (lambda folder: write(folder, "tstMat", [{"a": Call()}]), r"tstMat\.pkl: the pickle asks for"),
        (lambda folder: (folder / "tstMat.pkl").write_bytes(b""), r"tstMat\.pkl: is empty"),
        (poke("trnMat", row=np.array([0, 1, 5])), r"trnMat\.pkl: .*row 5 of a sparse matrix of shape \(5, 6\)"),
        (poke("trnMat", col=np.array([0, -1, 3])), r"trnMat\.pkl: .*column -1"),
        (
            lambda folder: np.save(folder / "image_feat.npy", np.zeros((5, 2))),
            r"image_feat\.npy: has 5 rows; expected 6",
        ),
        (lambda folder: np.save(folder / "text_feat.npy", np.full((6, 2), np.nan)), r"text_feat\.npy: row 0, column 0"),
        (
            lambda folder: (folder / "audio_feat.npy").write_bytes((folder / "audio_feat.npy").read_bytes()[:-1]),
            r"audio_feat\.npy: is cut short",
        ),
        (lambda folder: np.save(folder / "visual_feat.npy", np.zeros((6, 1))), "is of modality 'visual', and so is"),
    ],
)
def test_bad_folders_are_refused(folder, monkeypatch, spoil, message):
    monkeypatch.chdir(folder)
    spoil(folder)
    with pytest.raises(FileFormatError, match=message):
        import_dataset(folder, "tiktok")
    assert not (folder / "pwned").exists()


def test_a_huge_declared_shape_is_refused_without_allocating(folder):
    for name in PARTS:
        poke(name, _shape=(10**9, 10**9))(folder)
    tracemalloc.start()
    with pytest.raises(FileFormatError, match="declares 1000000000 users for 6 interactions"):
        import_dataset(folder)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damage_gives_our_error_or_a_data_set(folder, data):
    path = folder / data.draw(st.sampled_from(["trnMat.pkl", "image_feat.npy"]))
    whole = path.read_bytes()
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    path.write_bytes(content)
    try:
        assert len(import_dataset(folder, "tiktok").interactions) > 0
    except DataError:
        pass
    finally:
        path.write_bytes(whole)


def test_the_real_one(real_data):
    dataset = import_dataset(real_data / "tiktok")
    split = dataset.split()
    assert (dataset.num_users, dataset.num_items) == (9308, 6710)
    assert [len(split.train), len(split.validation), len(split.test)] == [59541, 3051, 6130]
    assert dataset.features.widths == {"visual": 128, "acoustic": 128}
    assert int(split.cold_items.sum()) == 465
    cold = split.cold_items
    assert [int(cold[part.items].sum()) for part in (split.validation, split.test)] == [223, 449]
