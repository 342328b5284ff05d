"""UltraGCN's losses of scores: binary cross-entropy, and the constraint that stands for infinitely many propagations.

Source: Mao et al., *UltraGCN: Ultra Simplification of Graph Convolutional Networks for Recommendation*, CIKM 2021, section 3.
B positives, K negatives each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class ConstraintLoss(nn.Module):
    r"""The main loss of each positive, and its constraint.

    .. math:: \beta_{ui} = \frac{1}{d_u} \sqrt{\frac{d_u + 1}{d_i + 1}}

    is what makes e_u . e_i of a pair large where propagation has converged; the main loss has one in its place.

    Args:
        user_degrees: Train interactions d_u of each user, (U,).
        item_degrees: Train interactions d_i of each item, (N,).
        negative_weight: Of a positive's negatives, whose losses are averaged; K makes it their sum.
    """

    user_scale: Tensor
    item_scale: Tensor

    def __init__(
        self, user_degrees: Float[Tensor, " users"], item_degrees: Float[Tensor, " items"], negative_weight: float
    ) -> None:
        super().__init__()
        self.negative_weight = negative_weight
        # A user without interactions is in no batch.
        self.register_buffer("user_scale", (user_degrees + 1).sqrt() / user_degrees.clamp(min=1), persistent=False)
        self.register_buffer("item_scale", (item_degrees + 1).rsqrt(), persistent=False)

    def forward(
        self,
        users: Int[Tensor, " batch"],
        positives: Int[Tensor, " batch"],
        negatives: Int[Tensor, "batch count"],
        positive_scores: Float[Tensor, " batch"],
        negative_scores: Float[Tensor, "batch count"],
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Return each positive's part of L_O and of L_C, its negatives included."""
        raised, lowered = functional.softplus(-positive_scores), functional.softplus(negative_scores)
        scale = self.user_scale[users]
        constraint = self.item_scale[positives] * raised
        constraint = constraint + self.negative_weight * (self.item_scale[negatives] * lowered).mean(1)
        return raised + self.negative_weight * lowered.mean(1), scale * constraint
