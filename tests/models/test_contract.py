"""Every registered model, and MetaMMF in every combination of its parts, against the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from metammf.experiments.config import load_recipe, recipe_names
from metammf.models.ease import EASEConfig
from metammf.models.graphsage import GraphSAGEConfig
from metammf.models.lightgcn import LightGCNConfig
from metammf.models.metammf import MetaMMFConfig
from metammf.models.mf import MFConfig
from metammf.models.p3 import P3Config
from metammf.models.popularity import PopularityConfig
from metammf.models.registry import MODELS, model_config
from metammf.models.vbpr import VBPRConfig
from metammf.nn.backbone import BackboneKind
from metammf.nn.fusion import FusionKind
from metammf.testing.contracts import check_model

if TYPE_CHECKING:
    from pathlib import Path

    from metammf.models.config import ModelConfig

SMALL = MetaMMFConfig(
    embedding_dim=16, hidden_dims=(12,), meta_dim=2, cp_rank=3, num_layers=1, hidden_dropout=0.0, final_dropout=0.0
)
COMBINATIONS = [
    SMALL.model_copy(update={"fusion": fusion, "backbone": backbone, "combine": combine})
    for fusion in get_args(FusionKind)
    for backbone in get_args(BackboneKind)
    for combine in ("concat", "sum")
]
CONFIGS: list[ModelConfig] = [
    EASEConfig(),
    GraphSAGEConfig(embedding_dim=4, num_layers=1, hidden_dropout=0.0, final_dropout=0.0),
    LightGCNConfig(embedding_dim=8),
    MFConfig(embedding_dim=3),
    P3Config(),
    P3Config(beta=0.5),
    VBPRConfig(embedding_dim=8),
    VBPRConfig(embedding_dim=8, feature_scaling="l2", feature_components=3),
    *COMBINATIONS,
    SMALL.model_copy(update={"backbone": "lightgcn", "normalize": True}),
    SMALL.model_copy(update={"backbone": "lightgcn", "hide_targets": True, "simulated_cold": 0.2}),
    SMALL.model_copy(update={"backbone": "lightgcn", "content_neighbours": True, "simulated_cold": 0.2}),
    SMALL.model_copy(update={"backbone": "graphsage", "edge_dropout": 0.2, "init_std": 0.1}),
    SMALL.model_copy(update={"backbone": "mf", "cold_offset": True, "simulated_cold": 0.2}),
    *(SMALL.model_copy(update={"backbone": backbone, "user_fusion": "cp"}) for backbone in get_args(BackboneKind)),
    SMALL.model_copy(
        update={"backbone": "mf", "user_fusion": "dense", "edge_dropout": 0.2, "simulated_cold_users": 0.3}
    ),
    SMALL.model_copy(
        update={"backbone": "lightgcn", "user_fusion": "concat", "combine": "sum", "simulated_cold_users": 0.3}
    ),
    SMALL.model_copy(update={"bounded_meta": True, "feature_scaling": "l2", "hidden_dims": ()}),
]

# Those of the recipes that ship, made small.
for recipe in recipe_names():
    shipped = model_config(load_recipe(recipe)["model"])
    if isinstance(shipped, MetaMMFConfig) and shipped.backbone == "lightgcn":
        small = {"embedding_dim": 16, "hidden_dims": (12,), "feature_components": shipped.feature_components and 3}
        CONFIGS.append(shipped.model_copy(update=small))


def name(config: ModelConfig) -> str:
    return "-".join(
        str(getattr(config, key)) for key in ("name", "fusion", "backbone", "combine") if hasattr(config, key)
    )


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_contract(config: ModelConfig, tmp_path: Path) -> None:
    check_model(config, tmp_path)


def test_contract_of_popularity(tmp_path: Path) -> None:
    check_model(PopularityConfig(), tmp_path, accuracy=None)


def test_no_registered_model_goes_without() -> None:
    assert {config.name for config in CONFIGS} | {"popularity"} == set(MODELS)
