from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metammf.errors import ConfigError
from metammf.experiments.conditions import AXES, ROLES, ConditionsAsk, RealData, make_conditions, read_axis, read_real
from metammf.experiments.demo_plan import DemoPlan
from metammf.experiments.studies import config_of

TIKTOK = RealData(Path("some/tiktok"), "metammf-lightgcn", {"training.batches_per_step": 4})


def test_values_that_are_nearly_equal_have_worlds_of_their_own() -> None:
    values = (3.0, 3.0000001, 0.1, 1e-07)
    plan = make_conditions(ConditionsAsk(users=10_000_000, vary={"density": values}))
    assert [one.key for one in plan.conditions[1:]] == [
        *("density-1e-07", "density-0.1", "density-3", "density-3.0000001")
    ]


def test_worlds_differ_from_the_default_in_one_thing() -> None:
    plan = make_conditions(ConditionsAsk(users=500))
    default, *others = plan.conditions
    assert default.world is not None
    base = default.world.arguments()
    assert (base["users"], base["interactions"]) == (500, 12_000)
    for one in others:
        assert one.world is not None
        changed = {key for key, value in one.world.arguments().items() if value != base[key]}
        assert changed == {"interactions" if one.axis == "density" else AXES[one.axis or ""].knob}
    assert {one.axis for one in others} == set(AXES)
    # The default lies on every axis, and is generated once.
    assert len(others) == sum(len(axis.values) - 1 for axis in AXES.values())


def test_dynamic_static_and_noise_differ_in_nothing_else() -> None:
    for one in make_conditions(ConditionsAsk(real=(TIKTOK,))).conditions:
        configs = {role: config_of(one.variants[role], {}, 0).config.model_dump() for role in ROLES}
        assert configs["noise"] == configs["dynamic"] | {"placebo": "noise"}
        assert configs["dynamic"]["model"]["fusion"] == "cp"
        twin = configs["dynamic"]["model"] | {"fusion": "concat"}
        assert configs["static"] == configs["dynamic"] | {"model": twin}


def test_worlds_are_met_as_in_the_demo() -> None:
    demo = DemoPlan()
    entries = {entry.key: entry for entry in demo.entries}
    variants = make_conditions(ConditionsAsk()).conditions[0].variants
    assert config_of(variants["dynamic"], {}, 3).config == demo.config(entries["metammf-mf"], 3)
    assert config_of(variants["static"], {}, 3).config.model.fusion == demo.config(entries["static-mf"], 3).model.fusion


def test_the_callers_settings_outweigh_the_demos_and_own_ones_outweigh_these() -> None:
    own = RealData(Path("some/set"), settings={"training.epochs": 7})
    ask = ConditionsAsk(real=(own,), settings={"training.epochs": 3, "model.hidden_dims": [8]})
    default, *_, real = make_conditions(ask).conditions
    for one, epochs in ((default, 3), (real, 7)):
        config = config_of(one.variants["dynamic"], ask.settings, 0).config
        assert config.training.epochs == epochs
        assert config.model.hidden_dims == (8,)


def test_a_recipe_of_its_own_is_not_up_to_choice() -> None:
    plan = make_conditions(ConditionsAsk(real=(TIKTOK, RealData(Path("other"))), vary={"cold": (0.1,)}))
    fixed = {one.key: one.variants["dynamic"].fixed for one in plan.conditions}
    assert fixed == {"default": False, "cold-0.1": False, "tiktok": True, "other": False}


def test_noise_in_the_default_world_alone() -> None:
    plan = make_conditions(ConditionsAsk(real=(TIKTOK,), vary={"cold": (0,)}, placebo="default"))
    assert [tuple(one.variants) for one in plan.conditions] == [ROLES, ROLES[:2], ROLES[:2]]


def test_another_recipe_for_the_worlds() -> None:
    plan = make_conditions(ConditionsAsk(recipe="metammf-cold", vary={"strength": (4,)}, real=(TIKTOK,)))
    recipes = [(one.key, one.variants["dynamic"].recipe) for one in plan.conditions]
    assert recipes == [("default", "metammf-cold"), ("strength-4", "metammf-cold"), ("tiktok", "metammf-lightgcn")]
    dynamic = config_of(plan.conditions[0].variants["dynamic"], {}, 0).config
    assert (dynamic.model.fusion, dynamic.training.epochs) == ("dense", 60)


def test_words_are_read() -> None:
    found = read_real("data/lfm2k,metammf-cold,split.method=cold-item,training.epochs=2")
    settings = {"split.method": "cold-item", "training.epochs": 2}
    assert found == RealData(Path("data/lfm2k"), "metammf-cold", settings)
    assert found.label == "lfm2k, cold-item split"
    assert read_real("data/tiktok") == RealData(Path("data/tiktok"))
    assert read_axis("strength=0,2.5") == ("strength", (0.0, 2.5))


@pytest.mark.parametrize(
    ("read", "word", "message"),
    [
        (read_real, "", "data set '': expected DIR, or DIR,RECIPE,KEY=VALUE"),
        (read_real, "data,one,two", "data set 'data,one,two': expected DIR"),
        (read_real, "data,epochs=2", "setting 'epochs=2': expected SECTION.KEY=VALUE"),
        (read_axis, "strenght=1", r"unknown axis 'strenght' \(did you mean 'strength'\?\); there are: strength, "),
        (read_axis, "cold", "axis 'cold': expected cold=NUMBER,NUMBER"),
        (read_axis, "cold=a,1", "axis 'cold=a,1': expected cold=NUMBER"),
        (read_axis, "cold=nan", "axis 'cold=nan': expected cold=NUMBER"),
    ],
)
def test_words_that_are_none_are_refused(read: Any, word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(word)


def test_what_cannot_be_told_apart_or_is_no_fusion_is_refused() -> None:
    with pytest.raises(ConfigError, match="study conditions: tiktok comes twice; name another folder"):
        make_conditions(ConditionsAsk(real=(TIKTOK, RealData(Path("elsewhere/tiktok")))))
    with pytest.raises(ConfigError, match="study conditions is of MetaMMF's fusion, and recipe vbpr is of vbpr"):
        make_conditions(ConditionsAsk(recipe="vbpr"))
