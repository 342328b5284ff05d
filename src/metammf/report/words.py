"""What the demo's numbers say, in plain words computed from them; they read right whoever wins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEVEL = 0.05
_MULTIPLE = 3
_METRICS = {"ndcg": "NDCG", "recall": "Recall"}
_BACKBONES = {"mf": "MF", "graphsage": "GCN", "lightgcn": "LightGCN", "gat": "GAT"}
ONE_SEED = (
    "Trained with one seed: the tests below say what users decide, and nothing of what chance does in training. Another seed may"
    " turn any of these; --seeds 3 or more would tell."
)
"""What stands above tests that know nothing of the spread over seeds."""
TABLE_NAMES = {
    "all": "all test clips",
    "warm": "warm clips",
    "cold_among_all": "cold clips among all",
    "cold_among_cold": "cold clips among cold",
}

Row = dict[str, Any]


def number(value: float) -> str:
    """Four decimals, as metrics are printed in this field."""
    return f"{value:.4f}"


def signed(value: float) -> str:
    """Four decimals and a sign, which what rounds to zero has none of."""
    text = f"{value:+.4f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def with_spread(cell: Mapping[str, float]) -> str:
    """Mean and standard deviation, where there is one."""
    return number(cell["mean"]) + (f" ± {cell['std']:.4f}" if cell["std"] else "")


def p_value(p: float) -> str:
    """A p-value as people write it, held together by spaces that do not break."""
    return "p\u00a0<\u00a00.001" if p < 0.001 else f"p\u00a0=\u00a0{p:.3f}" if p < 0.1 else f"p\u00a0=\u00a0{p:.2f}"


def least(p: float) -> str:
    """The smallest p that a test can give, however small, without an exponent."""
    return np.format_float_positional(p, precision=1, fractional=False, trim="-")


def change(row: Row) -> str:
    """How much the first of a pair is ahead, relative to the second; as a multiple where it is several times as much."""
    if not row["mean_b"]:
        return signed(row["difference"])
    if row["mean_a"] >= _MULTIPLE * row["mean_b"]:
        return f"{row['mean_a'] / row['mean_b']:.0f} times as much"
    return f"{100 * row['difference'] / row['mean_b']:+.1f}%".replace("-", "−")


def verdict(row: Row) -> str:
    """Return "ahead", "behind" or "level": the corrected paired test decides."""
    if row["p_adjusted"] >= LEVEL or not row["difference"]:
        return "level"
    return "ahead" if row["difference"] > 0 else "behind"


def listed(words: Sequence[str]) -> str:
    """A, B and C."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def of_table(model: Mapping[str, Any], table: str) -> Mapping[str, Any]:
    """The metrics of a model in a table.

    A control knows no content, so that nothing tells it one cold clip from another: its order of them would be that of the index.
    """
    blind = model["role"] == "control" and table == "cold_among_cold"
    found: Mapping[str, Any] = {} if blind else model["tables"][table]
    return found


def pick(results: Mapping[str, Any], against: str, table: str, model: str | None = None) -> list[Row]:
    """Return the comparisons of a kind."""
    return [
        row
        for row in results["comparisons"]
        if row["against"] == against and row["table"] == table and model in (None, row["model"])
    ]


def headline(results: Mapping[str, Any]) -> str:
    """The outcome of dynamic against static fusion over all test clips, in one sentence; and where it is another."""
    verdicts = {row["model"]: verdict(row) for row in pick(results, "static", "all")}
    kinds = set(verdicts.values())
    if kinds in ({"ahead"}, {"behind"}):
        return _one_sided(results, *kinds)
    if kinds == {"level"}:
        return "A fusion network for every clip and one for all clips cannot be told apart"
    names = {key: _BACKBONES[backbone] for key, backbone in _backbones(results).items()}
    says = {"ahead": "ahead of", "level": "not to be told from", "behind": "behind"}
    parts = [
        f"{phrase} static fusion on {listed([names[key] for key, found in verdicts.items() if found == kind])}"
        for kind, phrase in says.items()
        if kind in kinds
    ]
    return f"A network for every clip: {listed(parts)}"


