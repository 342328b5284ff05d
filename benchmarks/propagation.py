"""One layer over the user-item graph, forward and backward: messages along an edge list, and the library's sparse product.

``python benchmarks/propagation.py``: 62,000 nodes, 1.94 million directed edges, D = 64; the mean over
neighbours with two linear maps (GraphSAGE's layer) and the symmetric sum (LightGCN's). PyTorch Geometric's SAGEConv and LGConv
run in an environment of their own, which ``peers/make_env.sh geometric`` makes; where there is none, the edge list written out in
torch stands alone for them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from harness import Peak, Table, backward, measure, parser, peak_memory, publish
from logs import random_log
from metammf.nn.backbone import GraphSAGEBackbone
from metammf.nn.graph import BipartiteGraph
from peers.worker import ENVIRONMENTS, Worker, interpreter
from twin import EdgeList

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

EDGE_LIST = "edge list: gather, index_add"
COO = "torch.sparse COO"
OURS = "metammf.nn.graph"
LAYERS = {"mean": "SAGEConv", "symmetric": "LGConv"}


@dataclass(frozen=True)
class Shape:
    """How large the graph is.

    Args:
        users: U.
        items: N.
        interactions: Undirected edges.
        dim: D.
    """

    users: int
    items: int
    interactions: int
    dim: int


FULL = Shape(55_000, 7_000, 970_000, 64)
SMALL = Shape(200, 100, 1000, 8)


class World:
    """A random log, node vectors, and the two linear maps of a GraphSAGE layer.

    Args:
        shape: Its size.
    """

    def __init__(self, shape: Shape) -> None:
        log = random_log(shape.users, shape.items, shape.interactions)
        self.edges = EdgeList(log)
        self.num_users = shape.users
        self.graph = BipartiteGraph(log.matrix)
        torch.manual_seed(0)
        self.x = torch.randn(self.edges.num_nodes, shape.dim, requires_grad=True)
        self.layer = GraphSAGEBackbone(self.graph, 1, shape.dim, 0.0, 0.0)

    def sides(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the users' vectors and the items'."""
        return self.x[: self.num_users], self.x[self.num_users :]

    def mapped(self, around: torch.Tensor) -> torch.Tensor:
        """The two linear maps of the layer."""
        return self.layer.root[0](self.x) + self.layer.neighbour[0](around)

    def coo(self, kind: str) -> torch.Tensor:
        """The weighted adjacency."""
        edges = self.edges
        degrees = edges.degrees.flatten()
        weights = 1 / degrees[edges.targets]
        if kind == "symmetric":
            weights = (degrees[edges.sources] * degrees[edges.targets]).rsqrt()
        places, size = torch.stack([edges.targets, edges.sources]), (edges.num_nodes, edges.num_nodes)
        return torch.sparse_coo_tensor(places, weights, size, check_invariants=False).coalesce()


def ways(world: World, kind: str) -> dict[str, Callable[[], torch.Tensor]]:
    """Name what is compared here: the whole layer for "mean", the sum for "symmetric"."""
    matrix = world.coo(kind)
    if kind == "symmetric":
        return {
            EDGE_LIST: lambda: world.edges.symmetric(world.x),
            COO: lambda: torch.sparse.mm(matrix, world.x),
            OURS: lambda: torch.cat(world.graph.symmetric_neighbours(*world.sides())),
        }
    return {
        EDGE_LIST: lambda: world.mapped(world.edges.mean(world.x)),
        COO: lambda: world.mapped(torch.sparse.mm(matrix, world.x)),
        OURS: lambda: torch.cat(world.layer(*world.sides())),
    }


