"""Whether two models differ: paired tests over users, corrected for the number of comparisons.

A user is the unit: both models rank for the same users, so what is tested is each user's difference. Several seeds of a
model are averaged user by user first, so that more seeds make a steadier model and not more users.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from metammf.errors import DataError, did_you_mean
from metammf.evaluation.result import Evaluation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl
    from numpy.typing import NDArray

    Differences = NDArray[np.float64]

_CELLS = 1 << 22  # of resampled values held at once
RESAMPLES = 10_000
"""Sign flips of a permutation test, where nothing else is said: no p is smaller than 1 / (RESAMPLES + 1)."""


@dataclass(frozen=True)
class Comparison:
    """Model a against model b on one metric.

    Args:
        metric: A column of `Evaluation.per_user`.
        num_users: Users that both were measured on.
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
    (users, values_a), (other_users, values_b) = per_user_mean(a, metric), per_user_mean(b, metric)
    _same_protocol([*_listed(a), *_listed(b)])
    if not users.equals(other_users):
        raise DataError(
            f"{metric}: the evaluations are of {len(users)} and {len(other_users)} users, not the same ones"
        )
    differences = values_a - values_b
    low, high = bootstrap_interval(differences, seed=seed)
    p = permutation_test(differences, resamples=resamples, seed=seed)
    return Comparison(
        metric,
        len(users),
        float(values_a.mean()),
        float(values_b.mean()),
        float(differences.mean()),
        low,
        high,
        effect_size(differences),
        p,
        t_test(differences),
        p,
    )


def compare_all(
    reference: Evaluation | Sequence[Evaluation],
    others: Mapping[str, Evaluation | Sequence[Evaluation]],
    metrics: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, list[Comparison]]:
    """Compare one model with each of the others on each metric; Holm's correction is over all of it.

    Returns:
        Name of the other -> one comparison a metric.
    """
    found = [compare(reference, b, name, resamples=resamples, seed=seed) for b in others.values() for name in metrics]
    adjusted = holm([one.p_permutation for one in found])
    found = [replace(one, p_adjusted=float(p)) for one, p in zip(found, adjusted, strict=True)]
    width = len(metrics)
    return {name: found[place * width : (place + 1) * width] for place, name in enumerate(others)}


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
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    rng = np.random.default_rng(seed)
    observed = abs(moved.sum())
    # A sum that equals the observed one but for rounding is as extreme as it.
    limit = observed - 1e-9 * np.abs(moved).sum()
    extreme = 0
    for count in _portions(resamples, len(moved)):
        flips = np.unpackbits(rng.integers(256, size=(count, -(-len(moved) // 8)), dtype=np.uint8), axis=1)
        kept = flips[:, : len(moved)].astype(np.float64) @ moved
        extreme += int((np.abs(2 * kept - moved.sum()) >= limit).sum())
    return (extreme + 1) / (resamples + 1)


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
    rng = np.random.default_rng(seed)
    size = len(differences)
    samples = [differences[rng.integers(size, size=(count, size))].mean(axis=1) for count in _portions(resamples, size)]
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(samples), [tail, 1 - tail])
    return float(low), float(high)


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


def _portions(total: int, width: int) -> list[int]:
    """Split `total` rows of `width` into portions that fit in memory."""
    most = max(1, _CELLS // max(1, width))
    return [min(most, total - start) for start in range(0, total, most)]
