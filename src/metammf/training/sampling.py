"""Negatives, drawn for whole batches at once. B users, K negatives each, M shared, N items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from metammf.errors import TrainingError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from metammf.data.interactions import Interactions

_ROUNDS = 20


class NegativeSampler:
    """Draw items with a train interaction that the user has not watched in train.

    An item that nobody has watched is never drawn: had it been there to watch, or not? Its place is told by its content.

    Args:
        train: The train interactions.
        weighting: "uniform", or "popularity" for count^exponent.
        exponent: Of the count, for "popularity".
        device: Where negatives are drawn.
    """

    def __init__(
        self,
        train: Interactions,
        weighting: Literal["uniform", "popularity"] = "uniform",
        *,
        exponent: float = 0.75,
        device: torch.device | str = "cpu",
    ) -> None:
        counts = train.item_counts
        self.num_items = train.num_items
        self.device = torch.device(device)
        candidates = np.flatnonzero(counts)
        weights = counts[candidates].astype(np.float64) ** (exponent if weighting == "popularity" else 0.0)
        self.uniform = weighting == "uniform"
        self.candidates = torch.from_numpy(candidates).to(self.device)
        self.shares = torch.from_numpy(weights / weights.sum()).to(self.device)
        self._borders = self.shares.cumsum(0)
        matrix = train.matrix
        self.keys = torch.from_numpy(np.sort(train.keys)).to(self.device)
        self.indptr = torch.from_numpy(matrix.indptr.astype(np.int64)).to(self.device)
        self.indices = torch.from_numpy(matrix.indices.astype(np.int64)).to(self.device)
        self._column = torch.full((self.num_items,), -1, dtype=torch.int64, device=self.device)
        # Users who have watched every item that has a train interaction.
        self.sated = torch.from_numpy(train.user_counts == len(candidates)).to(self.device)

    def _draw(self, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
        if self.uniform:
            places = torch.randint(len(self.candidates), (count,), generator=generator, device=self.device)
        else:
            at = torch.rand(count, generator=generator, device=self.device, dtype=torch.float64)
            places = torch.searchsorted(self._borders, at).clamp_(max=len(self.candidates) - 1)
        return self.candidates[places]

    def _watched(self, users: Tensor, items: Tensor) -> Bool[Tensor, " pairs"]:
        keys = users * self.num_items + items
        places = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return self.keys[places] == keys

    def per_positive(
        self, users: Int[Tensor, " batch"], count: int, generator: torch.Generator
    ) -> Int[Tensor, "batch count"]:
        """Draw `count` negatives for each user, shape (B, K); none of them a train positive of that user.

        Raises:
            TrainingError: one of them is sated: there is no negative to draw.
        """
        if self.sated[users].any():
            user = int(users[self.sated[users]][0])
            raise TrainingError(
                f"user {user} has watched every item that has a train interaction: there is no negative"
            )
        who = users.repeat_interleave(count)
        items = self._draw(len(who), generator)
        # Most draws are good at once; only those that hit a positive are drawn again.
        bad = torch.nonzero(self._watched(who, items)).flatten()
        for _ in range(_ROUNDS):
            if not len(bad):
                break
            items[bad] = self._draw(len(bad), generator)
            bad = bad[self._watched(who[bad], items[bad])]
        for place in bad.tolist():  # users who have watched nearly everything
            items[place] = self._draw_exactly(int(who[place]), generator)
        return items.view(len(users), count)

    def _draw_exactly(self, user: int, generator: torch.Generator) -> Tensor:
        weights = self.shares.clone()
        watched = self.indices[self.indptr[user] : self.indptr[user + 1]]
        weights[torch.searchsorted(self.candidates, watched)] = 0
        return self.candidates[torch.multinomial(weights, 1, generator=generator)[0]]

    def shared(
        self, count: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, " distinct"], Float[Tensor, " distinct"]]:
        """Draw `count` negatives for a whole step.

        Returns:
            The distinct items, and for each the log of how often it came over how often it was expected to come: what
            its score is to be corrected by. With a count of 0, or of as many as there are, every item and no correction.
        """
        if self._is_all(count):
            return self.candidates, torch.zeros(len(self.candidates), device=self.device)
        items, times = torch.unique(self._draw(count, generator), return_counts=True)
        expected = count * self.shares[torch.searchsorted(self.candidates, items)]
        return items, (times / expected).log().float()

    def _is_all(self, count: int) -> bool:
        return not count or count >= len(self.candidates)

    def log_expected(self, items: Int[Tensor, " batch"], count: int) -> Float[Tensor, " batch"]:
        """Return the log of how often these items are expected among `count` draws; zero where every item is taken."""
        if self._is_all(count):
            return torch.zeros(len(items), device=self.device)
        return (count * self.shares[torch.searchsorted(self.candidates, items)]).log().float()

    def user_counts(self, users: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Return the number of train interactions of these users."""
        return self.indptr[users + 1] - self.indptr[users]

    def watched_pairs(self, users: Int[Tensor, " batch"], items: Int[Tensor, " distinct"]) -> Int[Tensor, "2 pairs"]:
        """Return which of these distinct items each user has watched in train, in time of the users' histories.

        Returns:
            Places among `users`, ascending, and places among `items`.
        """
        self._column[items] = torch.arange(len(items), device=self.device)
        starts, lengths = self.indptr[users], self.user_counts(users)
        row = torch.arange(len(users), device=self.device).repeat_interleave(lengths)
        offset = torch.arange(len(row), device=self.device) - (lengths.cumsum(0) - lengths)[row]
        place = self._column[self.indices[starts[row] + offset]]
        self._column[items] = -1
        watched = torch.nonzero(place >= 0).squeeze(1)
        return torch.stack([row[watched], place[watched]])
