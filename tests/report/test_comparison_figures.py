from __future__ import annotations

from typing import Any

import pytest

from metammf.report.comparison_figures import cost_chart, lead_chart


def lead(label: str, difference: float) -> dict[str, Any]:
    ends = {"low": difference - 0.001, "high": difference + 0.001}
    return {"label": label, "kind": "ids alone", "difference": difference, **ends, "significant": True, "p": 0.01}


def cost(name: str, seconds: float, mean: float) -> dict[str, Any]:
    return {"label": name.upper(), "short": name, "kind": "ids alone", "seconds": seconds, "mean": mean}


def encodings(chart: Any) -> list[dict[str, Any]]:
    return [layer["encoding"] for layer in chart.to_dict()["layer"]]


@pytest.mark.parametrize("differences", [(0.02, 0.03), (-0.03,), (-0.01, 0.02)])
def test_the_line_at_zero_stands_within(differences: tuple[float, ...]) -> None:
    chart = lead_chart([lead(f"model {place}", one) for place, one in enumerate(differences)], "NDCG@20")
    (low, high) = next(one["x"]["scale"]["domain"] for one in encodings(chart) if "scale" in one.get("x", {}))
    ends = [0.0, *(one - 0.001 for one in differences), *(one + 0.001 for one in differences)]
    room = (max(ends) - min(ends)) / 12
    assert (low, high) == pytest.approx((min(ends) - room, max(ends) + room))


def test_a_model_alone_lies_in_the_middle_of_axes_with_some_length() -> None:
    found = encodings(cost_chart([cost("mf", 0.6141, 0.0427)], "NDCG@20"))[0]
    (left, right), (bottom, top) = found["x"]["scale"]["domain"], found["y"]["scale"]["domain"]
    assert left * right == pytest.approx(0.6141**2)
    assert right / left > 4
    assert bottom + top == pytest.approx(2 * 0.0427)
    assert top - bottom > 0.01


def test_every_name_stands_on_one_side_of_its_dot() -> None:
    rows = [cost("mf", 1.0, 0.02), cost("ngcf", 1.01, 0.0201), cost("lightgcn", 9.0, 0.04)]
    layers = cost_chart(rows, "NDCG@20").to_dict()["layer"]
    sides = [layer["transform"][0]["filter"] for layer in layers if layer["mark"]["type"] == "text"]
    assert len(sides) == len(set(sides)) > 1
    assert layers[0]["mark"]["type"] == "point"
