"""What a comparison found, in plain words computed from it; they read right whoever wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metammf.evaluation import significance
from metammf.report.comparison_sources import told_sources
from metammf.report.comparison_table import kind_of, main_metric, ranked
from metammf.report.tables import TABLE_TITLES, of_metric
from metammf.report.words import LEVEL, ONE_SEED, listed, metric_name, number, p_value, signed

if TYPE_CHECKING:
    from metammf.experiments.comparison_results import ComparisonResults, ModelResult, PairTest

TRIALS_NOTE = (
    "Trials: all of the ledger, and in brackets those that ended: trained to their patience or their last epoch, or pruned for"
    " being behind; the others were cut short by the budget, failed or died. Chosen: the trial whose settings were taken, where"
    " no. 0 is always the recipe as it stands."
)
"""What the columns say that `metammf.report.comparison_table.trials_told` and `chosen_told` fill."""
_FEW = 3
"""Trials that ended; with fewer of them a search can hardly be called one."""


def headline(results: ComparisonResults) -> str:
    """Where MetaMMF stands by the main metric over all test items."""
    order = by_test(results)
    if not order:
        if results.models:
            return "Placebos alone: nothing to lay beside them"
        return "No model came to an end" if results.complete else "No model is done yet"
    name, count = metric_name(main_metric(results)), _counted(results, len(order))
    ours = next((model for model in ranked(results) if kind_of(model) == "MetaMMF"), None)
    if len(order) == 1 and results.complete:
        return f"{order[0].name} alone: nothing to compare it with"
    if ours is None:
        return f"{order[0].name} is first of {count} by {name}"
    place = order.index(ours) + 1
    if place > 1:
        test = _test(results, ours.name, order[0].name)
        level = ", and cannot be told from the first" if test is not None and test.p_holm >= LEVEL else ""
        return f"{ours.name} is {_ordinal(place)} of {count} by {name}, behind {order[0].name}{level}"
    if len(order) == 1:
        return f"{ours.name} alone so far: nothing to compare it with"
    test = _test(results, ours.name, order[1].name)
    told = test is not None and test.p_holm < LEVEL
    return f"{ours.name} is first of {count} by {name}{'' if told else f', level with {order[1].name}'}"


def _counted(results: ComparisonResults, count: int) -> str:
    """Among how many a place is one."""
    return (
        f"{count} models" if results.complete else f"the {count} models done so far" if count > 1 else "one done so far"
    )


def unfinished(results: ComparisonResults) -> str:
    """Say which models are to come; nothing where none is."""
    if results.complete:
        return ""
    to_come = f"to come: {listed(results.pending)}" if results.pending else "not all runs that were asked for are in"
    return f"Not complete yet, {to_come}; the same command goes on."


def findings(results: ComparisonResults) -> list[str]:
    """What was found, a sentence or two each."""
    return [
        text
        for text in (
            unfinished(results),
            ONE_SEED if len(results.budget.seeds) == 1 and results.tests else "",
            _best(results),
            _ours(results),
            _level(results),
            _resolution(results),
            *searches(results),
            told_sources(results),
            *_twins(results),
            *_placebos(results),
            _published(results),
        )
        if text
    ]


def searches(results: ComparisonResults) -> list[str]:
    """Name the models that the budget hardly searched, and those whose final runs it holds to few epochs."""
    return [text for text in (_hardly_searched(results), _cut_short(results)) if text]


def _hardly_searched(results: ComparisonResults) -> str:
    few = [model for model in ranked(results) if model.space and model.num_ended < _FEW]
    if not few:
        return ""
    recipes = sum(model.chosen_trial == 0 for model in few)
    return (
        f"Hardly searched, since fewer than {_FEW} of their trials ended: {'; '.join(model.name for model in few)}."
        f" {recipes} of these {len(few)} stand at their recipe as it is. What a longer search would make of them is not known."
    )


def _cut_short(results: ComparisonResults) -> str:
    cut = [model for model in ranked(results) if model.cut_short_at is not None]
    if not cut:
        return ""
    told = "; ".join(f"{model.name} ({model.cut_short_at})" for model in cut)
    text = f"Chosen from a trial that the budget cut short, whose epochs, in brackets, the final runs could not pass: {told}."
    rising = "; ".join(model.name for model in cut if model.still_rising)
    if rising:
        text += f" At their best at the last look that they could have, and so with more to learn, it may be: {rising}."
    return text


def by_test(results: ComparisonResults, table: str = "all") -> list[ModelResult]:
    """The models, placebos apart, the best on the test part first."""
    metric = main_metric(results)
    there = [one for one in results.models if one.placebo is None and one.mean(metric, table) is not None]
    return sorted(there, key=lambda one: -(one.mean(metric, table) or 0.0))


def _ordinal(place: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(place, f"{place}th")


def _test(results: ComparisonResults, a: str, b: str, table: str = "all") -> PairTest | None:
    """The test of this pair by the main metric, whichever of the two stands first."""
    metric = main_metric(results)
    return next(
        (one for one in results.tests if (one.metric, one.table, {one.a, one.b}) == (metric, table, {a, b})), None
    )


def _value(model: ModelResult, metric: str, table: str = "all") -> str:
    cell = of_metric(model.seeds, metric, table)
    return "nothing" if cell is None else number(cell.mean) + ("" if cell.std is None else f" ± {number(cell.std)}")


def _best(results: ComparisonResults) -> str:
    metric, parts = main_metric(results), []
    for table, title in TABLE_TITLES.items():
        order = by_test(results, table)
        if order and table != "warm":
            best = (
                f"{order[0].name}, {_value(order[0], metric, table)}"
                if order[0].mean(metric, table)
                else "none above 0"
            )
            parts.append(f"{title[0].lower()}{title[1:]}: {best}")
    return f"Best by {metric_name(metric)}, {'; '.join(parts)}." if parts else ""


def _ours(results: ComparisonResults) -> str:
    order, metric = by_test(results), main_metric(results)
    ours = [model for model in ranked(results) if kind_of(model) == "MetaMMF"]
    if not ours or len(order) < 2:
        return ""
    other = next((model for model in order if kind_of(model) != "MetaMMF"), None)
    if other is None:
        return ""
    test = _test(results, ours[0].name, other.name)
    values = f"{_value(ours[0], metric)} against {_value(other, metric)}"
    if test is None:
        return f"{ours[0].name}, the MetaMMF that validation puts first, against the best of the others, {other.name}: {values}."
    difference = test.difference if test.a == ours[0].name else -test.difference
    says = "cannot be told from" if test.p_holm >= LEVEL else "is ahead of" if difference > 0 else "is behind"
    low, high = (test.low, test.high) if test.a == ours[0].name else (-test.high, -test.low)
    text = (
        f"{ours[0].name}, the MetaMMF that validation puts first, {says} the best of the others, {other.name}"
        f" ({values}; difference {signed(difference)}, 95% interval {signed(low)} to {signed(high)}, {p_value(test.p_holm)})."
    )
    if results.complete:
        return text
    return f"{text} Holm's correction is over the pairs of the models that are in: each that joins can raise this p."


def _level(results: ComparisonResults) -> str:
    order = by_test(results)
    level = [
        model.name
        for model in order[1:]
        if (test := _test(results, order[0].name, model.name)) is not None and test.p_holm >= LEVEL
    ]
    if len(order) < 2 or not results.tests:
        return ""
    if not level:
        apart = ", placebos apart," if any(one.placebo for one in results.models) else ""
        return f"Every other model{apart} is behind {order[0].name} by a paired test over users."
    return f"Not to be told from {order[0].name} by a paired test over users: {listed(level)}."


def least_p(results: ComparisonResults) -> float:
    """The smallest p that a test of the main metric can give after Holm's correction; 1 where there is none."""
    tests = _main_tests(results)
    return min((significance.least_p(len(tests), test.num_differing) for test in tests), default=1.0)


