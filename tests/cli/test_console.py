"""What the console tells of work that takes long."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from metammf.cli import console
from metammf.errors import UnknownIdError


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0 s"), (99.4, "99 s"), (100, "2 min"), (3569, "59 min"), (3571, "1 h 0 min"), (7530, "2 h 6 min")],
)
def test_times_are_told_as_people_say_them(seconds: float, told: str) -> None:
    assert console.duration(seconds) == told


def test_steps_tell_how_long_it_took_and_what_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier call has done took this one no time: 5 of 25 steps in 10 minutes leave 20 minutes for the other 10."""
    now = iter((0.0, 600.0, 1200.0))
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with console.steps("comparing") as show:
        show(10, 25, "")
        show(15, 25, "one")
        show(25, 25, "two")
    assert capsys.readouterr().err.splitlines() == [
        "15/25 one (after 10 min, some 20 min left)",
        "25/25 two (after 20 min)",
    ]


def test_an_id_that_a_run_does_not_know_is_told_with_the_run() -> None:
    with (
        pytest.raises(UnknownIdError, match=r"^runs/first: unknown user id 'nobody'$"),
        console.ids_of(Path("runs/first")),
    ):
        raise UnknownIdError("unknown user id 'nobody'")
