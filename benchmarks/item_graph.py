"""The nearest items by content and the sparse graph of them, beside what one would write first.

``python benchmarks/item_graph.py``: 100,000 items, 128 and 384 columns of features that a tenth of the items lacks,
10 neighbours. A dense matrix of cosines and torch.topk take as many items as fit, and what they would take for all is extended by
the pairs; so is the same in blocks, which is run on a part of the items. Both leave open which of equal cosines comes first. Each
run has a process of its own, which tells its time and its memory.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from harness import Peak, PeakMeter, Row, Table, alone, parser, publish, timings
from metammf.nn.item_graph import BLOCK, nearest, normalized_graph

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from harness import Timing

DENSE, BLOCKS, OURS = "dense cosines, torch.topk", "cosines in blocks, torch.topk", "metammf.nn.item_graph"
BUDGET_MIB = 4096
"""What the graphs of all modalities together may take, interpreter and libraries included."""
Modality = tuple[torch.Tensor, torch.Tensor]


def modality(items: int, width: int) -> Modality:
    """Return random features, each of whose items resembles one of a thousand, and who has them."""
    torch.manual_seed(width)
    kinds = torch.randn(1000, width)
    features = kinds[torch.randint(len(kinds), (items,))] + 0.5 * torch.randn(items, width)
    return features, torch.rand(items) >= 0.1


def dense(features: torch.Tensor, present: torch.Tensor, k: int) -> torch.Tensor:
    """All cosines at once, and the largest of each row."""
    unit = normalize(features, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-torch.inf)
    cosines[:, ~present] = -torch.inf
    return cosines.topk(k, dim=1).indices


def blocks(features: torch.Tensor, present: torch.Tensor, k: int, asking: int) -> torch.Tensor:
    """The same for the first items, as many rows at a time as the library takes."""
    unit = normalize(features, dim=1)
    lists = []
    for places in torch.split(torch.arange(asking), max(1, BLOCK // len(features))):
        cosines = unit[places] @ unit.T
        cosines[torch.arange(len(places)), places] = -torch.inf
        cosines[:, ~present] = -torch.inf
        lists.append(cosines.topk(k, dim=1).indices)
    return torch.cat(lists)


def ours(features: torch.Tensor, present: torch.Tensor, k: int) -> torch.Tensor:
    """The library's."""
    return nearest(features, k, present=present)[0]


def ways(world: Modality, k: int, some: int) -> dict[str, tuple[float, Callable[[], torch.Tensor]]]:
    """Name what is compared: the pairs that each looks at, and its run."""
    features, present = world
    count = len(features)
    return {
        DENSE: (float(some**2), lambda: dense(features[:some], present[:some], k)),
        BLOCKS: (float(some * count), lambda: blocks(features, present, k, some)),
        OURS: (float(count**2), lambda: ours(features, present, k)),
    }


def once(threads: int, name: str, items: int, width: int, k: int, some: int) -> tuple[float, Peak]:
    """Run one way on a modality, and return its seconds and its memory."""
    torch.set_num_threads(threads)
    return clocked(ways(modality(items, width), k, some)[name][1])


def graphs(threads: int, items: int, widths: tuple[int, ...], k: int) -> tuple[float, Peak]:
    """The same for the graphs of all modalities, whose features lie in memory together."""
    torch.set_num_threads(threads)
    worlds = [modality(items, width) for width in widths]
    return clocked(lambda: [normalized_graph(*nearest(features, k, present=present)) for features, present in worlds])


def clocked(run: Callable[[], object]) -> tuple[float, Peak]:
    """Return the seconds and the memory of a run."""
    meter, start = PeakMeter(), perf_counter()
    run()
    return perf_counter() - start, meter.read()


def row(timing: Timing, pairs: float, done: float) -> Row:
    """Set one way in a row, extended to all pairs; a dense matrix grows with the pairs, a block does not."""
    share, memory = pairs / done, timing.peak or Peak(float("nan"), float("nan"))
    growth = share if timing.name == DENSE else 1.0
    return {
        "way": timing.name if share == 1 else f"{timing.name} ({done / pairs:.3g} of the pairs, extrapolated)",
        "s, all items": pairs / timing.per_second,
        "max/min": timing.spread,
        "million pairs/s": timing.per_second / 1e6,
        "ratio": timing.ratio,
        "rise MiB": memory.rise_mib * growth,
        "peak MiB": memory.resident_mib + memory.rise_mib * (growth - 1),
    }


def compared(given: argparse.Namespace, width: int) -> Table:
    """Check that all agree, and measure one modality."""
    world = modality(given.items, width)
    few = (world[0][: given.some], world[1][: given.some])
    agree = (dense(*few, given.k) == ours(*few, given.k))[few[1]]
    assert agree.float().mean() > 0.999, (
        "float32 cosines differ in the last bits, which may swap two items, but no more"
    )
    units = {name: pairs for name, (pairs, _) in ways(world, given.k, given.some).items()}
    seconds: dict[str, list[float]] = {name: [] for name in units}
    peaks: dict[str, Peak] = {}
    for _ in range(given.repeats):
        for name in units:
            took, peaks[name] = alone(once, given.threads, name, given.items, width, given.k, given.some)
            seconds[name].append(took)
    pairs = float(given.items) ** 2
    found = timings(seconds, against=DENSE, units=units, peaks=peaks)
    return Table(f"{width} columns", [row(timing, pairs, units[timing.name]) for timing in found])


def main() -> None:
    """Measure and report."""
    options = parser(__doc__)
    options.add_argument("--items", type=int, default=100_000)
    options.add_argument("--widths", type=int, nargs="+", default=[128, 384], help="columns of each modality")
    options.add_argument("--k", type=int, default=10, help="neighbours")
    options.add_argument("--some", type=int, default=16_000, help="items whose dense cosines fit")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    if given.quick:
        given.items, given.some = 2000, 500
    tables = [compared(given, width) for width in given.widths]
    widths = tuple(given.widths)
    took, peak = alone(graphs, given.threads, given.items, widths, given.k)
    whole: Row = {"way": OURS, "s": took, "rise MiB": peak.rise_mib, "peak MiB": peak.resident_mib}
    note = f"The budget is {BUDGET_MIB:,} MiB; the features themselves are there before the work begins."
    tables.append(Table("normalised graphs of all modalities", [whole], [note]))
    title = f"The {given.k} nearest of {given.items:,} items, by features of {' and '.join(map(str, widths))} columns"
    publish(given, title, tables, items=given.items, widths=list(widths), k=given.k, some=given.some, block=BLOCK)


if __name__ == "__main__":
    main()
