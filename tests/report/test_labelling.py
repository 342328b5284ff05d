from __future__ import annotations

from itertools import combinations

import numpy as np

from metammf.report.labelling import SIDES, _Box, _name_box, sides


def test_a_dot_alone_has_its_name_to_the_right() -> None:
    assert sides([(100, 100, "one")], 400, 300) == ["right"]


def test_a_name_stays_within_the_figure() -> None:
    assert sides([(390, 100, "a long name")], 400, 300) == ["left"]


def test_two_dots_beside_each_other_do_not_share_a_place() -> None:
    dots = [(100.0, 100.0, "first of two"), (104.0, 103.0, "second of two")]
    found = sides(dots, 400, 300)
    first, second = (_name_box(*dot, side) for dot, side in zip(dots, found, strict=True))
    assert first.shared(second) == 0


def test_names_of_a_loose_crowd_do_not_cover_each_other() -> None:
    rng = np.random.default_rng(0)
    dots = [
        (float(x), float(y), f"model {place}") for place, (x, y) in enumerate(rng.uniform(0, 1, (15, 2)) * (900, 400))
    ]
    found = sides(dots, 900, 400)
    assert set(found) <= set(SIDES)
    boxes = [_name_box(*dot, side) for dot, side in zip(dots, found, strict=True)]
    assert sum(a.shared(b) for a, b in combinations(boxes, 2)) == 0


def test_what_two_boxes_share() -> None:
    assert _Box(0, 0, 4, 4).shared(_Box(2, 3, 9, 9)) == 2
    assert _Box(0, 0, 4, 4).shared(_Box(5, 0, 9, 4)) == 0
