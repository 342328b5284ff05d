"""What the demo compares, and how large it is: settings alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from metammf.experiments.config import RunConfig, from_mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

Role = Literal["dynamic", "static", "placebo", "control"]

# Chosen on the validation parts of worlds of other seeds. The same for every fusion and backbone, and for the twins of a
# backbone: what differs between these is the dynamic part alone.
NETWORK: Mapping[str, Any] = {
    "name": "metammf",
    "combine": "sum",
    "hidden_dims": (128,),
    "id_dropout": 0.2,
    "normalize": True,
}
BACKBONES: Mapping[str, Mapping[str, Any]] = {
    "mf": {"backbone": "mf"},
    # A convolution leans on the edges that it is to predict, and has no use for content where there always are some. With a
    # second layer its own weights make the static fusion a deeper network, which then comes close to the dynamic one.
    "gcn": {
        "backbone": "graphsage",
        "num_layers": 1,
        "hidden_dropout": 0.2,
        "hide_targets": True,
        "simulated_cold": 0.3,
        "cold_offset": True,
    },
}
FUSIONS: Mapping[str, Mapping[str, Any]] = {
    "metammf": {"fusion": "cp", "dynamic_layers": "last", "dynamic_scale": 0.3, "bounded_meta": True},
    "static": {"fusion": "concat"},
}
TRAINING: Mapping[str, Any] = {
    "objective": "softmax",
    "batch_size": 1024,
    "shared_negatives": 512,
    "temperature": 0.2,
    "learning_rate": 3e-3,
    "weight_decay": 1e-5,
    "fusion_weight_decay": 1e-3,
    "epochs": 30,
    "patience": 5,
    "metric": "ndcg@20",
}


@dataclass(frozen=True)
class Entry:
    """One model of the comparison.

    Args:
        key: Short name.
        label: What people read.
        role: A dynamic fusion, its static twin, the placebo of one of them, or a control that knows ids alone.
        model: Its settings.
        twin: A dynamic one's static twin.
        placebo_of: Key of the model whose features were replaced by noise.
    """

    key: str
    label: str
    role: Role
    model: Mapping[str, Any]
    twin: str | None = None
    placebo_of: str | None = None


def _model(fusion: str, backbone: str) -> Mapping[str, Any]:
    return {**NETWORK, **BACKBONES[backbone], **FUSIONS[fusion]}


ENTRIES: tuple[Entry, ...] = (
    Entry("metammf-gcn", "MetaMMF_GCN", "dynamic", _model("metammf", "gcn"), "static-gcn"),
    Entry("static-gcn", "Static GCN", "static", _model("static", "gcn")),
    Entry("metammf-mf", "MetaMMF_MF", "dynamic", _model("metammf", "mf"), "static-mf"),
    Entry("static-mf", "Static MF", "static", _model("static", "mf")),
    Entry("ease", "EASE", "control", {"name": "ease", "l2": 50.0}),
    Entry("popularity", "Popularity", "control", {"name": "popularity"}),
)


@dataclass(frozen=True)
class DemoPlan:
    """How large a demo is.

    Args:
        seed: Of the world and of the first run of each model; the runs after it count up from there.
        users: Of the world.
        items: Of the world; by default as many as the world itself takes.
        interactions: Likewise.
        num_seeds: Runs of each model that is trained.
        placebo_seeds: Runs of each fusion on noise in the place of its features; 0 leaves placebos out.
        training: Settings of training, over the demo's own.
        workers: Processes at once; by default one a core, four at most.
    """

    seed: int = 0
    users: int = 2_000
    items: int | None = None
    interactions: int | None = None
    num_seeds: int = 3
    placebo_seeds: int = 1
    training: Mapping[str, Any] = field(default_factory=dict)
    workers: int | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The models of the comparison."""
        fusions = [entry for entry in ENTRIES if entry.role in ("dynamic", "static")]
        noise = tuple(
            Entry(f"{entry.key}-noise", f"{entry.label}, noise", "placebo", entry.model, placebo_of=entry.key)
            for entry in fusions
        )
        return ENTRIES + (noise if self.placebo_seeds else ())

    def seeds(self, entry: Entry) -> range:
        """The seeds that a model is trained with; one that is solved draws nothing, so that one will do."""
        runs = {"control": 1, "placebo": self.placebo_seeds}.get(entry.role, self.num_seeds)
        return range(self.seed, self.seed + runs)

    @property
    def num_runs(self) -> int:
        """How many models are trained or solved."""
        return sum(len(self.seeds(entry)) for entry in self.entries)

    def config(self, entry: Entry, seed: int) -> RunConfig:
        """Return all that decides the outcome of one run."""
        return from_mapping(
            {
                "model": entry.model,
                "training": {**TRAINING, **self.training},
                "seed": seed,
                "placebo": None if entry.placebo_of is None else "noise",
            }
        )
