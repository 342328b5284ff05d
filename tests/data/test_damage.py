"""Files of every form with bytes changed or cut off: our error or a data set, and nothing else."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metammf.data.exporting import export_dataset
from metammf.data.folder import load_dataset, save_dataset
from metammf.data.importers.registry import import_dataset
from metammf.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def write_metammf(dataset, out):
    split = dataset.split()
    out.mkdir()
    for name, part in (("train", split.train), ("val_full", split.validation), ("test_full", split.test)):
        np.save(out / f"{name}.npy", np.stack([part.users, part.items + dataset.num_users], axis=1))
    np.save(out / "user_item_dict.npy", {0: {5, 6}})
    np.save(out / "v_feat.npy", dataset.features.matrices["visual"])


def write_movielens(dataset, out):
    out.mkdir()
    log = dataset.interactions
    rows = zip(log.users.tolist(), log.items.tolist(), log.timestamps.tolist(), strict=True)
    lines = ["userId,movieId,rating,timestamp", *(f"{user},{item},5.0,{when}" for user, item, when in rows)]
    (out / "ratings.csv").write_text("\n".join(lines))
    movies = ["movieId,title,genres", *(f'{item},"Film, The ({1990 + item})",Drama|Comedy' for item in range(9))]
    (out / "movies.csv").write_text("\n".join(movies))
    np.savez_compressed(out / "features.npz", movieId=np.arange(9), visual=dataset.features.matrices["visual"])


WRITERS = {
    "ours": save_dataset,
    "mmrec": lambda dataset, out: export_dataset(dataset, out, "mmrec"),
    "recbole": lambda dataset, out: export_dataset(dataset, out, "recbole"),
    "metammf": write_metammf,
    "movielens": write_movielens,
}


@pytest.fixture
def whole(request, tmp_path, make_dataset) -> Path:
    WRITERS[request.param](make_dataset(), tmp_path / "whole")
    return tmp_path / "whole"


def damage(content: bytearray, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.sampled_from([*b'\0\t\n,"-9ex.', 255]))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]


@pytest.mark.parametrize("whole", WRITERS, indirect=True, ids=str)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damage_gives_our_error_or_a_data_set(whole, data):
    ours = (whole / "users.parquet").is_file()
    folder = whole.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "metammf-export.json")
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    damage(content, data)
    path.write_bytes(content)
    try:
        dataset = load_dataset(folder) if ours else import_dataset(folder)
    except DataError:
        return
    assert len(dataset.interactions) > 0
    dataset.features.check_finite()
