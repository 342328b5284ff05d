"""How much each modality of an item counts: leave one out, and gradient times input. B items, M modalities, D width.

Both look at the item's own path (its content and its id through the backbone, without its neighbours), so that an item added
today and one watched for years are explained alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import polars as pl
import torch
from torch import Tensor

from metammf.nn.content import Content

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

_ROWS_AT_ONCE = 4096


@runtime_checkable
class Explainable(Protocol):
    """What is needed of a model to explain it."""

    def scale(self, content: Content) -> Content:
        """Bring raw features to the scale that the fusion takes."""
        ...

    def fuse_scaled(self, content: Content) -> Tensor:
        """Return the fused vectors (B, width)."""
        ...

    def encode_scaled(self, content: Content, items: Tensor | None = None) -> Tensor:
        """Return the vectors that are scored (B, D); with `items`, by the ids that these known items have."""
        ...


@dataclass(frozen=True)
class Contributions:
    """What each modality does for each of B items.

    Args:
        modalities: M names.
        leave_one_out: (B, M). For an item, how far its fused vector moves when the modality is taken away; for a pair,
            how much the score falls.
        gradient_x_input: (B, M). For an item, the modality's share in the squared norm of its fused vector to first
            order; for a pair, in the score.
        present: (B, M), whether the item has the modality at all.
    """

    modalities: tuple[str, ...]
    leave_one_out: Float[Tensor, "batch modalities"]
    gradient_x_input: Float[Tensor, "batch modalities"]
    present: Tensor

    @property
    def shares(self) -> Float[Tensor, "batch modalities"]:
        """Size of each leave-one-out contribution over the item's sum of sizes; zero where all are zero."""
        sizes = self.leave_one_out.abs()
        return sizes / sizes.sum(1, keepdim=True).clamp(min=1e-12)

    def of_item(self, place: int) -> pl.DataFrame:
        """Return what there is of one of the items: ``modality, present, leave_one_out, gradient_x_input, share``."""
        return pl.DataFrame(
            {
                "modality": list(self.modalities),
                "present": self.present[place].tolist(),
                "leave_one_out": self.leave_one_out[place].tolist(),
                "gradient_x_input": self.gradient_x_input[place].tolist(),
                "share": self.shares[place].tolist(),
            }
        )


def item_contributions(model: Explainable, content: Content) -> Contributions:
    """Explain the fused vectors e^m of items, from their raw features."""

    def toward_itself(fused: Tensor) -> Tensor:
        return (fused * fused.detach()).sum(1)

    def moved(whole: Tensor, less: Tensor) -> Tensor:
        return (whole - less).norm(dim=1)

    return _contributions(model.scale(content), model.fuse_scaled, toward_itself, moved)


def pair_contributions(
    model: Explainable, content: Content, items: Tensor | None, user: Float[Tensor, " dim"]
) -> Contributions:
    """Explain the scores of items for one user.

    Args:
        model: The model.
        content: Raw features of B items.
        items: Their indices (B,) where the model knows their ids; None for new ones.
        user: The user's vector.
    """

    def encode(scaled: Content) -> Tensor:
        return model.encode_scaled(scaled, items)

    def score(vectors: Tensor) -> Tensor:
        return vectors @ user

    def fallen(whole: Tensor, less: Tensor) -> Tensor:
        return score(whole) - score(less)

    return _contributions(model.scale(content), encode, score, fallen)


def _contributions(
    scaled: Content,
    encode: Callable[[Content], Tensor],
    target: Callable[[Tensor], Tensor],
    difference: Callable[[Tensor, Tensor], Tensor],
) -> Contributions:
    values = {name: value.detach().clone().requires_grad_(True) for name, value in scaled.values.items()}
    leaves = Content(values, scaled.present)
    whole = encode(leaves)
    gradients = torch.autograd.grad(target(whole).sum(), list(values.values()), allow_unused=True)
    products = []
    for value, gradient in zip(values.values(), gradients, strict=True):
        products.append(torch.zeros(len(value)) if gradient is None else (value.detach() * gradient).sum(1))
    with torch.no_grad():
        whole = whole.detach()
        left_out = [difference(whole, encode(scaled.without(name))) for name in scaled.modalities]
    return Contributions(
        scaled.modalities,
        torch.stack(left_out, dim=1),
        torch.stack(products, dim=1),
        torch.stack(list(scaled.present.values()), dim=1),
    )


def in_chunks(explain: Callable[[Content], Contributions], content: Content) -> Contributions:
    """Explain many items in bounded memory."""
    count = len(next(iter(content.present.values())))
    starts = range(0, count, _ROWS_AT_ONCE)
    parts = [explain(content.map(_rows(start))) for start in starts]
    columns: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("leave_one_out", "gradient_x_input", "present")
    }
    return Contributions(parts[0].modalities, **columns)


def _rows(start: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor[start : start + _ROWS_AT_ONCE]
