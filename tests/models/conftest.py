"""Shapes in the signatures of metammf.models are checked wherever these tests call it."""

from __future__ import annotations

import torch

from metammf.models import (
    all_vectors,
    base,
    bm3,
    content_table,
    freedom,
    graphsage,
    id_model,
    item_graphs,
    lattice,
    lightgcn,
    metammf,
    mf,
    mgcn,
    mmhcl,
    nodes,
)
from metammf.nn import (
    backbone,
    content,
    content_graph,
    edge_weights,
    fusion,
    graph,
    hypergraph,
    item_graph,
    losses,
    meta,
    neighbours,
    projection,
)
from metammf.testing.shapes import check_shapes

torch.set_num_threads(1)
check_shapes(
    backbone,
    content,
    content_graph,
    edge_weights,
    fusion,
    graph,
    hypergraph,
    item_graph,
    losses,
    meta,
    neighbours,
    projection,
)
check_shapes(
    all_vectors,
    base,
    bm3,
    content_table,
    freedom,
    graphsage,
    id_model,
    item_graphs,
    lattice,
    lightgcn,
    metammf,
    mf,
    mgcn,
    mmhcl,
    nodes,
)
