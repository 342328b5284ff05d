"""Shapes in the signatures of metammf.models are checked wherever these tests call it."""

from __future__ import annotations

import torch

from metammf import models, nn
from metammf.testing.shapes import check_shapes, modules_of

torch.set_num_threads(1)
check_shapes(*modules_of(nn), *modules_of(models))
