"""Which settings a search tries next, and when a trial is given up: Optuna, asked and told.

A study is rebuilt from the ledger for every question, and its generator is seeded by the model and the trial's number. What is
asked next so depends on what the ledger holds and on nothing else: a search that was killed goes on as if nothing had happened.

The trials before Optuna's draw each setting by its own name, the trial's number and the search's family: a model, its static twin
and its placebo are of one and try the same values of what they share, so that none is ahead because its search happened on better
ones. Other models, and other data sets, are of other families: a poor draw is not everybody's.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from metammf.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import optuna

    from metammf.experiments.comparison_results import SearchedSetting, Trial

    Space = Mapping[str, SearchedSetting]

STARTUP = 5
"""Trials after the recipe that change about half of its settings, drawn from their ranges; those after them are asked of TPE."""
_FULL_TRIALS, _LOOKS = 2, 5
"""A trial is given up at the earliest when so many have come to their own end, and after so many looks at validation."""


def require_optuna() -> None:
    """Say before the work begins that Optuna is missing.

    Raises:
        MissingExtraError: it is.
    """
    _optuna()


def propose(space: Space, earlier: Sequence[Trial], label: str, family: str) -> dict[str, Any]:
    """Return the settings of the next trial: first the recipe's own, then some of them moved, then what TPE asks for.

    Those of a trial that died are tried again; the search then goes on as if it had not.

    Args:
        space: Dotted key -> its range.
        earlier: The trials so far.
        label: Names the search; what TPE draws depends on it.
        family: Of the searches that draw alike before TPE.
    """
    if earlier and not earlier[-1].counts:
        return dict(earlier[-1].settings)
    earlier = [trial for trial in earlier if trial.counts]
    number = len(earlier)
    recipe = {key: setting.recipe for key, setting in space.items()}
    if number == 0 or not space:
        return recipe
    if number <= STARTUP:
        return _some_moved(space, number, family)
    seed = int(_generator(label, number).integers(2**31))
    asked = _study(space, earlier, seed).ask(_distributions(space))
    return {key: _value(setting, asked.params[key]) for key, setting in space.items()}


class Pruner:
    """Tells whether a trial is behind: its best value so far below the median of the others at the same look.

    Args:
        space: Dotted key -> its range.
        earlier: The trials so far.
    """

    def __init__(self, space: Space, earlier: Sequence[Trial]) -> None:
        earlier = [trial for trial in earlier if trial.counts]
        self._trial = _study(space, earlier, 0).ask() if space and earlier else None

    def is_behind(self, look: int, value: float) -> bool:
        """Note the value of a look, from 1, and tell."""
        if self._trial is None:
            return False
        self._trial.report(value, look)
        return self._trial.should_prune()


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("optuna", "compare", "a search for settings") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # by default it tells of every study and trial
    return optuna


def _study(space: Space, earlier: Sequence[Trial], seed: int) -> optuna.Study:
    library = _optuna()
    study: optuna.Study = library.create_study(
        direction="maximize",
        sampler=library.samplers.TPESampler(seed=seed, n_startup_trials=1, multivariate=True),
        pruner=library.pruners.MedianPruner(n_startup_trials=_FULL_TRIALS, n_warmup_steps=_LOOKS),
    )
    states = library.trial.TrialState
    # What its share of the budget has stopped may be chosen for the best value it had, and so counts by it here too: TPE puts
    # what was pruned behind all that came to an end, however good it was, and a slow model has few but stopped ones.
    known = {"finished": states.COMPLETE, "pruned": states.PRUNED, "stopped": states.COMPLETE, "failed": states.FAIL}
    distributions = _distributions(space)
    for trial in earlier:
        state = states.FAIL if trial.value is None else known[trial.state]
        study.add_trial(
            library.trial.create_trial(
                state=state,
                value=trial.value if state == states.COMPLETE else None,
                params={key: _parameter(space[key], value) for key, value in trial.settings.items()},
                distributions=distributions,
                intermediate_values={look: value for look, (_, value) in enumerate(trial.curve, 1)},
            )
        )
    return study


def _distributions(space: Space) -> dict[str, Any]:
    kinds = _optuna().distributions
    found = {}
    for key, setting in space.items():
        if setting.choices:  # by their places: a choice may be anything
            found[key] = kinds.CategoricalDistribution(tuple(range(len(setting.choices))))
        elif setting.integer:
            found[key] = kinds.IntDistribution(*_whole(setting), log=setting.log)
        else:
            found[key] = kinds.FloatDistribution(setting.low, setting.high, log=setting.log)
    return found


def _parameter(setting: SearchedSetting, value: Any) -> Any:
    return setting.choices.index(value) if setting.choices else value


def _value(setting: SearchedSetting, parameter: Any) -> Any:
    if setting.choices:
        return setting.choices[parameter]
    return int(parameter) if setting.integer else _rounded(setting, parameter)


def _generator(name: str, number: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), number])


def _some_moved(space: Space, number: int, family: str) -> dict[str, Any]:
    """Return the recipe with about half of its settings drawn anew, one at least."""
    draws = {key: _generator(f"{family} {key}", number) for key in space}
    chances = {key: rng.random() for key, rng in draws.items()}
    first = min(chances, key=chances.__getitem__)
    moved = {key for key, chance in chances.items() if chance < 0.5 or key == first}
    return {key: _draw(setting, draws[key]) if key in moved else setting.recipe for key, setting in space.items()}


def _draw(setting: SearchedSetting, rng: np.random.Generator) -> Any:
    if setting.choices:
        return setting.choices[rng.integers(len(setting.choices))]
    assert setting.low is not None
    assert setting.high is not None
    if setting.log:
        drawn = math.exp(rng.uniform(math.log(setting.low), math.log(setting.high)))
    else:
        drawn = rng.uniform(setting.low, setting.high)
    if not setting.integer:
        return _rounded(setting, drawn)
    low, high = _whole(setting)
    return min(max(round(drawn), low), high)


def _whole(setting: SearchedSetting) -> tuple[int, int]:
    assert setting.low is not None
    assert setting.high is not None
    return math.ceil(setting.low), math.floor(setting.high)


def _rounded(setting: SearchedSetting, value: float) -> float:
    """Return four significant digits, which people can read and which say as much, within the range."""
    assert setting.low is not None
    assert setting.high is not None
    return min(max(float(f"{value:.4g}"), setting.low), setting.high)
