"""What every model's config is: frozen, validated, each hyperparameter written once with its doc and search range.

No torch in here, so that a config can be read, checked and printed at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen set of settings; unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


class ModelConfig(Config):
    """What is asked of a model. The field `name` tells which model it is of."""

    name: str
    """The registered name, or ``package.module:Class`` of a model from elsewhere."""


@dataclass(frozen=True)
class Search:
    """The range in which a hyperparameter is worth searching; stands in the field's annotation.

    Args:
        low: Lower end.
        high: Upper end.
        log: Whether the scale is logarithmic.
        choices: What there is to choose among, in the place of a range.
        when: Another setting of the same config and the values of it under which this one does anything; None: always.
        needs: Another setting of the same config that has to be at work for this one to do anything: neither none nor zero.
        modality: One that there has to be, with another beside it, for this setting to do anything.
    """

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[object, ...] = ()
    when: tuple[str, tuple[object, ...]] | None = None
    needs: str | None = None
    modality: str | None = None
