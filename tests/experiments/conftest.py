from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from metammf.data.dataset import Dataset
from metammf.data.folder import save_dataset
from metammf.testing.data import taste_groups

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two groups of users with a taste each, as a data set on disk that carries a split."""
    split = taste_groups(cold=2)
    labels = np.repeat(np.arange(3, dtype=np.int8), [len(split.train), len(split.validation), len(split.test)])
    log = split.train.union(split.validation).union(split.test)
    path = tmp_path_factory.mktemp("data") / "groups"
    save_dataset(Dataset("two groups", log, split.catalog, labels), path)
    return path
