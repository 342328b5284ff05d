"""What the study of conditions found, as plain frozen data: written as study.json. No torch in here.

Rows are those of any study, `metammf.experiments.study_results`; tests those of a comparison.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, TypeAdapter

# The adapter reads annotations at run time.
from metammf.experiments.comparison_results import DataSummary, PairTest  # noqa: TC001
from metammf.experiments.study_results import StudyRow, read_results
from metammf.files import write_json

if TYPE_CHECKING:
    from pathlib import Path

_STRICT = ConfigDict(extra="forbid")
FORMAT: Literal["metammf-conditions-1"] = "metammf-conditions-1"


def exact(value: float) -> str:
    """Return a number in the fewest digits that tell it from all others: ``4``, ``0.25``."""
    return repr(float(value)).removesuffix(".0")


@dataclass(frozen=True)
class AxisResult:
    """One thing that worlds varied in.

    Args:
        name: Short.
        title: For people.
        default: Where the default world lies.
    """

    __pydantic_config__ = _STRICT

    name: str
    title: str
    default: float


@dataclass(frozen=True)
class ConditionResult:
    """One condition.

    Args:
        key: Its name.
        label: What people read.
        axis: The axis that it lies on; None for the default world, which lies on all, and for a real data set.
        value: Its place there.
        world: What its worlds were generated with, the seed left out; None for a real data set.
        data: Of each world, in the order of the seeds; of a real data set one.
        split: How that was split.
        diversity: How much items truly differ in which modality matters, from 0 to 1, of each world; empty where nobody knows.
        models: Role (``dynamic``, ``static``, and ``noise`` where it was asked for) -> what was found; its seeds are one a world.
        spread: How far content parts choices: the standard deviation, over all pairs of a user and an item, of the content
            strength times the utility, against noise of the scale 1; of each world, empty where nobody knows.
    """

    __pydantic_config__ = _STRICT

    key: str
    label: str
    axis: str | None
    value: float | None
    world: Mapping[str, Any] | None
    data: tuple[DataSummary, ...]
    split: str
    diversity: tuple[float, ...]
    models: Mapping[str, StudyRow]
    spread: tuple[float, ...] = ()

    def gains(self, metric: str, table: str = "all", over: str = "static") -> list[float]:
        """Return what the dynamic fusion is ahead, a world or seed each; none where the table has no interactions."""
        ours, theirs = (
            {one.seed: one.test.get(table, {}).get(metric) for one in self.models[role].seeds}
            for role in ("dynamic", over)
        )
        pairs = ((ours[seed], theirs[seed]) for seed in ours if seed in theirs)
        return [a - b for a, b in pairs if a is not None and b is not None]


@dataclass(frozen=True)
class Gain:
    """What the dynamic fusion is ahead of another in one condition, by one metric in one table.

    Args:
        test: Over users, who share the models of their world: it does not know what a world or a seed decides.
        singles: What it is ahead in each world, or with each seed on a real data set.
    """

    test: PairTest
    singles: tuple[float, ...]

    @property
    def agreeing(self) -> int:
        """Worlds or seeds whose own gain has the sign of the whole."""
        return sum(one * self.test.difference > 0 for one in self.singles)

    @property
    def all_agree(self) -> bool:
        """Whether that holds for every one of them."""
        return self.agreeing == len(self.singles)


@dataclass(frozen=True)
class ConditionsResults:
    """All of it.

    Args:
        name: Of the study.
        title: Of its page.
        question: That it answers.
        axes: What was varied.
        conditions: The default world first, then axis by axis, then the real data sets.
        seen: What was left out of the test part's rankings.
        metric: What validation chose settings by, and figures show.
        metrics: What was tested, that first.
        seed_numbers: Of the worlds, and of the runs.
        tests: The dynamic fusion against the others in each condition; ``p_holm`` is corrected over the conditions, for each
            metric, table and other apart.
        command: That makes it again.
        environment: What it ran on.
        format: Of the file.
    """

    __pydantic_config__ = _STRICT

    name: str
    title: str
    question: str
    axes: tuple[AxisResult, ...]
    conditions: tuple[ConditionResult, ...]
    seen: str
    metric: str
    metrics: tuple[str, ...]
    seed_numbers: tuple[int, ...]
    tests: tuple[PairTest, ...]
    command: str
    environment: Mapping[str, Any]
    format: Literal["metammf-conditions-1"] = FORMAT

    def test(self, condition: ConditionResult, table: str, over: str = "static", metric: str = "") -> PairTest | None:
        """Return the test of the dynamic fusion against another; None where there is none, as in a table without interactions."""
        if over not in condition.models:
            return None
        asked = (metric or self.metric, table, condition.models["dynamic"].key, condition.models[over].key)
        return next((one for one in self.tests if (one.metric, one.table, one.a, one.b) == asked), None)

    def gain(self, condition: ConditionResult, table: str, over: str = "static", metric: str = "") -> Gain | None:
        """Return that test, and beside it what each world or seed says; None where there is no test."""
        test = self.test(condition, table, over, metric)
        return None if test is None else Gain(test, tuple(condition.gains(test.metric, table, over)))

    def write(self, path: Path | str) -> None:
        """Write it as JSON, atomically."""
        write_json(path, _adapter().dump_python(self, mode="json"))

    @classmethod
    def read(cls, path: Path | str) -> ConditionsResults:
        """Read what `write` wrote.

        Raises:
            DataError: the file is missing or no JSON.
            FileFormatError: it is no such study's.
        """
        return read_results(path, _adapter(), "metammf study conditions")


@functools.cache
def _adapter() -> TypeAdapter[ConditionsResults]:
    return TypeAdapter(ConditionsResults)
