"""Write the README's results section from ``results/``: means over seeds, cold items, paired tests; nothing by hand."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from metammf.evaluation.significance import holm, permutation_test
from metammf.files import atomic_open

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
METRICS = ("recall@10", "ndcg@10", "recall@20", "ndcg@20")
TITLES = {
    "tiktok": "TikTok, published split, train left out",
    "lfm2k": "Last.fm 2K, published split, train left out",
    "lfm2k-cold": "Last.fm 2K, 20% of the items cold (a split a seed), train left out",
    "movielens-small": "MovieLens latest-small, each user's last interactions by time, train and validation left out",
    "world": "Worlds of known truth, those of `metammf demo` (a world a seed), train and validation left out",
}
# Worlds have users of their own each; elsewhere a user's difference is averaged over seeds.
OWN_USERS = ("world",)
NAMES = {
    "popularity": "Popularity",
    "p3": "P3",
    "ease": "EASE",
    "lightgcn": "LightGCN, ids alone",
    "static-mf": "static twin of MetaMMF_MF",
    "metammf-mf": "MetaMMF_MF",
    "static-gcn": "static twin of MetaMMF_GCN",
    "metammf-gcn": "MetaMMF_GCN",
    "static-lightgcn": "static twin of MetaMMF on LightGCN",
    "metammf-lightgcn": "MetaMMF on LightGCN",
    "lightgcn-cold": "LightGCN, ids alone",
    "static-cold": "static twin of MetaMMF on LightGCN",
    "metammf-cold-cp": "MetaMMF on LightGCN, CP",
    "metammf-cold": "MetaMMF on LightGCN, dense",
}
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
TESTED = ("recall@20", "ndcg@20", "cold_among_all/ndcg@20", "warm/ndcg@20")
Results = dict[str, dict[str, list[dict[str, Any]]]]


def load() -> Results:
    """Return bench -> model -> one result a seed."""
    found: Results = defaultdict(lambda: defaultdict(list))
    for path in sorted((ROOT / "results").glob("*/*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        found[result["job"]["bench"]][result["job"]["name"]].append(result)
    return found


def spread(values: list[float]) -> str:
    """Return mean ± standard deviation, or the one value."""
    text = f"{np.mean(values):.4f}".removeprefix("0")
    return text + (f" ± {np.std(values, ddof=1):.4f}".replace("± 0", "± ") if len(values) > 1 else "")


def label(name: str) -> str:
    """Return a row's name in words."""
    recipe, _, placebo = name.partition("+")
    return NAMES[recipe] + (", features replaced by noise" if placebo else "")


def order(name: str) -> tuple[int, str]:
    """Rows in the order of `NAMES`, a placebo behind its model."""
    return list(NAMES).index(name.partition("+")[0]), name


def table(bench: str, models: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return one bench's table in Markdown."""
    head = ["model", "R@10", "N@10", "R@20", "N@20", "cold R@20", "cold N@20", "warm N@20", "validation R@20", "seeds"]
    lines = [f"**{TITLES[bench]}**", "", "| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for name in sorted(models, key=order):
        runs = models[name]
        cells = [spread([run["test"]["metrics"][metric] for run in runs]) for metric in METRICS]
        for part, metric in (("cold", "recall@20"), ("cold", "ndcg@20"), ("warm", "ndcg@20")):
            values = [run["test"][part]["among_all"][metric] for run in runs if run["test"][part]["among_all"]]
            cells.append(spread(values) if values else "")
        cells += [spread([run["validation"]["metrics"]["recall@20"] for run in runs]), str(len(runs))]
        lines.append(f"| {label(name)} | " + " | ".join(cells) + " |")
    if bench == "tiktok":
        for name, (recall, ndcg) in PUBLISHED.items():
            cells = ["", "", f"{recall:.4f}"[1:], f"{ndcg:.4f}"[1:], "", "", "", "", ""]
            lines.append(f"| *{name}, as published* | " + " | ".join(cells) + " |")
    return [*lines, ""]


def differences(a: list[dict[str, Any]], b: list[dict[str, Any]], metric: str) -> np.ndarray[Any, Any]:
    """Return each user's difference, averaged over the seeds that both models have."""
    seeds = {run["job"]["seed"]: run for run in b}
    pairs = [(run, seeds[run["job"]["seed"]]) for run in a if run["job"]["seed"] in seeds]
    totals: dict[str, float] = defaultdict(float)
    times: dict[str, int] = defaultdict(int)
    for pair in pairs:
        if metric not in pair[0]["test_per_user"]:
            continue
        job = pair[0]["job"]
        world = f"{job['seed']}:" if job["bench"] in OWN_USERS else ""
        for user in pair[0]["test_per_user"][metric]["users"]:
            times[world + user] += 1
            first, second = (run["test_per_user"][metric]["values"].get(user, 0.0) for run in pair)
            totals[world + user] += first - second
    return np.array([totals[user] / times[user] for user in times])


def tests(models: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the paired tests of each fusion against its static twin and its placebo, Holm-corrected over all of them."""
    pairs = []
    for name in sorted(models, key=order):
        if "+" in name:
            continue
        twin = [name.replace("metammf-", "static-").removesuffix("-cp")] if name.startswith("metammf-") else []
        others = [*twin, f"{name}+noise"]
        pairs += [(name, other, metric) for other in others if other in models for metric in TESTED]
    if not pairs:
        return []
    found = [differences(models[a], models[b], metric) for a, b, metric in pairs]
    adjusted = holm([permutation_test(each) if len(each) else 1.0 for each in found])
    lines = ["| paired test over users | metric | ahead by | p (Holm) |", "|---|---|---:|---:|"]
    for (a, b, metric), each, p in zip(pairs, found, adjusted, strict=True):
        if len(each):
            gain = f"{each.mean():+.4f}"
            lines.append(f"| {label(a)} against {label(b)} | {metric.replace('_', ' ')} | {gain} | {p:.4f} |")
    return [*lines, ""]


def recovered(models: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return how well each fusion finds out which modality matters for which item, where that is known."""
    names = [name for name in sorted(models, key=order) if "recovery" in models[name][0]]
    if not names:
        return []
    head = ["recovered modality weights", "Spearman", "Pearson", "first modality found", "by chance"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for name in names:
        found = [run["recovery"] for run in models[name]]
        cells = [spread([one[key] for one in found]) for key in ("spearman", "pearson", "top_found", "top_chance")]
        lines.append(f"| {label(name)} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def main() -> None:
    """Replace what stands between the marks in the README."""
    results = load()
    lines = [
        "Means ± standard deviation over seeds, on the test part; a row of fewer seeds is not measured to its end.",
        "",
    ]
    for bench in TITLES:
        if bench in results:
            lines += [*table(bench, results[bench]), *tests(results[bench]), *recovered(results[bench])]
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{readme}: expected {BEGIN} and {END}")
    with atomic_open(readme) as stream:
        stream.write(before + BEGIN + "\n\n" + "\n".join(lines) + "\n" + END + after)


if __name__ == "__main__":
    main()
