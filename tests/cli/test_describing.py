from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from metammf.cli.describing import show
from metammf.data.describe import Activity, Description, LongTail, ModalityDescription, Part
from metammf.data.lift import FeatureLift


def told(description, width=120):
    stream = io.StringIO()
    show(description, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.fixture
def description():
    lift = FeatureLift(9_000, 0.125, 0.025, 0.1, 12.34, 0.001, 0.2, "follows taste")
    return Description(
        name="shop",
        num_users=1_234,
        num_items=567,
        num_interactions=8_900,
        density=0.01272,
        users=Activity(34, 7.2, 5.0, 99),
        items=Activity(0, 15.7, 9.5, 321),
        long_tail=LongTail(0.512, 0.1, 0.4, 0.6, 12),
        parts=(Part("train", 7_000, 1_200, 500, 0, 0), Part("test", 1_900, 900, 300, 20, 44)),
        modalities=(ModalityDescription("visual", 128, "float16", 0.25, 3, 2, 1, lift),),
        first_timestamp=0,
        last_timestamp=86_400,
        titles=0.5,
        licence=None,
        seed=0,
    )


def test_every_figure_is_there(description):
    text = told(description)
    for figure in (
        "1,234, 34 without interactions; interactions each: mean 7.2, median 5, most 99",
        "8,900 (density 1.272%)",
        "10.0% / 40.0% / 60.0%; Gini 0.512; 12 items below 5",
        "1970-01-01 to 1970-01-02",
        "50.0% of the items",
        "none stated",
        "float16",
        "25.0%",
        "+0.1000",
        "12.3",
        "visual: users watch what is alike by this modality",
    ):
        assert figure in text
    assert "44" in text


def test_what_is_not_there_is_left_out(description):
    bare = replace(description, parts=(), modalities=(), first_timestamp=None, last_timestamp=None, titles=None)
    text = told(bare)
    assert "no features" in text
    assert "split" not in text
    assert "1970" not in text
    unknown = FeatureLift(3, None, None, None, None, None, None, "too few pairs")
    text = told(replace(description, modalities=(replace(description.modalities[0], lift=unknown),)))
    assert "–" in text
    assert "too few pairs of items" in text
    assert str(10**15) in told(replace(description, last_timestamp=10**15))


def test_features_that_are_all_the_same_are_told(description):
    lift = FeatureLift(9_000, None, None, None, None, None, None, "constant")
    text = told(replace(description, modalities=(replace(description.modalities[0], lift=lift),)))
    assert "visual: all items have the same features" in text
    assert "order" not in text