def _one_sided(results: Mapping[str, Any], kind: str) -> str:
    """What is told where all backbones agree over all clips: warm or new clips alone may not."""
    dynamic = "it" if kind == "ahead" else "the latter"
    exceptions = []
    for table, where in (("warm", "on clips watched before"), ("cold_among_all", "on new clips")):
        there = {verdict(row) for row in pick(results, "static", table)}
        if there - {kind}:
            stands = f"{dynamic} is {next(iter(there)) if len(there) == 1 else f'not {kind}'}"
            exceptions.append(f"{where} {'the two cannot be told apart' if there == {'level'} else stands}")
    if kind == "ahead":
        says = "a fusion network for every clip beats one network for all clips"
    else:
        says = "one fusion network for all clips beats a network for every clip"
    if not exceptions:
        return says[0].upper() + says[1:]
    return f"Over all clips, {says.removesuffix(' clips')}; {listed(exceptions)}"


def _backbones(results: Mapping[str, Any]) -> dict[str, str]:
    return {model["key"]: model["settings"]["backbone"] for model in results["models"] if model["role"] == "dynamic"}


def findings(results: Mapping[str, Any]) -> list[str]:
    """What was found, a sentence or two each."""
    found = [
        _against(results, "static", "all", "On all test clips"),
        _against(results, "static", "cold_among_all", "On cold clips, which nobody watched in training,"),
        _against(results, "static", "warm", "On warm clips"),
        _content(results),
        _recovered(results),
        _best(results),
    ]
    return [sentence for sentence in found if sentence]


def _against(results: Mapping[str, Any], against: str, table: str, opening: str) -> str:
    rows = pick(results, against, table)
    if not rows:
        return ""
    labels = {model["key"]: model["label"] for model in results["models"]}
    says = {"ahead": "is ahead of", "behind": "is behind", "level": "cannot be told apart from"}
    parts = [
        f"{labels[row['model']]} {says[verdict(row)]} its static twin ({number(row['mean_a'])} against"
        f" {number(row['mean_b'])}, {change(row)}; {p_value(row['p_adjusted'])})"
        for row in rows
    ]
    return f"{opening} {'; '.join(parts)}."


def _content(results: Mapping[str, Any]) -> str:
    rows = [*pick(results, "placebo", "all"), *pick(results, "placebo", "cold_among_all")]
    if not rows:
        return ""
    ahead = sum(verdict(row) == "ahead" for row in rows)
    if ahead == len(rows):
        opening = "Content counts: every fusion beats the same network fed noise in the place of its features"
    elif ahead:
        behind = sum(verdict(row) == "behind" for row in rows)
        opening = f"Content counts in part: in {ahead} of {len(rows)} tests a fusion beats the same network fed noise"
        opening += f", in {behind} the noise is ahead" if behind else ""
    else:
        opening = "Content does not show: no fusion beats the same network fed noise in the place of its features"
    gains = [f"{change(row)} on {TABLE_NAMES[row['table']]}" for row in rows if row["model"] == rows[0]["model"]]
    label = next(model["label"] for model in results["models"] if model["key"] == rows[0]["model"])
    return f"{opening} ({label}: {listed(gains)}).{_noise_on_warm(results)}"


def _noise_on_warm(results: Mapping[str, Any]) -> str:
    """Who is ahead of its placebo on warm clips and who is not, by name and with how far: there the ids tell much already."""
    rows, names = pick(results, "placebo", "warm"), {model["key"]: model["label"] for model in results["models"]}
    says = {"ahead": "ahead of the noise", "behind": "behind the noise", "level": "not to be told from it"}
    there = []
    for kind, phrase in says.items():
        named = [f"{names[row['model']]} ({change(row)})" for row in rows if verdict(row) == kind]
        if named:
            there.append(f"{listed(named)} {'is' if len(named) == 1 else 'are'} {phrase}")
    return f" On warm clips alone {listed(there)}." if there else ""


