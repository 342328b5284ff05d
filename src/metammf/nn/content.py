"""Content of a batch of items: one tensor and one mask a modality, brought to a common scale.

B items, F_m width of modality m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jaxtyping import Bool, Float

FeatureScaling = Literal["none", "center", "standardize", "l2"]


def modality_key(name: str) -> str:
    """Return the name under which a module registers what belongs to a modality.

    torch admits no dots in such names ("image_feat.v2"), nor what is an attribute of every module ("type", "items").
    """
    return "of_" + name.replace("%", "%25").replace(".", "%2E")


@dataclass(frozen=True)
class Content:
    """Features of B items by modality, and who has which.

    Args:
        values: Modality -> (B, F_m).
        present: Modality -> (B,), False where the item lacks it; its values are then never read as content.
    """

    values: Mapping[str, Float[Tensor, "batch width"]]
    present: Mapping[str, Bool[Tensor, " batch"]]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(self.values)

    def map(self, change: Callable[[Tensor], Tensor]) -> Content:
        """Apply `change` to every tensor: a selection of rows, a move to a device."""
        return Content(
            {name: change(value) for name, value in self.values.items()},
            {name: change(mask) for name, mask in self.present.items()},
        )

    def without(self, modality: str) -> Content:
        """Return the same items as if all of them lacked `modality`."""
        lacking = torch.zeros_like(self.present[modality])
        return Content(self.values, {**self.present, modality: lacking})


class ContentScaler(nn.Module):
    """Bring each modality to a common scale, by statistics of the items that may be learned from.

    "center" subtracts the mean of each column and divides by one number a modality, the root mean square of what is left;
    "standardize" gives each column zero mean and unit variance; "l2" centres, then gives each row the norm sqrt(F / M), the same
    in each of the M modalities. No modality outweighs another by its units, under "l2" not by its width either.

    Args:
        widths: Modality -> F_m.
        scaling: How.
        components: Keep so many principal components of each modality at most, unwhitened; all columns by default.

    Attributes:
        out_widths: Modality -> width of what comes out.
    """

    def __init__(self, widths: Mapping[str, int], scaling: FeatureScaling, components: int | None = None) -> None:
        super().__init__()
        self.scaling = scaling
        self.widths = dict(widths)
        self.out_widths = {name: min(width, components or width) for name, width in widths.items()}
        self.projected = components is not None
        self.row_norm = (sum(self.out_widths.values()) / max(1, len(widths))) ** 0.5
        for name, width in widths.items():
            self.register_buffer(f"mean_{modality_key(name)}", torch.zeros(width))
            self.register_buffer(f"scale_{modality_key(name)}", torch.ones(width))
            if self.projected:
                self.register_buffer(f"axes_{modality_key(name)}", torch.eye(width, self.out_widths[name]))

    def _statistics(self, name: str) -> tuple[Tensor, Tensor]:
        return getattr(self, f"mean_{modality_key(name)}"), getattr(self, f"scale_{modality_key(name)}")

    def fit(self, content: Content) -> None:
        """Take the statistics from these items; rows that lack a modality are left out."""
        if self.scaling == "none" and not self.projected:
            return
        for name in self.widths:
            rows = content.values[name][content.present[name]].double()
            if not len(rows):
                continue
            mean = rows.mean(0)
            spread = (rows - mean).square().mean(0)
            # A constant column tells nothing; dividing by its spread would blow rounding errors up to unit size.
            constant = spread <= 1e-12 * (1e-12 + mean.square())
            if self.scaling != "standardize":
                spread = spread.mean().expand_as(spread)
                constant = spread <= 0
            scale = torch.where(constant, 0, spread.clamp(min=1e-30).rsqrt())
            if self.scaling == "none":
                scale = torch.ones_like(scale)
            if self.projected:
                getattr(self, f"axes_{modality_key(name)}").copy_(_axes((rows - mean) * scale, self.out_widths[name]))
            for statistic, value in zip(self._statistics(name), (mean, scale), strict=True):
                statistic.copy_(value)

    def forward(self, content: Content) -> Content:
        """Return scaled content, the modalities of `widths` in that order; rows that lack one become zero."""
        values = {name: self.scaled(content, name) for name in self.widths}
        return Content(values, {name: content.present[name] for name in self.widths})

    def scaled(self, content: Content, name: str) -> Float[Tensor, "batch width"]:
        """Return one modality of it."""
        mean, scale = self._statistics(name)
        scaled = (content.values[name] - mean) * scale
        if self.projected:
            scaled = scaled @ getattr(self, f"axes_{modality_key(name)}")
        if self.scaling == "l2":
            scaled = nn.functional.normalize(scaled, dim=1) * self.row_norm
        return scaled.masked_fill(~content.present[name].unsqueeze(1), 0)


def _axes(rows: Float[Tensor, "rows width"], count: int) -> Float[Tensor, "width count"]:
    """Return the principal axes of centred rows, the widest first; the sign of each by its largest entry."""
    axes = torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1)[:, :count]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return axes * largest.sign()


class MissingContent(nn.Module):
    """Concatenate modalities; one learned vector stands for a modality that an item lacks.

    Zero would say "average", which is a statement about the item; the learned vector lets the network tell the two apart.

    Args:
        widths: Modality -> F_m.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.modalities = tuple(widths)
        self.vectors = nn.ParameterDict(
            {modality_key(name): nn.Parameter(torch.zeros(width)) for name, width in widths.items()}
        )

    def forward(self, content: Content) -> Float[Tensor, "batch width"]:
        """Return all modalities side by side, in the order of `widths`, shape (B, F)."""
        return torch.cat([self._filled(content, name) for name in self.modalities], dim=1)

    def _filled(self, content: Content, name: str) -> Float[Tensor, "batch width"]:
        present, values = content.present[name].unsqueeze(1), content.values[name]
        # Where nobody lacks it there is no gradient toward the features, and the first layer saves a product.
        return values if present.all() else torch.where(present, values, self.vectors[modality_key(name)])
