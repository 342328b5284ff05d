"""UltraGCN on ids alone: a constraint in the loss where other models propagate.

Source: Mao et al., *UltraGCN: Ultra Simplification of Graph Convolutional Networks for Recommendation*, CIKM 2021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from metammf.models.constrained import ConstrainedConfig, ConstraintLosses, ConstraintObjective
from metammf.models.id_model import IdModel, IdModelConfig
from metammf.nn.backbone import Backbone

if TYPE_CHECKING:
    from metammf.models.base import Inputs, Objective


class UltraGCNConfig(ConstrainedConfig, IdModelConfig):
    """Settings of UltraGCN."""

    name: Literal["ultragcn"] = "ultragcn"


class UltraGCN(IdModel):
    r"""Free vectors, scored as they are; what the graph knows is in the loss L_O + lambda L_C + gamma L_I.

    .. math::
        L_O &= -\sum_{(u, i)} \Big[ \log \sigma(e_u^T e_i) + w \, \text{mean}_j \log \sigma(-e_u^T e_j) \Big] \\
        L_C &= -\sum_{(u, i)} \Big[ \beta_{ui} \log \sigma(e_u^T e_i)
            + w \, \text{mean}_j \beta_{uj} \log \sigma(-e_u^T e_j) \Big], \quad
            \beta_{ui} = \frac{1}{d_u} \sqrt{\frac{d_u + 1}{d_i + 1}} \\
        L_I &= -\sum_{(u, i)} \sum_{j \in S(i)} \omega_{ij} \log \sigma(e_u^T e_j)

    over train interactions (u, i), negatives j drawn for each, and the neighbours S(i) of the highest omega
    (`metammf.nn.cooccurrence`), each divided by the number of interactions. The paper sums over negatives: w is their number.

    The authors' public code departs from the paper: the losses of positives and of negatives have a weight each for the one
    and for the beta (so that settings that ship leave one of the two out of each); omega is of a G whose diagonal is zero before
    g is summed, with one added to g under the roots; an item with fewer neighbours than S is filled up with items of weight zero;
    negatives are drawn among all items, those that the user has watched included. Here a negative is never one of the user's
    train positives, as everywhere in this package. The penalty of the paper on all vectors is `training.weight_decay`: its
    1e-4 on losses that are summed over a batch of 1,024 is 1e-7 on their mean.

    Args:
        config: Its settings.
        inputs: The train interactions.
    """

    config_type = UltraGCNConfig

    def __init__(self, config: UltraGCNConfig, inputs: Inputs) -> None:
        super().__init__(config, inputs, Backbone())
        self.losses = ConstraintLosses(config, inputs)

    def objective(self, training: Any) -> Objective:
        """Return UltraGCN's."""
        return ConstraintObjective(self, self.losses, training)
