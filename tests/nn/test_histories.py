"""Histories and preferences against loops over users and items."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from metammf.nn.content import Content
from metammf.nn.graph import BipartiteGraph
from metammf.nn.histories import Histories, Preferences
from metammf.testing.probes import LargestTensor

NUM_ITEMS = 9
WATCHED = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), unique=True, max_size=NUM_ITEMS), min_size=1, max_size=6)


@settings(deadline=None)
@given(WATCHED)
def test_sums_counts_and_choices(watched: list[list[int]]) -> None:
    histories, values = Histories.of(watched), torch.randn(NUM_ITEMS, 3)
    expected = torch.stack([sum((values[item] for item in items), torch.zeros(3)) for items in watched])
    torch.testing.assert_close(histories.sum(values), expected)
    assert histories.counts.flatten().tolist() == [len(items) for items in watched]
    items, local = histories.distinct()
    assert items.tolist() == sorted({item for items in watched for item in items})
    torch.testing.assert_close(local.sum(values[items]), expected)
    some = torch.tensor([len(watched) - 1, 0])
    torch.testing.assert_close(histories.of_users(some).sum(values), expected[some])


@settings(deadline=None)
@given(WATCHED)
def test_preferences_are_means_over_the_items_that_have_the_modality(watched: list[list[int]]) -> None:
    widths = {"visual": 3, "textual": 2}
    present = {name: torch.rand(NUM_ITEMS) < 0.5 for name in widths}
    values = {name: torch.randn(NUM_ITEMS, width) * present[name].unsqueeze(1) for name, width in widths.items()}
    preferences = Preferences(widths)
    found = preferences.of(Histories.of(watched).sum(preferences.table(Content(values, present))))
    assert found.modalities == tuple(widths)
    for user, items in enumerate(watched):
        for name, width in widths.items():
            having = [item for item in items if present[name][item]]
            mean = torch.stack([values[name][item] for item in having]).mean(0) if having else torch.zeros(width)
            torch.testing.assert_close(found.values[name][user], mean)
            assert found.present[name][user].item() == bool(having)


def test_a_graph_gives_the_histories_of_some_users_less_what_is_left_out() -> None:
    rng = np.random.default_rng(0)
    dense = rng.random((7, NUM_ITEMS)) < 0.5
    dense[3] = False
    graph = BipartiteGraph(sparse.csr_array(dense.astype(np.float32)))
    users = torch.tensor([5, 3, 0])
    targets = torch.tensor([5, 0, 2]), torch.tensor([np.flatnonzero(dense[user])[0] for user in (5, 0, 2)])
    hidden = torch.zeros(NUM_ITEMS, dtype=torch.bool)
    hidden[[1, 4]] = True
    kept = dense.copy()
    kept[targets] = False
    kept[:, [1, 4]] = False
    for found, expected in ((graph.histories(users), dense), (graph.histories(users, targets, hidden), kept)):
        rows = [found.items[found.indptr[place] : found.indptr[place + 1]].tolist() for place in range(len(users))]
        assert rows == [np.flatnonzero(expected[user]).tolist() for user in users]
    counts = [len(graph.histories(torch.arange(7), share=0.25).items) for _ in range(200)]
    assert np.isclose(np.mean(counts), 0.75 * dense.sum(), rtol=0.05)


def test_a_sum_holds_no_row_an_interaction() -> None:
    histories = Histories.of([list(range(50))] * 40)
    values = torch.randn(50, 16)
    with LargestTensor() as largest:
        histories.sum(values)
    assert largest.numel <= 50 * 40  # (E,), where a row an interaction would be (E, 16)
