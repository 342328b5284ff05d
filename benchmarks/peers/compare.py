"""The same model trained here and in a peer, at equal settings: seconds an epoch, memory, start-up, evaluation.

``python benchmarks/peers/compare.py lightgcn`` (RecBole, WarpRec) or ``vbpr`` (Cornac). Each peer runs in an environment of its
own that ``make_env.sh`` makes; one that is not there is left out, and said so. Data: TikTok's, where METAMMF_DATA names the
folder of the real data sets, a generated world elsewhere. What is equal, what is not, and the patches: README.md.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import Row, Table, parser, publish  # noqa: E402  # the folder above
from metammf.data.exporting import export_dataset, with_split  # noqa: E402
from metammf.data.folder import save_dataset  # noqa: E402
from metammf.data.importers.registry import import_dataset  # noqa: E402
from metammf.data.synthetic import generate_world  # noqa: E402
from metammf.models.content_table import content_of  # noqa: E402
from metammf.nn.content import ContentScaler  # noqa: E402
from worker import ENVIRONMENTS, Worker, interpreter  # noqa: E402

if TYPE_CHECKING:
    import argparse

    from metammf.data.dataset import Dataset
    from metammf.data.splitting import Split

OURS = "metammf"
PEERS = {"lightgcn": ("RecBole", "WarpRec"), "vbpr": ("Cornac",)}
SCRIPTS = {
    OURS: "ours.py",
    "RecBole": "recbole_lightgcn.py",
    "WarpRec": "warprec_lightgcn.py",
    "Cornac": "cornac_vbpr.py",
}
EVALUATIONS = 5
MEASURED = ("epochs", "epochs_cpu", "evaluations", "evaluations_cpu")


@dataclass
class Found:
    """What all starts of one worker showed."""

    start_up: list[float] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    epochs_cpu: list[float] = field(default_factory=list)
    evaluations: list[float] = field(default_factory=list)
    evaluations_cpu: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def data(options: argparse.Namespace) -> Dataset:
    """Return TikTok, or a generated world."""
    root = os.environ.get("METAMMF_DATA")
    if root and not options.world and not options.quick:
        return import_dataset(Path(root) / "tiktok")
    users = 500 if options.quick else options.world or 9_000
    return generate_world(users=users).dataset


def write_data(dataset: Dataset, split: Split, folder: Path) -> dict[str, Any]:
    """Write the same split in the forms that each side reads."""
    whole = with_split(dataset, split)
    save_dataset(whole, folder / "ours")
    export_dataset(whole, folder / "bench", "recbole")
    scaler = ContentScaler(dataset.features.widths, "standardize")
    content = content_of(dataset.features)
    warm = torch.from_numpy(np.flatnonzero(split.train.item_counts))
    scaler.fit(content.map(lambda rows: rows[warm]))
    pairs = {name: np.stack([part.users, part.items]) for name, part in parts(split).items()}
    features = torch.cat([*scaler(content).values.values()], dim=1).numpy()
    np.savez(folder / "arrays.npz", features=features, **pairs)
    return {
        "ours": str(folder / "ours"),
        "atomic": str(folder / "bench"),
        "arrays": str(folder / "arrays.npz"),
        "num_users": dataset.num_users,
        "num_items": dataset.num_items,
    }


def parts(split: Split) -> dict[str, Any]:
    """Return what training and its evaluation see."""
    return {"train": split.train, "validation": split.validation}


def run(options: argparse.Namespace, pythons: dict[str, Path], settings: dict[str, Any]) -> dict[str, Found]:
    """Start all, train all in turn an epoch at a time, evaluate all in turn; so often as asked for."""
    found = {name: Found() for name in pythons}
    for start in range(options.repeats):
        workers = [Worker(name, python, SCRIPTS[name], settings | {"seed": start}) for name, python in pythons.items()]
        for epoch in range(options.epochs):
            for worker in workers:
                answer = worker.ask("epoch")
                if epoch:  # the first warms up
                    found[worker.name].epochs.append(answer["seconds"])
                    found[worker.name].epochs_cpu.append(answer["cpu_seconds"])
        for turn in range(EVALUATIONS + 1):
            for worker in workers:
                answer = worker.ask("evaluate")
                if turn:
                    found[worker.name].evaluations.append(answer["seconds"])
                    found[worker.name].evaluations_cpu.append(answer["cpu_seconds"])
                found[worker.name].metrics = answer["result"]
        for worker in workers:
            end = worker.finish()
            mine = found[worker.name]
            mine.start_up.append(worker.start_up)
            mine.peak_mib.append(end["peak_mib"])
            mine.versions = end["versions"]
    return found


def rows(found: dict[str, Found], users: int, k: int) -> list[Row]:
    """Set the medians side by side; "x ours" is how many times the time that ours takes."""
    medians = {
        name: {kind: statistics.median(getattr(each, kind)) for kind in MEASURED} for name, each in found.items()
    }
    own = medians[OURS]
    return [
        {
            "": name,
            "s/epoch": medians[name]["epochs"],
            "max/min": max(each.epochs) / min(each.epochs),
            "x ours": medians[name]["epochs"] / own["epochs"],
            "CPU s/epoch": medians[name]["epochs_cpu"],
            "CPU x ours": medians[name]["epochs_cpu"] / own["epochs_cpu"],
            "evaluation users/s": users / medians[name]["evaluations"],
            "evaluation x ours": medians[name]["evaluations"] / own["evaluations"],
            "evaluation CPU x ours": medians[name]["evaluations_cpu"] / own["evaluations_cpu"],
            "start-up s": statistics.median(each.start_up),
            "peak MiB": statistics.median(each.peak_mib),
            f"recall@{k}": each.metrics["recall"],
            f"ndcg@{k}": each.metrics["ndcg"],
        }
        for name, each in found.items()
    ]


def main() -> None:
    """Write the data, run, report."""
    options = parser(__doc__)
    options.add_argument("model", choices=PEERS)
    options.add_argument("--envs", type=Path, default=ENVIRONMENTS, help="folder of the peers' environments")
    options.add_argument("--world", type=int, help="generate a world of so many users, whatever METAMMF_DATA says")
    for name, value in (("epochs", 8), ("dim", 64), ("num-layers", 2), ("batch-size", 2048)):
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument(
        "--loader-workers", type=int, default=1, help="processes that WarpRec samples in; 1 is its own choice"
    )
    options.add_argument("--learning-rate", type=float, default=5e-3)
    options.set_defaults(repeats=3)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    there = {OURS: Path(sys.executable)} | {name: interpreter(given.envs, name.lower()) for name in PEERS[given.model]}
    pythons = {name: python for name, python in there.items() if python is not None}
    notes = [f"{name} is left out: no environment under {given.envs}" for name in there if name not in pythons]
    chosen = {name: getattr(given, name) for name in ("model", "threads", "epochs", "dim", "num_layers", "batch_size")}
    chosen |= {"learning_rate": given.learning_rate, "k": 20, "eval_users": 256, "loader_workers": given.loader_workers}
    with tempfile.TemporaryDirectory() as scratch:
        dataset = data(given)
        split = dataset.split("published")
        places = write_data(dataset, split, Path(scratch))
        found = run(given, pythons, chosen | places | {"scratch": scratch})
    users = int((split.validation.user_counts > 0).sum())
    size = f"{dataset.num_users:,} users, {dataset.num_items:,} items, {len(split.train):,} train interactions"
    title = f"{given.model} on {dataset.name}: {size}"
    table = Table(title, rows(found, users, chosen["k"]), notes)
    publish(given, title, [table], **chosen, peers={name: each.versions for name, each in found.items()})


if __name__ == "__main__":
    main()
