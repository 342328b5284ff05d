"""The fusion network, forward and backward: each item's weights formed, beside the two forms that never form them.

``python benchmarks/fusion.py``: the paper's MovieLens sizes, 5,986 items, 2,276 -> 1,024 -> 512 -> 256 -> 32, S = 5, R = 16, and
the first layer alone; in float32 and in bfloat16. The literal way is run on a part of the items, in chunks, and compared by
rate; formed for all at once, its weights alone would take what the note says.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from harness import Table, backward, measure, parser, peak_memory, publish
from metammf.nn.meta import LowRankMetaLinear, MetaLinear, StaticLinear
from twin import formed_weights, own_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

LITERAL = "each item's weights formed, in chunks"
CHUNK_BYTES = 256 << 20


@dataclass(frozen=True)
class Sizes:
    """How large the network is.

    Args:
        items: B.
        literal_items: Items that the literal way is run on.
        widths: Features, hidden layers, output.
        meta_dim: S.
        cp_rank: R.
    """

    items: int
    literal_items: int
    widths: tuple[int, ...]
    meta_dim: int = 5
    cp_rank: int = 16

    @property
    def formed_per_item(self) -> int:
        """Entries of one item's weights."""
        return sum(above * below for above, below in itertools.pairwise(self.widths))


FULL = Sizes(5986, 128, (2276, 1024, 512, 256, 32))
SMALL = Sizes(64, 16, (64, 32, 16))


def literal(x: torch.Tensor, meta: torch.Tensor, layers: Sequence[MetaLinear]) -> torch.Tensor:
    """W_i = W + sum_s s_is T[s], then h_i W_i, layer by layer; all items of the call at once."""
    for depth, layer in enumerate(layers):
        x = own_layer(functional.leaky_relu(x) if depth else x, formed_weights(meta, layer.shared, layer.dynamic))
    return x


def through(x: torch.Tensor, meta: torch.Tensor, layers: Sequence[nn.Module]) -> torch.Tensor:
    """The same by the library's layers."""
    for depth, layer in enumerate(layers):
        x = layer(functional.leaky_relu(x) if depth else x, meta)
    return x


def in_chunks(x: torch.Tensor, meta: torch.Tensor, layers: Sequence[MetaLinear], sizes: Sizes) -> None:
    """Forward and backward of the literal way, few items at a time."""
    size = max(1, CHUNK_BYTES // (sizes.formed_per_item * x.element_size()))
    for part in torch.split(torch.arange(min(sizes.literal_items, sizes.items)), size):
        backward(literal(x[part], meta[part], layers).sum())


def ways(sizes: Sizes, precision: str) -> dict[str, Callable[[], object]]:
    """Name what is compared."""
    torch.manual_seed(0)
    x = torch.randn(sizes.items, sizes.widths[0], requires_grad=True)
    meta = torch.randn(sizes.items, sizes.meta_dim, requires_grad=True)
    pairs = list(itertools.pairwise(sizes.widths))
    dense = [MetaLinear(sizes.meta_dim, *pair) for pair in pairs]
    low_rank = [LowRankMetaLinear(sizes.meta_dim, *pair, sizes.cp_rank) for pair in pairs]
    static = [StaticLinear(*pair) for pair in pairs]
    with torch.no_grad():
        torch.testing.assert_close(
            through(x[:4], meta[:4], dense), literal(x[:4], meta[:4], dense), atol=1e-2, rtol=1e-3
        )

    def ours(layers: Sequence[nn.Module]) -> Callable[[], None]:
        def run() -> None:
            with autocast(precision):
                loss = through(x, meta, layers).float().sum()
            backward(loss)

        return run

    chosen = torch.bfloat16 if precision == "bfloat16" else torch.float32
    halved, halved_meta = (tensor.detach().to(chosen).requires_grad_() for tensor in (x, meta))
    return {
        LITERAL: lambda: in_chunks(halved, halved_meta, dense, sizes),
        "dense": ours(dense),
        "CP": ours(low_rank),
        "static (the shared h W alone)": ours(static),
    }


def autocast(precision: str) -> contextlib.AbstractContextManager[object]:
    """As training does it."""
    return torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()


def prepare(threads: int, name: str, sizes: Sizes, precision: str) -> Callable[[], object]:
    """Return the run of one way, for its memory."""
    torch.set_num_threads(threads)
    return ways(sizes, precision)[name]


def compared(title: str, sizes: Sizes, precision: str, *, repeats: int, threads: int) -> Table:
    """Measure one size in one precision."""
    runs = ways(sizes, precision)
    peaks = {name: peak_memory(prepare, threads, name, sizes, precision) for name in runs}
    literal_items = min(sizes.literal_items, sizes.items)
    units = {name: float(literal_items if name == LITERAL else sizes.items) for name in runs}
    found = measure(runs, against=LITERAL, units=units, repeats=repeats, peaks=peaks)
    gib = sizes.items * sizes.formed_per_item * (2 if precision == "bfloat16" else 4) / 2**30
    notes = [
        f"The first row ran on {literal_items:,} of {sizes.items:,} items and is compared by rate; the weights of all"
        f" items, if formed at once: {gib:.2f} GiB."
    ]
    return Table(f"{title}, {precision}", [timing.row("items") for timing in found], notes)


def main() -> None:
    """Measure and report."""
    options = parser(__doc__)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    network = SMALL if given.quick else FULL
    layer = replace(network, widths=network.widths[:2])
    shapes = {
        f"Network {' -> '.join(f'{width:,}' for width in network.widths)}": network,
        f"First layer alone, {layer.widths[0]:,} -> {layer.widths[1]:,}": layer,
    }
    tables = [
        compared(title, sizes, precision, repeats=given.repeats, threads=given.threads)
        for title, sizes in shapes.items()
        for precision in ("float32", "bfloat16")
    ]
    publish(given, "Fusion, forward and backward", tables, **asdict(network))


if __name__ == "__main__":
    main()
