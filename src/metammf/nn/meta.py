r"""Layers whose weights are generated per item. B items, S meta, I in, O out, R rank.

Item i's own layer has the weight W_i = W + sum_s s_is T[s] (Liu et al., 2023, section 2.3 of the design; eqs. of the meta
fusion learner). None of these layers ever forms a W_i: memory is that of activations, never items x weights.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float


class StaticLinear(nn.Module):
    """The same layer less its dynamic part: h W. It takes the meta information and leaves it alone.

    Args:
        in_dim: Input features I.
        out_dim: Output features O.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.empty(in_dim, out_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot-normal weights."""
        nn.init.xavier_normal_(self.shared)

    def forward(
        self, x: Float[Tensor, "batch in_dim"], meta: Float[Tensor, "batch meta_dim"]
    ) -> Float[Tensor, "batch out_dim"]:
        """Transform each row of `x` by the weight that all items share."""
        return x @ self.shared


class MetaLinear(StaticLinear):
    """Per-item linear map in dense form: h W + sum_s s_is (h T[s]).

    Args:
        meta_dim: Meta channels S.
        in_dim: Input features I.
        out_dim: Output features O.
        dynamic_scale: Size of the dynamic weights at the start, relative to the shared ones.
    """

    def __init__(self, meta_dim: int, in_dim: int, out_dim: int, dynamic_scale: float = 1.0) -> None:
        self.dynamic_scale = dynamic_scale
        super().__init__(in_dim, out_dim)
        self.dynamic = nn.Parameter(torch.empty(meta_dim, in_dim, out_dim))
        nn.init.normal_(self.dynamic, std=dynamic_scale * _glorot(in_dim, out_dim))

    def forward(
        self, x: Float[Tensor, "batch in_dim"], meta: Float[Tensor, "batch meta_dim"]
    ) -> Float[Tensor, "batch out_dim"]:
        """Transform each row of `x` by the weight that its row of `meta` generates."""
        out = x @ self.shared
        for channel, weight in enumerate(self.dynamic.unbind(0)):  # one (B, O) at a time instead of (S, B, O)
            out = torch.addcmul(out, meta[:, channel : channel + 1], x @ weight)
        return out


class LowRankMetaLinear(StaticLinear):
    r"""Per-item linear map whose dynamic part is in CP form, T_sio = sum_r A_ir B_ro C_sr.

    Per-item weights are never formed: R (I + S + O) per item instead of S I O. The S slices span min(S, R) directions.

    Args:
        meta_dim: Meta channels S.
        in_dim: Input features I.
        out_dim: Output features O.
        cp_rank: CP rank R.
        dynamic_scale: Size of the dynamic weights at the start, relative to the shared ones.
    """

    def __init__(self, meta_dim: int, in_dim: int, out_dim: int, cp_rank: int, dynamic_scale: float = 1.0) -> None:
        super().__init__(in_dim, out_dim)
        self.factor_in = nn.Parameter(torch.empty(in_dim, cp_rank))
        self.factor_out = nn.Parameter(torch.empty(cp_rank, out_dim))
        self.factor_meta = nn.Parameter(torch.empty(meta_dim, cp_rank))
        # The R products add up to entries with the standard deviation of the dense form's.
        std = (dynamic_scale * _glorot(in_dim, out_dim) / math.sqrt(cp_rank)) ** (1 / 3)
        for factor in (self.factor_in, self.factor_out, self.factor_meta):
            nn.init.normal_(factor, std=std)

    def forward(
        self, x: Float[Tensor, "batch in_dim"], meta: Float[Tensor, "batch meta_dim"]
    ) -> Float[Tensor, "batch out_dim"]:
        """Transform each row of `x` by the weight that its row of `meta` generates."""
        gate = meta @ self.factor_meta  # (B, R)
        return x @ self.shared + ((x @ self.factor_in) * gate) @ self.factor_out

    def dense_factors(self) -> Float[Tensor, "meta_dim in_dim out_dim"]:
        """Return T built from its factors, shape (S, I, O); for tests and for looking at it."""
        return torch.einsum("ir,ro,sr->sio", self.factor_in, self.factor_out, self.factor_meta)


def _glorot(in_dim: int, out_dim: int) -> float:
    return math.sqrt(2 / (in_dim + out_dim))


class MetaExtractor(nn.Module):
    """The meta information extractor: s_i = MLP(x_i), Linear F -> H, ReLU, Linear H -> S.

    Args:
        in_dim: Feature width F.
        meta_dim: Meta channels S.
        hidden_dim: Most that H may be; H is F by default, as in the paper. With wide features the F x F weights are then the
            larger part of a light fusion, in parameters and in time.
        bounded: Whether a tanh keeps s_i within (-1, 1), so that no item's own weights run away; the paper has none.
    """

    def __init__(self, in_dim: int, meta_dim: int, *, hidden_dim: int | None = None, bounded: bool = False) -> None:
        super().__init__()
        width = in_dim if hidden_dim is None else min(in_dim, hidden_dim)
        self.hidden = nn.Linear(in_dim, width)
        self.out = nn.Linear(width, meta_dim)
        self.bounded = bounded

    def forward(self, x: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch meta_dim"]:
        """Return the meta information of each item."""
        meta = self.out(torch.relu(self.hidden(x)))
        return torch.tanh(meta) if self.bounded else meta
