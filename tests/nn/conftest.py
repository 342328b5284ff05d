"""Shapes in the signatures of metammf.nn are checked wherever these tests call it."""

from __future__ import annotations

import torch

from metammf.nn import (
    backbone,
    content,
    diffusion,
    fusion,
    graph,
    hypergraph,
    item_graph,
    looped_graph,
    losses,
    meta,
    neighbours,
)
from metammf.testing.shapes import check_shapes

torch.set_num_threads(1)
check_shapes(
    backbone, content, diffusion, fusion, graph, hypergraph, item_graph, looped_graph, losses, meta, neighbours
)
