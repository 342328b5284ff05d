"""Shapes in the signatures of metammf.nn are checked wherever these tests call it."""

from __future__ import annotations

import torch

from metammf import nn
from metammf.testing.shapes import check_shapes, modules_of

torch.set_num_threads(1)
check_shapes(*modules_of(nn))