def descend(run: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """Forward and backward."""
    return lambda: backward(run().square().sum())


def prepare(threads: int, name: str, kind: str, shape: Shape) -> Callable[[], object]:
    """Return the run of one way, for its memory."""
    torch.set_num_threads(threads)
    return descend(ways(World(shape), kind)[name])


class Geometric:
    """PyTorch Geometric in a process of its own environment.

    Args:
        python: Of that environment.
        world: Whose edges, vectors and maps it is given.
        folder: To hand them over in.
        threads: Of torch.
    """

    def __init__(self, python: Path, world: World, folder: Path, threads: int) -> None:
        self.folder = folder
        root, neighbour = world.layer.root[0], world.layer.neighbour[0]
        assert isinstance(root, nn.Linear)
        assert isinstance(neighbour, nn.Linear)
        np.savez(
            folder / "arrays.npz",
            edges=torch.stack([world.edges.sources, world.edges.targets]).numpy(),
            x=world.x.detach().numpy(),
            root=root.weight.detach().numpy(),
            neighbour=neighbour.weight.detach().numpy(),
            bias=neighbour.bias.detach().numpy(),
        )
        settings = {"arrays": str(folder / "arrays.npz"), "threads": threads, "scratch": str(folder)}
        self.worker = Worker("PyTorch Geometric", python, "geometric_layers.py", settings)

    def run(self, kind: str) -> None:
        """Run forward and backward."""
        self.worker.ask(f"{kind}_run")

    def output(self, kind: str) -> torch.Tensor:
        """Return what its layer puts out."""
        self.worker.ask(f"{kind}_save")
        return torch.from_numpy(np.load(self.folder / "out.npy"))

    def peak(self, kind: str) -> Peak:
        """Return the memory of one run; to be asked first, while nothing is cached."""
        return Peak(**self.worker.ask(f"{kind}_peak")["result"])


def compared(kind: str, shape: Shape, given: argparse.Namespace) -> Table:
    """Check that all agree, and measure one kind of layer."""
    world = World(shape)
    runs = ways(world, kind)
    expected = runs[EDGE_LIST]().detach()
    for name, run in runs.items():
        torch.testing.assert_close(run(), expected, atol=1e-4, rtol=1e-4, msg=f"{name} disagrees")
    steps: dict[str, Callable[[], object]] = {name: descend(run) for name, run in runs.items()}
    peaks = {name: peak_memory(prepare, given.threads, name, kind, shape) for name in runs}
    edges, title = float(len(world.edges.sources)), f"{kind} over neighbours"
    python = interpreter(given.envs, "geometric")
    if python is None:
        note = f"PyTorch Geometric's {LAYERS[kind]} is left out: its environment is not there."
        found = measure(steps, against=EDGE_LIST, units=edges, repeats=given.repeats, peaks=peaks)
        return Table(title, [timing.row("edges") for timing in found], [note])
    with tempfile.TemporaryDirectory() as folder:
        geometric = Geometric(python, world, Path(folder), given.threads)
        name = f"PyTorch Geometric, {LAYERS[kind]}"
        peaks[name] = geometric.peak(kind)
        torch.testing.assert_close(geometric.output(kind), expected, atol=1e-4, rtol=1e-4, msg=f"{name} disagrees")
        steps = {name: partial(geometric.run, kind)} | steps
        found = measure(steps, against=name, units=edges, repeats=given.repeats, peaks=peaks)
        versions = ", ".join(
            f"{package} {version}" for package, version in geometric.worker.finish()["versions"].items()
        )
    return Table(title, [timing.row("edges") for timing in found], [f"PyTorch Geometric ran with {versions}."])


def main() -> None:
    """Measure and report."""
    options = parser(__doc__)
    options.add_argument("--envs", type=Path, default=ENVIRONMENTS, help="folder of the peers' environments")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    shape = SMALL if given.quick else FULL
    tables = [compared(kind, shape, given) for kind in LAYERS]
    nodes = shape.users + shape.items
    title = f"Propagation: {nodes:,} nodes, {2 * shape.interactions:,} directed edges, D = {shape.dim}"
    publish(given, title, tables, **vars(shape))


if __name__ == "__main__":
    main()
