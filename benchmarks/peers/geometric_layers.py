"""PyTorch Geometric's layers over an edge list, forward and backward. Runs in its own environment, as it is released."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch_geometric.nn import LGConv, SAGEConv

from door import Door

if TYPE_CHECKING:
    from collections.abc import Callable


def layers(data: Any) -> dict[str, Callable[[], torch.Tensor]]:
    """Build both from arrays: edges (2, E), x (nodes, D), and the weights of a GraphSAGE layer."""
    tensors = {name: torch.from_numpy(data[name]) for name in data}
    edges, x = tensors["edges"], tensors["x"].requires_grad_()
    sage, light = SAGEConv(x.shape[1], x.shape[1]), LGConv()
    with torch.no_grad():
        sage.lin_l.weight.copy_(tensors["neighbour"])
        sage.lin_l.bias.copy_(tensors["bias"])
        sage.lin_r.weight.copy_(tensors["root"])
    return {"mean": lambda: sage(x, edges), "symmetric": lambda: light(x, edges)}


def commands(name: str, layer: Callable[[], torch.Tensor], folder: Path) -> dict[str, Callable[[], Any]]:
    """What may be asked of a layer: to run, to run and tell its memory, to write its output to ``out.npy``."""

    def run() -> None:
        layer().square().sum().backward()

    def peak() -> dict[str, float]:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark to what is resident now
        before = _resident("VmRSS")
        run()
        highest = _resident("VmHWM")
        return {"rise_mib": highest - before, "resident_mib": highest}

    def save() -> None:
        np.save(folder / "out.npy", layer().detach().numpy())

    return {f"{name}_run": run, f"{name}_peak": peak, f"{name}_save": save}


def _resident(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


def main() -> None:
    """Load what is propagated, then run as often as asked."""
    door = Door("torch", "torch-geometric")
    torch.set_num_threads(door.settings["threads"])
    folder = Path(door.settings["scratch"])
    found: dict[str, Callable[[], Any]] = {}
    for name, layer in layers(np.load(door.settings["arrays"])).items():
        found |= commands(name, layer, folder)
    door.serve(**found)


if __name__ == "__main__":
    main()
