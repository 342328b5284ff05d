"""The metrics against ranx, an independent implementation that compiles for the better part of a minute."""

from __future__ import annotations

import numpy as np
import pytest

from metammf.data.interactions import Interactions
from metammf.evaluation.metrics import hit_matrix, per_user_metrics

NUM_USERS, NUM_ITEMS, KS = 60, 40, (3, 10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # numba's about ranx
def test_metrics_equal_those_of_ranx(request: pytest.FixtureRequest) -> None:
    if "slow" not in request.config.option.markexpr:
        pytest.skip("ranx compiles for most of a minute: run with -m slow")
    ranx = pytest.importorskip("ranx")
    rng = np.random.default_rng(0)
    truth = rng.random((NUM_USERS, NUM_ITEMS)) < 0.15
    truth[:, 0] |= ~truth.any(axis=1)  # ranx knows no user without a relevant item
    items = np.argsort(rng.random((NUM_USERS, NUM_ITEMS)), axis=1)[:, : max(KS)]
    users, relevant = np.nonzero(truth)
    log = Interactions(users, relevant, NUM_USERS, NUM_ITEMS)
    ours = per_user_metrics(hit_matrix(items, np.arange(NUM_USERS), log), log.user_counts, KS)

    names = [f"{name}@{k}" for name in ("recall", "precision", "ndcg", "map", "mrr", "hit_rate") for k in KS]
    # Zero-padded, for ranx returns users in the order of their names.
    qrels = {f"{user:03}": {str(item): 1 for item in np.flatnonzero(truth[user])} for user in range(NUM_USERS)}
    run = {f"{user:03}": {str(item): 1.0 / (r + 1) for r, item in enumerate(items[user])} for user in range(NUM_USERS)}
    theirs = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), names, return_mean=False)
    for name in names:
        wanted = theirs[name]
        if name.startswith("map"):  # ranx divides by all relevant items, we by those that fit into the list
            wanted = wanted * log.user_counts / np.minimum(log.user_counts, int(name.partition("@")[2]))
        assert ours[name] == pytest.approx(wanted), name