def _main_tests(results: ComparisonResults) -> list[PairTest]:
    return [one for one in results.tests if (one.metric, one.table) == (main_metric(results), "all")]


def _resolution(results: ComparisonResults) -> str:
    """Say so where no test can tell any two models apart: there are too many, or few users whom they serve differently."""
    least, tests = least_p(results), _main_tests(results)
    if not tests or least < LEVEL:
        return ""
    told = (
        f"Among {len(results.models)} models the smallest p that the permutation test can give is {least:.3f} after the"
        " correction: that no two are told apart here says nothing of them."
    )
    if significance.least_p(len(tests)) >= LEVEL:
        return told
    most = max(test.num_differing or 0 for test in tests)
    return f"Of {tests[0].num_users} users no two models serve more than {most} differently. {told}"


def _twins(results: ComparisonResults) -> list[str]:
    """Of each MetaMMF and each static twin of it that took part: the same recipe and changes, the fusion apart."""
    static = [model for model in results.models if kind_of(model) == "static fusion"]
    pairs = [
        (model, twin)
        for model in results.models
        if kind_of(model) == "MetaMMF"
        for twin in static
        if _but_fusion(twin) == _but_fusion(model)
    ]
    return [told for ours, twin in pairs if (told := _adds(results, "dynamic fusion", ours, twin, twin.name))]


