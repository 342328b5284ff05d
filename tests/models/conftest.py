"""Shapes in the signatures of metammf.models are checked wherever these tests call it."""

from __future__ import annotations

import torch

from metammf.models import (
    base,
    content_table,
    gat,
    graphsage,
    grcn,
    id_model,
    lightgcn,
    metammf,
    mf,
    mmgcn,
    modal,
    ngcf,
)
from metammf.nn import attention, backbone, content, edge_weights, fusion, graph, losses, meta, neighbours
from metammf.testing.shapes import check_shapes

torch.set_num_threads(1)
check_shapes(attention, backbone, content, edge_weights, fusion, graph, losses, meta, neighbours)
check_shapes(base, content_table, gat, graphsage, grcn, id_model, lightgcn, metammf, mf, mmgcn, modal, ngcf)
