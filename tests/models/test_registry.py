"""Models by name, and settings that do not fit."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Literal

import pytest

from metammf.errors import ConfigError, ForeignModelError
from metammf.models.base import Model, SolvedModel
from metammf.models.config import ModelConfig
from metammf.models.metammf import MetaMMFConfig
from metammf.models.mf import MF, MFConfig
from metammf.models.registry import MODELS, model_config, model_type, needs_trust


@pytest.mark.parametrize("name", MODELS)
def test_every_name_leads_to_a_model_of_that_name(name: str) -> None:
    kind = model_type(name)
    assert issubclass(kind, Model | SolvedModel)
    assert kind.config_type().name == name
    assert model_config({"name": name}) == kind.config_type()


def test_names_are_sorted() -> None:
    assert list(MODELS) == sorted(MODELS)


def test_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'lightgnc' \(did you mean 'lightgcn'\?\)"):
        model_type("lightgnc")
    with pytest.raises(
        ConfigError, match=r"unknown model 'xyz'; there are: bm3, .*, vbpr, and others as package\.module:Class"
    ):
        model_type("xyz")
    with pytest.raises(ConfigError, match=r"model\.name is missing"):
        model_config({})


def test_a_file_names_no_code_that_nobody_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METAMMF_MODELS", raising=False)
    assert needs_trust("mf") is None
    assert needs_trust("mine.tower:Tower") == "mine.tower"
    with pytest.raises(
        ForeignModelError, match=r"runs the code of mine\.tower: .* put METAMMF_MODELS=mine\.tower before"
    ):
        model_type("mine.tower:Tower", from_file=True)
    monkeypatch.setenv("METAMMF_MODELS", "mine.other,mine.tower")
    assert needs_trust("mine.tower:Tower") is None
    with pytest.raises(ConfigError, match="cannot be imported"):
        model_type("mine.tower:Tower", from_file=True)


@pytest.mark.parametrize("target", ["no.such.module:Class", "metammf.models.mf:NoSuchClass"])
def test_what_cannot_be_imported(target: str) -> None:
    with pytest.raises(ConfigError, match="cannot be imported"):
        model_type(target)


@pytest.mark.parametrize("target", ["json:dumps", "metammf.models.mf:MFConfig", "builtins:dict"])
def test_what_is_no_model(target: str) -> None:
    with pytest.raises(ConfigError, match="is no model"):
        model_type(target)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embeding_dim": 8}, r"unknown setting 'model.embeding_dim' \(did you mean 'embedding_dim'\?\)"),
        ({"embedding_dim": "wide"}, r"setting 'model.embedding_dim': .*integer.* got 'wide'"),
        ({"embedding_dim": 0}, r"setting 'model.embedding_dim'.*got 0"),
        ({"embedding_dim": 7}, "even"),
        ({"fusion": "cpp"}, r"setting 'model.fusion'.*'cp'"),
        ({"hidden_dims": [8, 0]}, r"setting 'model.hidden_dims.1'.*got 0"),
        ({"dynamic_scale": float("inf")}, "model.dynamic_scale"),
        ({"embeding_dim": 8, "cp_rank": 0}, "cp_rank.*; .*embeding_dim"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_config({"name": "metammf"} | settings)


def test_lists_as_json_and_toml_have_them() -> None:
    assert model_config({"name": "metammf", "hidden_dims": [8, 4]}) == MetaMMFConfig(hidden_dims=(8, 4))


def test_a_model_from_elsewhere_needs_no_line_here(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("elsewhere")

    class Config(MFConfig):
        """Another name."""

        name: Literal["elsewhere:Mine"] = "elsewhere:Mine"  # type: ignore[assignment]  # what an outsider would write

    class Mine(MF):
        """MF under another name."""

        config_type = Config

    module.Mine = Mine  # type: ignore[attr-defined]  # made up here
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    assert model_type("elsewhere:Mine") is Mine
    config = model_config({"name": "elsewhere:Mine", "embedding_dim": 4})
    assert isinstance(config, ModelConfig)
    assert config == Config(embedding_dim=4)