def _recovered(results: Mapping[str, Any]) -> str:
    fused = {model["key"]: model for model in results["models"] if model["recovery"]}
    dynamic = [model for model in fused.values() if model["role"] == "dynamic"]
    if not dynamic:
        return ""
    best = max(dynamic, key=lambda model: float(model["recovery"]["pearson"]["mean"]))
    r = best["recovery"]["pearson"]["mean"]
    follows = "follows" if r >= 0.4 else "follows loosely" if r >= 0.2 else ""
    says = f"{follows} how much that modality truly carries" if follows else "does not tell what it truly carries"
    others = [f"its static twin {_r(fused[best['twin']]['recovery']['pearson']['mean'])}"]
    placebo = fused.get(f"{best['key']}-noise")
    if placebo is not None:
        others.append(f"fed noise {_r(placebo['recovery']['pearson']['mean'])}")
    top = best["recovery"]
    return (
        f"The share of a modality in {best['label']}'s fused vector {says} ({_r(r)}; {', '.join(others)});"
        f" the modality that a clip is about comes first in {top['top_found']['mean']:.0%} of the clips"
        f" ({top['top_chance']:.0%} by always naming the same one)."
    )


def _r(value: float) -> str:
    return f"r\u00a0=\u00a0{value:.2f}".replace("-", "−")


def _best(results: Mapping[str, Any]) -> str:
    metric = results["metric"]
    real = [model for model in results["models"] if model["role"] != "placebo"]
    ranked = sorted(real, key=lambda model: -model["tables"]["all"][metric]["mean"])
    first = ranked[0]
    controls = [model for model in ranked if model["role"] == "control" and model is not first]
    others = [f"{model['label']} {number(model['tables']['all'][metric]['mean'])}" for model in controls]
    rest = f"; of the controls, which know no content: {listed(others)}" if others else ""
    value = with_spread(first["tables"]["all"][metric])
    told = f"Best of all over all test clips: {first['label']}, {metric_name(metric)} {value}{rest}."
    warm = max(real, key=lambda model: float(model["tables"]["warm"].get(metric, {"mean": 0.0})["mean"]))
    if warm is first or not warm["tables"]["warm"]:
        return told
    return f"{told} On warm clips alone: {warm['label']}, {with_spread(warm['tables']['warm'][metric])}."


def metric_name(metric: str) -> str:
    """NDCG@20 for ndcg@20."""
    name, _, k = metric.partition("@")
    return f"{_METRICS.get(name, name)}@{k}"


def cards(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The few numbers to see first: of the dynamic model that is best over all test clips."""
    metric = results["metric"]
    dynamic = [model for model in results["models"] if model["role"] == "dynamic"]
    best = max(dynamic, key=lambda model: float(model["tables"]["all"][metric]["mean"]))
    kinds = (
        ("static", "all", "against its static twin, all test clips"),
        ("static", "cold_among_all", "against its static twin, cold clips"),
        ("static", "warm", "against its static twin, warm clips"),
        ("placebo", "all", "against itself fed noise, all test clips"),
        ("placebo", "warm", "against itself fed noise, warm clips"),
    )
    made = [
        {
            "value": change(row),
            "label": label,
            "note": f"{_shared_seeds(results, row)}{number(row['mean_a'])} against {number(row['mean_b'])};"
            f" {p_value(row['p_adjusted'])}",
            "kind": verdict(row),
        }
        for against, table, label in kinds
        for row in pick(results, against, table, best["key"])
    ]
    found = best["recovery"]
    note = (
        f"Pearson over clips and modalities; its static twin {_r(_twin(results, best)['recovery']['pearson']['mean'])}"
    )
    made.append(
        {"value": _r(found["pearson"]["mean"]), "label": "recovered against true weights", "note": note, "kind": ""}
    )
    return [{**card, "model": best["label"]} for card in made]


def _shared_seeds(results: Mapping[str, Any], row: Row) -> str:
    """Name the seeds that a comparison is of, where those are not all: its means are others than those of the tables then."""
    runs = {model["key"]: {run["seed"] for run in model["runs"]} for model in results["models"]}
    shared = sorted(runs[row["model"]] & runs[row["other"]])
    if len(shared) == len(results["seeds"]):
        return ""
    return f"seed{'s' if len(shared) > 1 else ''} {listed([str(seed) for seed in shared])} alone: "


def _twin(results: Mapping[str, Any], model: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(one for one in results["models"] if one["key"] == model["twin"])
    return found
