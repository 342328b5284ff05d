"""What a study found, as plain frozen data: written as study.json, and all that its page is made of. No torch in here.

Trials, final runs and tests are those of a comparison: `metammf.experiments.comparison_results`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from metammf.errors import FileFormatError

# The adapter reads annotations at run time.
from metammf.experiments.comparison_results import DataSummary, PairTest, SeedResult, Trial  # noqa: TC001
from metammf.files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class ClusterQuality:
    """How far a space keeps groups of items together.

    Args:
        silhouette: Mean over items, by cosine distance: 1 where groups lie far apart, 0 where they lie in each other.
        purity: Share of an item's ten nearest that are of its group.
        purity_by_chance: The same of items drawn at random.
    """

    __pydantic_config__ = _STRICT

    silhouette: float
    purity: float
    purity_by_chance: float


@dataclass(frozen=True)
class StudyRow:
    """One variant.

    Args:
        key: Its name.
        label: What people read.
        series: The line or group that it belongs to.
        x: Its place on the axis; None for a level beside the line, or a bar.
        recipe: What it is a change of.
        settings: Dotted key -> value, what is changed.
        placebo: What stood in the place of the features.
        parameters: Numbers that were learned or solved for; None where it failed.
        trials: Settings that validation chose among; empty where there was nothing to choose.
        chosen: Those that it chose.
        seeds: The final runs, one a seed; empty where it failed.
        clusters: Of each final run, how its fused vectors keep groups of items together; empty where that was not looked at.
        failed: Why there is no final run.
        content: Whether its model reads item content; None in a file that is older than this.
    """

    __pydantic_config__ = _STRICT

    key: str
    label: str
    series: str
    x: float | None
    recipe: str
    settings: Mapping[str, Any]
    placebo: str | None
    parameters: int | None
    trials: tuple[Trial, ...]
    chosen: Mapping[str, Any]
    seeds: tuple[SeedResult, ...]
    clusters: tuple[ClusterQuality, ...] = ()
    failed: str | None = None
    content: bool | None = None


@dataclass(frozen=True)
class Mapped:
    """Items in two dimensions, by the fused vectors of each variant's first run.

    Args:
        grouped_by: What the groups are.
        items: Outside ids; all that follows is in their order.
        titles: Of them, None where there is none.
        groups: Of them.
        panels: Variant's key -> ``x`` and ``y``.
    """

    __pydantic_config__ = _STRICT

    grouped_by: str
    items: tuple[Any, ...]
    titles: tuple[str | None, ...]
    groups: tuple[str, ...]
    panels: Mapping[str, Mapping[str, tuple[float, ...]]]


@dataclass(frozen=True)
class StudyResults:
    """All of it.

    Args:
        name: Of the study.
        title: Of its page.
        question: That it answers.
        data: What it was made on.
        split: How that was split.
        seen: What was left out of the test part's rankings.
        metric: What validation chose settings by, and figures show.
        seed_numbers: Of the final runs.
        axis: Title of the axis; None where variants are bars.
        log_axis: Whether that counts in powers of two.
        rows: One a variant.
        tests: Paired tests over users, corrected together.
        mapped: The map, of a study that draws one.
        command: That makes it again.
        environment: What it ran on.
        format: Of the file.
    """

    __pydantic_config__ = _STRICT

    name: str
    title: str
    question: str
    data: DataSummary
    split: str
    seen: str
    metric: str
    seed_numbers: tuple[int, ...]
    axis: str | None
    log_axis: bool
    rows: tuple[StudyRow, ...]
    tests: tuple[PairTest, ...]
    mapped: Mapped | None
    command: str
    environment: Mapping[str, Any]
    format: Literal["metammf-study-1"] = "metammf-study-1"

    def write(self, path: Path | str) -> None:
        """Write it as JSON, atomically."""
        write_json(path, _adapter().dump_python(self, mode="json"))

    @classmethod
    def read(cls, path: Path | str) -> StudyResults:
        """Read what `write` wrote.

        Raises:
            DataError: the file is missing or no JSON.
            FileFormatError: it is no study's.
        """
        return read_results(path, _adapter(), "metammf study")


@functools.cache
def _adapter() -> TypeAdapter[StudyResults]:
    return TypeAdapter(StudyResults)


def read_results(path: Path | str, adapter: TypeAdapter[T], command: str) -> T:
    """Read results of any study from the JSON that they were written as.

    Args:
        path: The file.
        adapter: Of the results.
        command: That writes such a file.

    Raises:
        DataError: the file is missing or no JSON.
        FileFormatError: it is none that the command wrote.
    """
    values = read_json(path)
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the whole"
        raise FileFormatError(path, f"{where}: {problem['msg']}", f"what `{command}` wrote") from error
