"""What works and why: change one setting of a recipe at a time and look at validation; the test part is never read.

    python scripts/ablate.py                      everything that is missing
    python scripts/ablate.py --only tiktok        one data set
    python scripts/ablate.py --list               what there is and what is missing

For a study of its own, with seeds, tests and a page, see `metammf study`.

One JSON a change under ``results/ablations/``, made by the config that it holds; `scripts/fill_readme.py` puts them into
docs/findings.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))
from measure import BENCHES, DATASETS, ROOT, digest, is_of, prepare

if TYPE_CHECKING:
    from metammf.experiments.config import Merged

ABLATIONS = ROOT / "results" / "ablations"
RUNS = ROOT / "runs" / "ablations"


@dataclass(frozen=True)
class Study:
    """One recipe on one data set, and what is changed of it.

    Args:
        name: Of the results' folder.
        bench: Of `measure.BENCHES`.
        recipe: What all changes are changes of.
        changes: Words -> settings on top of the recipe's.
        common: Settings on top of the recipe's in all of them.
        bfloat16: Train under bfloat16 autocast; validation is looked at in float32.
    """

    name: str
    bench: str
    recipe: str
    changes: dict[str, tuple[str, ...]]
    common: tuple[str, ...] = ()
    bfloat16: bool = False


STATIC = ('model.fusion="concat"',)
ALIKE = {
    "as it stands": (),
    "static fusion": STATIC,
    "dynamic in all layers": ('model.dynamic_layers="all"',),
    "fusion decays as all else": ("training.fusion_weight_decay=1e-6",),
    "dot product for cosine": ("model.normalize=false", "training.temperature=1.0"),
    "no id dropout": ("model.id_dropout=0.0",),
    "three hops": ("model.num_layers=3",),
}
OWN_USERS = {
    "as it stands": (),
    "users of their own fusion": ('model.user_fusion="cp"',),
    "the same, static": ('model.user_fusion="concat"',),
    "the same, a sum of projections": ('model.user_fusion="sum"',),
    "users of their own fusion, some simulated cold": ('model.user_fusion="cp"', "model.simulated_cold_users=0.2"),
    "users of their own fusion, half simulated cold": ('model.user_fusion="cp"', "model.simulated_cold_users=0.5"),
    "users simulated cold, by their edges alone": ("model.simulated_cold_users=0.2",),
}
FOUR_AT_ONCE = ("training.batches_per_step=4",)
"""A quarter of the time an epoch, and no worse: `tiktok-shared-lightgcn`."""
COLD_USERS = ('split.method="cold-user"', "split.cold_share=0.2", "split.history_size=3")
# What the search of `results/lfm2k` chose for the static twin.
TWINS_SETTINGS = (
    *(
        'model.feature_scaling="center"',
        "model.id_dropout=0.4608",
        "model.edge_dropout=0.4383",
        "model.init_std=0.02153",
    ),
    *("model.num_layers=3", "training.shared_negatives=710", "training.temperature=0.165"),
    *("training.user_weight_exponent=0.5955", "training.learning_rate=0.004759", "training.weight_decay=1.407e-08"),
    *("training.fusion_learning_rate=0.000882", "training.fusion_weight_decay=1.821e-07"),
)
STUDIES = (
    Study(
        "tiktok",
        "tiktok",
        "metammf-lightgcn",
        ALIKE
        | {
            # As many positives a step as the softmax has.
            "BPR": ('training.objective="bpr"', "training.batch_size=10240"),
            "temperature .2": ("training.temperature=0.2",),
            "all interactions alike": ("training.user_weight_exponent=0.0",),
            "targets and edges stay in the graph": ("model.hide_targets=false", "model.edge_dropout=0.0"),
            "free vectors start at .1": ("model.init_std=0.1",),
            "fusion as fast as ids": ("training.fusion_learning_rate=5e-3",),
            "fusion dropout .2": ("model.fusion_dropout=0.2",),
            "cold items simulated, offset": ("model.simulated_cold=0.1", "model.cold_offset=true"),
        },
    ),
    Study(
        "tiktok-shared-lightgcn",
        "tiktok",
        "metammf-lightgcn",
        {
            "as it stands: 30 steps an epoch": (),
            "two batches a step": ("training.batches_per_step=2",),
            "four batches a step": ("training.batches_per_step=4",),
            "four batches a step, twice the learning rate": (
                "training.batches_per_step=4",
                "training.learning_rate=1e-2",
            ),
        },
        common=("training.epochs=24",),
    ),
    Study(
        "tiktok-shared-gcn",
        "tiktok",
        "metammf-gcn",
        {
            "as it stands: 100 steps an epoch": (),
            "ten batches a step": ("training.batches_per_step=10",),
            "ten batches a step, three times the learning rate": (
                "training.batches_per_step=10",
                "training.learning_rate=3e-3",
            ),
            "ten batches a step, ten times the learning rate": (
                "training.batches_per_step=10",
                "training.learning_rate=1e-2",
            ),
            "ten batches a step, eight times the epochs": (
                "training.batches_per_step=10",
                "training.epochs=80",
                "training.patience=80",
            ),
        },
        common=("training.epochs=10", "training.patience=10"),
        bfloat16=True,
    ),
    Study(
        "lfm2k-cold",
        "lfm2k-cold",
        "metammf-cold",
        ALIKE
        | {
            "sum of projections": ('model.fusion="sum"',),
            "gated fusion": ('model.fusion="gated"',),
            "attention over modalities": ('model.fusion="attention"',),
            "dynamic part as large as the shared one at the start": ("model.dynamic_scale=1.0",),
            "meta information without bound": ("model.bounded_meta=false",),
            "no hidden layer": ("model.hidden_dims=[]",),
            "BPR": ('training.objective="bpr"',),
            "CP, R = 16": ('model.fusion="cp"',),
            "CP, R = 64, S = 16": ('model.fusion="cp"', "model.cp_rank=64", "model.meta_dim=16"),
            "no simulated cold items": (
                "model.simulated_cold=0.0",
                "model.cold_offset=false",
                "model.content_neighbours=false",
            ),
            "no content neighbours": ("model.content_neighbours=false",),
            "no offset": ("model.cold_offset=false",),
            "columns standardised": ('model.feature_scaling="standardize"', "model.feature_components=10000"),
            "all columns": ("model.feature_components=10000",),
            "temperature .1": ("training.temperature=0.1",),
            "targets out of the graph": ("model.hide_targets=true",),
            "fusion decay 1e-3": ("training.fusion_weight_decay=1e-3",),
            "fusion decay 1e-2": ("training.fusion_weight_decay=1e-2",),
        },
    ),
    Study(
        "lfm2k-settings",
        "lfm2k",
        "metammf-lightgcn",
        {
            "as the static twin was tuned": (),
            "static fusion": STATIC,
            "a third of the dynamic part at the start": ("model.dynamic_scale=0.1",),
        },
        common=TWINS_SETTINGS,
    ),
    # Features of 1,024 columns: what the paper's extractor, as wide as they are, costs and brings.
    Study(
        "lfm2k-extractor",
        "lfm2k",
        "metammf-lightgcn",
        {
            "as it stands: the extractor 256 wide": (),
            "as wide as the features, as in the paper": ("model.meta_hidden_dim=1024",),
            "64 wide": ("model.meta_hidden_dim=64",),
            "static fusion": STATIC,
        },
    ),
    Study(
        "tiktok-width",
        "tiktok",
        "metammf-lightgcn",
        {
            "as it stands, D = 64": (),
            "D = 32": ("model.embedding_dim=32",),
            "D = 128": ("model.embedding_dim=128",),
            "D = 192": ("model.embedding_dim=192",),
            "D = 256": ("model.embedding_dim=256",),
            "static fusion, D = 192": (*STATIC, "model.embedding_dim=192"),
        },
        common=FOUR_AT_ONCE,
    ),
    Study("tiktok-users", "tiktok", "metammf-lightgcn", OWN_USERS, common=FOUR_AT_ONCE),
    # A fifth of the users is new and comes with three clips; what the graph does without content, and MF with content alone.
    Study(
        "tiktok-cold-users",
        "tiktok",
        "metammf-lightgcn",
        OWN_USERS
        | {
            "MF, users of their own fusion": (
                'model.backbone="mf"',
                'model.user_fusion="cp"',
                "model.simulated_cold_users=0.2",
            ),
        },
        common=(*COLD_USERS, *FOUR_AT_ONCE),
    ),
    # New users and new items at once: the published split's cold items.
    Study(
        "lfm2k-cold-users",
        "lfm2k",
        "metammf-cold",
        OWN_USERS
        | {
            "targets out of graph and histories": ('model.user_fusion="cp"', "model.hide_targets=true"),
            "items not simulated cold": (
                'model.user_fusion="cp"',
                "model.simulated_cold_users=0.2",
                "model.simulated_cold=0.0",
                "model.cold_offset=false",
                "model.content_neighbours=false",
            ),
        },
        common=COLD_USERS,
    ),
)


def result_of(study: Study, change: str) -> Path:
    """Return where the result of a change is."""
    name = "".join(letter if letter.isalnum() else "-" for letter in change.lower())
    return ABLATIONS / study.name / f"{name}.json"


def asked(study: Study, change: str) -> Merged:
    """Return the config of a change."""
    from metammf.experiments.config import merge, parse_settings

    bench = BENCHES[study.bench]
    settings = parse_settings([*bench.settings, *study.common, *study.changes[change]])
    if bench.split_follows_seed:
        settings["split.seed"] = 0
    return merge(study.recipe, settings, {"seed": 0})


def run(study: Study, change: str) -> None:
    """Train one change and write what validation says of it."""
    import torch

    from metammf.experiments.evaluating import evaluate_run
    from metammf.experiments.measuring import cost
    from metammf.experiments.run import RunOptions, train_run
    from metammf.files import write_json

    torch.set_num_threads(1)
    path, merged = result_of(study, change), asked(study, change)
    trained = train_run(
        merged,
        DATASETS / BENCHES[study.bench].source,
        RUNS / study.name / f"{path.stem}-{digest(merged.config)}",
        RunOptions(device="cpu", precision="bfloat16" if study.bfloat16 else "float32", resume=True),
    )
    found = evaluate_run(trained, part="validation")
    write_json(
        path,
        {
            "bench": study.bench,
            "recipe": study.recipe,
            "change": change,
            "settings": list(study.changes[change]),
            "config": trained.record["config"],
            "epochs": trained.record["epochs"],
            "cost": cost(trained),
            "validation": found.to_dict(),
        },
    )


def found_of(study: Study, change: str) -> dict[str, Any] | None:
    """Return the result of a change, of the recipe as it stands now; None where there is none."""
    from metammf.files import read_json

    path = result_of(study, change)
    if not path.is_file():
        return None
    found: dict[str, Any] = read_json(path)
    return found if is_of(asked(study, change).config, found["config"], study.bench) else None


def main() -> None:
    """Read the options and do what they say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[study.name for study in STUDIES], help="one data set")
    parser.add_argument("--at-once", type=int, default=2, help="runs at a time (2)")
    parser.add_argument("--list", action="store_true", help="say what is there and what is missing")
    parser.add_argument("--one", nargs=2, metavar="WORD", help=argparse.SUPPRESS)
    options = parser.parse_args()
    studies = {study.name: study for study in STUDIES if options.only in (None, study.name)}
    if options.one:
        run(studies[options.one[0]], options.one[1])
        return
    todo = []
    for study in studies.values():
        prepare(BENCHES[study.bench])
        for change in study.changes:
            there = found_of(study, change) is not None
            if options.list:
                print(f"{'there  ' if there else 'missing'} {study.name}: {change}")
            elif not there:
                todo.append((study, change))

    def one(job: tuple[Study, str]) -> bool:
        words = [job[0].name, job[1]]
        done = subprocess.run([sys.executable, __file__, "--one", *words], check=False, capture_output=True, text=True)
        print(f"{'FAILED' if done.returncode else 'done  '} {': '.join(words)}", flush=True)
        if done.returncode:
            print(done.stderr[-2000:], flush=True)
        return not done.returncode

    with ThreadPoolExecutor(options.at_once) as pool:
        if not all(list(pool.map(one, todo))):
            raise SystemExit("some runs failed; run this again to go on")


if __name__ == "__main__":
    main()
