"""Optimizers: Adam, and Adam on tables of which a step touches few rows. N rows, D width, b1 and b2 the decays of the moments."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from metammf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from metammf.models.base import Model
    from metammf.training.config import TrainingConfig

_SETTLED_ROWS = 1 << 17
"""Rows that are brought up to date at once where all are."""
_BIASED_STEPS = 20_000
"""Steps after which b2^t is beneath what float32 tells from zero, and the moments count as unbiased."""


class Optimizer(Protocol):
    """What the loop asks of an optimizer."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameters, in the order of the state dict."""

    def step(self) -> Any:
        """Descend the gradients that are there."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""

    def load_state_dict(self, state_dict: Any) -> None:
        """Take it back."""


class RowAdam(torch.optim.Optimizer):
    r"""Adam on tables, in time of the rows that a step touches instead of all.

    Adam moves a row for some dozens of steps after its last gradient, as the first moment fades. Here a row lies still until
    it is read again; then all that it has missed is made up for at once. With m and v as of step t and n missed steps, the
    moments have become m b1^n and v b2^n, and the row has moved from w to

    .. math:: d^n \Big(w - lr \frac{m}{\sqrt v + eps} \sum_{j=1}^{n} (\rho / d)^j c_{t+j}\Big), \quad
        \rho = \frac{b_1}{\sqrt{b_2}}, \; c_t = \frac{\sqrt{1 - b_2^t}}{1 - b_1^t}

    where d = 1 - lr * weight_decay under AdamW, else 1: a row that is read stands where Adam would have it, up to rounding and
    to eps, which is held still meanwhile.

    Where it differs: "adam" adds weight decay to the gradient of the rows that a step touches alone. Adam itself lets it pull
    at all rows in all steps and, because it normalises, drags rows that have no other gradient toward zero at the full learning
    rate.

    The tables must be read by calls of their modules; their gradients come as sparse rows.

    Args:
        tables: The modules.
        lr: Step size.
        weight_decay: The decay.
        decoupled: Whether the decay is AdamW's.
        betas: b1 and b2.
        eps: Added to the root of the second moment.

    Raises:
        ConfigError: the decay pulls faster than the moments fade.
    """

    def __init__(
        self,
        tables: Sequence[nn.Embedding],
        *,
        lr: float,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "decoupled": decoupled, "betas": betas, "eps": eps}
        super().__init__([table.weight for table in tables], defaults)
        self._pull = 1 - lr * weight_decay if decoupled else 1.0
        if self._pull <= betas[0] / betas[1] ** 0.5:
            raise ConfigError(
                f"a weight decay of {weight_decay} at a learning rate of {lr} leaves nothing of the tables"
            )
        self._hooks = [(table, table.register_forward_pre_hook(self._before_reading)) for table in tables]
        for table in tables:
            table.sparse = True
            weight = table.weight
            self.state[weight] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
                # The step up to which each row has moved.
                "moved": torch.zeros(len(weight), dtype=torch.int32, device=weight.device),
            }

    def _before_reading(self, table: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        weight = table.weight
        assert isinstance(weight, nn.Parameter)
        self._make_up(weight, arguments[0].flatten())

    @torch.no_grad()
    def settle(self) -> None:
        """Bring all rows up to date: what is read of the tables from now on is what Adam would have made of them."""
        for weight in self._weights():
            for rows in torch.split(torch.arange(len(weight), device=weight.device), _SETTLED_ROWS):
                self._make_up(weight, rows)

    def release(self) -> None:
        """Let go of the tables, whose rows must be settled: they can be read and moved as if they had never been ours."""
        for table, hook in self._hooks:
            hook.remove()
            table.sparse = False
        self._hooks.clear()

    def _weights(self) -> list[Tensor]:
        return [weight for group in self.param_groups for weight in group["params"]]

    @torch.no_grad()
    def _make_up(self, weight: Tensor, rows: Tensor) -> None:
        state, group = self.state[weight], self.param_groups[0]
        now = int(state["step"])
        rows = rows[state["moved"][rows] < now]
        if not len(rows):
            return
        moved = state["moved"][rows]
        missed = (now - moved).double().unsqueeze(1)
        first, second = group["betas"]
        fading = first / second**0.5 / self._pull
        future = _future(first, second, self._pull).to(weight.device)
        last = len(future) - 1
        way = future[moved.long().clamp(max=last)].unsqueeze(1) - fading**missed * future[min(now, last)]
        mean, square = state["exp_avg"][rows], state["exp_avg_sq"][rows]
        shift = (group["lr"] * way).float() * mean / (square.sqrt() + group["eps"])
        weight[rows] = (weight[rows] - shift) * (self._pull**missed).float()
        state["exp_avg"][rows] = mean * (first**missed).float()
        state["exp_avg_sq"][rows] = square * (second**missed).float()
        state["moved"][rows] = now

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # a closure has no use here
        """Descend along the rows that have a gradient."""
        group = self.param_groups[0]
        for weight in self._weights():
            state = self.state[weight]
            state["step"] += 1
            if weight.grad is None:
                continue
            gradient = weight.grad.coalesce()
            self._descend(weight, gradient.indices()[0], gradient.values(), state, group)

    def make_up(self) -> None:
        """Bring the rows that have a gradient up to date, where another process has read them and this one has not."""
        for weight in self._weights():
            if weight.grad is not None:
                self._make_up(weight, weight.grad.coalesce().indices()[0])

    def _descend(
        self, weight: Tensor, rows: Tensor, gradient: Tensor, state: Mapping[str, Tensor], group: Mapping[str, Any]
    ) -> None:
        now = int(state["step"])
        first, second = group["betas"]
        rate, values = group["lr"], weight[rows]
        if not group["decoupled"] and group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * values
        mean = state["exp_avg"][rows].lerp_(gradient, 1 - first)
        square = state["exp_avg_sq"][rows].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = square.sqrt().div_((1 - second**now) ** 0.5).add_(group["eps"])
        weight[rows] = (values * self._pull).addcdiv_(mean, root, value=-rate / (1 - first**now))
        state["exp_avg"][rows] = mean
        state["exp_avg_sq"][rows] = square
        state["moved"][rows] = now

    def load_state_dict(self, state_dict: Any) -> None:
        """Take the state of a checkpoint back; the steps of the rows stay whole numbers."""
        moved = {place: state["moved"] for place, state in state_dict["state"].items()}
        super().load_state_dict(state_dict)
        for place, weight in enumerate(self._weights()):
            self.state[weight]["moved"] = moved[place].to(weight.device, torch.int32)


@cache
def _future(first: float, second: float, pull: float) -> Tensor:
    """Return sum over j >= 1 of (rho / d)^j c_(t+j), for t = 0, 1, ...; the last entry stands for all later t."""
    fading = first / second**0.5 / pull
    steps = torch.arange(1, _BIASED_STEPS + 1, dtype=torch.float64)
    scale = (1 - second**steps).sqrt() / (1 - first**steps)
    sums = [fading / (1 - fading)]
    for factor in reversed(scale.tolist()):
        sums.append(fading * (factor + sums[-1]))
    return torch.tensor(sums[::-1], dtype=torch.float64)


def settle(optimizer: Optimizer) -> None:
    """Bring all rows of all tables up to date, where some may not be; see `RowAdam.settle`."""
    rows = _row_adam(optimizer)
    if rows is not None:
        rows.settle()


def make_up(optimizer: Optimizer) -> None:
    """Bring rows that have a gradient up to date, where some may not be; see `RowAdam.make_up`."""
    rows = _row_adam(optimizer)
    if rows is not None:
        rows.make_up()


def release(optimizer: Optimizer) -> None:
    """Forget the gradients and let go of the tables, so that a trained model holds no state of its optimizer."""
    optimizer.zero_grad(set_to_none=True)
    rows = _row_adam(optimizer)
    if rows is not None:
        rows.release()


def _row_adam(optimizer: Optimizer) -> RowAdam | None:
    """The one that moves tables by rows, where there is one."""
    rows = optimizer.rows if isinstance(optimizer, TableOptimizer) else optimizer
    return rows if isinstance(rows, RowAdam) else None


class TableOptimizer:
    """One optimizer of two: Adam for what a step touches as a whole, `RowAdam` for the tables that it touches by rows.

    Args:
        whole: Of all other parameters.
        rows: Of the tables.
    """

    def __init__(self, whole: torch.optim.Optimizer, rows: RowAdam) -> None:
        self.whole, self.rows = whole, rows

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both."""
        return [*self.whole.param_groups, *self.rows.param_groups]

    def step(self) -> None:
        """Descend the gradients that are there."""
        self.whole.step()
        self.rows.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        self.whole.zero_grad(set_to_none)
        self.rows.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both in the form of one."""
        whole, rows = self.whole.state_dict(), self.rows.state_dict()
        shift = self._whole_count()
        groups = [{**group, "params": [place + shift for place in group["params"]]} for group in rows["param_groups"]]
        return {
            "state": whole["state"] | {place + shift: state for place, state in rows["state"].items()},
            "param_groups": whole["param_groups"] + groups,
        }

    def load_state_dict(self, state_dict: Any) -> None:
        """Take the state of both back."""
        shift, groups = self._whole_count(), state_dict["param_groups"]
        count = len(self.whole.param_groups)
        state = state_dict["state"]
        self.whole.load_state_dict(
            {
                "state": {place: value for place, value in state.items() if place < shift},
                "param_groups": groups[:count],
            }
        )
        self.rows.load_state_dict(
            {
                "state": {place - shift: value for place, value in state.items() if place >= shift},
                "param_groups": [
                    {**group, "params": [place - shift for place in group["params"]]} for group in groups[count:]
                ],
            }
        )

    def _whole_count(self) -> int:
        return sum(len(group["params"]) for group in self.whole.param_groups)


def make_optimizer(model: Model, config: TrainingConfig) -> torch.optim.Optimizer | TableOptimizer:
    """Build the optimizer that the config names: the fusion's parameters may have a rate and decay of their own."""
    tables = model.row_tables() if config.table_updates == "touched" else []
    by_rows = {id(table.weight) for table in tables}
    content = model.content_parameters()
    fused = {id(parameter) for parameter in content}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in fused | by_rows]
    groups = [_group(rest, config.learning_rate, config.weight_decay)] if rest else []
    if content:
        rate, decay = config.fusion_learning_rate, config.fusion_weight_decay
        groups.append(
            _group(
                content,
                config.learning_rate if rate is None else rate,
                config.weight_decay if decay is None else decay,
            )
        )
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    rows = None
    if tables:
        rows = RowAdam(
            tables,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            decoupled=config.optimizer == "adamw",
        )
        if not groups:
            return rows
    whole = kind(groups, fused=True)
    return whole if rows is None else TableOptimizer(whole, rows)


