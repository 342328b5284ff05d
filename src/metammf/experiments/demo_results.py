"""The demo's outcomes as plain data: tables, tests, recovered weights, curves and the map."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from metammf.data.dataset import PARTS
from metammf.evaluation.result import TABLES
from metammf.evaluation.significance import compare, holm, over_seeds
from metammf.experiments.demo_plan import BACKBONES, FUSIONS, NETWORK, TRAINING
from metammf.experiments.environment import environment
from metammf.experiments.projection import neighbour_purity
from metammf.experiments.recovery import binned, recovery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from metammf.data.splitting import Split
    from metammf.data.synthetic import World
    from metammf.evaluation.result import Evaluation
    from metammf.experiments.demo_jobs import Outcome
    from metammf.experiments.demo_plan import DemoPlan, Entry

FORMAT = "metammf-demo-1"
METRICS = ("ndcg@20", "recall@20", "ndcg@10", "recall@10")
TESTED = "ndcg@20"
MAPPED_ITEMS = 1_000


def describe_outcome(outcome: Outcome) -> str:
    """Say in a few words what one run found."""
    return f"{outcome.key} seed {outcome.seed}: {TESTED} {outcome.evaluation.metrics[TESTED]:.4f}"


def collect(world: World, split: Split, plan: DemoPlan, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Put everything together; JSON can hold it."""
    by_key = {entry.key: [one for one in outcomes if one.key == entry.key] for entry in plan.entries}
    return {
        "format": FORMAT,
        "seed": plan.seed,
        "seeds": list(range(plan.seed, plan.seed + plan.num_seeds)),
        "metric": TESTED,
        "world": _world(world, split),
        "settings": {
            "All networks": dict(NETWORK),
            "On GCN": dict(BACKBONES["gcn"]),
            "Dynamic fusion": dict(FUSIONS["metammf"]),
            "Static fusion": dict(FUSIONS["static"]),
            "Training": {**TRAINING, **plan.training},
        },
        "models": [_model(entry, by_key[entry.key], world) for entry in plan.entries],
        "comparisons": _comparisons(plan.entries, by_key),
        "map": _map(plan, by_key, world),
        "environment": environment("cpu", "float32"),
    }


