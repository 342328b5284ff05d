from __future__ import annotations

from typing import Any

import pytest

from metammf.errors import ConfigError
from metammf.experiments.config import merge, recipe_names
from metammf.experiments.search_space import is_solved
from metammf.experiments.studies import (
    KINDS,
    NO_PLACEBO,
    Ask,
    config_of,
    make_plan,
    placebo_recipes,
    takes_content,
)

MODALITIES = ("visual", "acoustic", "textual")


def plan(name: str, *recipes: str, **options: Any) -> Any:
    return make_plan(name, Ask(recipes=recipes, modalities=MODALITIES, **options))


@pytest.mark.parametrize("name", KINDS)
def test_every_study_has_variants_of_its_own_that_are_valid(name: str) -> None:
    found = plan(name)
    keys = [variant.key for variant in found.variants]
    assert len(set(keys)) == len(keys) >= 2
    assert len({variant.label for variant in found.variants}) == len(keys)
    assert {key for pair in found.pairs for key in pair} <= set(keys)
    assert len(set(found.pairs)) == len(found.pairs)
    assert all(a != b for a, b in found.pairs)
    assert (found.axis is None) == all(variant.x is None for variant in found.variants)
    for variant in found.variants:
        config_of(variant, {}, seed=3)


def test_depth_is_the_papers_network_at_four_layers() -> None:
    by_key = {variant.key: variant for variant in plan("depth").variants}
    assert by_key["metammf-gcn-dynamic-4"].settings["model.hidden_dims"] == [1024, 512, 256]
    assert by_key["metammf-gcn-dynamic-1"].settings["model.hidden_dims"] == []
    config = config_of(by_key["metammf-gcn-static-2"], {}, 0).config.model.model_dump()
    assert config["fusion"] == "concat"
    assert config["hidden_dims"] == (256,)


def test_a_variants_own_settings_outweigh_all_others() -> None:
    variant = plan("rank", values=(8,)).variants[0]
    config = config_of(variant, {"model.cp_rank": 3, "model.meta_dim": 7}, 0, {"model.meta_dim": 9}).config.model
    assert (config.cp_rank, config.meta_dim) == (8, 9)


def test_values_are_sorted_and_each_once() -> None:
    assert [variant.x for variant in plan("width", values=(5, 1, 5)).variants] == [1, 5, None]


def test_subsets_are_all_where_they_are_few() -> None:
    labels = [variant.label for variant in plan("modalities", "metammf-mf").variants]
    assert labels[0] == "visual + acoustic + textual"
    assert labels[-1] == "textual"
    assert len(labels) == 7
    many = make_plan("modalities", Ask(("metammf-mf",), modalities=tuple("abcdef")))
    assert len(many.variants) == 1 + 6 + 6


def test_subsets_are_of_the_modalities_that_were_chosen() -> None:
    found = plan("modalities", "metammf-mf", settings={"model.modalities": ["visual", "textual"]})
    assert [variant.label for variant in found.variants] == ["visual + textual", "visual", "textual"]


def test_placebo_is_every_kind_for_every_model_named() -> None:
    found = plan("placebo", "vbpr", "metammf-mf")
    assert [(one.recipe, one.placebo) for one in found.variants] == [
        (recipe, placebo) for recipe in ("vbpr", "metammf-mf") for placebo in (None, "shuffle", "noise", "drop")
    ]
    assert all(one.recipe == one.key for one in found.variants if one.placebo is None)


def test_placebo_is_asked_of_every_model_that_content_trains() -> None:
    """Whoever ships a recipe of a new model finds it in the study; one that is not to be there needs a reason."""
    trained = {name for name in recipe_names() if takes_content(name) and not is_solved(merge(name).config)}
    asked = {variant.recipe for variant in plan("placebo").variants}
    assert asked == set(placebo_recipes()) == trained - NO_PLACEBO.keys()
    assert NO_PLACEBO.keys() <= trained
    assert all(NO_PLACEBO.values())
    models = {name: merge(name).config.model.name for name in trained}
    assert {models[name] for name in asked} == set(models.values())
    assert asked >= {"bm3", "diffmm", "freedom", "lattice", "metammf-lightgcn", "metammf-wide", "mgcn", "mmhcl", "vbpr"}


def test_overall_tests_ours_against_all_others_and_each_other() -> None:
    found = plan("overall", "vbpr", "metammf-mf", "popularity", "metammf-gcn")
    assert set(found.pairs) == {
        ("metammf-mf", "vbpr"),
        ("metammf-mf", "popularity"),
        ("metammf-gcn", "vbpr"),
        ("metammf-gcn", "popularity"),
        ("metammf-mf", "metammf-gcn"),
    }


def test_several_recipes_are_told_apart() -> None:
    labels = [variant.label for variant in plan("fusion", "metammf-mf", "metammf-gcn").variants]
    assert labels[0] == "metammf-mf: dynamic, CP"
    assert len(set(labels)) == 12


def test_each_rank_is_tested_against_dense_and_static_and_these_two_against_each_other() -> None:
    pairs = plan("rank", "metammf-mf", values=(4, 8)).pairs
    assert set(pairs) == {
        ("metammf-mf-cp-4", "metammf-mf-dense"),
        ("metammf-mf-cp-4", "metammf-mf-static"),
        ("metammf-mf-cp-8", "metammf-mf-dense"),
        ("metammf-mf-cp-8", "metammf-mf-static"),
        ("metammf-mf-dense", "metammf-mf-static"),
    }


def test_content_is_told_by_the_recipe() -> None:
    assert {name for name in ("ease", "mf", "metammf-mf", "vbpr") if takes_content(name)} == {"metammf-mf", "vbpr"}
    assert set(recipe_names()) >= {"ease", "mf", "metammf-mf", "vbpr"}


@pytest.mark.parametrize(
    ("name", "recipes", "options", "message"),
    [
        ("dept", (), {}, r"unknown study 'dept' \(did you mean 'depth'\?\); there are: overall, fusion"),
        ("fusion", (), {"values": (1,)}, "study fusion has no values to choose; those with values: depth, rank, width"),
        ("depth", (), {"values": (0, 2)}, r"values are whole numbers of at least 1, got \[0, 2\]"),
        ("depth", ("vbpr",), {}, "study depth is of MetaMMF's fusion, and recipe vbpr is of vbpr"),
        ("placebo", ("mf",), {}, "recipe mf: mf takes no modalities"),
        ("overall", ("vbrp",), {}, r"unknown recipe 'vbrp' \(did you mean 'vbpr'\?\)"),
    ],
)
def test_what_has_no_meaning_is_refused(name: str, recipes: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(name, *recipes, **options)


def test_modalities_of_nothing() -> None:
    with pytest.raises(ConfigError, match="the data set has no features"):
        make_plan("modalities", Ask())
