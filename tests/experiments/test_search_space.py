"""What is searched is what says so, what does something, and what neither recipe nor caller has fixed."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import pytest

from metammf.errors import ConfigError
from metammf.experiments.config import merge, recipe_names
from metammf.experiments.search_space import _search, _setting, is_solved, misfit, search_space, with_settings
from metammf.models.config import ModelConfig, Search


def space(recipe, settings=None, held=()):
    return search_space(merge(recipe, settings).config, held)


def test_ranges_are_those_of_the_settings_and_hold_the_recipe():
    found = space("mf")["training.learning_rate"]
    assert (found.low, found.high, found.log, found.integer, found.recipe) == (1e-4, 1e-2, True, False, 1e-3)
    wide = space("lightgcn")["training.shared_negatives"]
    assert (wide.low, wide.high, wide.integer) == (64, 8192, True)


def test_what_the_recipe_leaves_off_stays_off():
    keys = space("lightgcn", {"model.edge_dropout": 0.0, "training.weight_decay": 0.0, "model.init_std": None})
    assert not {"model.edge_dropout", "training.weight_decay", "model.init_std", "training.l2_reg"} & keys.keys()
    assert "model.edge_dropout" in space("lightgcn")


def test_what_does_nothing_is_not_searched():
    assert "training.temperature" in space("lightgcn")
    assert "training.temperature" not in space("mf")
    assert {"model.cp_rank", "model.meta_dim"} <= space("metammf-lightgcn").keys()
    assert "model.cp_rank" not in space("metammf-lightgcn", {"model.fusion": "dense"})
    assert not {"model.cp_rank", "model.meta_dim"} & space("static-lightgcn").keys()


def test_widths_and_what_the_caller_has_set_are_held():
    assert "model.embedding_dim" not in space("mf")
    assert "training.learning_rate" not in space("mf", held={"training.learning_rate"})


def test_a_solved_model_has_no_settings_of_training():
    assert is_solved(merge("ease").config)
    assert space("ease").keys() == {"model.l2"}
    assert space("popularity") == {}


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_lies_in_its_space(recipe):
    config = merge(recipe).config
    for setting in search_space(config).values():
        assert setting.recipe in setting.choices or setting.low <= setting.recipe <= setting.high
        assert not setting.log or setting.low > 0
    assert with_settings(config, {key: one.recipe for key, one in search_space(config).items()}) == config


class Choosy(ModelConfig):
    """A model with choices."""

    name: Literal["choosy"] = "choosy"
    hops: Annotated[int, Search(choices=(1, 2))] | None = 3
    """Hops."""


def test_a_range_is_found_where_none_is_allowed_too():
    assert _search(Choosy.model_fields["hops"]).choices == (1, 2)
    assert _search(Choosy.model_fields["name"]) is None


class Layered(ModelConfig):
    """A model whose choices are lists."""

    name: Literal["layered"] = "layered"
    hidden_dims: Annotated[tuple[int, ...], Search(choices=((8,), (16, 8)))] = (16, 8)
    """Widths."""


def test_choices_are_as_the_ledger_gives_them_back():
    """Settings of a trial come back from JSON, and are then still one of the choices."""
    setting = _setting(_search(Layered.model_fields["hidden_dims"]), Layered().hidden_dims)
    back = json.loads(json.dumps({"model.hidden_dims": setting.recipe}))
    assert back["model.hidden_dims"] in setting.choices
    assert misfit({"model.hidden_dims": setting}, back) is None
    assert "is searched over [8], [16, 8]" in misfit({"model.hidden_dims": setting}, {"model.hidden_dims": [4]})


def test_settings_are_set_and_checked():
    config = with_settings(merge("mf").config, {"training.learning_rate": 0.01, "seed": 3})
    assert (config.training.learning_rate, config.seed) == (0.01, 3)
    with pytest.raises(ConfigError, match="learning_rat"):
        with_settings(config, {"training.learning_rat": 0.01})


def test_the_scale_of_features_is_searched_for_every_model_that_reads_them():
    for recipe in recipe_names():
        config = merge(recipe).config
        reads = "feature_scaling" in type(config.model).model_fields
        assert ("model.feature_scaling" in search_space(config)) == reads, recipe
    assert space("freedom")["model.feature_scaling"].choices == ("none", "center", "standardize", "l2")


def test_what_needs_a_setting_that_is_off_is_not_searched():
    assert "model.item_neighbours" not in space("invrl")
    assert "model.item_neighbours" in space("invrl", {"model.item_weight": 1.0})


@pytest.mark.parametrize(
    ("modalities", "settings", "searched"),
    [
        (None, {}, True),
        (("visual", "textual"), {}, True),
        (("vggish", "textual"), {}, False),
        (("visual",), {}, False),
        (("visual", "textual", "acoustic"), {"model.modalities": ["textual", "acoustic"]}, False),
    ],
)
def test_the_share_of_a_modality_is_searched_where_there_is_another(modalities, settings, searched):
    found = search_space(merge("freedom", settings).config, modalities=modalities)
    assert ("model.visual_share" in found) == searched
