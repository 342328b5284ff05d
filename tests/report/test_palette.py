from __future__ import annotations

from metammf.experiments.demo_plan import ENTRIES
from metammf.report.palette import KINDS, modality_colours, modality_shapes, model_colours, series_colours


def test_every_model_of_the_demo_has_a_colour_of_its_own() -> None:
    assert len(set(model_colours([entry.key for entry in ENTRIES]))) == len(ENTRIES)


def test_a_placebo_has_the_colour_of_its_model() -> None:
    assert model_colours(["metammf-mf-noise"]) == model_colours(["metammf-mf"])


def test_colours_do_not_depend_on_which_models_are_shown() -> None:
    assert model_colours(["ease", "static-mf"])[1] == model_colours(["static-mf"])[0]


def test_three_modalities_differ_in_colour_and_in_shape() -> None:
    names = ("visual", "acoustic", "textual")
    assert len(set(modality_colours(names))) == len(set(modality_shapes(names))) == 3


def test_a_modality_has_its_colour_and_mark_in_every_figure() -> None:
    for given in (modality_colours, modality_shapes):
        demo = dict(zip(("visual", "acoustic", "textual"), given(("visual", "acoustic", "textual")), strict=True))
        by_name = dict(zip(sorted(demo), given(sorted(demo)), strict=True))
        assert by_name == demo
        assert given(["tags", "textual"])[1] == demo["textual"]
        assert len(set(given(["tags", "textual", "visual", "comments", "acoustic", "face"]))) == 6


def test_groups_that_share_a_colour_have_marks_apart() -> None:
    names = [f"community {number}" for number in range(1, 9)]
    assert len(set(zip(modality_colours(names), modality_shapes(names), strict=True))) == 8


def test_no_series_beside_a_placebo_is_olive_which_looks_like_its_tan() -> None:
    names = [f"model {number}" for number in range(20)]
    *colours, placebo = series_colours([*names, "placebo"])
    assert placebo == KINDS["placebo"]
    assert "#A88B00" not in colours
    assert "#A88B00" in series_colours(names)


def test_any_number_of_modalities_and_unknown_models() -> None:
    assert len(modality_colours([str(number) for number in range(20)])) == 20
    assert len(model_colours(["someones-own"])) == 1
