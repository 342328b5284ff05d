"""Whether two models differ: paired tests over users, corrected for the number of comparisons.

A user is the unit: both models rank for the same users, so what is tested is each user's difference. Several seeds of a
model are averaged user by user first, so that more seeds make a steadier model and not more users.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import special

from metammf.errors import DataError, did_you_mean
from metammf.evaluation.result import Evaluation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl
    from numpy.typing import NDArray

    Differences = NDArray[np.float64]

_CELLS = 1 << 19  # of resampled values held at once: they stay in cache, which is three times as fast
RESAMPLES = 100_000
"""Sign flips of a permutation test, where nothing else is said: no p is smaller than 1 / (RESAMPLES + 1). So many, so that
Holm's correction over the hundreds of pairs that some thirty models make leaves room below .05."""

_ROUNDING = 1e-12
"""What the mean over seeds may differ by from a value that all of them have; metrics are of the scale 1."""


@dataclass(frozen=True)
class Comparison:
    """Model a against model b on one metric.

    Args:
        metric: A column of `Evaluation.per_user`.
        num_users: Users that both were measured on.
        num_differing: Those of them whom the two serve differently: only these tell anything.
        mean_a: Mean of a.
        mean_b: Mean of b.
        difference: `mean_a` less `mean_b`.
        low: Lower end of the 95% bootstrap interval of the difference.
        high: Its upper end.
        effect_size: Cohen's dz, the mean difference in standard deviations of the users' differences.
        p_permutation: Two-sided p of the sign-flip permutation test.
        p_t: Two-sided p of the paired t test.
        p_adjusted: `p_permutation` after Holm's correction over the comparisons made together.
    """

    metric: str
    num_users: int
    num_differing: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    effect_size: float
    p_permutation: float
    p_t: float
    p_adjusted: float

    def significant(self, level: float = 0.05) -> bool:
        """Tell whether the corrected test says that the models differ."""
        return self.p_adjusted < level


