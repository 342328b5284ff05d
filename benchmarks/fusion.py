"""One fusion layer, forward and backward: each item's weights formed, beside the two forms that never form them.

``python benchmarks/fusion.py``: 1,000 items, 512 -> 256, S = 5, R = 16. ``--full`` takes the paper's MovieLens sizes: 5,986
items, 2,276 -> 1,024. The literal way is run on a part of the items, in chunks, and compared by rate; formed for all at
once, its weights alone would take what "weights, if formed" says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness import measure, parser, peak_memory, report
from metammf.nn.meta import LowRankMetaLinear, MetaLinear, StaticLinear

if TYPE_CHECKING:
    from collections.abc import Callable

LITERAL = "each item's weights formed"
LITERAL_ITEMS = 128
CHUNK_BYTES = 256 << 20


@dataclass(frozen=True)
class Sizes:
    """How large the layer is.

    Args:
        items: B.
        in_dim: I.
        out_dim: O.
        meta_dim: S.
        cp_rank: R.
    """

    items: int
    in_dim: int
    out_dim: int
    meta_dim: int
    cp_rank: int

    @property
    def literal_items(self) -> int:
        """Items that the literal way is run on."""
        return min(self.items, LITERAL_ITEMS)

    @property
    def formed_gib(self) -> float:
        """Size of all items' weights."""
        return self.items * self.in_dim * self.out_dim * 4 / 2**30


def literal(x: torch.Tensor, meta: torch.Tensor, layer: MetaLinear) -> torch.Tensor:
    """W_i = W + sum_s s_is T[s], then x_i W_i, as the definition is written; all items of the call at once."""
    weights = layer.shared + torch.einsum("bs,sio->bio", meta, layer.dynamic)
    return torch.bmm(x.unsqueeze(1), weights).squeeze(1)


def in_chunks(x: torch.Tensor, meta: torch.Tensor, layer: MetaLinear, count: int) -> None:
    """Forward and backward of the literal way, few items at a time."""
    size = max(1, CHUNK_BYTES // (layer.shared.numel() * 4))
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        literal(x[part], meta[part], layer).sum().backward()


def ways(sizes: Sizes) -> dict[str, Callable[[], object]]:
    """Name what is compared."""
    torch.manual_seed(0)
    x = torch.randn(sizes.items, sizes.in_dim, requires_grad=True)
    meta = torch.randn(sizes.items, sizes.meta_dim, requires_grad=True)
    dense = MetaLinear(sizes.meta_dim, sizes.in_dim, sizes.out_dim)
    low_rank = LowRankMetaLinear(sizes.meta_dim, sizes.in_dim, sizes.out_dim, sizes.cp_rank)
    static = StaticLinear(sizes.in_dim, sizes.out_dim)
    with torch.no_grad():
        expected = literal(x[:4], meta[:4], dense)
        assert torch.allclose(dense(x[:4], meta[:4]), expected, atol=1e-3, rtol=1e-3), "the forms disagree"
    return {
        LITERAL: lambda: in_chunks(x, meta, dense, sizes.literal_items),
        "dense": lambda: dense(x, meta).sum().backward(),
        "CP": lambda: low_rank(x, meta).sum().backward(),
        "static (the shared h W alone)": lambda: static(x, meta).sum().backward(),
    }


def prepare(threads: int, name: str, sizes: Sizes) -> Callable[[], object]:
    """Return the run of one way, for its memory."""
    torch.set_num_threads(threads)
    return ways(sizes)[name]


def main() -> None:
    """Measure and report."""
    options = parser(__doc__)
    options.add_argument("--full", action="store_true", help="the paper's sizes on MovieLens")
    for name, value in (("items", 1000), ("in-dim", 512), ("out-dim", 256), ("meta-dim", 5), ("cp-rank", 16)):
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    sizes = Sizes(given.items, given.in_dim, given.out_dim, given.meta_dim, given.cp_rank)
    if given.full:
        sizes = Sizes(5986, 2276, 1024, given.meta_dim, given.cp_rank)
    runs = ways(sizes)
    peaks = {} if given.no_memory else {name: peak_memory(prepare, given.threads, name, sizes) for name in runs}
    units = {name: float(sizes.literal_items if name == LITERAL else sizes.items) for name in runs}
    timings = measure(runs, against=LITERAL, units=units, repeats=given.repeats, peaks=peaks)
    report(given, timings, unit="items", sizes=vars(sizes), literal_items=sizes.literal_items)
    print(f"weights, if formed: {sizes.formed_gib:.2f} GiB")


if __name__ == "__main__":
    main()
