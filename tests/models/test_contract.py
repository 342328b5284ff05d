"""Every registered model, and MetaMMF in every combination of its parts, against the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from metammf.experiments.config import load_recipe, recipe_names
from metammf.models.bm3 import BM3Config
from metammf.models.content_knn import ContentKNNConfig
from metammf.models.diffmm import DiffMMConfig
from metammf.models.ease import EASEConfig
from metammf.models.freedom import FREEDOMConfig
from metammf.models.gat import GATConfig
from metammf.models.graphsage import GraphSAGEConfig
from metammf.models.grcn import GRCNConfig
from metammf.models.invrl import InvRLConfig
from metammf.models.itemknn import ItemKNNConfig
from metammf.models.lattice import LATTICEConfig
from metammf.models.lightgcn import LightGCNConfig
from metammf.models.metammf import MetaMMFConfig
from metammf.models.mf import MFConfig
from metammf.models.mgcn import MGCNConfig
from metammf.models.mmgcn import MMGCNConfig
from metammf.models.mmhcl import MMHCLConfig
from metammf.models.ngcf import NGCFConfig
from metammf.models.p3 import P3Config, RP3BetaConfig
from metammf.models.popularity import PopularityConfig
from metammf.models.registry import MODELS, model_config
from metammf.models.ultragcn import UltraGCNConfig
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
# At these few steps, one head in one layer does not always find the neighbours that tell; what a user without a vector of its own
# attends to has to be taught as well: untaught, the model says that it may rank badly for users who are new.
HEADS = {"num_layers": 2, "num_heads": 4, "simulated_cold_users": 0.3}
COMBINATIONS = [
    SMALL.model_copy(
        update={"fusion": fusion, "backbone": backbone, "combine": combine} | (HEADS if backbone == "gat" else {})
    )
    for fusion in get_args(FusionKind)
    for backbone in get_args(BackboneKind)
    for combine in ("concat", "sum")
]
CONFIGS: list[ModelConfig] = [
    BM3Config(embedding_dim=8),
    ContentKNNConfig(num_neighbours=4),
    ContentKNNConfig(feature_scaling="standardize"),
    DiffMMConfig(embedding_dim=8, denoiser_dims=(6, 5), generated_edges=3),
    DiffMMConfig(embedding_dim=8, denoiser_dims=(6,), contrast_anchor="modality"),
    EASEConfig(),
    FREEDOMConfig(embedding_dim=8, num_neighbours=4, edge_pruning=0.3, modality_weight=0.1),
    FREEDOMConfig(embedding_dim=8, num_neighbours=4, num_item_layers=2, feature_scaling="center", normalize=True),
    GATConfig(embedding_dim=4, num_heads=2, num_layers=1, hidden_dropout=0.0, final_dropout=0.0),
    GraphSAGEConfig(embedding_dim=4, num_layers=1, hidden_dropout=0.0, final_dropout=0.0),
    GRCNConfig(embedding_dim=8, content_dim=6),
    GRCNConfig(embedding_dim=8, content_dim=6, pruning="hard", unit_vectors=False, content_hop=True),
    InvRLConfig(embedding_dim=8, num_environments=2, warmup_epochs=0, reassign_every=2),
    InvRLConfig(embedding_dim=8, num_environments=3, warmup_epochs=0, item_weight=0.5, feature_scaling="standardize"),
    ItemKNNConfig(),
    ItemKNNConfig(num_neighbours=3, shrink=0.0, normalize_users=False),
    LATTICEConfig(embedding_dim=8, num_neighbours=4, feature_dim=4, initial_share=0.5),
    LATTICEConfig(embedding_dim=8, num_neighbours=4, num_item_layers=2, backbone="mf", feature_components=3),
    LightGCNConfig(embedding_dim=8),
    MFConfig(embedding_dim=3),
    MGCNConfig(embedding_dim=8, num_neighbours=4),
    MMGCNConfig(embedding_dim=8, content_dim=6),
    MMGCNConfig(embedding_dim=8, content_dim=6, num_layers=1, combination="concat"),
    MMHCLConfig(embedding_dim=8),
    NGCFConfig(embedding_dim=4, layer_dims=(4, 4), init_std=0.1),
    P3Config(),
    RP3BetaConfig(),
    UltraGCNConfig(embedding_dim=4),
    UltraGCNConfig(embedding_dim=4, item_weight=0.5, item_neighbours=3),
    VBPRConfig(embedding_dim=8),
    VBPRConfig(embedding_dim=8, feature_scaling="l2", feature_components=3),
    *COMBINATIONS,
    SMALL.model_copy(update={"backbone": "lightgcn", "normalize": True}),
    SMALL.model_copy(update={"backbone": "lightgcn", "hide_targets": True, "simulated_cold": 0.2}),
    SMALL.model_copy(update={"backbone": "lightgcn", "content_neighbours": True, "simulated_cold": 0.2}),
    SMALL.model_copy(update={"backbone": "graphsage", "edge_dropout": 0.2, "init_std": 0.1}),
    SMALL.model_copy(update={"backbone": "mf", "cold_offset": True, "simulated_cold": 0.2}),
    *(
        SMALL.model_copy(update={"backbone": backbone, "user_fusion": "cp"} | (HEADS if backbone == "gat" else {}))
        for backbone in get_args(BackboneKind)
    ),
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
