"""Where the names of dots go in a figure, so that they do not lie on each other or on other dots."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDES = ("right", "left", "above", "below")
"""Of a dot, in the order in which they are tried."""
GAP = 8
"""Pixels between the middle of a dot and its name."""
_LETTER, _LINE = 6.0, 13.0  # pixels of a letter, on average, and of a line, at 11 pixels
_DOT = 6.0


class _Box(NamedTuple):
    """A rectangle, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: _Box) -> float:
        """Area that two have in common."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


def sides(dots: Sequence[tuple[float, float, str]], width: float, height: float) -> list[str]:
    """Return on which side of each dot its name stands, of `SIDES`: the first that covers nothing, else what covers least.

    Args:
        dots: Pixels from the left, pixels from the top, and the name, each.
        width: Of the figure, in pixels; a name that leaves it counts as covering what it leaves.
        height: Likewise.
    """
    around = [_Box(x - _DOT, y - _DOT, x + _DOT, y + _DOT) for x, y, _ in dots]
    names: dict[int, _Box] = {}
    found = [""] * len(dots)
    # From the top down, so that those of a crowd give way to their neighbours in turn.
    for place in sorted(range(len(dots)), key=lambda one: dots[one][1]):
        taken = [*(box for other, box in enumerate(around) if other != place), *names.values()]
        boxes = {side: _name_box(*dots[place], side) for side in SIDES}
        costs = {
            side: _outside(box, width, height) + sum(box.shared(other) for other in taken)
            for side, box in boxes.items()
        }
        found[place] = min(SIDES, key=lambda side: costs[side])
        names[place] = boxes[found[place]]
    return found


def _name_box(x: float, y: float, name: str, side: str) -> _Box:
    long, half = _LETTER * len(name), _LINE / 2
    if side in ("right", "left"):
        start = x + GAP if side == "right" else x - GAP - long
        return _Box(start, y - half, start + long, y + half)
    middle = y - GAP - half if side == "above" else y + GAP + half
    return _Box(x - long / 2, middle - half, x + long / 2, middle + half)


def _outside(box: _Box, width: float, height: float) -> float:
    whole = (box.right - box.left) * (box.bottom - box.top)
    return whole - box.shared(_Box(0.0, 0.0, width, height))
