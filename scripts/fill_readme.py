"""Write the tables of the README, of docs/results.md and of docs/findings.md from ``results/``; nothing by hand."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import ablate
from comparison_tables import short_table, whole_table
from comparisons import COMPARISONS
from doc_tables import ORDER, decimals, table
from measure import BENCHES
from metammf.evaluation.significance import holm, permutation_test
from metammf.experiments.compare import RESULTS_FILE
from metammf.experiments.comparison_results import ComparisonResults
from metammf.files import atomic_open
from metammf.report.cold_items import without_guesses
from metammf.report.names import label

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
_FEW_USERS = 30
"""Of fewer users a part's NDCG is not shown among the ablations."""
METRICS = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
TITLES = {
    "tiktok": "TikTok, published split, train left out",
    "lfm2k": "Last.fm 2K, published split, train left out",
    "lfm2k-cold": "Last.fm 2K, 20% of the items cold (a split a seed), train left out",
    "lfm2k-cold-audio": "Last.fm 2K, 20% of the items cold, the two acoustic modalities alone, train left out",
    "movielens-small": "MovieLens latest-small, each user's last interactions by time, train and validation left out",
    "world": "Worlds of known truth, those of `metammf demo` (a world a seed), train and validation left out",
}
# Worlds have users of their own each; elsewhere a user's difference is averaged over seeds.
OWN_USERS = ("world",)
# R@20 and N@20 as published for this split, masking train alone, with the 768-d text that the public files lack; the epoch was
# picked on the test part but for MMHCL.
PUBLISHED = {
    "LightGCN (DiffMM, Table 1)": (0.0653, 0.0282),
    "VBPR (DiffMM, Table 1)": (0.0380, 0.0134),
    "MMGCN (DiffMM, Table 1)": (0.0730, 0.0307),
    "GRCN (DiffMM, Table 1)": (0.0804, 0.0350),
    "LATTICE (DiffMM, Table 1)": (0.0843, 0.0367),
    "DiffMM": (0.1129, 0.0456),
    "MMHCL (epoch by validation)": (0.1139, 0.0492),
    "MDMNS": (0.1193, 0.0525),
}
TAGS = (
    "The textual features are made of tags that the same users gave, so that part of what they tell is the users' own taste;"
    " a table below has the same on audio alone, which has none of that."
)
CAPTIONS = {
    "tiktok": "Published rows are of models that had a textual modality too, which the public files lack; their epoch was chosen"
    " on the test part, but for MMHCL's. MetaMMF_MF, MetaMMF_GCN and their twins stand at the paper's widths, trained for at most"
    " 16 epochs (MF) or 10 (GCN, in bfloat16) with a patience of 3, which cuts some of them short. Seconds an epoch are by the"
    " clock, beside other work: processor seconds of all models are in benchmarks/README.md.",
    "lfm2k": TAGS,
    "lfm2k-cold": TAGS,
}
# Whose costs are printed.
COSTS = ("tiktok",)
TESTED = ("recall@20", "ndcg@20", "cold_among_all/ndcg@20", "warm/ndcg@20")
# Studies of `scripts/ablate.py` whose tables stand in the findings.
ABLATED = (
    "tiktok",
    "tiktok-shared-lightgcn",
    "tiktok-shared-gcn",
    "tiktok-width",
    "lfm2k-extractor",
    "lfm2k-settings",
    "lfm2k-cold",
    "tiktok-users",
    "tiktok-cold-users",
    "lfm2k-cold-users",
)
# Controls that a model is tested against beside its twin and its placebo.
CONTROLS = {
    "metammf-lightgcn": ("lightgcn", "ease", "p3"),
    "metammf-cold": ("lightgcn-cold", "ease", "p3"),
    "metammf-mf": ("ease",),
    "metammf-gcn": ("ease",),
}
Results = dict[str, dict[str, list[dict[str, Any]]]]


