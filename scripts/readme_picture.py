"""Draw the README's picture from what ``metammf demo`` found.

python scripts/readme_picture.py [demo/results.json [docs/images/demo.png]]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import altair as alt

from metammf.files import read_json
from metammf.report.figures import map_chart, metric_chart, save_chart
from metammf.report.page import map_points
from metammf.report.words import TABLE_NAMES, metric_name

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
TABLES = ("all", "cold_among_all")
MAPPED = "metammf-mf"


def picture(results: Mapping[str, Any]) -> alt.HConcatChart:
    """Bars of all models on all and on cold clips, beside the map of one model's fused vectors."""
    labels = {model["key"]: model["label"] for model in results["models"]}
    bars = [
        metric_chart(_bars(results, table), labels, metric_name(results["metric"]), width=200).properties(
            title=TABLE_NAMES[table]
        )
        for table in TABLES
    ]
    plane = results["map"]
    panel = plane["panels"][MAPPED]
    plane_chart = map_chart(
        map_points(plane, panel), [one["name"] for one in results["world"]["modalities"]], width=300
    ).properties(title=f"{labels[MAPPED]}: clips by what carries them", height=230)
    return alt.hconcat(*bars, plane_chart, spacing=24).resolve_scale(color="independent", shape="independent")


def _bars(results: Mapping[str, Any], table: str) -> list[dict[str, Any]]:
    rows = []
    for model in results["models"]:
        cell = model["tables"][table][results["metric"]]
        span = {"low": cell["mean"] - cell["std"], "high": cell["mean"] + cell["std"]}
        rows.append({"label": model["label"], **cell, **span, "placebo": model["role"] == "placebo"})
    return rows


def main() -> None:
    """Draw it."""
    given = [Path(argument) for argument in sys.argv[1:]]
    source, out = [*given, *(ROOT / "demo" / "results.json", ROOT / "docs" / "images" / "demo.png")[len(given) :]]
    save_chart(picture(read_json(source)), out)
    print(f"{out} drawn")


if __name__ == "__main__":
    main()
