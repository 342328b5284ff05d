"""Linear maps of features, one a modality, of many rows that are read a chunk at a time. N rows, F_m width, D width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from metammf.nn.content import modality_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jaxtyping import Float

_CHUNK_ROWS = 8192


class _ProjectRows(torch.autograd.Function):
    """What is read is neither kept for the backward pass nor given a gradient: it is read again."""

    @staticmethod
    def forward(ctx: Any, read: Any, names: tuple[str, ...], count: int, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.read, ctx.names, ctx.count = read, names, count
        ctx.save_for_backward(*parameters)
        weights, biases = parameters[::2], parameters[1::2]
        outs = tuple(weight.new_empty(count, len(weight)) for weight in weights)
        for rows, values in _chunks(read, count, weights[0].device):
            for out, name, weight, bias in zip(outs, names, weights, biases, strict=True):
                torch.addmm(bias, values[name], weight.T, out=out[rows])
        return outs

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:
        parameters = ctx.saved_tensors
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        for rows, values in _chunks(ctx.read, ctx.count, parameters[0].device):
            for place, (name, gradient) in enumerate(zip(ctx.names, grad_outputs, strict=True)):
                gradients[2 * place].addmm_(gradient[rows].T, values[name])
        for place, gradient in enumerate(grad_outputs):
            gradients[2 * place + 1] = gradient.sum(0)
        return None, None, None, *gradients


def _chunks(
    read: Callable[[Tensor], Mapping[str, Tensor]], count: int, device: torch.device
) -> Iterator[tuple[slice, Mapping[str, Tensor]]]:
    for start in range(0, count, _CHUNK_ROWS):
        rows = slice(start, min(start + _CHUNK_ROWS, count))
        yield rows, read(torch.arange(rows.start, rows.stop, device=device))


_project_rows: Callable[..., tuple[Tensor, ...]] = _ProjectRows.apply


class Projections(nn.Module):
    """W_m x + b_m, a map for each modality.

    Args:
        widths: Modality -> F_m.
        dim: D.
    """

    def __init__(self, widths: Mapping[str, int], dim: int) -> None:
        super().__init__()
        self.modalities = tuple(widths)
        self.layers = nn.ModuleDict({modality_key(name): nn.Linear(width, dim) for name, width in widths.items()})

    def of(self, modality: str) -> nn.Linear:
        """Return the map of a modality."""
        layer = self.layers[modality_key(modality)]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, modality: str, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch dim"]:
        """Return the projections of some rows of a modality."""
        return self.of(modality)(x)

    def of_all(
        self, read: Callable[[Tensor], Mapping[str, Tensor]], count: int
    ) -> dict[str, Float[Tensor, "rows dim"]]:
        """Return the projections of all rows of all modalities; rows are read a chunk at a time and let go.

        All rows at once, wide as features are, would be the largest tensors of a step, and kept for its backward pass.

        Args:
            read: From row numbers to the rows of each modality, (B, F_m) float32; called again in the backward pass.
            count: N.
        """
        if not self.modalities:
            return {}
        layers = [self.of(name) for name in self.modalities]
        parameters = [part for layer in layers for part in (layer.weight, layer.bias)]
        with torch.autocast(parameters[0].device.type, enabled=False):
            outs = _project_rows(read, self.modalities, count, *parameters)
        return dict(zip(self.modalities, outs, strict=True))
