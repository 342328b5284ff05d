"""Evaluate a run, and keep what was found beside it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from metammf.errors import ConfigError, DataError
from metammf.evaluation.evaluate import evaluate
from metammf.evaluation.result import Evaluation
from metammf.ranking.topk import rank

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from metammf.evaluation.evaluate import Part, Ranker, Seen
    from metammf.experiments.run import Run

EVALUATIONS = "evaluation"
log = logging.getLogger(__name__)


def evaluate_run(
    run: Run,
    *,
    part: Part = "test",
    seen: Seen | None = None,
    ks: Sequence[int] = (10, 20),
    all_users: bool = False,
    sample: int | None = None,
    data: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    ranker: Ranker = rank,
) -> Evaluation:
    """Evaluate a finished run on its own split, and write the result into its folder, where that can be written to.

    `ranker` is what ranks, by default this process; for the rest, see `metammf.evaluation.evaluate`.

    Raises:
        ConfigError: the options do not fit each other, or the run was refitted on what is asked for.
        DataError: the data set is gone or is not the same.
        RunError: the run is not finished, or damaged.
    """
    if run.config.refit and (part == "validation" or seen == "train"):
        raise ConfigError(
            f"{run.path} was refitted on train and validation: only the test part, with both left out, can tell of it"
        )
    recommender, split = run.recommender(), run.split(data)
    scorer = recommender.final_scorer if split.history is None else recommender.with_histories(split.history)
    result = evaluate(
        scorer,
        split,
        part=part,
        seen=seen,
        ks=ks,
        all_users=all_users,
        sample=sample,
        progress=progress,
        ranker=ranker,
    )
    config = run.config
    about = {"model": config.model.name, "seed": config.seed, "placebo": config.placebo, "refit": config.refit}
    result = replace(result, run=about)
    who = "-all-users" if all_users else f"-{sample}-users" if sample else ""
    try:
        result.write_json(_kept(run, result.part, f"{result.seen}{who}"))
    except DataError as error:  # somebody else's run, or one on a disk that is read alone
        log.warning("the evaluation is not kept beside the run: %s", error)
    return result


def evaluated_once(run: Run, part: Part, seen: Seen, ks: Sequence[int] = (10, 20)) -> Evaluation:
    """Return what an earlier call found, users included, where that is kept beside the run; otherwise evaluate, and keep it.

    So a study or comparison that goes on after an interruption does not read the test part twice. What is kept and damaged is
    found once more.

    Raises:
        ConfigError, DataError, RunError: as `evaluate_run`.
    """
    kept = _kept(run, part, seen)
    users = kept.with_suffix(".parquet")
    if kept.is_file() and users.is_file():
        try:
            found = Evaluation.read(kept)
        except DataError as error:
            log.warning("%s: the run is evaluated again", error)
        else:
            if found.ks == tuple(sorted(set(ks))):
                return found
    result = evaluate_run(run, part=part, seen=seen, ks=ks)
    result.write_parquet(users)
    return result


def _kept(run: Run, part: str, how: str) -> Path:
    return run.path / EVALUATIONS / f"{part}-{how}.json"
