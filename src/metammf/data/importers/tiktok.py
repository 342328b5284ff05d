"""The form of the public TikTok split: one sparse matrix a part, one feature file a modality.

``trnMat.pkl``, ``valMat.pkl``, ``tstMat.pkl``: pickled SciPy matrices, users x items, a stored value other than zero an
interaction. ``image_feat.npy``, ``audio_feat.npy``, ``text_feat.npy`` and any other ``*_feat.npy``: row = item column.
Used by DiffMM (Jiang et al., MM 2024) and several others. Row and column numbers from 0 are the ids, empty ones included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metammf.data.dataset import PARTS
from metammf.data.ids import IdMap
from metammf.data.importers.assembling import Pairs, check_extent, gather_features, hashes, make_dataset, usual_name
from metammf.data.readers.pickles import SparseMatrix, load_pickle
from metammf.errors import FileFormatError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset

_FILES = ("trnMat.pkl", "valMat.pkl", "tstMat.pkl")


def recognise(source: Path) -> bool:
    """Whether the folder holds one of the matrices."""
    return any((source / name).is_file() for name in _FILES)


def read(source: Path) -> Dataset:
    """Import a folder of this form.

    Raises:
        FileFormatError: a file is missing or damaged, shapes differ, a part is empty, parts overlap.
    """
    paths = [source / name for name in _FILES]
    for path in paths:
        if not path.is_file():
            raise FileFormatError(path, "no such file", f"the three parts {', '.join(_FILES)}")
    matrices = [_read_part(path) for path in paths]
    for path, matrix in zip(paths, matrices, strict=True):
        if matrix.shape != matrices[0].shape:
            raise FileFormatError(path, f"is of shape {matrix.shape}", f"{matrices[0].shape}, as {paths[0].name}")
    pairs = _join(matrices)
    num_users, num_items = matrices[0].shape
    check_extent(num_users, len(pairs.users), "user", paths[0])
    check_extent(num_items, len(pairs.users), "item", paths[0])
    feature_files = sorted(source.glob("*_feat.npy"))
    return make_dataset(
        source.resolve().name,
        pairs,
        IdMap.of_range(num_users, kind="user"),
        gather_features(feature_files, num_items, name_of=lambda stem: usual_name(stem).removesuffix("_feat")),
        IdMap.of_range(num_items),
        provenance={"format": "tiktok", "licence": None, "sources": hashes([*paths, *feature_files])},
        path=source,
    )


def _read_part(path: Path) -> SparseMatrix:
    matrix = load_pickle(path)
    if not isinstance(matrix, SparseMatrix):
        raise FileFormatError(path, f"holds a {type(matrix).__name__}", "a SciPy matrix in COO, CSR or CSC form")
    kept = matrix.values != 0
    if not kept.any():
        raise FileFormatError(path, f"holds no interaction (shape {matrix.shape})", "at least one")
    if not np.isfinite(matrix.values).all():
        raise FileFormatError(path, "holds a value that is NaN or infinite", "finite numbers")
    return SparseMatrix(matrix.shape, matrix.rows[kept], matrix.columns[kept], matrix.values[kept])


def _join(matrices: list[SparseMatrix]) -> Pairs:
    def all_of(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(matrix, name) for matrix in matrices])

    sizes = [len(matrix.rows) for matrix in matrices]
    parts = np.repeat(np.arange(len(PARTS), dtype=np.int8), sizes)
    return Pairs(all_of("rows"), all_of("columns"), parts)
