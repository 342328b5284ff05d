"""What users watched, and what they like by the content of that. B users, N items, E interactions, F width, M modalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from metammf.nn.content import Content

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Histories:
    """The items that each of some users watched, in CSR form.

    Args:
        indptr: Where each user's items begin and end in `items`, (B + 1,).
        items: (E,).
    """

    indptr: Int[Tensor, " borders"]
    items: Int[Tensor, " edges"]

    @classmethod
    def of(cls, watched: Sequence[Sequence[int]]) -> Histories:
        """Return the histories of users by lists of items."""
        counts = torch.tensor([0, *(len(items) for items in watched)])
        return cls(counts.cumsum(0), torch.tensor([item for items in watched for item in items], dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def to(self, device: torch.device) -> Histories:
        """Return the same on a device."""
        return Histories(self.indptr.to(device), self.items.to(device))

    @property
    def counts(self) -> Float[Tensor, "batch 1"]:
        """How many items each user watched."""
        return (self.indptr[1:] - self.indptr[:-1]).unsqueeze(1).float()

    def distinct(self) -> tuple[Int[Tensor, " distinct"], Histories]:
        """Return the items that anybody watched, ascending, and the same histories by their places among these."""
        items, places = torch.unique(self.items, return_inverse=True)
        return items, Histories(self.indptr, places)

    def places(self, users: Int[Tensor, " chosen"]) -> tuple[Int[Tensor, " borders"], Int[Tensor, " edges"]]:
        """Return where the items of these users begin and end among theirs, and their places in `items`."""
        starts = self.indptr[users].long()
        counts = self.indptr[users + 1].long() - starts
        borders = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        places = torch.arange(int(borders[-1]), device=users.device)
        return borders, places + (starts - borders[:-1]).repeat_interleave(counts)

    def of_users(self, users: Int[Tensor, " chosen"]) -> Histories:
        """Return the histories of these users, by their places."""
        borders, places = self.places(users)
        return Histories(borders, self.items[places])

    def sum(self, values: Float[Tensor, "num_items dim"]) -> Float[Tensor, "batch dim"]:
        """Return, for each user, the sum over the items that it watched; one sparse product, without a gradient."""
        with torch.no_grad(), torch.autocast(values.device.type, enabled=False):
            ones = values.new_ones(len(self.items), dtype=torch.float32)
            shape = (len(self), len(values))
            matrix = torch.sparse_csr_tensor(self.indptr, self.items, ones, size=shape, check_invariants=False)
            return (matrix @ values.float()).to(values.dtype)


class Preferences:
    """What users like, modality by modality: the mean of what they watched, over the items that have the modality.

    p_u^m = sum over watched i with m of x_i^m / their number; a user without such an item lacks the modality, as an item may.

    Args:
        widths: Modality -> F_m.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        self.widths = dict(widths)

    def table(self, content: Content) -> Float[Tensor, "num_items columns"]:
        """Return what has to be summed over a history: all modalities side by side, then who has which, (N, F + M)."""
        present = torch.stack([content.present[name] for name in self.widths], dim=1)
        values = torch.cat([content.values[name] for name in self.widths], dim=1)
        return torch.cat([values, present.to(values.dtype)], dim=1)

    def of(self, sums: Float[Tensor, "batch columns"]) -> Content:
        """Return the preferences of users from the sums over their items of rows of `table`."""
        *values, counts = torch.split(sums, [*self.widths.values(), len(self.widths)], dim=1)
        present = (counts > 0).unbind(1)
        means = [value / count.clamp(min=1).unsqueeze(1) for value, count in zip(values, counts.unbind(1), strict=True)]
        return Content(dict(zip(self.widths, means, strict=True)), dict(zip(self.widths, present, strict=True)))
