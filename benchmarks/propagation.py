"""Mean over neighbours in both directions, forward and backward: an edge list, torch's COO product, and the library's.

``python benchmarks/propagation.py``: 10,000 users, 3,000 items, 200,000 interactions, D = 64. ``--full``: 55,000 users, 7,000
items, 970,000 interactions. PyTorch Geometric's own layer joins where it is installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

from harness import measure, parser, peak_memory, report
from metammf.nn.graph import BipartiteGraph

if TYPE_CHECKING:
    from collections.abc import Callable

EDGE_LIST = "edge list: gather, index_add"


class World:
    """A random log with a long tail, and node vectors.

    Args:
        num_users: U.
        num_items: N.
        count: Interactions drawn; pairs that come twice count once.
        dim: D.
    """

    def __init__(self, num_users: int, num_items: int, count: int, dim: int) -> None:
        rng = np.random.default_rng(0)
        items = (num_items * rng.random(count) ** 2).astype(np.int64)
        keys = np.unique(rng.integers(num_users, size=count) * num_items + items)
        users, items = np.divmod(keys, num_items)
        ones = np.ones(len(keys), dtype=np.float32)
        self.num_users, self.num_nodes, self.edges = num_users, num_users + num_items, len(keys)
        self.graph = BipartiteGraph(sparse.csr_array((ones, (users, items)), shape=(num_users, num_items)))
        forth, back = torch.from_numpy(users), torch.from_numpy(items + num_users)
        self.sources, self.targets = torch.cat([back, forth]), torch.cat([forth, back])
        self.degrees = torch.bincount(self.targets, minlength=self.num_nodes).clamp(min=1).unsqueeze(1).float()
        torch.manual_seed(0)
        self.x = torch.randn(self.num_nodes, dim, requires_grad=True)


def edge_list(world: World) -> torch.Tensor:
    """Gather a vector an edge, add it up at its target, divide: what message passing does."""
    messages = world.x[world.sources]
    return torch.zeros_like(world.x).index_add(0, world.targets, messages) / world.degrees


def coo(world: World) -> Callable[[], torch.Tensor]:
    """torch's own sparse product; autograd forms what it needs for the backward pass."""
    places, ones = torch.stack([world.targets, world.sources]), torch.ones(len(world.targets))
    matrix = torch.sparse_coo_tensor(
        places, ones, (world.num_nodes, world.num_nodes), check_invariants=False
    ).coalesce()
    return lambda: torch.sparse.mm(matrix, world.x) / world.degrees


def ours(world: World) -> torch.Tensor:
    """The library's product."""
    return torch.cat(world.graph.mean_neighbours(world.x[: world.num_users], world.x[world.num_users :]))


def geometric(world: World) -> Callable[[], torch.Tensor]:
    """PyTorch Geometric's mean aggregation over an edge list."""
    from torch_geometric.nn import SimpleConv

    layer, edges = SimpleConv(aggr="mean"), torch.stack([world.sources, world.targets])
    return lambda: layer(world.x, edges)


def ways(world: World) -> dict[str, Callable[[], torch.Tensor]]:
    """Name what is compared."""
    found: dict[str, Callable[[], torch.Tensor]] = {
        EDGE_LIST: lambda: edge_list(world),
        "torch.sparse COO": coo(world),
        "metammf.nn.graph": lambda: ours(world),
    }
    if find_spec("torch_geometric"):
        found["PyTorch Geometric, SimpleConv"] = geometric(world)
    return found


def prepare(threads: int, name: str, shape: tuple[int, int, int, int]) -> Callable[[], object]:
    """Return the run of one way, for its memory."""
    torch.set_num_threads(threads)
    run = ways(World(*shape))[name]
    return lambda: run().square().sum().backward()


def main() -> None:
    """Check that all agree, measure, report."""
    options = parser(__doc__)
    options.add_argument("--full", action="store_true", help="62,000 nodes, 1.94 million directed edges")
    for name, value in (("users", 10_000), ("items", 3_000), ("interactions", 200_000), ("dim", 64)):
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    shape = (given.users, given.items, given.interactions, given.dim)
    if given.full:
        shape = (55_000, 7_000, 970_000, given.dim)
    world = World(*shape)
    runs = ways(world)
    expected = edge_list(world)
    for name, run in runs.items():
        assert torch.allclose(run(), expected, atol=1e-4), f"{name} disagrees"
    backward = {name: lambda run=run: run().square().sum().backward() for name, run in runs.items()}
    peaks = {} if given.no_memory else {name: peak_memory(prepare, given.threads, name, shape) for name in runs}
    edges = float(2 * world.edges)
    timings = measure(backward, against=EDGE_LIST, units=edges, repeats=given.repeats, peaks=peaks)
    report(given, timings, unit="edges", nodes=world.num_nodes, directed_edges=2 * world.edges, dim=given.dim)


if __name__ == "__main__":
    main()