def compare(
    a: Evaluation | Sequence[Evaluation],
    b: Evaluation | Sequence[Evaluation],
    metric: str,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two models, each with one evaluation or one for each of several seeds.

    Args:
        a: Evaluations of one model.
        b: Evaluations of another, on the same users.
        metric: A column of `Evaluation.per_user`, such as ``recall@20`` or ``cold_among_all/ndcg@20``.
        resamples: Sign flips of the permutation test.
        seed: Of the flips and the bootstrap samples.

    Raises:
        DataError: there is no such metric, or the users, the part or what was left out differ.
    """
    return compare_all(a, {"b": b}, [metric], resamples=resamples, seed=seed)["b"][0]


def compare_all(
    reference: Evaluation | Sequence[Evaluation],
    others: Mapping[str, Evaluation | Sequence[Evaluation]],
    metrics: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[Comparison]]:
    """Compare one model with each of the others on each metric; Holm's correction is over all of it.

    All are tested by the same sign flips and the same bootstrap samples of users, which are drawn once: the outcome of a pair is
    the same, whoever else takes part.

    Args:
        reference: Evaluations of one model, a in what is returned.
        others: Name -> evaluations of another, b, on the same users.
        metrics: Columns of `Evaluation.per_user`.
        resamples: Sign flips of the permutation test.
        seed: Of the flips and the bootstrap samples.

    Returns:
        Name of the other -> one comparison a metric.

    Raises:
        DataError: there is no such metric, or the users, the part or what was left out differ.
    """
    found: dict[str, list[Comparison]] = {name: [] for name in others}
    for metric in metrics:
        compared = _compare_on(reference, others, metric, resamples, seed)
        for name, one in compared.items():
            found[name].append(one)
    adjusted = iter(holm([one.p_permutation for listed in found.values() for one in listed]))
    return {name: [replace(one, p_adjusted=float(next(adjusted))) for one in listed] for name, listed in found.items()}


def _compare_on(
    reference: Evaluation | Sequence[Evaluation],
    others: Mapping[str, Evaluation | Sequence[Evaluation]],
    metric: str,
    resamples: int,
    seed: int,
) -> dict[str, Comparison]:
    """Compare one model with each of the others on one metric, not corrected."""
    if not others:
        return {}
    users, ours = per_user_mean(reference, metric)
    theirs = []
    for b in others.values():
        other_users, values = per_user_mean(b, metric)
        _same_protocol([*_listed(reference), *_listed(b)])
        if not users.equals(other_users):
            raise DataError(
                f"{metric}: the evaluations are of {len(users)} and {len(other_users)} users, not the same ones"
            )
        theirs.append(values)
    differences = ours[:, None] - np.stack(theirs, axis=1)
    lows, highs = bootstrap_intervals(differences, seed=seed)
    p_values = permutation_tests(differences, resamples=resamples, seed=seed)
    return {
        name: Comparison(
            metric,
            len(users),
            int(np.count_nonzero(np.abs(column) > _ROUNDING)),
            float(ours.mean()),
            float(values.mean()),
            float(column.mean()),
            float(low),
            float(high),
            effect_size(column),
            float(p),
            t_test(column),
            float(p),
        )
        for name, values, column, low, high, p in zip(others, theirs, differences.T, lows, highs, p_values, strict=True)
    }


def over_seeds(evaluations: Sequence[Evaluation]) -> dict[str, tuple[float, float]]:
    """Return mean and sample standard deviation over seeds of each metric; the deviation of one seed is 0."""
    _same_protocol(_listed(evaluations))
    found = {}
    for name in evaluations[0].metrics:
        values = np.array([one.metrics[name] for one in evaluations])
        found[name] = (float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0)
    return found


def per_user_mean(evaluations: Evaluation | Sequence[Evaluation], metric: str) -> tuple[pl.Series, Differences]:
    """Return the users that were measured and their values, averaged over the evaluations, user by user.

    Raises:
        DataError: there is no such metric, or the evaluations are of different users.
    """
    frames = []
    for one in _listed(evaluations):
        if metric not in one.per_user.columns or metric == "user_id":
            known = [name for name in one.per_user.columns if "@" in name]
            raise DataError(f"no values per user of {metric!r}{did_you_mean(metric, known)}")
        frames.append(one.per_user.select("user_id", metric).drop_nulls().sort("user_id"))
    users = frames[0]["user_id"]
    if not all(frame["user_id"].equals(users) for frame in frames):
        raise DataError(f"{metric}: the evaluations of one model are of different users")
    if not len(users):
        raise DataError(f"{metric}: there is no user to compare on")
    return users, np.mean([frame[metric].to_numpy() for frame in frames], axis=0)


def permutation_test(differences: Differences, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Return the two-sided p of the paired permutation test: under the null a difference has either sign alike.

    The default among the tests: it asks for no distribution, and the many users whom both models serve alike, whom a
    rank test has to break or drop, change neither its statistic nor its null.
    """
    return float(permutation_tests(differences[:, None], resamples=resamples, seed=seed)[0])


def permutation_tests(
    differences: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Return the p of `permutation_test` of each column, all by the same flips: they cost more than the sums.

    Args:
        differences: Shape (users, tests).
        resamples: Sign flips.
        seed: Of the flips.

    Returns:
        Shape (tests,).
    """
    users, tests = differences.shape
    total = differences.sum(axis=0)
    # A sum that equals the observed one but for rounding is as extreme as it.
    limit = np.abs(total) - 1e-9 * np.abs(differences).sum(axis=0)
    rng = np.random.default_rng(seed)
    extreme = np.zeros(tests, dtype=np.int64)
    for count in _portions(resamples, users):
        flips = np.unpackbits(rng.integers(256, size=(count, -(-users // 8)), dtype=np.uint8), axis=1)
        kept = _product(flips[:, :users], differences)
        extreme += (np.abs(2 * kept - total) >= limit).sum(axis=0)
    return (extreme + 1) / (resamples + 1)


def least_p(tests: int, num_differing: int | None = None) -> float:
    """Return the smallest p that one of so many permutation tests can have after Holm's correction; 1 where there is none.

    Args:
        tests: Made together.
        num_differing: Users whom the two models serve differently, where that is known: of 2^n flips two leave all signs alike.
    """
    flips = 0.0 if num_differing is None else 2.0 ** (1 - num_differing)
    return min(1.0, tests * max(1 / (RESAMPLES + 1), flips)) if tests else 1.0


def t_test(differences: Differences) -> float:
    """Return the two-sided p of the paired t test; 1 where all are alike and 0 apart, 0 where all moved by the same."""
    deviation = differences.std(ddof=1) if len(differences) > 1 else np.nan
    if not deviation > 0:
        return 0.0 if deviation == 0 and differences[0] != 0 else 1.0
    t = differences.mean() / (deviation / np.sqrt(len(differences)))
    return float(2 * special.stdtr(len(differences) - 1, -abs(t)))


def effect_size(differences: Differences) -> float:
    """Return Cohen's dz, mean over sample standard deviation; 0 where the differences do not vary."""
    deviation = differences.std(ddof=1) if len(differences) > 1 else 0.0
    return float(differences.mean() / deviation) if deviation > 0 else 0.0


def bootstrap_interval(
    differences: Differences, *, level: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean difference, users drawn with replacement."""
    low, high = bootstrap_intervals(differences[:, None], level=level, resamples=resamples, seed=seed)
    return float(low[0]), float(high[0])


def bootstrap_intervals(
    differences: NDArray[np.float64], *, level: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lower and upper ends of `bootstrap_interval` of each column, all by the same samples of users.

    Args:
        differences: Shape (users, tests).
        level: Share of the samples between the ends.
        resamples: Samples of users.
        seed: Of the samples.

    Returns:
        Two arrays of shape (tests,).
    """
    rng = np.random.default_rng(seed)
    size = len(differences)
    means = []
    for count in _portions(resamples, size):
        drawn = rng.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)
        means.append(_product(times, differences) / size)
    tail = (1 - level) / 2
    # Rounded where the product's own rounding begins, which changes with who else is tested.
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0).round(12)
    return low, high


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Return p-values adjusted so that the chance of any false finding among them stays below the level.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6(2), 1979.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def _listed(evaluations: Evaluation | Sequence[Evaluation]) -> Sequence[Evaluation]:
    listed = [evaluations] if isinstance(evaluations, Evaluation) else evaluations
    if not listed:
        raise DataError("a comparison needs at least one evaluation of each model")
    return listed


def _same_protocol(evaluations: Sequence[Evaluation]) -> None:
    protocols = {(one.part, one.seen, one.all_users, one.sample) for one in evaluations}
    if len(protocols) != 1:
        raise DataError(
            f"evaluations of different (part, seen, all_users, sample) cannot be compared: {sorted(protocols, key=str)}"
        )


def _product(counts: NDArray[np.integer[Any]], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `counts @ values`, by PyTorch: a comparison bounds its threads, while those of NumPy's products take every core, and
    wait for each other where other runs hold the cores.
    """
    product: NDArray[np.float64] = (torch.from_numpy(counts.astype(np.float64)) @ torch.from_numpy(values)).numpy()
    return product


def _portions(total: int, width: int) -> list[int]:
    """Split `total` rows of `width` into portions that fit in memory."""
    most = max(1, _CELLS // max(1, width))
    return [min(most, total - start) for start in range(0, total, most)]
