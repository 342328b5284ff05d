"""From a config and the development parts to a finished recommender."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch

from metammf.errors import ConfigError
from metammf.evaluation.evaluate import validation_metrics
from metammf.models.base import ContentSolver, Inputs, Model
from metammf.models.registry import model_type
from metammf.models.scorers import FallbackScorer, finished_scorer
from metammf.recommender import Recommender
from metammf.training.config import TrainingConfig
from metammf.training.loop import CheckpointFile, Listener, Precision, Trainer
from metammf.training.objectives import PointObjective, SoftmaxObjective, objective_of
from metammf.training.sharding import join_tables, shard_tables

if TYPE_CHECKING:
    from metammf.data.splitting import Development
    from metammf.models.config import ModelConfig
    from metammf.models.scorers import VectorScorer
    from metammf.recommender import Strangers
    from metammf.training.parallel import Parallel

log = logging.getLogger(__name__)


def pick_device(name: str) -> torch.device:
    """Return the device of a name; "auto" takes CUDA where there is one.

    Raises:
        ConfigError: the name is no device, or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":  # tensors without values
            raise ConfigError(f"device {name!r} computes nothing: expected auto, cpu, cuda, cuda:1, ...")
        if device.type == "cpu":  # one, whatever its number
            return torch.device("cpu")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} is not available: {str(error).splitlines()[0]}") from error
    return device


def build_model(config: ModelConfig, development: Development, *, seed: int, device: torch.device) -> Model:
    """Build a model that is trained by descent, its weights drawn by the seed.

    Raises:
        ConfigError: the config is of a model that is solved, or does not fit the data.
    """
    kind = model_type(config.name)
    if not issubclass(kind, Model):
        raise ConfigError(f"{config.name} is solved, not trained")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return kind(config, Inputs(development.train, development.catalog.features)).to(device)


def fit(
    model_config: ModelConfig,
    development: Development,
    *,
    training: TrainingConfig | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "float32",
    listeners: tuple[Listener, ...] = (),
    checkpoint: CheckpointFile | None = None,
    parallel: Parallel | None = None,
    shard: bool = False,
) -> Recommender:
    """Train a model, or solve it, and return it finished.

    Args:
        model_config: Which model, and its settings.
        development: Train and validation; the test part is not in there.
        training: How; the paper's settings by default. A model that is solved has no use for it.
        seed: Of the weights and of everything that is drawn. The same seed gives the same result on the same machine with
            the same number of threads.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        precision: "bfloat16" runs forward passes under autocast.
        listeners: Who is told how it goes.
        checkpoint: Where to keep checkpoints, and to go on from.
        parallel: This process among those that train together, each of which makes the same call; alone by default.
        shard: Divide the tables of free vectors among the processes, where the model reads them by rows.

    Raises:
        ConfigError: a setting does not fit the data, or the device is not there.
        DataError: a feature is NaN or infinite.
        TrainingError: training cannot go on, a loss that is not finite among the causes.
    """
    kind = model_type(model_config.name)
    if not issubclass(kind, Model):
        solved = kind(model_config, Inputs(development.train, development.catalog.features))
        if isinstance(solved, ContentSolver):
            _check_features(development)
        state = dict(solved.solve())
        return Recommender(development, model_config, solved.scorer(state), state=state)
    _check_features(development)
    model = build_model(model_config, development, seed=seed, device=pick_device(device))
    several = parallel is not None and parallel.size > 1
    if shard and parallel is not None and several:
        shard_tables(model, parallel)
    training = training or TrainingConfig()
    objective = objective_of(model, training)
    if several and not isinstance(objective, PointObjective | SoftmaxObjective):
        raise ConfigError(f"{model_config.name} has an objective of its own, which cannot be divided among processes")
    progress = Trainer(
        model,
        objective,
        development,
        training,
        seed=seed,
        precision=precision,
        listeners=listeners,
        checkpoint=checkpoint,
        parallel=parallel,
    ).run()
    join_tables(model)
    model.cpu()
    scorer = finished_scorer(model, development.train)
    strangers = _for_strangers(model, scorer, development, training.metric)
    history = tuple(progress.history)
    return Recommender(development, model_config, scorer, model=model, history=history, strangers=strangers)


def _for_strangers(model: Model, scorer: VectorScorer, development: Development, metric: str) -> Strangers:
    """Tell what ranks for users without a train interaction: the model, where it can and validation says that it is better."""
    if not model.knows_nobody:
        return "popularity"
    train, validation = development.train, development.validation
    known = train.user_counts if development.history is None else train.user_counts + development.history.user_counts
    strangers = validation.select(known[validation.users] == 0)
    if not len(strangers):
        return "popularity"
    k = int(metric.partition("@")[2])
    popular, own = (
        validation_metrics(each, strangers, train, (k,))[metric] for each in (FallbackScorer(scorer, train), scorer)
    )
    chosen: Strangers = "model" if own > popular else "popularity"
    count = int((strangers.user_counts > 0).sum())
    log.info(
        "users without history are ranked for by %s: %s of %d of them in validation is %.4f by popularity, %.4f by the model",
        *(chosen, metric, count, popular, own),
    )
    return chosen


def _check_features(development: Development) -> None:
    """A NaN among the features would come out as a loss that is not finite, with another cause named."""
    features = development.catalog.features
    if not any(isinstance(matrix, np.memmap) for matrix in features.matrices.values()):
        features.check_finite()  # what is memory-mapped was read and checked when it was opened
