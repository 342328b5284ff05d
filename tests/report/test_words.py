from __future__ import annotations

from typing import Any

import pytest

from metammf.report import words


def outcome(results: dict[str, Any], against: str, table: str, model: str, difference: float, p: float) -> None:
    """Rewrite one comparison."""
    (row,) = words.pick(results, against, table, model)
    row |= {"mean_a": 0.2 + difference, "mean_b": 0.2, "difference": difference, "p_adjusted": p}


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0, "0.0000"), (-0.0, "0.0000"), (-0.00001, "0.0000"), (0.00006, "+0.0001"), (-0.5, "−0.5000")],
)
def test_what_rounds_to_zero_has_no_sign(value: float, told: str) -> None:
    assert words.signed(value) == told


@pytest.mark.parametrize(
    ("mf", "gcn", "says"),
    [
        ((0.02, 0.001), (0.01, 0.01), "A fusion network for every clip beats one network for all clips"),
        ((-0.02, 0.001), (-0.01, 0.01), "One fusion network for all clips beats a network for every clip"),
        ((0.02, 0.4), (-0.01, 0.06), "A fusion network for every clip and one for all clips cannot be told apart"),
        (
            (0.02, 0.001),
            (-0.01, 0.01),
            "A network for every clip: ahead of static fusion on MF and behind static fusion on GCN",
        ),
        (
            (0.02, 0.2),
            (0.01, 0.01),
            "A network for every clip: ahead of static fusion on GCN and not to be told from static fusion on MF",
        ),
    ],
)
def test_the_headline_follows_the_tests(
    results: dict[str, Any], mf: tuple[float, float], gcn: tuple[float, float], says: str
) -> None:
    for table in ("all", "warm", "cold_among_all"):
        outcome(results, "static", table, "metammf-mf", *mf)
        outcome(results, "static", table, "metammf-gcn", *gcn)
    assert words.headline(results) == says


@pytest.mark.parametrize(
    ("everywhere", "warm", "cold", "says"),
    [
        (
            *(0.02, (-0.01, -0.01), (0.02, 0.02)),
            "Over all clips, a fusion network for every clip beats one network for all; on clips watched before it is behind",
        ),
        (
            *(0.02, (-0.01, 0.01), (0.02, 0.02)),
            "Over all clips, a fusion network for every clip beats one network for all; on clips watched before it is not ahead",
        ),
        (
            *(0.02, (0.0, 0.0), (0.02, 0.02)),
            "Over all clips, a fusion network for every clip beats one network for all; on clips watched before the two cannot be"
            " told apart",
        ),
        (
            *(-0.02, (-0.01, -0.01), (0.02, 0.02)),
            "Over all clips, one fusion network for all clips beats a network for every clip; on new clips the latter is ahead",
        ),
    ],
)
def test_the_headline_says_where_it_does_not_hold(
    results: dict[str, Any], everywhere: float, warm: tuple[float, float], cold: tuple[float, float], says: str
) -> None:
    for place, model in enumerate(("metammf-mf", "metammf-gcn")):
        outcome(results, "static", "all", model, everywhere, 0.001)
        outcome(results, "static", "warm", model, warm[place], 0.001)
        outcome(results, "static", "cold_among_all", model, cold[place], 0.001)
    assert words.headline(results) == says


def test_a_loss_on_warm_clips_has_a_card_too(results: dict[str, Any]) -> None:
    for model in ("metammf-mf", "metammf-gcn"):
        outcome(results, "static", "warm", model, -0.02, 0.001)
    cards = {card["label"]: (card["value"], card["kind"]) for card in words.cards(results)}
    assert cards["against its static twin, warm clips"] == ("−10.0%", "behind")


def test_a_fusion_that_noise_beats_on_warm_clips_is_named_and_has_a_card(results: dict[str, Any]) -> None:
    outcome(results, "placebo", "warm", "metammf-mf", -0.02, 0.001)
    outcome(results, "placebo", "warm", "metammf-gcn", +0.02, 0.001)
    told = next(text for text in words.findings(results) if text.startswith("Content "))
    warm = told.partition(" On warm clips alone ")[2]
    assert "MetaMMF_GCN (+10.0%)" in warm.partition(" ahead of the noise")[0]
    assert "MetaMMF_MF (−10.0%)" in warm.partition(" ahead of the noise")[2].partition(" behind the noise")[0]
    best = words.cards(results)[0]["model"]
    (card,) = (card for card in words.cards(results) if card["label"] == "against itself fed noise, warm clips")
    assert (card["value"], card["kind"]) == {"MetaMMF_GCN": ("+10.0%", "ahead"), "MetaMMF_MF": ("−10.0%", "behind")}[
        best
    ]


