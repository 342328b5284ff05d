"""PyTorch Geometric's side of ``propagation.py``, run by the Python of an environment of its own: `geometric.txt`.

``python geometric.py FOLDER THREADS`` reads ``edges.npy`` (2, E), ``x.npy`` (nodes, D) and the weights of a layer from FOLDER,
then obeys lines on its standard input, one answer each: ``run NAME`` runs forward and backward once; ``save NAME`` writes the
output to ``out.npy``; ``peak NAME`` runs and answers with the rise and the height of resident memory in KiB. It imports nothing
of the library.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch_geometric import __version__
from torch_geometric.nn import LGConv, SAGEConv

if TYPE_CHECKING:
    from collections.abc import Callable


def resident(key: str) -> int:
    """Return a line of the process's status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def ways(folder: Path) -> dict[str, Callable[[], torch.Tensor]]:
    """Name what can be run."""
    edges, x = torch.from_numpy(np.load(folder / "edges.npy")), torch.from_numpy(np.load(folder / "x.npy"))
    x.requires_grad_()
    sage, light = SAGEConv(x.shape[1], x.shape[1]), LGConv()
    with torch.no_grad():
        sage.lin_l.weight.copy_(torch.from_numpy(np.load(folder / "neighbour.npy")))
        sage.lin_l.bias.copy_(torch.from_numpy(np.load(folder / "bias.npy")))
        sage.lin_r.weight.copy_(torch.from_numpy(np.load(folder / "root.npy")))
    return {"mean": lambda: sage(x, edges), "symmetric": lambda: light(x, edges)}


def main() -> None:
    """Obey until there are no more lines."""
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    runs = ways(folder)
    answer(__version__)
    for line in sys.stdin:
        verb, name = line.split()
        if verb == "save":
            np.save(folder / "out.npy", runs[name]().detach().numpy())
            answer("saved")
            continue
        if verb == "peak":
            Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        runs[name]().square().sum().backward()
        answer(f"{resident('VmHWM') - before} {resident('VmHWM')}" if verb == "peak" else "done")


def answer(text: str) -> None:
    """Say it at once."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