def _world(world: World, split: Split) -> dict[str, Any]:
    dataset, cold = world.dataset, split.cold_items
    popular = np.sort(split.train.item_counts)[::-1]
    top = max(1, dataset.num_items // 10)
    return {
        "name": dataset.name,
        "arguments": dataset.provenance["arguments"],
        "num_users": dataset.num_users,
        "num_items": dataset.num_items,
        "num_interactions": len(dataset.interactions),
        "density": len(dataset.interactions) / (dataset.num_users * dataset.num_items),
        "parts": {name: len(getattr(split, name)) for name in PARTS},
        "num_cold_items": int(cold.sum()),
        "num_cold_test": int(cold[split.test.items].sum()),
        "top_tenth_share": float(popular[:top].sum() / popular.sum()),
        "modalities": [
            {"name": name, "width": width, "missing": float(1 - dataset.features.present[name].mean())}
            for name, width in dataset.features.widths.items()
        ],
        "dominant": np.bincount(
            world.truth.modality_weights.argmax(axis=1), minlength=len(world.truth.modalities)
        ).tolist(),
    }


def _model(entry: Entry, runs: Sequence[Outcome], world: World) -> dict[str, Any]:
    return {
        "key": entry.key,
        "label": entry.label,
        "role": entry.role,
        "twin": entry.twin,
        "placebo_of": entry.placebo_of,
        "settings": dict(entry.model),
        "parameters": runs[0].parameters,
        "seconds": float(np.mean([run.seconds for run in runs])),
        "tables": {name: _summary([run.evaluation for run in runs], name) for name in TABLES},
        "runs": [
            {
                "seed": run.seed,
                "epoch": run.epoch,
                "epochs": len(run.curve),
                "seconds": run.seconds,
                "evaluation": run.evaluation.to_dict(),
                "curve": list(run.curve),
            }
            for run in runs
        ],
        "recovery": _recovery(runs, world),
    }


def _summary(evaluations: Sequence[Evaluation], table: str) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds of each metric of a table; empty where the table is."""
    narrowed = [replace(one, metrics=one.tables[table]) for one in evaluations]
    if not narrowed[0].metrics:
        return {}
    found = over_seeds(narrowed)
    return {name: {"mean": mean, "std": std} for name, (mean, std) in found.items() if name in METRICS}


def _recovery(runs: Sequence[Outcome], world: World) -> dict[str, Any] | None:
    shares = [run.shares for run in runs if run.shares is not None]
    if not shares:
        return None
    truth = world.truth
    present = np.stack(list(world.dataset.features.present.values()), axis=1)
    found = [recovery(one, truth.modality_weights, present, truth.modalities) for one in shares]
    summary: dict[str, Any] = {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}
        for name in ("pearson", "spearman", "top_found")
        for values in [[one[name] for one in found]]
    }
    return summary | {
        "top_chance": found[0]["top_chance"],
        "by_modality": found[0]["by_modality"],
        "bins": binned(shares[0], truth.modality_weights, present),
    }


def _comparisons(entries: Sequence[Entry], by_key: dict[str, list[Outcome]]) -> list[dict[str, Any]]:
    """Each dynamic model against its static twin, and each fusion against its placebo; one correction over them all."""
    pairs = [(entry.key, entry.twin, "static") for entry in entries if entry.twin is not None]
    pairs += [(entry.placebo_of, entry.key, "placebo") for entry in entries if entry.placebo_of is not None]
    rows = []
    for key, other, against in pairs:
        # The same seeds on both sides: a mean over more of them would be ahead for that alone.
        seeds = {run.seed for run in by_key[key]} & {run.seed for run in by_key[other]}
        a, b = ([run.evaluation for run in by_key[name] if run.seed in seeds] for name in (key, other))
        for table, prefix in TABLES.items():
            if a[0].tables[table]:
                rows.append(
                    ({"model": key, "other": other, "against": against, "table": table}, compare(a, b, prefix + TESTED))
                )
    adjusted = holm([one.p_permutation for _, one in rows]).tolist()
    return [
        about | asdict(replace(one, p_adjusted=p)) | {"metric": TESTED}
        for (about, one), p in zip(rows, adjusted, strict=True)
    ]


def mapped_items(plan: DemoPlan, world: World) -> NDArray[np.int64]:
    """Return the items that the map shows, drawn by the seed."""
    order = np.random.default_rng(plan.seed).permutation(len(world.truth.cold_items))
    return np.sort(order[:MAPPED_ITEMS])


def _map(plan: DemoPlan, by_key: dict[str, list[Outcome]], world: World) -> dict[str, Any]:
    """The fused vectors of each fusion's first run in two dimensions, and what is true of the items."""
    truth, items = world.truth, mapped_items(plan, world)
    titles = world.dataset.catalog.titles or [None] * len(truth.cold_items)
    dominant = truth.modality_weights[items].argmax(axis=1)
    panels = {}
    for key, runs in by_key.items():
        fused, layout = runs[0].fused, runs[0].layout
        if fused is not None and layout is not None:
            x, y = layout.astype(np.float64).round(2).T.tolist()
            panels[key] = {"x": x, "y": y, "purity": neighbour_purity(fused, dominant)}
    shares = np.bincount(dominant) / len(dominant)
    return {
        "items": world.dataset.catalog.item_ids.ids[items].tolist(),
        "titles": [titles[item] for item in items],
        "dominant": [truth.modalities[place] for place in dominant],
        "weight": truth.modality_weights[items].max(axis=1).astype(np.float64).round(3).tolist(),
        "purity_by_chance": float((shares**2).sum()),
        "panels": panels,
    }
