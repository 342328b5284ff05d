"""The models by name, written by hand. One line each; a model from elsewhere is named ``package.module:Class``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from metammf.errors import ConfigError, ForeignModelError, did_you_mean

if TYPE_CHECKING:
    from metammf.models.base import Model, SolvedModel
    from metammf.models.config import Config, ModelConfig

C = TypeVar("C", bound="Config")

MODELS: dict[str, str] = {
    "bm3": "metammf.models.bm3:BM3",
    "content-knn": "metammf.models.content_knn:ContentKNN",
    "diffmm": "metammf.models.diffmm:DiffMM",
    "ease": "metammf.models.ease:EASE",
    "freedom": "metammf.models.freedom:FREEDOM",
    "gat": "metammf.models.gat:GAT",
    "graphsage": "metammf.models.graphsage:GraphSAGE",
    "grcn": "metammf.models.grcn:GRCN",
    "invrl": "metammf.models.invrl:InvRL",
    "itemknn": "metammf.models.itemknn:ItemKNN",
    "lattice": "metammf.models.lattice:LATTICE",
    "lightgcn": "metammf.models.lightgcn:LightGCN",
    "metammf": "metammf.models.metammf:MetaMMF",
    "mf": "metammf.models.mf:MF",
    "mgcn": "metammf.models.mgcn:MGCN",
    "mmgcn": "metammf.models.mmgcn:MMGCN",
    "mmhcl": "metammf.models.mmhcl:MMHCL",
    "ngcf": "metammf.models.ngcf:NGCF",
    "p3": "metammf.models.p3:P3",
    "popularity": "metammf.models.popularity:Popularity",
    "rp3beta": "metammf.models.p3:RP3Beta",
    "ultragcn": "metammf.models.ultragcn:UltraGCN",
    "vbpr": "metammf.models.vbpr:VBPR",
}


def model_type(name: str, *, from_file: bool = False) -> type[Model] | type[SolvedModel]:
    """Return the class of a registered name, or of ``package.module:Class``.

    Args:
        name: The name.
        from_file: It stands in a file that somebody else may have written. Importing runs code, so that only a module that
            is imported already, or that the variable METAMMF_MODELS names, is taken then.

    Raises:
        ConfigError: there is no such model, or it cannot be imported.
        ForeignModelError: it is not to be imported.
    """
    target = MODELS.get(name, name)
    module, colon, attribute = target.partition(":")
    if not colon:
        hint = did_you_mean(name, MODELS) or f"; there are: {', '.join(MODELS)}, and others as package.module:Class"
        raise ConfigError(f"unknown model {name!r}{hint}")
    if from_file and name not in MODELS and module not in _trusted():
        raise ForeignModelError(name)
    from metammf.models.base import Model, SolvedModel  # imports torch, as the model itself will

    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # the last two of names that are none
        raise ConfigError(f"model {name!r} cannot be imported: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Model | SolvedModel)):
        raise ConfigError(f"{name!r} is no model: expected a subclass of Model or SolvedModel, got {kind!r}")
    return kind


def reads_content(name: str) -> bool:
    """Whether a model reads item content: its config lets modalities be chosen, or it makes vectors of content."""
    from metammf.models.base import ContentModel  # with it torch

    kind = model_type(name)
    return "modalities" in kind.config_type.model_fields or issubclass(kind, ContentModel)


def needs_trust(name: str) -> str | None:
    """Return the module of a model from elsewhere that another process would not read from a file as things stand; else None."""
    module = name.partition(":")[0]
    return None if name in MODELS or module in _named_as_trusted() else module


def _named_as_trusted() -> list[str]:
    return os.environ.get("METAMMF_MODELS", "").split(",")


def _trusted() -> set[str]:
    return {*sys.modules, *_named_as_trusted()}


def model_config(settings: Mapping[str, Any], *, from_file: bool = False) -> ModelConfig:
    """Validate settings into the config of the model that ``name`` names; see `model_type` for `from_file`.

    Raises:
        ConfigError: there is no such model or setting, or a value does not fit.
    """
    if "name" not in settings:
        raise ConfigError(f"model.name is missing; there are: {', '.join(MODELS)}")
    config_type = model_type(str(settings["name"]), from_file=from_file).config_type
    return validated(config_type, settings, "model.")


def validated(config_type: type[C], settings: Mapping[str, Any], prefix: str = "") -> C:
    """Validate settings, with errors of ours that name the key, and the nearest right one where it is misspelt.

    Raises:
        ConfigError: an unknown key, or a value that does not fit.
    """
    if not isinstance(settings, Mapping):
        raise ConfigError(f"settings {prefix or 'of a run'}: expected names and values, got {type(settings).__name__}")
    try:
        return config_type.model_validate(dict(settings))
    except ValidationError as error:
        raise ConfigError("; ".join(_message(config_type, prefix, problem) for problem in error.errors())) from error


def _message(config_type: type[Config], prefix: str, problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = list(config_type.model_fields)
        hint = did_you_mean(key, known) or f"; there are: {', '.join(sorted(known))}"
        return f"unknown setting {prefix + key!r}{hint}"
    found = repr(problem["input"])
    return f"setting {prefix + key!r}: {problem['msg']}, got {found if len(found) <= 200 else found[:200] + '...'}"
