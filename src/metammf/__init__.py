"""Multimodal recommendation for micro-videos: dynamic fusion by meta-learning, trained, evaluated and explained.

The public names are loaded when they are first used, so that ``import metammf`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metammf.data.dataset import Dataset
    from metammf.data.features import ItemFeatures
    from metammf.data.folder import load_dataset, load_features, save_dataset
    from metammf.data.ids import IdMap
    from metammf.data.importers.registry import import_dataset
    from metammf.data.interactions import Interactions
    from metammf.data.splitting import Development, Split
    from metammf.data.synthetic import generate_world
    from metammf.errors import MetaMMFError
    from metammf.evaluation.evaluate import evaluate
    from metammf.evaluation.result import Evaluation
    from metammf.experiments.config import RunConfig
    from metammf.experiments.run import Run, train_run
    from metammf.models.content_knn import ContentKNNConfig
    from metammf.models.ease import EASEConfig
    from metammf.models.gat import GATConfig
    from metammf.models.graphsage import GraphSAGEConfig
    from metammf.models.grcn import GRCNConfig
    from metammf.models.itemknn import ItemKNNConfig
    from metammf.models.lightgcn import LightGCNConfig
    from metammf.models.metammf import MetaMMFConfig
    from metammf.models.mf import MFConfig
    from metammf.models.mmgcn import MMGCNConfig
    from metammf.models.ngcf import NGCFConfig
    from metammf.models.p3 import P3Config, RP3BetaConfig
    from metammf.models.popularity import PopularityConfig
    from metammf.models.vbpr import VBPRConfig
    from metammf.recommender import Recommender
    from metammf.training.config import TrainingConfig
    from metammf.training.fit import fit

_HOMES = {
    "ContentKNNConfig": "models.content_knn",
    "Dataset": "data.dataset",
    "Development": "data.splitting",
    "EASEConfig": "models.ease",
    "Evaluation": "evaluation.result",
    "GATConfig": "models.gat",
    "GRCNConfig": "models.grcn",
    "GraphSAGEConfig": "models.graphsage",
    "IdMap": "data.ids",
    "Interactions": "data.interactions",
    "ItemFeatures": "data.features",
    "ItemKNNConfig": "models.itemknn",
    "LightGCNConfig": "models.lightgcn",
    "MFConfig": "models.mf",
    "MMGCNConfig": "models.mmgcn",
    "MetaMMFConfig": "models.metammf",
    "MetaMMFError": "errors",
    "NGCFConfig": "models.ngcf",
    "P3Config": "models.p3",
    "PopularityConfig": "models.popularity",
    "RP3BetaConfig": "models.p3",
    "Recommender": "recommender",
    "Run": "experiments.run",
    "RunConfig": "experiments.config",
    "Split": "data.splitting",
    "TrainingConfig": "training.config",
    "VBPRConfig": "models.vbpr",
    "evaluate": "evaluation.evaluate",
    "fit": "training.fit",
    "generate_world": "data.synthetic",
    "import_dataset": "data.importers.registry",
    "load_dataset": "data.folder",
    "load_features": "data.folder",
    "save_dataset": "data.folder",
    "train_run": "experiments.run",
}

__all__ = [
    "ContentKNNConfig",
    "Dataset",
    "Development",
    "EASEConfig",
    "Evaluation",
    "GATConfig",
    "GRCNConfig",
    "GraphSAGEConfig",
    "IdMap",
    "Interactions",
    "ItemFeatures",
    "ItemKNNConfig",
    "LightGCNConfig",
    "MFConfig",
    "MMGCNConfig",
    "MetaMMFConfig",
    "MetaMMFError",
    "NGCFConfig",
    "P3Config",
    "PopularityConfig",
    "RP3BetaConfig",
    "Recommender",
    "Run",
    "RunConfig",
    "Split",
    "TrainingConfig",
    "VBPRConfig",
    "evaluate",
    "fit",
    "generate_world",
    "import_dataset",
    "load_dataset",
    "load_features",
    "save_dataset",
    "train_run",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"metammf.{_HOMES[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version  # a third of the time that `--help` takes

        return version("metammf")
    raise AttributeError(f"module 'metammf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
