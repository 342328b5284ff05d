"""What a comparison found, as plain data: all that the report reads. No torch in here.

The classes below are the schema of ``comparison.json``; `ComparisonResults.to_plain` and `from_plain` lead there and back.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from metammf.errors import DataError, FileFormatError
from metammf.evaluation import result as evaluation
from metammf.files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

FORMAT: Literal["metammf-comparison-1"] = "metammf-comparison-1"

TABLES: Mapping[str, str] = {
    **{name.replace("_", " "): prefix for name, prefix in evaluation.TABLES.items()},
    "cold users": "cold_users/",
}
"""Table of test metrics -> prefix of its columns in `metammf.evaluation.result.Evaluation.per_user`. That of cold users is
looked at where the split makes some."""

_STRICT = ConfigDict(extra="forbid")

TrialState = Literal["finished", "pruned", "stopped", "failed", "died"]
"""``finished``: trained until its own end. ``pruned``: behind most of the others at the same look. ``stopped``: the budget's time
was over, and the best value so far counts. ``failed``: it has no value, and `Trial.reason` says why. ``died``: its process did,
killed for memory for one; the next trial has the same settings, unless the time was over, and if that dies too it has failed."""


@dataclass(frozen=True)
class DataSummary:
    """The data set, and how it was divided.

    Args:
        name: For people.
        sha256: Of all its files.
        num_users: With or without interactions.
        num_items: Likewise.
        num_interactions: Of all parts, and of what no part took.
        parts: ``train``, ``validation``, ``test`` -> interactions.
        num_cold_items: Items without a train interaction.
        num_cold_test: Test interactions with them.
        modalities: Name -> feature width.
        missing: Modality -> share of the items that lack it.
        licence: As the data set states it, where it does.
    """

    __pydantic_config__ = _STRICT

    name: str
    sha256: str
    num_users: int
    num_items: int
    num_interactions: int
    parts: Mapping[str, int]
    num_cold_items: int
    num_cold_test: int
    modalities: Mapping[str, int]
    missing: Mapping[str, float]
    licence: str | None = None


@dataclass(frozen=True)
class ProfileSummary:
    """The protocol: what was fixed for all models alike.

    Args:
        name: Of the profile.
        description: What it is.
        comparable: What its figures may be laid beside.
        split: ``method``, ``seed`` and shares, as applied.
        seen: What the test ranking leaves out: ``train`` or ``train+validation``.
        ks: Lengths of the lists.
        metrics: Names of the metrics that tables show, such as ``recall``; each at each k.
        chosen_by: The validation metric that chose epochs and settings, such as ``recall@20``.
        tested: The metrics that pairs were tested on, such as ``ndcg@20``.
    """

    __pydantic_config__ = _STRICT

    name: str
    description: str
    comparable: str
    split: Mapping[str, Any]
    seen: str
    ks: tuple[int, ...]
    metrics: tuple[str, ...]
    chosen_by: str
    tested: tuple[str, ...]


@dataclass(frozen=True)
class Budget:
    """What the search of every model might take; it ended with whichever of the two ran out first.

    Args:
        minutes: Of one core; of the device where it was a GPU.
        trials: Settings tried, the recipe's own among them; those that died and were tried again count once.
        seeds: Of the final runs.
        trial_share: Of the time, what one trial might take at most, unless it was the last that there could be.
    """

    __pydantic_config__ = _STRICT

    minutes: float
    trials: int
    seeds: tuple[int, ...]
    trial_share: float = 1.0


@dataclass(frozen=True)
class Check:
    """One check of the leakage audit, passed.

    Args:
        name: What was looked for, in a few words.
        found: What there is, with numbers.
    """

    __pydantic_config__ = _STRICT

    name: str
    found: str


@dataclass(frozen=True)
class PublishedFigure:
    """A figure that somebody else published.

    Args:
        model: As it is called there.
        metric: Such as ``recall@20``.
        value: As published.
        source: Where.
        picked_on: The part that chose the epoch: ``validation``, ``test``, or what is known of it.
    """

    __pydantic_config__ = _STRICT

    model: str
    metric: str
    value: float
    source: str
    picked_on: str


@dataclass(frozen=True)
class SearchedSetting:
    """One setting that the search moved.

    Args:
        low: Lower end of the range; None where there are choices.
        high: Upper end.
        log: Whether it was searched on a logarithmic scale.
        integer: Whether whole numbers alone were tried.
        choices: What there was to choose among; empty for a range.
        recipe: The recipe's own value.
    """

    __pydantic_config__ = _STRICT

    low: float | None
    high: float | None
    log: bool
    integer: bool
    choices: tuple[Any, ...]
    recipe: Any


@dataclass(frozen=True)
class Trial:
    """One trial of a search: a line of the ledger.

    Args:
        number: From 0, which is the recipe itself.
        settings: Dotted key -> value, of the searched settings alone.
        state: How it ended.
        seconds: Of processor time; of wall-clock time on a GPU.
        epochs: Epochs trained; None for a model that is solved.
        value: The best validation value of the metric that chooses; None where it failed.
        curve: (epoch, validation value) of each look.
        reason: Why it failed or died.
        source: SHA-256 of the code that ran it, or ended it where another had begun; None where that was not noted.
    """

    __pydantic_config__ = _STRICT

    number: int
    settings: Mapping[str, Any]
    state: TrialState
    seconds: float
    epochs: int | None
    value: float | None
    curve: tuple[tuple[int, float], ...] = ()
    reason: str | None = None
    source: str | None = None

    @property
    def counts(self) -> bool:
        """Whether it is one of the trials that a search may have; one that died is tried again in its place."""
        return self.state != "died"

    @property
    def ended(self) -> bool:
        """Whether it was looked at to its end, its patience, its last epoch or its pruning: no budget cut it short."""
        return self.state in ("finished", "pruned")


@dataclass(frozen=True)
class Spread:
    """Validation values of a model's trials, those that failed left out.

    Args:
        count: How many.
        lowest: The smallest.
        low: First quartile.
        middle: Median.
        high: Third quartile.
        highest: The largest.
    """

    __pydantic_config__ = _STRICT

    count: int
    lowest: float
    low: float
    middle: float
    high: float
    highest: float


@dataclass(frozen=True)
class SeedResult:
    """One final run at the chosen settings; the test part was read once, at its end.

    Args:
        seed: Of the run.
        validation: Metric -> value, on all users of the validation part.
        test: Table (a key of `TABLES`) -> metric -> value; a table without interactions is left out.
        epochs: Epochs trained; None for a model that is solved.
        best_epoch: The one whose weights were taken; likewise.
        seconds_per_epoch: Median, of processor time (wall-clock time on a GPU), training alone; likewise.
        seconds: Of the whole run, looks at validation included.
        peak_mib: The most memory that its process had held by the end; None where the system does not tell.
        curve: (epoch, validation value of the metric that chooses) of each look.
        source: SHA-256 of the code that trained it, or went on with it last; None where that was not noted.
    """

    __pydantic_config__ = _STRICT

    seed: int
    validation: Mapping[str, float]
    test: Mapping[str, Mapping[str, float]]
    epochs: int | None
    best_epoch: int | None
    seconds_per_epoch: float | None
    seconds: float
    peak_mib: float | None
    curve: tuple[tuple[int, float], ...] = ()
    source: str | None = None


@dataclass(frozen=True)
class ModelResult:
    """One model: its search and its final runs.

    Args:
        name: As it was asked for.
        model: The model's registered name.
        recipe: The recipe's name or file.
        overrides: Dotted key -> value, set on top of the recipe.
        placebo: ``noise`` or ``shuffle`` where its features were replaced.
        content: Whether it reads item content.
        solved: Whether it is solved in closed form: it draws nothing, and one seed says all.
        parameters: Numbers that were learned or solved for.
        space: Dotted key -> what was searched; empty where there is nothing to search.
        trials: In order.
        spread: Of their validation values.
        chosen: Dotted key -> value of the searched settings that were taken.
        chosen_trial: Number of the trial that they come from.
        config: The whole config of the final runs: ``model``, ``training``, ``split``.
        seeds: The final runs.
    """

    __pydantic_config__ = _STRICT

    name: str
    model: str
    recipe: str
    overrides: Mapping[str, Any]
    placebo: str | None
    content: bool
    solved: bool
    parameters: int
    space: Mapping[str, SearchedSetting]
    trials: tuple[Trial, ...]
    spread: Spread
    chosen: Mapping[str, Any]
    chosen_trial: int
    config: Mapping[str, Any]
    seeds: tuple[SeedResult, ...]

    @property
    def num_ended(self) -> int:
        """How many of its trials were looked at to their end."""
        return sum(trial.ended for trial in self.trials)

    @property
    def cut_short_at(self) -> int | None:
        """Epochs of the chosen trial where the budget cut it short, so that the final runs get no more; else None."""
        stopped = (trial for trial in self.trials if trial.number == self.chosen_trial and trial.state == "stopped")
        return next((trial.epochs for trial in stopped), None)

    @property
    def still_rising(self) -> bool:
        """Whether most final runs, held to the epochs of a trial that was cut short, were at their best at their last look."""
        if self.cut_short_at is None:
            return False
        looked = [one for one in self.seeds if one.curve]
        return 2 * sum(one.best_epoch == one.curve[-1][0] for one in looked) > len(looked)

    def mean(self, metric: str, table: str = "all") -> float | None:
        """Return the mean over seeds of a test metric; None where the table has no interactions."""
        values = [one.test[table][metric] for one in self.seeds if metric in one.test.get(table, {})]
        return sum(values) / len(values) if values else None

    def deviation(self, metric: str, table: str = "all") -> float | None:
        """Return the sample standard deviation over seeds of a test metric; None where there are fewer than two."""
        values = [one.test[table][metric] for one in self.seeds if metric in one.test.get(table, {})]
        if len(values) < 2:
            return None
        mean = sum(values) / len(values)
        return float((sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5)

    def validation(self, metric: str) -> float:
        """Return the mean over seeds of a validation metric."""
        return sum(one.validation[metric] for one in self.seeds) / len(self.seeds)


@dataclass(frozen=True)
class LeftOut:
    """A model that was asked for and could not be compared.

    Args:
        name: As it was asked for.
        reason: Why.
        tried_again: Whether the same command tries it again.
    """

    __pydantic_config__ = _STRICT

    name: str
    reason: str
    tried_again: bool = False


@dataclass(frozen=True)
class PairTest:
    """Model a against model b: a paired test over users on their means over seeds.

    Args:
        metric: Such as ``ndcg@20``.
        table: A key of `TABLES`.
        a: Name of one model.
        b: Name of the other.
        num_users: Users that both were measured on.
        mean_a: Mean of a.
        mean_b: Mean of b.
        difference: `mean_a` less `mean_b`.
        low: Lower end of the difference's 95% bootstrap interval.
        high: Its upper end.
        effect_size: Cohen's dz.
        p: Of the two-sided sign-flip permutation test.
        p_holm: After Holm's correction over all pairs of one metric and table.
        improvement_percent: `difference` in percent of `mean_b`; None where that is 0.
        num_differing: Users whom the two serve differently; None where that was not noted.
    """

    __pydantic_config__ = _STRICT

    metric: str
    table: str
    a: str
    b: str
    num_users: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    effect_size: float
    p: float
    p_holm: float
    improvement_percent: float | None
    num_differing: int | None = None


@dataclass(frozen=True)
class Improvement:
    """How far a model is ahead of the best other, as the papers' tables print it.

    Args:
        metric: Such as ``ndcg@20``.
        table: A key of `TABLES`.
        model: Name of the model.
        best_other: Name of the best of the others by that metric.
        percent: `model`'s mean less the other's, in percent of the other's; None where that is 0.
    """

    __pydantic_config__ = _STRICT

    metric: str
    table: str
    model: str
    best_other: str
    percent: float | None


@dataclass(frozen=True)
class ComparisonResults:
    """All of it.

    Args:
        data: The data set.
        profile: The protocol.
        budget: Of each model.
        command: What made it.
        environment: Versions, machine, threads of the process that wrote this: `metammf.experiments.environment.environment`.
            Which code a trial or a final run is of, its own `source` tells.
        started: When, in UTC, ISO 8601.
        updated: When this was written.
        complete: Whether the same command has nothing left to do: each model that was asked for is in here, or left out for good.
        audit: Checks of the leakage audit, all passed: where one fails there is no comparison.
        models: Those that are done, in the order asked for.
        left_out: Those that could not be compared.
        tests: All pairs of models, on each tested metric and table.
        improvements: Of each model over the best other, on each metric and table.
        published: Figures of others, to be laid beside; each on the same data and protocol, as far as its source tells.
        pending: Names of those that were asked for and are not done yet; files from before there was this have none.
        format: Of this file.
    """

    __pydantic_config__ = _STRICT

    data: DataSummary
    profile: ProfileSummary
    budget: Budget
    command: str
    environment: Mapping[str, Any]
    started: str
    updated: str
    complete: bool
    audit: tuple[Check, ...]
    models: tuple[ModelResult, ...]
    left_out: tuple[LeftOut, ...] = ()
    tests: tuple[PairTest, ...] = ()
    improvements: tuple[Improvement, ...] = ()
    published: tuple[PublishedFigure, ...] = ()
    pending: tuple[str, ...] = ()
    format: Literal["metammf-comparison-1"] = FORMAT

    def to_plain(self) -> dict[str, Any]:
        """Return all of it as values that JSON can hold."""
        return _adapter().dump_python(self, mode="json")

    @classmethod
    def from_plain(cls, values: Any) -> ComparisonResults:
        """Build it from what `to_plain` gave.

        Raises:
            DataError: a key is missing, unknown, or holds something else than it should.
        """
        try:
            found = _adapter().validate_python(values)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"]) or "the whole"
            raise DataError(f"comparison: {where}: {problem['msg']}") from error
        if without := [model.name for model in found.models if not model.seeds]:
            raise DataError(f"comparison: {without[0]}: no final run")
        return found

    def write(self, path: Path | str) -> None:
        """Write it as JSON, atomically."""
        write_json(path, self.to_plain())

    @classmethod
    def read(cls, path: Path | str) -> ComparisonResults:
        """Read what `write` wrote.

        Raises:
            DataError: the file is missing, is not JSON, or is no comparison.
        """
        values = read_json(path)
        try:
            return cls.from_plain(values)
        except DataError as error:
            raise FileFormatError(path, str(error), "what `metammf compare` wrote") from error


@functools.cache
def _adapter() -> TypeAdapter[ComparisonResults]:
    return TypeAdapter(ComparisonResults)