def _group(parameters: list[nn.Parameter], rate: float, decay: float) -> dict[str, Any]:
    return {"params": parameters, "lr": rate, "weight_decay": decay}


def clip_gradients(
    parameters: Iterable[Tensor],
    limit: float,
    *,
    shards: Iterable[Tensor] = (),
    add_up: Callable[[Tensor], None] | None = None,
) -> None:
    """Scale all gradients so that their common norm is `limit` at most; those of rows count as the whole table's.

    Args:
        parameters: Whole ones.
        limit: The norm.
        shards: Those of which other processes hold other rows.
        add_up: Adds a number up over all processes, in place; all of them clip together.
    """
    gradients, divided = _gradients_of(parameters), _gradients_of(shards)
    norm = torch.nn.utils.get_total_norm(gradients)
    if add_up is not None:
        elsewhere = torch.zeros_like(norm) + torch.nn.utils.get_total_norm(divided) ** 2
        add_up(elsewhere)
        norm = (norm**2 + elsewhere).sqrt()
    torch._foreach_mul_(gradients + divided, torch.clamp(limit / (norm + 1e-6), max=1.0))


def _gradients_of(parameters: Iterable[Tensor]) -> list[Tensor]:
    gradients: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            gradients.append(parameter.grad.values())
        else:
            gradients.append(parameter.grad)
    return gradients
