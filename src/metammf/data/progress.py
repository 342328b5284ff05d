"""How long jobs tell how far they are: a function that is called now and then, and nothing where nobody asks."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is of it: 0 where that is not known."""


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""
