"""Run the study of conditions, in a folder that the same call goes on with.

::

    worlds/KEY-SEED/  the generated worlds with their truth
    runs/             see `metammf.experiments.study_jobs`
    study.json        all that was found, plain data

A seed makes a world of each kind and the models that are trained on it; on a real data set it makes the models alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from metammf.data.folder import load_dataset
from metammf.data.synthetic import TRUTH_FILE, check_world, generate_world, load_truth, save_world
from metammf.errors import ConfigError, RunError
from metammf.evaluation.result import TABLES
from metammf.evaluation.significance import compare, holm
from metammf.experiments.conditions import AXES, NAME, QUESTION, TITLE
from metammf.experiments.conditions_results import AxisResult, ConditionResult, ConditionsResults
from metammf.experiments.environment import environment
from metammf.experiments.measuring import data_summary
from metammf.experiments.pair_tests import as_pair
from metammf.experiments.studies import config_of
from metammf.experiments.study_jobs import STUDY_FILE, Runs, StudyOptions, all_tried, check_metric, held, make_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from metammf.evaluation.result import Evaluation
    from metammf.experiments.comparison_results import DataSummary, PairTest
    from metammf.experiments.conditions import Condition, ConditionsPlan, Role, WorldSettings
    from metammf.experiments.studies import Variant
    from metammf.experiments.study_jobs import Progress, StudyOutcome
    from metammf.experiments.study_results import StudyRow

METRICS = ("ndcg@20", "recall@20")
TESTED_TABLES = ("all", "cold_among_all")
_OTHERS: tuple[Role, ...] = ("static", "noise")


def run_conditions(
    plan: ConditionsPlan,
    out: Path | str,
    options: StudyOptions | None = None,
    *,
    command: str = "",
    progress: Progress | None = None,
) -> ConditionsResults:
    """Generate and run what is missing, write study.json and return what that holds.

    All settings are checked before anything is generated or trained. A variant that then fails is a row that says why.

    Args:
        plan: What is compared where.
        out: The study's folder; one of the same study with worlds of the same size is gone on with.
        options: How; its seeds are those of the worlds too.
        command: What the page says made it.
        progress: Called with the steps done, how many there are, and what was done last.

    Raises:
        ConfigError: a setting does not exist, or does not fit.
        DataError: a real data set cannot be read or split, or `out` is somebody else's.
        RunError: `out` is in use, holds another study or another world, or a process died.
    """
    options, out = options or StudyOptions(), Path(out)
    check_metric(options.metric)
    for variant, tried in all_tried(plan.variants, options):
        config_of(variant, options.settings, options.seed, tried)
    for one in plan.conditions:
        if one.world is not None:
            try:
                check_world(seed=options.seed, **one.world.arguments())
            except ConfigError as error:
                raise ConfigError(f"study {NAME}, {one.label}: {error}") from error
    seeds = tuple(range(options.seed, options.seed + options.num_seeds))
    real = {one.key: [_described(one, one.data, options)] for one in plan.conditions if one.data is not None}
    with held(out, NAME, plan.size):
        described = real | _make_worlds(plan, out, seeds, options, progress)
        rows, found = make_rows(plan.variants, Runs(_folders(plan, out), out / "runs", options, progress=progress))
        metrics = tuple(dict.fromkeys((options.metric, *METRICS)))
        results = ConditionsResults(
            name=NAME,
            title=TITLE,
            question=QUESTION,
            axes=tuple(AxisResult(name, AXES[name].title, AXES[name].default) for name in plan.axes),
            conditions=tuple(_condition(one, described[one.key], rows) for one in plan.conditions),
            seen=options.seen,
            metric=options.metric,
            metrics=metrics,
            seed_numbers=seeds,
            tests=_tests(plan, found, metrics),
            command=command,
            environment=environment(options.device, options.precision),
        )
        results.write(out / STUDY_FILE)
    return results


@dataclass(frozen=True)
class _Described:
    """One data set of a condition."""

    data: DataSummary
    split: str
    diversity: float | None = None
    spread: float | None = None


def _described(condition: Condition, folder: Path, options: StudyOptions) -> _Described:
    config = config_of(condition.variants["dynamic"], options.settings, options.seed).config
    dataset = load_dataset(folder)
    split = config.split.apply(dataset)
    summary = data_summary(dataset, split)
    if condition.world is None:
        return _Described(summary, split.method)
    truth = load_truth(folder)
    spread = condition.world.content_strength * truth.utility_deviation
    return _Described(summary, split.method, truth.mix_diversity, spread)


def _world_folder(out: Path, condition: Condition, seed: int) -> Path:
    return out / "worlds" / f"{condition.key}-{seed}"


def _folders(plan: ConditionsPlan, out: Path) -> _Folders:
    return _Folders({variant.key: one for one in plan.conditions for variant in one.variants.values()}, out)


@dataclass(frozen=True)
class _Folders:
    """On which data set a variant is trained with a seed."""

    conditions: Mapping[str, Condition]
    out: Path

    def __call__(self, variant: Variant, seed: int) -> Path:
        condition = self.conditions[variant.key]
        return condition.data or _world_folder(self.out, condition, seed)


def _make_worlds(
    plan: ConditionsPlan, out: Path, seeds: Sequence[int], options: StudyOptions, progress: Progress | None
) -> dict[str, list[_Described]]:
    """Generate the worlds that are missing; the truth is what is written last, so that a world which has one is whole.

    Raises:
        RunError: a world that is there is not the one that is asked for.
    """
    asked = [(one, seed) for one in plan.conditions if one.world is not None for seed in seeds]
    found: dict[str, list[_Described]] = {}
    for number, (condition, seed) in enumerate(asked, start=1):
        folder = _world_folder(out, condition, seed)
        there = (folder / TRUTH_FILE).is_file()
        if condition.world is not None:
            if there:
                _check_stored(folder, condition.world, seed)
            else:
                save_world(generate_world(seed=seed, **condition.world.arguments()), folder)
        found.setdefault(condition.key, []).append(_described(condition, folder, options))
        if progress is not None:
            progress(number, len(asked), f"world {condition.label}, seed {seed}{', generated before' * there}")
    return found


def _check_stored(folder: Path, world: WorldSettings, seed: int) -> None:
    arguments = {"seed": seed, **world.arguments()}
    items, interactions = check_world(**arguments)
    asked = arguments | {"items": items, "interactions": interactions}
    stored = load_dataset(folder).provenance.get("arguments", {})
    if other := [
        f"{name}: expected {value}, found {stored.get(name)}"
        for name, value in asked.items()
        if stored.get(name) != value
    ]:
        raise RunError(f"{folder} holds another world ({'; '.join(other)}): name another folder for the study")


def _condition(condition: Condition, described: Sequence[_Described], rows: Sequence[StudyRow]) -> ConditionResult:
    by_key = {row.key: row for row in rows}
    return ConditionResult(
        key=condition.key,
        label=condition.label,
        axis=condition.axis,
        value=condition.value,
        world=None if condition.world is None else condition.world.arguments(),
        data=tuple(one.data for one in described),
        split=described[0].split,
        diversity=tuple(one.diversity for one in described if one.diversity is not None),
        models={role: by_key[variant.key] for role, variant in condition.variants.items()},
        spread=tuple(one.spread for one in described if one.spread is not None),
    )


def _tests(
    plan: ConditionsPlan, found: Mapping[str, Sequence[StudyOutcome]], metrics: Sequence[str]
) -> tuple[PairTest, ...]:
    """The dynamic fusion against the others; one correction over the conditions for each metric, table and other."""
    tests: list[PairTest] = []
    for metric in metrics:
        for table in TESTED_TABLES:
            for other in _OTHERS:
                family = [
                    test for one in plan.conditions if (test := _test(one, other, found, metric, table)) is not None
                ]
                adjusted = holm([test.p for test in family]).tolist()
                tests += [replace(test, p_holm=p) for test, p in zip(family, adjusted, strict=True)]
    return tuple(tests)


def _test(
    condition: Condition, other: Role, found: Mapping[str, Sequence[StudyOutcome]], metric: str, table: str
) -> PairTest | None:
    there = {role: one.key for role, one in condition.variants.items() if one.key in found}
    if "dynamic" not in there or other not in there:
        return None
    a, b = there["dynamic"], there[other]
    left, right = (
        {one.job.merged.config.seed: one.test for one in found[key] if one.test is not None} for key in (a, b)
    )
    seeds = [seed for seed in left if seed in right and left[seed].tables[table]]
    if not seeds:
        return None
    ours, theirs = ({seed: tests[seed] for seed in seeds} for tests in (left, right))
    column = TABLES[table] + metric
    if condition.world is not None:
        compared = compare(pooled(ours), pooled(theirs), column)
    else:
        compared = compare(list(ours.values()), list(theirs.values()), column)
    return as_pair(metric, table.replace("_", " "), a, b, compared)


def pooled(evaluations: Mapping[int, Evaluation]) -> Evaluation:
    """Return the users of several worlds as those of one evaluation, each named by its world too.

    Args:
        evaluations: Seed of the world -> evaluation. What else they hold is that of the first.
    """
    frames = [
        one.per_user.with_columns(user_id=pl.format("{}/{}", pl.lit(seed), pl.col("user_id")))
        for seed, one in evaluations.items()
    ]
    first = next(iter(evaluations.values()))
    return replace(first, per_user=pl.concat(frames, how="vertical_relaxed"))
