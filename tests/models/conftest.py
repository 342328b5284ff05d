"""Shapes in the signatures of metammf.models are checked wherever these tests call it."""

from __future__ import annotations

import torch

from metammf.models import base, content_table, graphsage, id_model, invrl, lightgcn, metammf, mf
from metammf.nn import (
    backbone,
    constraint,
    content,
    cooccurrence,
    fusion,
    graph,
    invariance,
    losses,
    meta,
    neighbours,
)
from metammf.testing.shapes import check_shapes

torch.set_num_threads(1)
check_shapes(backbone, constraint, content, cooccurrence, fusion, graph, invariance, losses, meta, neighbours)
check_shapes(base, content_table, graphsage, id_model, invrl, lightgcn, metammf, mf)
