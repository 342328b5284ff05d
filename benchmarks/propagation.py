"""One layer over the user-item graph, forward and backward: messages along an edge list, and the library's sparse product.

``python benchmarks/propagation.py --geometric DIR/bin/python``: 62,000 nodes, 1.94 million directed edges, D = 64; the mean over
neighbours with two linear maps (GraphSAGE's layer) and the symmetric sum (LightGCN's). PyTorch Geometric's SAGEConv and LGConv
run in an environment of their own, ``pip install -r benchmarks/geometric.txt``, whose Python is named; without one, the edge list
written out in torch stands alone for them.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import nn

from harness import Absent, Peak, Table, backward, measure, parser, peak_memory, publish
from logs import random_log
from metammf.nn.backbone import GraphSAGEBackbone
from metammf.nn.graph import BipartiteGraph
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
    """PyTorch Geometric in a process of its own environment, asked line by line.

    Args:
        python: Of that environment.
        world: Whose edges, vectors and maps it is given.
        folder: To hand them over in.
        threads: Of torch.

    Raises:
        Absent: there is no such Python, or PyTorch Geometric is not in it.
    """

    def __init__(self, python: str, world: World, folder: Path, threads: int) -> None:
        self.folder = folder
        root, neighbour = world.layer.root[0], world.layer.neighbour[0]
        assert isinstance(root, nn.Linear)
        assert isinstance(neighbour, nn.Linear)
        arrays = {
            "edges": torch.stack([world.edges.sources, world.edges.targets]),
            "x": world.x,
            "root": root.weight,
            "neighbour": neighbour.weight,
            "bias": neighbour.bias,
        }
        for name, tensor in arrays.items():
            np.save(folder / f"{name}.npy", tensor.detach().numpy())
        script = [python, str(Path(__file__).with_name("geometric.py")), str(folder), str(threads)]
        try:
            self.process = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise Absent(f"PyTorch Geometric: cannot run {python} ({error.strerror})") from error
        self.version = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Absent("PyTorch Geometric: its process ended; is benchmarks/geometric.txt installed there?")
        return line.strip()

    def ask(self, line: str) -> str:
        """Send a line and return the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._answer()

    def output(self, kind: str) -> torch.Tensor:
        """Return what its layer puts out."""
        self.ask(f"save {kind}")
        return torch.from_numpy(np.load(self.folder / "out.npy"))

    def peak(self, kind: str) -> Peak:
        """Return the memory of one run; to be asked first, while nothing is cached."""
        rise, resident = (int(number) / 1024 for number in self.ask(f"peak {kind}").split())
        return Peak(rise, resident)


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
    if not given.geometric:
        note = f"PyTorch Geometric's {LAYERS[kind]} was not run: no --geometric."
        found = measure(steps, against=EDGE_LIST, units=edges, repeats=given.repeats, peaks=peaks)
        return Table(title, [timing.row("edges") for timing in found], [note])
    with (
        tempfile.TemporaryDirectory() as folder,
        Geometric(given.geometric, world, Path(folder), given.threads) as geometric,
    ):
        name = f"PyTorch Geometric {geometric.version}, {LAYERS[kind]}"
        peaks[name] = geometric.peak(kind)
        torch.testing.assert_close(geometric.output(kind), expected, atol=1e-4, rtol=1e-4, msg=f"{name} disagrees")
        steps = {name: lambda: geometric.ask(f"run {kind}")} | steps
        found = measure(steps, against=name, units=edges, repeats=given.repeats, peaks=peaks)
    return Table(title, [timing.row("edges") for timing in found])


def main() -> None:
    """Measure and report."""
    options = parser(__doc__)
    options.add_argument("--geometric", help="Python of an environment with PyTorch Geometric")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    shape = SMALL if given.quick else FULL
    tables = [compared(kind, shape, given) for kind in LAYERS]
    nodes = shape.users + shape.items
    title = f"Propagation: {nodes:,} nodes, {2 * shape.interactions:,} directed edges, D = {shape.dim}"
    publish(given, title, tables, **vars(shape))


if __name__ == "__main__":
    main()
