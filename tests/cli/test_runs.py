from __future__ import annotations

import pytest

from metammf.experiments.config import recipe_names
from metammf.files import read_json, write_json


def test_runs_are_listed_with_their_figures(metammf, groups, tmp_path):
    metammf("train", groups, "--recipe", "popularity", "--out", tmp_path / "deep" / "one")
    metammf("train", groups, "--recipe", "ease", "--seed", 3, "--out", tmp_path / "two")
    metammf("evaluate", tmp_path / "two", "-k", 20)
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "run.json").write_text("{")
    lines = metammf("runs", tmp_path).out.splitlines()
    assert lines[0].split() == [
        "run",
        "model",
        "data",
        "split",
        "seed",
        "state",
        "epoch",
        "metric",
        "validation",
        "test",
    ]
    one, three, two = lines[1:]
    where = str(tmp_path / "deep" / "one")
    assert one.split() == [where, "popularity", "two", "groups", "published", "0", "finished", "recall@20", "1.000"]
    assert three.split() == [str(tmp_path / "three"), "damaged"]
    assert two.split()[-1] == "1.000"


def test_how_a_stopped_run_goes_on_is_told(metammf, groups, tmp_path):
    metammf("train", groups, "--recipe", "popularity", "--out", tmp_path / "run")
    assert metammf("runs", tmp_path).err == ""
    record = read_json(tmp_path / "run" / "run.json")
    write_json(tmp_path / "run" / "run.json", record | {"state": "training"})
    outcome = metammf("runs", tmp_path)
    assert "stopped" in outcome.out.split()
    assert "--resume" in outcome.err


def test_no_runs(metammf, refused, tmp_path):
    assert metammf("runs", tmp_path).out == f"no runs in {tmp_path}\n"
    assert "no such folder" in refused("runs", tmp_path / "nowhere")


def test_recipes_are_listed_with_what_they_are(metammf):
    lines = metammf("recipes").out.splitlines()
    assert [line.split()[0] for line in lines[1:] if not line.startswith(" ")] == recipe_names()
    assert all(len(line.split()) > 1 for line in lines)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_has_a_config_that_can_be_shown(metammf, groups, tmp_path, name):
    outcome = metammf("train", groups, "--recipe", name, "--show-config", "--out", tmp_path / "run")
    assert outcome.status == 0
    assert f"recipe {name}" in outcome.out
