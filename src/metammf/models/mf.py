"""Matrix factorisation: score = e_u . e_i.

Source: Rendle et al., *BPR: Bayesian Personalized Ranking from Implicit Feedback*, UAI 2009, section 4.3.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from metammf.models.id_model import IdModel, IdModelConfig
from metammf.nn.backbone import Backbone

if TYPE_CHECKING:
    from metammf.models.base import Inputs


class MFConfig(IdModelConfig):
    """Settings of MF."""

    name: Literal["mf"] = "mf"


class MF(IdModel):
    """Free vectors, scored as they are."""

    config_type = MFConfig

    def __init__(self, config: MFConfig, inputs: Inputs) -> None:
        super().__init__(config, inputs, Backbone())
