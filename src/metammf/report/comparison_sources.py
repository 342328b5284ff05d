"""Which trials and final runs of a comparison are of which version of the code, known by the SHA-256 of the package's source."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from metammf.experiments.environment import short_source
from metammf.report.words import listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from metammf.experiments.comparison_results import ComparisonResults, ModelResult, SeedResult, Trial


@dataclass(frozen=True)
class Version:
    """What one version of the code has made.

    Args:
        source: Its SHA-256; None stands for all of which it was not noted.
        num_trials: Trials.
        num_runs: Final runs.
        models: What it made of each model: name -> ``trials 0–3, seeds 1–2``.
    """

    source: str | None
    num_trials: int
    num_runs: int
    models: dict[str, str]

    @property
    def name(self) -> str:
        """The head of its hash."""
        return short_source(self.source)

    @property
    def made(self) -> str:
        """How much it made."""
        counts = ((self.num_trials, "trial"), (self.num_runs, "final run"))
        return listed([f"{count:,} {what}{'s' * (count > 1)}" for count, what in counts if count])


def versions(results: ComparisonResults) -> list[Version]:
    """Return all versions that have made any of it, in the order of the models; that which was not noted comes last."""
    found: dict[str | None, None] = {}
    for model in results.models:
        found |= dict.fromkeys(trial.source for trial in model.trials)
        found |= dict.fromkeys(one.source for one in model.seeds)
    return [_version(results, source) for source in sorted(found, key=lambda source: source is None)]


def sources_differ(results: ComparisonResults) -> bool:
    """Whether it is not known to be of one version: of one that tells nothing at all, nothing is known."""
    return len(versions(results)) > 1


def told_sources(results: ComparisonResults) -> str:
    """Say so in a sentence where a comparison is not known to be of one version; else nothing."""
    there = versions(results)
    if len(there) < 2:
        return ""
    known = [version for version in there if version.source is not None]
    told = listed([f"{version.name} ({version.made})" for version in there])
    says = (
        f"Made by {len(known)} versions of the code" if len(known) > 1 else "Not known to be of one version of the code"
    )
    return f"{says}: {told}. Which trial and which final run is of which, the page and its ledger tell."


def _version(results: ComparisonResults, source: str | None) -> Version:
    def of(runs: Iterable[Trial | SeedResult]) -> int:
        return sum(one.source == source for one in runs)

    made = {model.name: _made(model, source) for model in results.models}
    return Version(
        source,
        sum(of(model.trials) for model in results.models),
        sum(of(model.seeds) for model in results.models),
        {name: told for name, told in made.items() if told},
    )


def _made(model: ModelResult, source: str | None) -> str:
    trials = [trial.number for trial in model.trials if trial.source == source]
    seeds = [one.seed for one in model.seeds if one.source == source]
    parts = (("trial", trials), ("seed", seeds))
    return ", ".join(f"{what}{'s' * (len(found) > 1)} {_spans(found)}" for what, found in parts if found)


def _spans(numbers: Sequence[int]) -> str:
    """Rising numbers, those that follow each other as one: ``0–3, 5``."""
    runs = [[number for _, number in group] for _, group in groupby(enumerate(numbers), lambda one: one[1] - one[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
