from __future__ import annotations

import pytest

from metammf.data.importers.registry import FORMATS, import_dataset, recognise
from metammf.errors import ConfigError, DataError

MARKS = {
    "tiktok": {"trnMat.pkl": ""},
    "movielens": {"ratings.csv": "", "movies.csv": ""},
    "recbole": {"a.train.inter": "user_id:token\titem_id:token\n"},
    "mmrec": {"a.inter": "userID\titemID\n"},
    "metammf": {"train_sample.npy": ""},
}


@pytest.mark.parametrize("name", MARKS)
def test_each_folder_is_recognised(tmp_path, name):
    for file, content in MARKS[name].items():
        (tmp_path / file).write_text(content)
    found = recognise(tmp_path)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_a_table_is_a_log(tmp_path, ending):
    (tmp_path / f"a.{ending}").touch()
    found = recognise(tmp_path / f"a.{ending}")
    assert found is not None
    assert found.name == "log"


def test_what_is_not_recognised_names_the_formats(tmp_path):
    (tmp_path / "a.inter").write_text("something else\n")
    with pytest.raises(DataError, match="its format is not recognised") as caught:
        import_dataset(tmp_path)
    assert all(known.name in str(caught.value) for known in FORMATS)


def test_bad_arguments(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        import_dataset(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"unknown format 'tiktak' .did you mean 'tiktok'"):
        import_dataset(tmp_path, "tiktak")
    with pytest.raises(ConfigError, match="the tiktok form takes no option 'k_core'; it takes: none"):
        import_dataset(tmp_path, "tiktok", k_core=5)
    with pytest.raises(ConfigError, match="did you mean 'k_core'"):
        import_dataset(tmp_path, "log", kcore=5)


@pytest.mark.parametrize("known", FORMATS, ids=lambda known: known.name)
def test_every_format_takes_an_empty_folder_for_what_it_is(tmp_path, known):
    with pytest.raises(DataError):
        import_dataset(tmp_path, known.name)
