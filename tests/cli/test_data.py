from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from metammf.cli.data import app
from metammf.data.folder import load_dataset
from metammf.errors import ConfigError, DataError, MetaMMFError


def call(*arguments):
    app([str(argument) for argument in arguments], result_action="return_value")


@pytest.fixture
def log(tmp_path):
    rng = np.random.default_rng(0)
    cells = np.unique(rng.integers(0, 30, (600, 2)), axis=0)
    table = pl.DataFrame({"user_id": cells[:, 0], "item_id": cells[:, 1], "rating": rng.integers(1, 6, len(cells))})
    table.write_csv(tmp_path / "log.csv")
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "image_feat.npy", rng.standard_normal((30, 4)))
    pl.DataFrame({"item_id": range(30), "title": [f"Clip {item}" for item in range(30)]}).write_csv(
        tmp_path / "items.csv"
    )
    return tmp_path / "log.csv"


@pytest.fixture
def data(tmp_path, log, capsys):
    call("import", log, tmp_path / "data", "--items", tmp_path / "items.csv", "--features", tmp_path / "features")
    capsys.readouterr()
    return tmp_path / "data"


def test_import_says_what_it_found(tmp_path, log, capsys):
    call("import", log, tmp_path / "out", "--min-rating", 3, "--k-core", 2)
    told = capsys.readouterr()
    dataset = load_dataset(tmp_path / "out")
    assert dataset.interactions.ratings.min() >= 3
    assert f"30 users, 30 items, {len(dataset.interactions)} interactions" in told.out
    assert "no features" in told.out
    assert f"written to {tmp_path / 'out'}" in told.out
    assert dataset.provenance["options"]["k_core"] == 2
    assert str(tmp_path) not in (tmp_path / "out" / "dataset.json").read_text()


def test_import_says_why_a_split_was_not_read(tmp_path, capsys):
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,split\na,x,train\na,y,valid\n")
    call("import", log, tmp_path / "out")
    assert (
        "column 'split' was not read as a split of train, validation, test: row 2 is 'valid'\n"
        in capsys.readouterr().out
    )
    log.write_text("user_id,item_id,split\na,x,train\na,y,test\n")
    call("import", log, tmp_path / "out")
    told = capsys.readouterr().out
    assert "split: train 1, validation 0, test 1\n" in told
    assert "not read" not in told


def test_import_refuses_and_leaves_nothing(tmp_path, log):
    with pytest.raises(ConfigError, match="takes no option 'tags_before'"):
        call("import", log, tmp_path / "out", "--tags-before", 3)
    with pytest.raises(DataError, match="its format is not recognised"):
        call("import", tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="not a folder that metammf wrote"):
        call("import", log, tmp_path / "features")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features", "items.csv", "log.csv"]


def test_describe_prints_tables(data, capsys):
    call("describe", data)
    told = capsys.readouterr().out
    for words in ("interactions", "long tail", "Gini", "feature lift", "visual", "cannot be told from chance"):
        assert words in told


def test_describe_prints_json_alone(data, capsys):
    call("describe", data, "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["num_users"], found["num_items"]) == (30, 30)
    assert found["modalities"][0]["lift"]["verdict"] == "unclear"


@pytest.mark.parametrize("form", ["recbole", "mmrec"])
def test_export_and_back(tmp_path, data, capsys, form):
    call("export", data, tmp_path / "there", "--format", form, "--split", "random", "--seed", 3)
    call("import", tmp_path / "there", tmp_path / "back")
    told = capsys.readouterr().out
    assert told.count("split: train") == 2
    back, split = load_dataset(tmp_path / "back").split(), load_dataset(data).split("random", seed=3)
    for part in ("train", "validation", "test"):
        assert set(getattr(back, part).keys.tolist()) == set(getattr(split, part).keys.tolist())
    assert back.catalog.titles == [f"Clip {item}" for item in range(30)]


def test_generate(tmp_path, capsys):
    call("generate", tmp_path / "world", "--users", 60, "--items", 50, "--interactions", 500, "--seed", 1)
    world = load_dataset(tmp_path / "world")
    assert (world.num_users, world.num_items) == (60, 50)
    assert "60 users, 50 items" in capsys.readouterr().out


def test_generate_takes_widths_and_a_dtype(tmp_path):
    call(
        *("generate", tmp_path / "world", "--users", 60, "--items", 50, "--interactions", 500),
        *("--widths", "visual=5, acoustic=6,textual=7", "--dtype", "float16", "--cold-share", 0, "--missing-share", 0),
    )
    world = load_dataset(tmp_path / "world")
    assert world.features.widths == {"visual": 5, "acoustic": 6, "textual": 7}
    assert {str(matrix.dtype) for matrix in world.features.matrices.values()} == {"float16"}
    assert all(mask.all() for mask in world.features.present.values())
    assert not world.split().cold_items.all()


@pytest.mark.parametrize(
    ("widths", "word"),
    [
        ("", "expected NAME=WIDTH"),
        ("visual", "got 'visual'"),
        ("visual=-3", "got 'visual=-3'"),
        ("visual=4,visual=5", "comes twice"),
        ("visual=0,textual=3", "at least 1"),
        ("a/b=3,textual=3", "a name of letters"),
    ],
)
def test_generate_refuses_widths_that_are_none(tmp_path, widths, word):
    with pytest.raises(MetaMMFError, match=word):
        call("generate", tmp_path / "world", "--users", 60, "--items", 50, "--interactions", 500, "--widths", widths)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_somebody_else_is_refused_before_the_work(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="not a folder that metammf wrote"):
        call("generate", tmp_path, "--users", 10**9, "--items", 10**9, "--interactions", 2 * 10**9)


def test_help_is_quick():
    code = (
        "import sys; from metammf.cli.data import app; app(['--help'], result_action='return_value');"
        "heavy = {'numpy', 'polars', 'scipy', 'torch'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("import", "describe", "generate", "export"):
        assert command in done.stdout


def test_a_log_is_named_after_the_folder_that_it_is_imported_into(tmp_path, log, capsys):
    call("import", log, tmp_path / "clips")
    assert capsys.readouterr().out.startswith("clips: 30 users")
    assert load_dataset(tmp_path / "clips").name == "clips"


def test_a_name_and_a_licence_are_kept(tmp_path, log):
    call("import", log, tmp_path / "out", "--name", "mine", "--licence", "CC0")
    dataset = load_dataset(tmp_path / "out")
    assert (dataset.name, dataset.provenance["licence"]) == ("mine", "CC0")
