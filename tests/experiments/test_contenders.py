"""Who takes part: recipes by name or file, with changes that are held and placebos; what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metammf.data.features import absent_features
from metammf.data.folder import load_dataset
from metammf.errors import ConfigError
from metammf.experiments.contenders import contenders, left_out, split_names
from metammf.experiments.profiles import PROFILES

MMREC = PROFILES["mmrec"]


@pytest.fixture(scope="module")
def dataset(folder):
    return load_dataset(folder)


@pytest.fixture
def made(dataset):
    return lambda *names, **settings: contenders(names, MMREC, MMREC.split(dataset), settings)


def test_commas_in_brackets_are_part_of_a_value():
    assert split_names(["mf, ease", "metammf-mf+model.hidden_dims=[8,4]"]) == [
        "mf",
        "ease",
        "metammf-mf+model.hidden_dims=[8,4]",
    ]


@pytest.mark.parametrize(("words", "told"), [(["mf,ease,mf"], "names 'mf' twice"), ([" ,"], "names no model")])
def test_names_that_are_none_are_refused(words, told):
    with pytest.raises(ConfigError, match=told):
        split_names(words)


def test_the_profile_says_split_and_metric(made):
    (one,) = made("lightgcn-cold")
    assert (one.config.split.method, one.config.training.metric, one.config.seed) == ("published", "recall@20", 0)
    assert (one.content, one.solved) == (False, False)


def test_changes_are_made_and_held(made):
    (one,) = made("metammf-mf+model.hidden_dims=[8,4]+noise+training.learning_rate=0.01")
    assert one.config.model.hidden_dims == (8, 4)
    assert (one.config.placebo, one.content, one.recipe) == ("noise", True, "metammf-mf")
    assert one.overrides == {"model.hidden_dims": [8, 4], "training.learning_rate": 0.01}
    assert "training.learning_rate" not in one.space
    assert one.folder == "metammf-mf-model.hidden_dims=-8-4-noise-training.learning_rate=0.01"


def test_settings_of_all_are_under_those_of_one(made):
    both = made("mf", "mf+training.epochs=3", **{"training.epochs": 5})
    assert [one.config.training.epochs for one in both] == [5, 3]
    assert made("ease")[0].solved


def test_a_solved_model_draws_nothing_but_its_placebo(made):
    drawn = {one.name: one.drawn for one in made("ease", "content-knn", "content-knn+noise", "content-knn+drop", "mf")}
    assert drawn == {
        "ease": False,
        "content-knn": False,
        "content-knn+noise": True,
        "content-knn+drop": False,
        "mf": True,
    }


def test_a_recipe_may_be_a_file(made, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[model]\nname = "mf"\nembedding_dim = 8\n')
    (one,) = made(str(path))
    assert one.config.model.embedding_dim == 8
    assert "/" not in one.folder


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lightgnc", "did you mean 'lightgcn'"),
        ("vbpr+nois", "neither SECTION.KEY=VALUE nor a placebo.*did you mean 'noise'"),
        ("mf+model.widht=3", r"'mf\+model.widht=3': unknown setting 'model.widht'"),
        ("a+b/mine.toml", "the path of a recipe cannot hold a"),
        ("vbpr+noise+shuffle", "the features can be replaced once, got noise and shuffle"),
        ("mf+training.epochs=3+training.epochs=5", "training.epochs is set twice"),
        ("mf+split.method=random", "split.method is the profile's to say"),
        ("mf+training.metric=ndcg@5", "training.metric is the profile's to say"),
    ],
)
def test_what_does_not_fit_is_refused(made, name, told):
    with pytest.raises(ConfigError, match=told):
        made(name)


def test_names_that_would_share_a_folder_are_refused(made):
    with pytest.raises(ConfigError, match="would share the folder"):
        made("mf+model.init_std=0.1", "mf++model.init_std=0.1".replace("++", "+ "))


@pytest.mark.parametrize("name", ["mf+noise", "lightgcn+model.num_layers=1+shuffle", "ease+drop"])
def test_a_placebo_of_a_model_that_reads_no_content_is_refused(made, name):
    with pytest.raises(ConfigError, match=r"a placebo replaces features, and (mf|lightgcn|ease) reads none"):
        made(name)


def test_what_a_data_set_without_features_cannot_serve_is_told(made, dataset):
    bare = replace(dataset, catalog=replace(dataset.catalog, features=absent_features({}, dataset.num_items)))
    assert left_out(made("vbpr")[0], dataset) is None
    assert "it reads item content" in left_out(made("vbpr")[0], bare).reason
    assert "it reads item content" in left_out(made("vbpr+noise")[0], bare).reason
    assert left_out(made("mf")[0], bare) is None
