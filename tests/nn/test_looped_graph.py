"""The graph with loops against a matrix that is written out."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from metammf.nn.looped_graph import LoopedGraph


def test_every_node_is_its_own_neighbour() -> None:
    edges = (np.random.default_rng(0).random((5, 4)) < 0.4).astype(np.float32)
    edges[2], edges[:, 1] = 0, 0
    whole = np.eye(9)
    whole[:5, 5:], whole[5:, :5] = edges, edges.T
    roots = whole.sum(1) ** -0.5
    users, items = torch.randn(5, 3), torch.randn(4, 3)
    expected = torch.from_numpy(roots[:, None] * whole * roots).float() @ torch.cat([users, items])
    found = LoopedGraph(sparse.csr_array(edges))(users, items)
    torch.testing.assert_close(torch.cat(found), expected)
    assert torch.equal(found[0][2], users[2])
    assert torch.equal(found[1][1], items[1])