def _but_fusion(model: ModelResult) -> tuple[str, ...]:
    """What was asked for, whatever the fusion: static-gcn is as metammf-gcn, and so is metammf-gcn with a static one."""
    changes = (f"{key}={value}" for key, value in model.overrides.items() if key != "model.fusion")
    return model.recipe.replace("static-", "metammf-", 1), *sorted(changes)


def _placebos(results: ComparisonResults) -> list[str]:
    """Of each model that was run on its features and on others too."""
    names = {model.name: model for model in results.models}
    pairs = [
        (whole, placebo)
        for placebo in results.models
        if placebo.placebo is not None
        and (whole := names.get(placebo.name.replace(f"+{placebo.placebo}", ""))) is not None
    ]
    return [told for whole, other in pairs if (told := _adds(results, "content", whole, other, other.placebo or ""))]


def _adds(results: ComparisonResults, what: str, ours: ModelResult, other: ModelResult, against: str) -> str:
    """Say how far a model is ahead of what it is without something; nothing where the two were not tested.

    Over all items, and where there are cold ones over these among all: content may be worth something there alone.
    """
    tests = {table: _test(results, ours.name, other.name, table) for table in ("all", "cold among all")}
    if tests["all"] is None:
        return ""
    parts = []
    for table, test in tests.items():
        if test is None:
            continue
        difference = test.difference if test.a == ours.name else -test.difference
        says = "no difference that a test can tell" if test.p_holm >= LEVEL else signed(difference)
        parts.append(f"{'' if table == 'all' else f'{table} '}{says} ({p_value(test.p_holm)})")
    shared = ours.chosen.keys() & other.chosen.keys()
    searched = (
        " The two stand at other settings, each at those that its own search found: a difference of searches too."
        if any(ours.chosen[key] != other.chosen[key] for key in shared)
        else ""
    )
    return f"What {what} adds to {ours.name}, against {against}: {'; '.join(parts)}.{searched}"


def _published(results: ComparisonResults) -> str:
    metric, order = main_metric(results), by_test(results)
    figures = [one for one in results.published if one.metric == metric]
    if not figures or not order:
        return ""
    best = max(figures, key=lambda one: one.value)
    honest = max((one for one in figures if one.picked_on == "validation"), key=lambda one: one.value, default=None)
    text = (
        f"Best published {metric_name(metric)}: {number(best.value)} ({best.model}, epoch picked on {best.picked_on})"
    )
    if honest is not None and honest is not best:
        text += f"; with the epoch picked on validation {number(honest.value)} ({honest.model})"
    return f"{text}. Best here: {number(order[0].mean(metric) or 0.0)}."
