from __future__ import annotations

import pytest

from metammf.experiments.config import about_recipe, recipe_names
from metammf.report.names import in_words, label, labels, short_name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ease", "EASE"),
        ("mmhcl+model.contrasted_nodes=1024", "MMHCL (contrasted_nodes=1024)"),
        (
            "metammf-gcn+training.batches_per_step=10+noise",
            "MetaMMF_GCN (batches_per_step=10), features replaced by noise",
        ),
        ("vbpr+drop", "VBPR, features dropped"),
        ("mine.toml", "mine.toml"),
    ],
)
def test_names_in_words(name: str, words: str) -> None:
    assert label(name) == words


def test_a_recipe_made_static_is_called_a_twin() -> None:
    twin = "static twin of MetaMMF on LightGCN, 192 wide"
    assert label("metammf-wide+model.fusion=concat") == twin
    assert label("metammf-wide+model.fusion=concat+noise") == f"{twin}, features replaced by noise"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_what_it_is_and_what_it_is_called(name: str) -> None:
    assert all(about_recipe(name).values())


def test_two_that_are_called_the_same_are_told_apart() -> None:
    names = ["static-lightgcn", "metammf-lightgcn+model.fusion=concat", "ease"]
    found = labels(names)
    assert found["ease"] == "EASE"
    assert found[names[0]] == f"static twin of MetaMMF on LightGCN [{names[0]}]"
    assert len(set(found.values())) == 3
    assert labels([]) == {}


def test_a_short_name_keeps_the_change() -> None:
    assert short_name("lightgcn") == "lightgcn"
    assert short_name("metammf-wide+model.fusion=concat+noise") == "metammf-wide, fusion=concat, noise"


def test_a_sentence_in_words() -> None:
    names = ["metammf-wide", "metammf-wide+model.fusion=concat", "ease"]
    told = "metammf-wide is behind metammf-wide+model.fusion=concat; ease-like stays, ease does not."
    wide = "MetaMMF on LightGCN, 192 wide"
    assert in_words(labels(names), told) == f"{wide} is behind static twin of {wide}; ease-like stays, EASE does not."
    assert in_words({}, told) == told
