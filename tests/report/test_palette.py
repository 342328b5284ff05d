from __future__ import annotations

from metammf.experiments.demo_plan import ENTRIES
from metammf.report.palette import modality_colours, modality_shapes, model_colours


def test_every_model_of_the_demo_has_a_colour_of_its_own() -> None:
    assert len(set(model_colours([entry.key for entry in ENTRIES]))) == len(ENTRIES)


def test_a_placebo_has_the_colour_of_its_model() -> None:
    assert model_colours(["metammf-mf-noise"]) == model_colours(["metammf-mf"])


def test_colours_do_not_depend_on_which_models_are_shown() -> None:
    assert model_colours(["ease", "static-mf"])[1] == model_colours(["static-mf"])[0]


def test_three_modalities_differ_in_colour_and_in_shape() -> None:
    names = ("visual", "acoustic", "textual")
    assert len(set(modality_colours(names))) == len(set(modality_shapes(names))) == 3


def test_any_number_of_modalities_and_unknown_models() -> None:
    assert len(modality_colours([str(number) for number in range(20)])) == 20
    assert len(model_colours(["someones-own"])) == 1
