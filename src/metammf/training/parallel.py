"""Several processes that train one model: what they exchange, and who does which share. B positives of a batch.

All processes hold the same weights and draw the same batches and negatives from the same seed; each computes the losses of
its share of a batch's positives, and the gradients are added up, so that a step is the one of a single process on the whole
batch, up to the order of sums.

`DistributedDataParallel` would add the gradients up during the backward pass, hooked to one pass through one `forward`. A
step here may have several (batches that share one propagation), reads parameters outside of `forward` (penalties, offsets),
and exchanges rows of tables instead of tables; so the same collectives are called after the backward pass instead.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from metammf.errors import ConfigError, TrainingError
from metammf.ranking.topk import rank, users_at_once

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray
    from scipy import sparse
    from torch import nn

    from metammf.ranking.topk import ItemScorer

_BUCKET = 1 << 18
"""Numbers up to which gradients travel together."""
_PATIENCE = timedelta(days=7)
"""How long a process waits for another: whoever starts them ends all where one ends, and an evaluation may take its time."""


@dataclass(frozen=True)
class Parallel:
    """One of several processes, or the only one, which has nobody to talk to.

    Args:
        rank: Of this process, from 0.
        size: Processes in all.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    # Shares of the work ------------------------------------------------------------------------------------------

    def share(self, users: Tensor) -> tuple[Tensor | None, float | None]:
        """Return this process's part of a batch, and its share of the whole; None and None where the whole is its own.

        Args:
            users: Of the batch's positives, (B,).

        Returns:
            Places in the batch: whole users as far as may be, so that few rows are on two processes.
            A process for which nothing is left gets one place that counts for nothing, and so joins in all collectives.
        """
        if self.size == 1:
            return None, None
        order = torch.argsort(users, stable=True)
        mine = torch.tensor_split(order, self.size)[self.rank]
        return (mine, len(mine) / len(order)) if len(mine) else (order[:1], 0.0)

    def rank_users(
        self,
        scorer: ItemScorer,
        users: NDArray[np.int64],
        k: int,
        *,
        seen: sparse.csr_array | None = None,
        candidates: ArrayLike | None = None,
        batch_size: int | None = None,
        progress: Any = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rank as `metammf.ranking.topk.rank` does, each process for whole batches of users; all get all lists."""
        if self.size == 1:
            return rank(scorer, users, k, seen=seen, candidates=candidates, batch_size=batch_size, progress=progress)
        batch_size = batch_size or users_at_once(scorer.num_items)
        size = batch_size * -(-len(users) // (batch_size * self.size))
        mine = users[self.rank * size : (self.rank + 1) * size]
        found = rank(scorer, mine, k, seen=seen, candidates=candidates, batch_size=batch_size)
        parts: list[Any] = [None] * self.size
        with collective():
            dist.all_gather_object(parts, found)
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    # Exchange ----------------------------------------------------------------------------------------------------

    def tell(self, value: Any) -> Any:
        """Return the leading process's value, plain data."""
        if self.size == 1:
            return value
        box = [value]
        with collective():
            dist.broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            with collective():
                dist.barrier()

    def agree(self, tensors: Iterable[Tensor]) -> None:
        """Take the leading process's values, in place."""
        if self.size == 1:
            return
        with collective():
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def agree_on_draws(self, device: torch.device) -> None:
        """Take the leading process's state of the global generator: what a step draws for all nodes is then one draw.

        Dropout on a share of a batch draws as many numbers as the share has; that of a graph model, on all nodes, draws
        what a single process would.
        """
        if self.size == 1:
            return
        state = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
        carrier = state.to(device)
        self.agree([carrier])
        if device.type == "cuda":
            torch.cuda.set_rng_state(carrier.cpu(), device)
        else:
            torch.set_rng_state(carrier)

    def total(self, values: Mapping[str, float], device: torch.device) -> dict[str, float]:
        """Add numbers up over all processes."""
        if self.size == 1:
            return dict(values)
        names = sorted(values)
        sums = torch.tensor([values[name] for name in names], dtype=torch.float64, device=device)
        self.add_up(sums)
        return dict(zip(names, sums.tolist(), strict=True))

    def add_up(self, value: Tensor) -> None:
        """Add a tensor up over all processes, in place."""
        if self.size > 1:
            with collective():
                dist.all_reduce(value)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all processes up: whole tensors by all-reduce, sparse ones by exchange of their rows."""
        parameters = list(parameters)
        if self.size == 1 or not parameters:
            return
        with collective():
            _fill_in(parameters)
            small: list[Tensor] = []
            for parameter in parameters:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if gradient.is_sparse:
                    parameter.grad = _gathered_rows(gradient.coalesce(), self.size)
                elif gradient.numel() > _BUCKET:
                    dist.all_reduce(gradient)
                else:
                    small.append(gradient)
            _reduce_together(small)


def _fill_in(parameters: list[nn.Parameter]) -> None:
    """Put zeros where the share of another process has reached a parameter and this one's has not.

    The vector of a modality that items lack is reached by a share with such an item alone. What no process has reached stays
    without a gradient, as it would be for one process on the whole batch.
    """
    reached = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32)
    reached = reached.to(parameters[0].device)
    dist.all_reduce(reached, op=dist.ReduceOp.MAX)
    for parameter, somewhere in zip(parameters, reached.tolist(), strict=True):
        if somewhere and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def _reduce_together(gradients: list[Tensor]) -> None:
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, whole in zip(gradients, torch.split(flat, [one.numel() for one in gradients]), strict=True):
        gradient.copy_(whole.view_as(gradient))


def _gathered_rows(gradient: Tensor, size: int) -> Tensor:
    """Return the rows of all processes, coalesced; they travel padded to the longest list."""
    rows, values = gradient.indices()[0], gradient.values()
    lengths = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(size)]
    dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
    counts = [int(length) for length in lengths]
    all_rows = _gathered(rows, counts)
    all_values = _gathered(values, counts)
    return torch.sparse_coo_tensor(all_rows.unsqueeze(0), all_values, gradient.shape, check_invariants=False).coalesce()


def _gathered(values: Tensor, counts: list[int]) -> Tensor:
    padded = values.new_zeros((max(counts), *values.shape[1:]))
    padded[: len(values)] = values
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


@contextlib.contextmanager
def collective() -> Iterator[None]:
    """Say what it means where an exchange fails."""
    try:
        yield
    except RuntimeError as error:
        cause = (str(error).splitlines() or ["no reason given"])[0]
        raise TrainingError(
            f"another process of this training has ended and says why ({cause}); --resume goes on"
        ) from error


@contextlib.contextmanager
def joined(device: str) -> Iterator[tuple[Parallel, str]]:
    """Join the processes that `torchrun` has started with this one; leave them in the end.

    Args:
        device: As `fit` takes it. "auto" and "cuda" are the process's own card, where there are cards.

    Yields:
        This process among them, the only one where `torchrun` was not there, and its device.

    Raises:
        ConfigError: one card is named for several processes, or there is no card for this one.
        TrainingError: the others cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Parallel(), device
        return
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if ":" in device:
        raise ConfigError(f"{size} processes need a card each: name device cuda, not {device}")
    if cuda:
        place, cards = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if place >= cards:
            raise ConfigError(f"process {place} of this machine has no card: there are {cards}, and each needs its own")
        device = f"cuda:{place}"
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the {size} processes cannot reach each other: {str(error).splitlines()[0]}") from error
    try:
        yield Parallel(dist.get_rank(), size), device
    finally:
        dist.destroy_process_group()
