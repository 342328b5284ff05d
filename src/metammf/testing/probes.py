"""Instruments for tests: what a computation holds, told by the tensors that it makes."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode  # torch's documented extension point, private in name only
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Record the number of elements of the largest tensor that any operation gives, forward and backward.

    ::

        with LargestTensor() as largest:
            layer(x).sum().backward()
        assert largest.numel <= x.numel()
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.numel = 0
        self.operation = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided and leaf.numel() > self.numel:
                self.numel, self.operation = leaf.numel(), str(func)
        return result
