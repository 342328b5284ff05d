"""Which items are nearest by content, exactly and block by block, and the sparse graph of them.

N known items, Q asking ones, F feature width, k neighbours. Never N x N in memory: a block of similarities at a time.

The cosine of two items is computed in float64 and rounded to float32, so that what is mathematically equal is equal, and
neither the block nor the number of threads has a say in who comes first. float32 products over all pairs only leave out those
that cannot be among the nearest, by a margin that their rounding errors cannot pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from metammf.errors import ConfigError, DataError
from metammf.nn.selection import exactly_top

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

BLOCK = 1 << 24
"""Similarities that are held at a time: 64 MB of float32, and some times that while the nearest are picked from them."""
# Similarities whose maximum stands for them in the search for a bound.
_CHUNK = 16
# Candidates of a row that are looked at one by one, beyond four times the neighbours; a row with more is computed anew.
_FEW = 64
# Rows whose lengths are taken in float64 at a time.
_ROWS = 8192


@torch.no_grad()
def nearest(
    features: Float[Tensor, "items width"],
    k: int,
    *,
    present: Bool[Tensor, " items"] | None = None,
    include_self: bool = False,
    block: int = BLOCK,
) -> tuple[Int[Tensor, "items k"], Float[Tensor, "items k"]]:
    """Return each item's k nearest others by the cosine of their features; equal cosines, the lower index first.

    Args:
        features: One row an item, of any float type. A row of zeros has no direction: its item counts as lacking.
        k: Neighbours to find; may exceed N.
        present: Which items have the modality; all by default. The others find nobody and are found by nobody, and what
            stands in their rows is not read.
        include_self: Whether an item is among those that it finds, with a cosine of 1.
        block: Similarities to hold at a time.

    Returns:
        Indices (N, k), int64, and cosines (N, k), float32, the nearest first; -1 and -inf where fewer are found.

    Raises:
        ConfigError: k or block is below 1.
        DataError: a row that is present is not finite, or the mask is of another length.
    """
    known = _Directions.of(features, present)
    return _nearest(known, known, k, block, leave_out_self=not include_self)


@torch.no_grad()
def half_directions(
    features: Float[Tensor, "items width"], members: Bool[Tensor, " items"]
) -> Float[Tensor, "items width"]:
    """Return rows of length 1 in half precision, which moves a cosine by less than 0.001; zeros for items that are no members."""
    directions = torch.zeros(features.shape, dtype=torch.float16, device=features.device)
    for items in torch.split(members.nonzero().flatten(), _ROWS):
        directions[items] = functional.normalize(features[items], dim=1).half()
    return directions


@torch.no_grad()
def nearest_known(
    new: Float[Tensor, "new width"],
    known: Float[Tensor, "items width"],
    k: int,
    *,
    new_present: Bool[Tensor, " new"] | None = None,
    known_present: Bool[Tensor, " items"] | None = None,
    block: int = BLOCK,
) -> tuple[Int[Tensor, "new k"], Float[Tensor, "new k"]]:
    """Return the k known items that are nearest to each new row; for the rest see `nearest`.

    Raises:
        ConfigError: k or block is below 1.
        DataError: a row that is present is not finite, a mask is of another length, or the widths differ.
    """
    if new.shape[1] != known.shape[1]:
        raise DataError(f"features of new items: expected width {known.shape[1]}, got {new.shape[1]}")
    return _nearest(_Directions.of(new, new_present), _Directions.of(known, known_present), k, block)


def normalized_graph(
    neighbours: Int[Tensor, "items k"], similarities: Float[Tensor, "items k"], *, weighted: bool = True
) -> sparse.csr_array:
    """Return D^-1/2 A D^-1/2, where row i of A holds item i's neighbours and D its row sums.

    This is the item graph of LATTICE (Zhang et al., MM 2021, eq. 3-5), and of FREEDOM (Zhou and Shen, MM 2023, eq. 2-4) where
    the entries are ones. As in both, A is directed: that i finds j does not make j find i.

    Args:
        neighbours: From `nearest`; -1 for none.
        similarities: Likewise.
        weighted: Whether the entries of A are the cosines or ones. A cosine that is not positive is then left out: it tells
            that two items are unlike, and row sums of mixed signs have no root.

    Returns:
        Float32, (N, N), columns ascending in each row; an item without neighbours has an empty row.
    """
    count, k = neighbours.shape
    columns = neighbours.cpu().numpy().reshape(-1)
    values = similarities.detach().cpu().double().numpy().reshape(-1)
    kept = (columns >= 0) & (values > 0) if weighted else columns >= 0
    rows, columns = np.repeat(np.arange(count), k)[kept], columns[kept]
    values = values[kept] if weighted else np.ones(len(rows))
    degrees = np.bincount(rows, weights=values, minlength=count)
    scale = np.where(degrees > 0, degrees, np.inf) ** -0.5
    graph = sparse.csr_array(
        ((values * scale[rows] * scale[columns]).astype(np.float32), (rows, columns)), (count, count)
    )
    graph.sort_indices()
    return graph


@dataclass(frozen=True)
class _Directions:
    """The items that have a direction.

    Args:
        features: Of all items as given, (N, F): never copied as a whole, since of wide features no other copy may fit.
        items: Indices of those that have a direction, (n,), ascending; their places among these are what the rest goes by.
        lengths: Float64, (n,).
        unit: Rows of length 1 in float32, (n, F).
    """

    features: Tensor
    items: Tensor
    lengths: Tensor
    unit: Tensor

    def rows(self, places: Tensor) -> Tensor:
        """Return the features of those at these places, in float64."""
        return self.features[self.items[places]].double()

    @classmethod
    def of(cls, features: Tensor, present: Tensor | None) -> _Directions:
        features = features.detach()
        if present is not None and present.shape != features.shape[:1]:
            raise DataError(f"mask of the features: expected {len(features)} entries, got {tuple(present.shape)}")
        if present is None:
            present = torch.ones(len(features), dtype=torch.bool, device=features.device)
        lengths = torch.cat([torch.linalg.vector_norm(part.double(), dim=1) for part in torch.split(features, _ROWS)])
        broken = present & ~torch.isfinite(lengths)
        if broken.any():
            raise DataError(f"features: row {int(broken.nonzero()[0, 0])} has no finite length")
        items = (present & (lengths > 0)).nonzero().flatten()
        found = cls(
            features, items, lengths[items], features.new_empty(len(items), features.shape[1], dtype=torch.float32)
        )
        for places in torch.split(torch.arange(len(items), device=items.device), _ROWS):
            found.unit[places] = (found.rows(places) / found.lengths[places, None]).float()
        return found


def _nearest(
    asking: _Directions, known: _Directions, k: int, block: int, *, leave_out_self: bool = False
) -> tuple[Tensor, Tensor]:
    if min(k, block) < 1:
        raise ConfigError(f"neighbours and block must be at least 1, got {k} and {block}")
    count, device = len(asking.features), asking.features.device
    found = torch.full((count, k), -1, dtype=torch.int64, device=device)
    cosines = torch.full((count, k), -torch.inf, device=device)
    if not len(known.items) or not len(asking.items):
        return found, cosines
    for places in torch.split(torch.arange(len(asking.items), device=device), max(1, block // len(known.items))):
        columns, values = _of_block(asking, known, places, min(k, len(known.items)), block, leave_out_self)
        rows, width = asking.items[places], columns.shape[1]
        found[rows, :width] = torch.where(columns < 0, -1, known.items[columns])
        cosines[rows, :width] = values
    return found, cosines


def _of_block(
    asking: _Directions, known: _Directions, places: Tensor, k: int, block: int, leave_out_self: bool
) -> tuple[Tensor, Tensor]:
    """Return places among the known ones and cosines, (B, up to k) each, of the asking ones at `places`."""
    with torch.autocast(places.device.type, enabled=False):
        rough = asking.unit[places] @ known.unit.T
    if leave_out_self:
        rough[torch.arange(len(places), device=places.device), places] = -torch.inf
    # Each product of a sum of F of them errs by at most half a unit in the last place, and so do the two rows' entries.
    margin = (known.unit.shape[1] + 4) * 2.0**-24
    bound = (_lower_bound(rough, k) - 2 * margin).clamp(min=torch.finfo(torch.float32).min)
    row, column = (rough >= bound).nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=len(places))
    crowded = counts > 4 * k + _FEW
    calm = ~crowded[row]
    row, column, counts = row[calm], column[calm], counts.masked_fill(crowded, 0)
    columns, values = _sorted(row, column, _cosines(asking, known, places[row], column, block), counts, k)
    if crowded.any():
        for some in torch.split(crowded.nonzero().flatten(), max(1, block // (4 * len(known.items)))):
            columns[some], values[some] = _exactly(asking, known, places[some], k, leave_out_self)
    return columns, values


def _lower_bound(rough: Tensor, k: int) -> Tensor:
    """Return a number a row, (B, 1), that at least k of its values reach, if it has so many that are not -inf."""
    size = max(1, min(_CHUNK, rough.shape[1] // (4 * k)))
    chunks = rough.shape[1] // size
    return rough[:, : size * chunks].view(-1, size, chunks).amax(dim=1).topk(k, dim=1).values[:, -1:]


def _cosines(asking: _Directions, known: _Directions, rows: Tensor, columns: Tensor, block: int) -> Tensor:
    """Return the cosines of pairs, float32 (n,)."""
    pairs = max(1, block // (4 * known.unit.shape[1]))
    parts = [
        (asking.rows(row) * known.rows(column)).sum(1) / (asking.lengths[row] * known.lengths[column])
        for row, column in zip(torch.split(rows, pairs), torch.split(columns, pairs), strict=True)
    ]
    return torch.cat(parts).float()


def _sorted(row: Tensor, column: Tensor, value: Tensor, counts: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return lists (B, k) of pairs whose rows ascend, and in each row the columns; -1 and -inf where a row has fewer."""
    slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    width = max(k, int(counts.max()))
    columns = row.new_full((len(counts), width), -1)
    values = value.new_full((len(counts), width), -torch.inf)
    columns[row, slot], values[row, slot] = column, value
    values, order = values.sort(dim=1, descending=True, stable=True)
    return columns.gather(1, order)[:, :k], values[:, :k]


def _exactly(
    asking: _Directions, known: _Directions, places: Tensor, k: int, leave_out_self: bool
) -> tuple[Tensor, Tensor]:
    """The same for rows that have many candidates nearly as near as the k-th: all their cosines in float64."""
    rows = asking.rows(places) / asking.lengths[places, None]
    parts = torch.split(torch.arange(len(known.items), device=places.device), _ROWS)
    values = torch.cat([(rows @ known.rows(part).T / known.lengths[part]).float() for part in parts], dim=1)
    if leave_out_self:
        values[torch.arange(len(places), device=places.device), places] = -torch.inf
    row, column = exactly_top(values, k).nonzero(as_tuple=True)
    return _sorted(row, column, values[row, column], torch.bincount(row, minlength=len(places)), k)
