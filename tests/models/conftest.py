"""Shapes in the signatures of metammf.models are checked wherever these tests call it."""

from __future__ import annotations

import torch

from metammf.models import (
    all_vectors,
    base,
    bm3,
    content_table,
    diffmm,
    graphsage,
    id_model,
    lightgcn,
    metammf,
    mf,
    mmhcl,
    nodes,
)
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
check_shapes(all_vectors, base, bm3, content_table, diffmm, graphsage, id_model, lightgcn, metammf, mf, mmhcl, nodes)
