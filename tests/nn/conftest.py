"""Shapes in the signatures of metammf.nn are checked wherever these tests call it."""

from __future__ import annotations

import torch

from metammf.nn import backbone, content, fusion, graph, histories, losses, meta, neighbours
from metammf.testing.shapes import check_shapes

torch.set_num_threads(1)
check_shapes(backbone, content, fusion, graph, histories, losses, meta, neighbours)
