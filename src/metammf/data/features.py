"""What each item looks, sounds and reads like: one matrix a modality, and a mask for what an item lacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from metammf.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

Placebo = Literal["noise", "shuffle", "drop"]
PLACEBOS: tuple[str, ...] = get_args(Placebo)

_CHUNK_ROWS = 65_536


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Content features of all items, by modality.

    Args:
        matrices: Modality name -> float matrix of shape (num_items, width), in memory or memory-mapped. The row of an
            item that lacks the modality holds anything finite; it is never read as content.
        present: Modality name -> boolean mask (num_items,); a modality that is not named here is present everywhere.
        num_items: Needed only where there is no modality at all.

    Raises:
        DataError: row counts differ, or a matrix is not of floats. Values are looked at by `check_finite`.
    """

    matrices: Mapping[str, NDArray[Any]]
    present: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    num_items: int = -1

    def __post_init__(self) -> None:
        counts = {name: len(matrix) for name, matrix in self.matrices.items()}
        count = self.num_items if self.num_items >= 0 else next(iter(counts.values()), 0)
        for name, matrix in self.matrices.items():
            if matrix.ndim != 2 or matrix.dtype.kind != "f" or matrix.shape[1] == 0:
                raise DataError(
                    f"{name} features: expected floats of shape ({count}, width), got {matrix.dtype} {matrix.shape}"
                )
            if len(matrix) != count:
                raise DataError(f"{name} features: expected {count} rows, one an item, got {len(matrix)}")
        for name in self.present:
            if name not in self.matrices:
                raise DataError(f"mask of {name!r}: there is no such modality{did_you_mean(name, self.matrices)}")
        masks = {}
        for name in self.matrices:
            mask = np.array(self.present.get(name, np.ones(count, dtype=np.bool_)))
            if mask.shape != (count,) or mask.dtype != np.bool_:
                raise DataError(f"{name} mask: expected booleans of shape ({count},), got {mask.dtype} {mask.shape}")
            mask.setflags(write=False)
            masks[name] = mask
        object.__setattr__(self, "matrices", dict(self.matrices))
        object.__setattr__(self, "present", masks)
        object.__setattr__(self, "num_items", count)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities' names, in order."""
        return tuple(self.matrices)

    @property
    def widths(self) -> dict[str, int]:
        """Feature width of each modality."""
        return {name: matrix.shape[1] for name, matrix in self.matrices.items()}

    def check_finite(self) -> ItemFeatures:
        """Read every value once, in chunks, and return self.

        Raises:
            DataError: a value is NaN or infinite; names modality, row and column.
        """
        for name, matrix in self.matrices.items():
            for start, chunk in _chunks(matrix):
                bad = ~np.isfinite(chunk)
                if bad.any():
                    row, column = (int(axis[0]) for axis in np.nonzero(bad))
                    raise DataError(
                        f"{name} features: row {start + row}, column {column} is {chunk[row, column]}; expected finite"
                        " numbers (an item that lacks a modality is told by the mask)"
                    )
        return self

    def select(self, items: NDArray[Any]) -> ItemFeatures:
        """Return the rows of these items, in memory."""
        return ItemFeatures(
            {name: np.asarray(matrix[items]) for name, matrix in self.matrices.items()},
            {name: mask[items] for name, mask in self.present.items()},
            num_items=int(np.arange(self.num_items)[items].shape[0]),
        )

    def only(self, modalities: Sequence[str]) -> ItemFeatures:
        """Return these modalities alone.

        Raises:
            DataError: there is no such modality.
        """
        for name in modalities:
            if name not in self.matrices:
                raise DataError(
                    f"unknown modality {name!r}{did_you_mean(name, self.matrices)}; there are: "
                    f"{', '.join(self.matrices) or 'none'}"
                )
        return ItemFeatures(
            {name: self.matrices[name] for name in modalities},
            {name: self.present[name] for name in modalities},
            num_items=self.num_items,
        )

    def placebo(self, kind: Placebo, seed: int) -> ItemFeatures:
        """Return features of the same shape that tell nothing about the items; masks stay in place but for "drop".

        "drop" lets every item lack every modality. "noise" draws standard normal values. "shuffle" gives each item all the
        features of one other item that has the same modalities, so that the marginals stay as they are; an item that is alone
        in what it has keeps its own.

        Raises:
            DataError: the kind is none of them.
        """
        if kind not in PLACEBOS:
            raise DataError(f"placebo {kind!r}: expected one of {', '.join(PLACEBOS)}")
        if kind == "drop":
            return absent_features(self.widths, self.num_items)
        rng = np.random.default_rng(seed)
        rng.permutation(
            self.num_items
        )  # what a split of the same seed draws first: all that follows is independent of it
        if kind == "noise":
            matrices = {
                name: rng.standard_normal(matrix.shape, dtype=np.float32) for name, matrix in self.matrices.items()
            }
        else:
            donors = self._donors(rng)
            matrices = {name: matrix[donors] for name, matrix in self.matrices.items()}
        return ItemFeatures(matrices, self.present, num_items=self.num_items)

    def _donors(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """For each item another one with the same modalities, each once."""
        donors = np.arange(self.num_items)
        masks = np.stack([*self.present.values(), np.ones(self.num_items, dtype=np.bool_)], axis=1)
        _, pattern = np.unique(masks, axis=0, return_inverse=True)
        for group in range(pattern.max(initial=-1) + 1):
            ring = rng.permutation(np.flatnonzero(pattern == group))
            donors[ring] = np.roll(ring, 1)
        return donors


def absent_features(widths: Mapping[str, int], num_items: int) -> ItemFeatures:
    """Return features of the right shape that every item lacks, in no memory at all."""
    nothing = np.zeros(1, dtype=np.float16)
    return ItemFeatures(
        {name: np.broadcast_to(nothing, (num_items, width)) for name, width in widths.items()},
        {name: np.zeros(num_items, dtype=np.bool_) for name in widths},
        num_items=num_items,
    )


def _chunks(matrix: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    for start in range(0, len(matrix), _CHUNK_ROWS):
        yield start, np.asarray(matrix[start : start + _CHUNK_ROWS])
