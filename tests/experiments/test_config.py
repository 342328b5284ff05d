from __future__ import annotations

import pytest
from pydantic import ValidationError

from metammf.errors import ConfigError
from metammf.experiments.config import (
    RunConfig,
    from_mapping,
    load_recipe,
    merge,
    parse_settings,
    recipe_names,
    same_run,
)
from metammf.models.metammf import MetaMMFConfig

ASKED_FOR = {
    *("metammf-mf", "metammf-gcn", "metammf-lightgcn", "static-lightgcn", "static-mf", "static-gcn"),
    *("lightgcn", "mf", "graphsage", "popularity", "itemknn", "p3", "rp3beta", "ease", "content-knn"),
}


def test_the_recipes_that_others_call_by_name_are_there():
    assert set(recipe_names()) >= ASKED_FOR


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_says_what_it_is_and_is_a_config(name):
    config = merge(name).config
    assert from_mapping(config.model_dump()) == config
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
    assert "description" not in load_recipe(name)


def test_the_paper_settings():
    for backbone, name in (("mf", "metammf-mf"), ("graphsage", "metammf-gcn")):
        config = merge(name).config
        model = config.model
        assert isinstance(model, MetaMMFConfig)
        assert (model.backbone, model.fusion, model.combine, model.embedding_dim) == (backbone, "cp", "concat", 64)
        assert (model.hidden_dims, model.meta_dim, model.cp_rank) == ((1024, 512, 256), 5, 16)
        training = config.training
        assert (training.objective, training.num_negatives, training.batch_size) == ("bpr", 5, 3000)
        assert (training.optimizer, training.learning_rate, training.weight_decay) == ("adam", 1e-3, 1e-6)


def test_static_twins_differ_from_the_dynamic_ones_by_the_fusion_alone():
    for backbone in ("mf", "gcn"):
        dynamic, static = (merge(f"{kind}-{backbone}").config for kind in ("metammf", "static"))
        assert dynamic.training == static.training
        before, after = dynamic.model.model_dump(), static.model.model_dump()
        assert {key for key in before if before[key] != after[key]} == {"fusion"}
        assert after["fusion"] == "concat"


def test_later_sources_win_and_are_remembered(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[model]\nname = 'mf'\nembedding_dim = 8\n[training]\nepochs = 5\nbatch_size = 7\n")
    merged = merge(str(recipe), {"training.epochs": 6}, {"split.method": "random", "seed": 3, "placebo": None})
    assert merged.config.training.epochs == 6
    assert merged.config.training.batch_size == 7
    assert merged.config.seed == 3
    sources = {key: value for key, value in merged.sources.items() if value != "default"}
    assert sources == {
        "model.name": f"recipe {recipe}",
        "model.embedding_dim": f"recipe {recipe}",
        "training.epochs": "--set",
        "training.batch_size": f"recipe {recipe}",
        "split.method": "--split",
        "seed": "--seed",
    }


def test_values_of_settings_are_toml_or_text():
    settings = parse_settings(
        [
            "model.hidden_dims=[16, 8]",
            "model.normalize=true",
            "training.learning_rate=1e-2",
            "training.patience=none",
            "training.metric=ndcg@20",
            "model.fusion = dense ",
            'model.name="mf"',
        ]
    )
    assert settings == {
        "model.hidden_dims": [16, 8],
        "model.normalize": True,
        "training.learning_rate": 0.01,
        "training.patience": None,
        "training.metric": "ndcg@20",
        "model.fusion": "dense",
        "model.name": "mf",
    }


@pytest.mark.parametrize(
    "pair",
    ["epochs=3", "training.epochs", "=3", "training.=3", ".epochs=3", "seed=3", "model.cp_rank=3\nmodel.meta_dim=4"],
)
def test_what_is_no_setting(pair):
    with pytest.raises(ConfigError):
        parse_settings([pair])


def test_a_config_is_frozen():
    config = merge("mf").config
    with pytest.raises(ValidationError):
        config.seed = 1  # type: ignore[misc]  # that it is refused is the point


def test_every_problem_is_named_at_once():
    with pytest.raises(ConfigError) as told:
        merge("mf", {"training.epoch": 3, "training.batch_size": 0})
    assert "'training.epoch' (did you mean 'epochs'?)" in str(told.value)
    assert "'training.batch_size'" in str(told.value)


def test_of_many_names_the_nearest_is_told_and_what_lists_them():
    with pytest.raises(ConfigError) as told:
        merge("metamf-gcn")
    assert str(told.value) == (
        "unknown recipe 'metamf-gcn' (did you mean 'metammf-gcn'?); `metammf recipes` lists them, and the name of a file ends in"
        " .toml"
    )
    with pytest.raises(ConfigError) as told:
        merge("mf", {"training.epoch": 3})
    assert str(told.value) == "unknown setting 'training.epoch' (did you mean 'epochs'?)"
    with pytest.raises(ConfigError, match=r"unknown setting 'training\.zzz'; there are: .*batch_size.*epochs"):
        merge("mf", {"training.zzz": 3})


def test_a_model_from_elsewhere_is_named_by_its_place(tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text(
        "from metammf.models.mf import MF, MFConfig\n"
        "class MineConfig(MFConfig):\n"
        "    name: str = 'elsewhere:Mine'\n"
        "    spice: float = 0.5\n"
        "class Mine(MF):\n"
        "    config_type = MineConfig\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    merged = merge("mf", {"model.name": "elsewhere:Mine", "model.spice": 0.1})
    assert merged.config.model.model_dump()["spice"] == 0.1
    with pytest.raises(ConfigError, match="did you mean 'spice'"):
        merge("mf", {"model.name": "elsewhere:Mine", "model.spize": 0.1})
    with pytest.raises(ConfigError, match="cannot be imported"):
        merge("mf", {"model.name": "nowhere.models:MF"})


@pytest.mark.parametrize(("columns", "same"), [(255, True), (256, True), (257, False)])
def test_a_limit_that_is_as_wide_as_the_features_is_none(columns: int, same: bool) -> None:
    limited = merge("metammf-lightgcn", {"model.meta_hidden_dim": 256}).config
    without = merge("metammf-lightgcn", {"model.meta_hidden_dim": None}).config
    assert same_run(limited, without, columns) is same
    assert same_run(without, limited, columns) is same
    assert not same_run(limited, merge("metammf-lightgcn", {"model.cp_rank": 3}).config, columns)
    assert same_run(*[merge("mf").config] * 2, columns)