def load() -> Results:
    """Return bench -> model -> one result a seed."""
    found: Results = defaultdict(lambda: defaultdict(list))
    for path in sorted((ROOT / "results" / "recipes").glob("*/*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        found[result["job"]["bench"]][result["job"]["name"]].append(result)
    for bench, models in found.items():
        for name, runs in models.items():
            _refuse_mixed(f"{bench} {name}", runs)
    return found


def _refuse_mixed(row: str, runs: list[dict[str, Any]]) -> None:
    """A row is one config on one data set; seeds alone may differ, and with them the world."""
    for run in runs:
        kinds = []
        for one in (runs[0], run):
            config = one["run"]["config"]
            split = {key: value for key, value in config["split"].items() if key != "seed"}
            data = None if one["job"]["bench"] in OWN_USERS else one["run"]["data"]
            kinds.append((config["model"], config["training"], split, config["placebo"], data))
        if kinds[0] != kinds[1]:
            raise SystemExit(f"results of {row} are of different settings or data: run scripts/measure.py")


def spread(values: list[float]) -> str:
    """Return mean ± standard deviation, or the one value."""
    return decimals(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def order(name: str) -> tuple[int, str]:
    """Rows in the order of `ORDER`, a placebo behind its model."""
    return ORDER.index(name.partition("+")[0]), name


def bench_table(bench: str, models: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return one bench's table in Markdown."""
    head = ["model", "R@10", "N@10", "R@20", "N@20", "cold R@20", "cold N@20", "warm N@20", "validation R@20", "seeds"]
    rows = []
    for name in sorted(models, key=order):
        runs = models[name]
        cells = [spread([run["test"]["metrics"][metric] for run in runs]) for metric in METRICS]
        for part, metric in (("cold", "recall@20"), ("cold", "ndcg@20"), ("warm", "ndcg@20")):
            values = [run["test"][part]["among_all"][metric] for run in runs if run["test"][part]["among_all"]]
            cells.append(spread(values) if values else "")
        cells += [spread([run["validation"]["metrics"]["recall@20"] for run in runs]), str(len(runs))]
        rows.append([label(name), *cells])
    if bench == "tiktok":
        rows += [
            [f"*{name}, as published*", "", "", decimals(recall), decimals(ndcg), *[""] * 5]
            for name, (recall, ndcg) in PUBLISHED.items()
        ]
    caption = [CAPTIONS[bench], ""] if bench in CAPTIONS else []
    return [f"**{TITLES[bench]}**", "", *table(head, rows), *caption]


def shared_seeds(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> list[int]:
    """Return the seeds that both have; one that was solved, not drawn, has any where the split is one for all."""
    ours, theirs = ({run["job"]["seed"] for run in runs} for runs in (a, b))
    one_split = not BENCHES[b[0]["job"]["bench"]].split_follows_seed
    solved = b[0]["run"]["epochs"] is None and len(b) == 1 and one_split
    return sorted(ours if solved else ours & theirs)


def differences(a: list[dict[str, Any]], b: list[dict[str, Any]], metric: str) -> np.ndarray[Any, Any]:
    """Return each user's difference, averaged over the seeds that both models have.

    Raises:
        SystemExit: two runs of a pair were measured on other users.
    """
    seeds = shared_seeds(a, b)
    others = {run["job"]["seed"]: run for run in b}
    pairs = [(run, others.get(run["job"]["seed"], b[0])) for run in a if run["job"]["seed"] in seeds]
    totals: dict[str, float] = defaultdict(float)
    times: dict[str, int] = defaultdict(int)
    for pair in pairs:
        job = pair[0]["job"]
        world = f"{job['seed']}:" if job["bench"] in OWN_USERS else ""
        for user in _users_of(pair, metric):
            times[world + user] += 1
            # Of these users, those without a hit alone have no value.
            first, second = (run["test_per_user"][metric]["values"].get(user, 0.0) for run in pair)
            totals[world + user] += first - second
    return np.array([totals[user] / times[user] for user in times])


def _users_of(pair: tuple[dict[str, Any], dict[str, Any]], metric: str) -> list[str]:
    """Return the users that both runs were measured on by a metric; none where its table has no interactions."""
    first, second = (run["test_per_user"].get(metric, {"users": []})["users"] for run in pair)
    if apart := set(first) ^ set(second):
        a, b = (f"{run['job']['name']} of seed {run['job']['seed']}" for run in pair)
        raise SystemExit(
            f"results/recipes/{pair[0]['job']['bench']}: {metric}: expected {a} and {b} to be of the same users, found"
            f" {len(first)} and {len(second)} of which {len(apart)} are in one alone: run scripts/measure.py"
        )
    return list(first)


def tests(models: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the paired tests of each fusion against its static twin and its placebo, Holm-corrected over all of them."""
    pairs = []
    for name in sorted(models, key=order):
        if "+" in name:
            continue
        twin = [name.replace("metammf-", "static-").removesuffix("-cp")] if name.startswith("metammf-") else []
        others = [*twin, f"{name}+noise", *CONTROLS.get(name, ())]
        pairs += [
            (name, other, metric)
            for other in others
            if other in models
            for metric in TESTED[: 2 if other in ("ease", "p3") else None]
        ]
    if not pairs:
        return []
    found = [differences(models[a], models[b], metric) for a, b, metric in pairs]
    adjusted = holm([permutation_test(each) if len(each) else 1.0 for each in found])
    rows = []
    for (a, b, metric), each, p in zip(pairs, found, adjusted, strict=True):
        if len(each):
            gain = f"{each.mean():+.4f}"
            seeds = len(shared_seeds(models[a], models[b]))
            rows.append([f"{label(a)} against {label(b)}", metric.replace("_", " "), gain, f"{p:.4f}", str(seeds)])
    return table(["paired test over users", "metric", "ahead by", "p (Holm)", "seeds"], rows)


def recovered(models: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return how well each fusion finds out which modality matters for which item, where that is known."""
    names = [name for name in sorted(models, key=order) if "recovery" in models[name][0]]
    if not names:
        return []
    head = ["recovered modality weights", "Spearman", "Pearson", "first modality found", "by chance"]
    rows = []
    for name in names:
        found = [run["recovery"] for run in models[name]]
        cells = [spread([one[key] for one in found]) for key in ("spearman", "pearson", "top_found", "top_chance")]
        rows.append([label(name), *cells])
    return table(head, rows)


def costs(models: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return what the first seed's run of each trained model took."""
    head = ["cost, one thread", "epochs", "best", "s an epoch (median)", "peak resident MiB", "precision"]
    rows = []
    for name in sorted(models, key=order):
        run = models[name][0]
        cost = run["cost"]
        if cost["epochs"]:
            cells = [str(cost["epochs"]), str(run["run"]["epochs"]), f"{cost['median_epoch_seconds']:.0f}"]
            cells += [f"{cost['peak_resident_mib']:.0f}", run["environment"]["precision"]]
            rows.append([label(name), *cells])
    return table(head, rows)


def _part(tables: dict[str, Any], part: str) -> float | None:
    """Return NDCG@20 of cold items, warm ones or cold users; None of a handful of users, which would tell nothing."""
    found = tables.get(part, {})
    return found["among_all"]["ndcg@20"] if found.get("num_users", 0) >= _FEW_USERS else None


def _shown(value: float | None) -> str:
    return "–" if value is None else decimals(value)


def ablations(name: str) -> list[str]:
    """Return the table of one study of `scripts/ablate.py`: of what that asks for, as its recipe stands now."""
    study = next(one for one in ablate.STUDIES if one.name == name)
    results = {ablate.result_of(study, change): ablate.found_of(study, change) for change in study.changes}
    for path in sorted((ablate.ABLATIONS / name).glob("*.json")):
        if results.get(path) is None:
            print(f"{path}: passed over, not of the changes and the recipe that scripts/ablate.py has now", flush=True)
    found = [one for one in results.values() if one is not None]
    if not found:
        return []
    base = [one for one in found if not one["settings"]]
    rest = sorted(
        (one for one in found if one["settings"]), key=lambda one: -float(one["validation"]["metrics"]["ndcg@20"])
    )
    timed = all("cost" in one for one in found)
    head = [f"`{found[0]['recipe']}`, seed 0, validation", "R@20", "N@20", "cold N@20", "warm N@20", "epoch"]
    cold_users = any(_part(one["validation"], "cold_users") is not None for one in found)
    head += (["cold users N@20"] if cold_users else []) + (["s an epoch"] if timed else [])
    rows = []
    for one in base + rest:
        tables = one["validation"]
        values = [tables["metrics"]["recall@20"], tables["metrics"]["ndcg@20"]]
        values += [_part(tables, part) for part in ("cold", "warm")]
        cells = [*map(_shown, values), str(one["epochs"])]
        cells += [_shown(_part(tables, "cold_users"))] if cold_users else []
        cells += [f"{one['cost']['median_epoch_seconds']:.1f}"] if timed else []
        settings = ", ".join(f"`{setting}`" for setting in one["settings"])
        rows.append([f"{one['change']}{': ' + settings if settings else ''}", *cells])
    return table(head, rows)


def replace_between(path: Path, begin: str, end: str, lines: list[str]) -> None:
    """Replace what stands between two marks of a file; no lines leave nothing there."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f"{path}: expected {begin} and {end}")
    with atomic_open(path) as stream:
        stream.write(before + begin + "\n" + "\n".join(["", *lines, ""]) + end + after)


def not_run(script: str) -> list[str]:
    """Say that something is still to be measured, and by what."""
    return [f"Not run yet: `python scripts/{script}`.", ""]


def fill_comparisons(root: Path = ROOT) -> None:
    """Put each comparison that is there into docs/results.md, and a shorter table into the README where that has its marks."""
    for name in COMPARISONS:
        path = root / "results" / name / RESULTS_FILE
        begin, end = (f"<!-- comparison-{name}:{mark} -->" for mark in ("begin", "end"))
        if not path.is_file():
            replace_between(root / "docs" / "results.md", begin, end, not_run(f"comparisons.py --only {name}"))
            continue
        found = without_guesses(ComparisonResults.read(path))
        replace_between(root / "docs" / "results.md", begin, end, whole_table(found))
        readme = root / "README.md"
        if begin in readme.read_text(encoding="utf-8"):
            replace_between(readme, begin, end, short_table(found))


def main() -> None:
    """Replace what stands between the marks of the documents."""
    results = load()
    whole = [
        "Means ± standard deviation over seeds, on the test part; a row of fewer seeds is not measured to its end.",
        "",
    ]
    for bench in TITLES:
        if bench in results:
            models = results[bench]
            whole += [*bench_table(bench, models), *tests(models), *recovered(models)]
            whole += costs(models) if bench in COSTS else []
    replace_between(ROOT / "docs" / "results.md", BEGIN, END, whole)
    fill_comparisons()
    for bench in ABLATED:
        begin, end = (f"<!-- {bench}:{mark} -->" for mark in ("begin", "end"))
        lines = ablations(bench) or not_run(f"ablate.py --only {bench}")
        replace_between(ROOT / "docs" / "findings.md", begin, end, lines)


if __name__ == "__main__":
    main()