def test_a_card_of_fewer_seeds_names_them(results: dict[str, Any]) -> None:
    notes = {card["label"]: card["note"] for card in words.cards(results)}
    noise = next(note for label, note in notes.items() if "fed noise" in label)
    assert noise.startswith("seed 0 alone: ")  # the small demo has two seeds, and one on noise
    assert "alone" not in notes["against its static twin, all test clips"]


def test_a_control_has_no_say_of_cold_clips_among_themselves(results: dict[str, Any]) -> None:
    for model in results["models"]:
        assert (not words.of_table(model, "cold_among_cold")) is (model["role"] == "control")
        assert words.of_table(model, "cold_among_all") == model["tables"]["cold_among_all"]


def test_a_defeat_is_told_as_one(results: dict[str, Any]) -> None:
    outcome(results, "static", "all", "metammf-mf", -0.02, 0.004)
    outcome(results, "static", "all", "metammf-gcn", 0.01, 0.5)
    told = words.findings(results)[0].replace("\u00a0", " ")
    assert "MetaMMF_MF is behind its static twin (0.1800 against 0.2000, −10.0%; p = 0.004)" in told
    assert "MetaMMF_GCN cannot be told apart from its static twin (0.2100 against 0.2000, +5.0%; p = 0.50)" in told


@pytest.mark.parametrize(
    ("difference", "says"), [(0.1, "Content counts: every fusion"), (-0.1, "Content does not show: no fusion")]
)
def test_content_counts_only_where_noise_is_beaten(results: dict[str, Any], difference: float, says: str) -> None:
    for model in ("metammf-mf", "metammf-gcn", "static-mf", "static-gcn"):
        for table in ("all", "cold_among_all"):
            outcome(results, "placebo", table, model, difference, 0.001)
    assert any(told.startswith(says) for told in words.findings(results))
    outcome(results, "placebo", "all", "metammf-mf", -difference, 0.001)
    told = next(told for told in words.findings(results) if told.startswith("Content"))
    rest, tests = (7, "in 7 of 8 tests a fusion beats") if difference > 0 else (1, "in 1 of 8 tests a fusion beats")
    assert told.startswith(
        f"Content counts in part: {tests} the same network fed noise, in {8 - rest} the noise is ahead"
    )


@pytest.mark.parametrize(("r", "says"), [(0.5, "follows how"), (0.3, "follows loosely"), (-0.1, "does not tell")])
def test_recovery_is_told_by_its_strength(results: dict[str, Any], r: float, says: str) -> None:
    for model in results["models"]:
        if model["role"] == "dynamic":
            model["recovery"]["pearson"]["mean"] = r
    assert any(says in told for told in words.findings(results))


def test_without_placebos_nothing_is_said_of_them(results: dict[str, Any]) -> None:
    results["models"] = [model for model in results["models"] if model["role"] != "placebo"]
    results["comparisons"] = [row for row in results["comparisons"] if row["against"] != "placebo"]
    told = " ".join(words.findings(results)) + " ".join(card["label"] for card in words.cards(results))
    assert "noise" not in told


def test_the_best_model_may_be_a_control(results: dict[str, Any]) -> None:
    (ease,) = (model for model in results["models"] if model["key"] == "ease")
    ease["tables"]["all"]["ndcg@20"] = {"mean": 0.99, "std": 0.0}
    ease["tables"]["warm"]["ndcg@20"] = {"mean": 0.01, "std": 0.0}
    (twin,) = (model for model in results["models"] if model["key"] == "static-mf")
    twin["tables"]["warm"]["ndcg@20"] = {"mean": 0.88, "std": 0.0}
    told = words.findings(results)[-1]
    assert told.startswith("Best of all over all test clips: EASE, NDCG@20 0.9900;")
    assert told.endswith(" On warm clips alone: Static MF, 0.8800.")


def test_changes_are_shares_multiples_or_plain() -> None:
    def row(a: float, b: float) -> dict[str, Any]:
        return {"mean_a": a, "mean_b": b, "difference": a - b}

    assert words.change(row(0.22, 0.2)) == "+10.0%"
    assert words.change(row(0.18, 0.2)) == "−10.0%"
    assert words.change(row(0.2, 0.01)) == "20 times as much"
    assert words.change(row(0.2, 0.0)) == "+0.2000"


def test_p_values_and_spreads() -> None:
    shown = [words.p_value(p).replace("\u00a0", " ") for p in (0.0001, 0.0123, 0.5)]
    assert shown == ["p < 0.001", "p = 0.012", "p = 0.50"]
    assert words.with_spread({"mean": 0.12345, "std": 0.0}) == "0.1235"
    assert words.with_spread({"mean": 0.12345, "std": 0.01}) == "0.1235 ± 0.0100"
