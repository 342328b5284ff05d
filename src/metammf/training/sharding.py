"""Tables of free vectors, divided among processes by rows. N rows, D width, W processes, n nodes asked for.

A table is divided as `torch.distributed.tensor` divides on its first axis, ceil(N / W) rows a process, and goes to disk as
its DTensor. Rows are fetched by all-to-all, and their gradients go back the same way: n D numbers each way. The lookup of a
row-wise DTensor would first give all nodes of all processes to each and then add up W answers that are mostly zero, W times
as much.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from metammf.errors import ConfigError
from metammf.training.parallel import collective

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float, Int

    from metammf.models.base import Model
    from metammf.training.parallel import Parallel


class _Exchange(torch.autograd.Function):
    """Send rows to other processes and receive theirs; gradients go the way back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
        ctx.sent, ctx.received = sent, received
        return _exchanged(rows, sent, received)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None, None]:
        return _exchanged(grad_outputs[0], ctx.received, ctx.sent), None, None


_exchange: Callable[[Tensor, list[int], list[int]], Tensor] = _Exchange.apply


def _exchanged(values: Tensor, sent: list[int], received: list[int]) -> Tensor:
    result = values.new_empty((sum(received), *values.shape[1:]))
    with collective():
        dist.all_to_all_single(result, values.contiguous(), received, sent)
    return result


class ShardedTable(nn.Embedding):
    """A table of which each process holds some rows, and moves them; all processes must call it together.

    Args:
        table: The whole table, the same on all processes.
        parallel: This process.
    """

    def __init__(self, table: nn.Embedding, parallel: Parallel) -> None:
        self.parallel = parallel
        self.rows_each = -(-table.num_embeddings // parallel.size)
        self.first = min(parallel.rank * self.rows_each, table.num_embeddings)
        last = min(self.first + self.rows_each, table.num_embeddings)
        self._before_lookup: OrderedDict[int, Callable[[nn.Module, tuple[Tensor, ...]], Any]] = OrderedDict()
        super().__init__(
            table.num_embeddings, table.embedding_dim, _weight=table.weight.detach(), device=table.weight.device
        )
        self.weight = nn.Parameter(table.weight.detach()[self.first : last].clone())

    def register_forward_pre_hook(self, hook: Any, **options: Any) -> Any:
        """Call `hook` with the rows of this process that are about to be read, instead of the nodes asked for."""
        assert not options
        handle = RemovableHandle(self._before_lookup)
        self._before_lookup[handle.id] = hook
        return handle

    def forward(self, nodes: Int[Tensor, " nodes"]) -> Float[Tensor, "nodes dim"]:
        """Return the rows of these nodes, wherever they are."""
        owners = torch.div(nodes, self.rows_each, rounding_mode="floor")
        order = torch.argsort(owners, stable=True)
        asked = torch.bincount(owners, minlength=self.parallel.size)
        wanted = _exchanged(asked, [1] * self.parallel.size, [1] * self.parallel.size)
        to_ask, to_answer = asked.tolist(), wanted.tolist()
        rows = _exchanged(nodes[order], to_ask, to_answer) - self.first
        for hook in self._before_lookup.values():
            hook(self, (rows,))
        answers = _exchange(functional.embedding(rows, self.weight, sparse=self.sparse), to_answer, to_ask)
        return answers[torch.argsort(order)]

    def whole(self) -> nn.Embedding:
        """Return the whole table; all processes must call this together, and each receives it."""
        rows = torch.arange(self.num_embeddings, device=self.weight.device)
        with torch.no_grad():
            return nn.Embedding(self.num_embeddings, self.embedding_dim, _weight=self(rows))

    def shard(self, tensor: Tensor) -> Tensor:
        """Return this process's rows of a tensor that has one for each of the whole table, in memory of their own."""
        return tensor[self.first : self.first + len(self.weight)].clone()


def shard_tables(model: Model, parallel: Parallel) -> None:
    """Divide the tables of which the model reads rows alone.

    Raises:
        ConfigError: it reads all of them whole.
    """
    tables = model.row_tables()
    if not tables:
        raise ConfigError(
            "tables can be sharded of models that read them by rows; this one's backbone propagates them whole"
        )
    _replace(model, {table: ShardedTable(table, parallel) for table in tables})


def join_tables(model: nn.Module) -> None:
    """Make all tables whole again, on every process; all must call this together."""
    tables = [module for module in model.modules() if isinstance(module, ShardedTable)]
    _replace(model, {table: table.whole() for table in tables})


def sharded(model: nn.Module) -> dict[str, ShardedTable]:
    """Return the tables that are divided, by the name of their weight."""
    return {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, ShardedTable)}


def _replace(model: nn.Module, replacements: dict[nn.Embedding, nn.Embedding]) -> None:
    for name, module in list(model.named_modules()):
        if module in replacements:  # modules are hashed by what they are, not by what they hold
            model.set_submodule(name, replacements[module])
