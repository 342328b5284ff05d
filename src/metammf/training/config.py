"""How a model is trained: one frozen set of settings, the same for every model. No torch in here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from metammf.models.config import Config, Search

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
_SOFTMAX = ("objective", ("softmax",))


class TrainingConfig(Config):
    """Settings of training; the defaults are the MetaMMF paper's where it states one."""

    objective: Literal["bpr", "softmax", "bce"] = "bpr"
    """Pairwise BPR, sampled softmax over shared negatives, or binary cross-entropy."""
    epochs: Positive = 200
    """Passes over the train interactions, at most."""
    batches_per_step: Positive = 1
    """Batches whose gradients one step collects. They share one fusion and one propagation of their distinct nodes, and of
    what else a batch takes no more than one is held: for "bpr" and "bce" the same as one step on a batch so many times larger."""
    max_steps_per_epoch: Positive | None = None
    """Collect more batches a step where an epoch would otherwise take more steps than this. With a backbone that propagates,
    an epoch costs steps times the graph: with a fixed number of steps it grows as the log does, without as its square."""
    max_steps: Positive | None = None
    """Stop after this many steps, in the midst of an epoch if need be."""
    batch_size: Positive = 3000
    """Triples a batch for "bpr" and "bce" (positives times `num_negatives`), positives a batch for "softmax" and
    for models that take no negatives."""
    num_negatives: Positive = 5
    """Negatives of each positive, for "bpr" and "bce"."""
    shared_negatives: Annotated[int, Field(ge=0), Search(64, 2048, log=True, when=_SOFTMAX)] = 512
    """Negatives that all positives of a batch share, for "softmax"; 0, or as many as there are, takes every item."""
    negative_sampling: Literal["uniform", "popularity"] = "uniform"
    """What negatives are drawn by, among the items with a train interaction; never a train positive of the user."""
    popularity_exponent: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Exponent of the item's count, for "popularity"."""
    temperature: Annotated[float, Field(gt=0), Search(0.05, 1, log=True, when=_SOFTMAX)] = 0.2
    """What scores are divided by, for "softmax"."""
    logq: bool = True
    """Correct the softmax for how often each item is expected in the sample."""
    user_weight_exponent: Annotated[float, Field(ge=0, le=1), Search(0, 1)] = 0.0
    """Positives are drawn in proportion to (their user's train interactions)^-exponent: 0 passes through all interactions
    alike, once an epoch; 1 draws users alike, as the metrics count them."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """AdamW decouples the weight decay."""
    table_updates: Literal["dense", "touched"] = "dense"
    """What a step moves of tables that it reads by rows, such as the free vectors of MF: "dense" all rows, as the optimizer
    has it; "touched" those of the batch, in time of the batch, and a row that is read later has first made up for what it
    missed. The two differ in the weight decay of "adam" alone, which then acts on the rows of the batch. Tables that a graph
    propagates are always "dense"."""
    learning_rate: Annotated[float, Field(gt=0), Search(1e-4, 1e-2, log=True)] = 1e-3
    """Step size."""
    fusion_learning_rate: Annotated[float, Field(gt=0), Search(1e-5, 1e-2, log=True)] | None = None
    """Step size of the fusion's parameters, where it is to differ."""
    weight_decay: Annotated[float, Field(ge=0), Search(1e-8, 1e-2, log=True)] = 1e-6
    """The optimizer's decay."""
    fusion_weight_decay: Annotated[float, Field(ge=0), Search(1e-8, 1e-2, log=True)] | None = None
    """Decay of the fusion's parameters, where it is to differ."""
    l2_reg: Annotated[float, Field(ge=0), Search(1e-8, 1e-2, log=True)] = 0.0
    """Penalty on the free vectors of the batch's users and items: half their squared norms over the batch's positives."""
    gradient_clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient over all parameters."""
    metric: str = "recall@20"
    """Validation metric that chooses the epoch."""
    evaluate_every: Positive = 1
    """Epochs between looks at validation."""
    validation_users: Positive | None = None
    """Look at so many users of the validation part, drawn by the seed, so that choosing an epoch does not take longer than
    training one; all of them by default."""
    patience: Positive | None = 20
    """Looks at validation without a better metric after which training stops and the best epoch's weights are taken;
    none trains all epochs and takes the last weights, so that validation has no say."""

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str) -> str:
        name, at, k = metric.partition("@")
        known = ("recall", "ndcg", "precision", "hit_rate", "map", "mrr", "micro_recall")
        if name not in known or not at or not k.isascii() or not k.isdecimal() or k.startswith("0"):
            raise ValueError(f"expected NAME@K with NAME one of {', '.join(known)}")
        return metric

    @property
    def positives_per_batch(self) -> int:
        """Positives of one batch."""
        return self.batch_size if self.objective == "softmax" else max(1, self.batch_size // self.num_negatives)
