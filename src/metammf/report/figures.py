"""Figures from plain data, as Altair charts. Each is as wide as its place in a page, unless a width is given.

Altair and vl-convert come with the extra ``report`` and are imported when a figure is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from metammf.errors import ConfigError, MissingExtraError
from metammf.files import atomic_path
from metammf.report.palette import modality_colours, modality_shapes, model_colours

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import altair as alt
    import polars as pl

PICTURES = (".svg", ".png", ".pdf", ".html")
Width = int | Literal["container"]
Rows = list[dict[str, Any]]

_CONTRIBUTIONS = {
    "leave_one_out": "what goes when the modality is left out",
    "gradient_x_input": "gradient × input",
}
_DISTRIBUTIONS = {"altair": "altair", "vl_convert": "vl-convert-python", "jinja2": "jinja2"}


def require_extra(purpose: str) -> None:
    """Find out before the work, not after it, whether the extra ``report`` is installed.

    Raises:
        MissingExtraError: it is not.
    """
    for module, distribution in _DISTRIBUTIONS.items():
        try:
            import_module(module)
        except ImportError as error:
            raise MissingExtraError(distribution, "report", purpose) from error


def check_picture(path: Path) -> None:
    """Refuse what is no picture.

    Raises:
        ConfigError: the extension is none of `PICTURES`.
    """
    if path.suffix.lower() not in PICTURES:
        raise ConfigError(f"{path}: expected a name that ends in {', '.join(PICTURES)}")


def save_chart(chart: alt.Chart | alt.LayerChart | alt.VConcatChart | alt.HConcatChart, path: Path) -> None:
    """Write a chart as SVG, PNG, PDF or a page of its own that needs no network, by the extension, atomically.

    Raises:
        ConfigError: the extension is none of `PICTURES`.
        MissingExtraError: the extra ``report`` is not installed.
        DataError: the file cannot be written.
    """
    check_picture(path)
    require_extra("a picture")
    kind = path.suffix.lower().removeprefix(".")
    dressed = chart.configure(**STYLE, background="white")
    with atomic_path(path) as part:
        if kind == "html":
            options = {"actions": {"export": True, "source": False, "compiled": False, "editor": False}}
            dressed.save(str(part), format="html", inline=True, embed_options=options)
        elif kind == "png":
            dressed.save(str(part), format="png", scale_factor=2)
        else:
            dressed.save(str(part), format=kind)


STYLE: Mapping[str, Any] = {
    "font": "Helvetica, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelColor": "#555",
        "titleColor": "#555",
        "gridColor": "#8884",
        "domainColor": "#8888",
        "tickColor": "#8888",
        "labelLimit": 220,
    },
    "legend": {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelColor": "#555",
        "titleColor": "#555",
        "symbolSize": 110,
        "labelLimit": 220,
    },
    "title": {"fontSize": 14, "anchor": "start", "color": "#333", "subtitleColor": "#555", "subtitleFontSize": 12},
    "header": {"labelFontSize": 12, "labelColor": "#555", "title": None},
}
"""What every figure looks like on a white ground; a page puts its own colours over it."""


INK = "#444444"
"""Colour of lines that must stand out from the ground; a page puts its own in its place."""


def data_of(rows: Rows) -> Any:
    """Rows as they are, within the figure."""
    return import_module("altair").Data(values=rows)


def roomy(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an axis with a twelfth of its length free on either side; a value alone is in the middle."""
    room = (high - low) / 12 or abs(high) / 4 or 1.0
    return low - room, high + room


def around_zero(rows: Rows) -> alt.Scale:
    """Return the scale of differences with their intervals ``low, high``, the line at 0 within, room on either side of it."""
    import altair as alt

    ends = min(0.0, *(row["low"] for row in rows)), max(0.0, *(row["high"] for row in rows))
    return alt.Scale(domain=list(roomy(*ends)), nice=False)


def contributions_chart(frame: pl.DataFrame, about: str, *, width: Width = 420) -> alt.VConcatChart:
    """Show what `Recommender.explain` found: each modality's share, and both of its measures.

    Args:
        frame: Columns ``modality, present, leave_one_out, gradient_x_input, share``.
        about: What is explained, for the title.
        width: In pixels.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    require_extra("a picture")
    import altair as alt

    modalities = frame["modality"].to_list()
    rows = frame.to_dicts()
    for row in rows:
        row["name"] = row["modality"] if row["present"] else f"{row['modality']} (lacking)"
    names = [row["name"] for row in rows]
    colour = alt.Color(
        "modality:N", scale=alt.Scale(domain=modalities, range=modality_colours(modalities)), legend=None
    )
    place = alt.Y("name:N", sort=names, title=None)
    shares = alt.Chart(data_of(rows), width=width, height={"step": 30})
    bars = shares.mark_bar(cornerRadiusEnd=2).encode(
        place,
        alt.X(
            "share:Q",
            title="share of what goes when each is left out",
            axis=alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1], labelFlush=False),
            scale=_unit(alt),
        ),
        colour,
        tooltip=["modality:N", alt.Tooltip("share:Q", format=".1%")],
    )
    labels = shares.mark_text(align="left", dx=5, color="#555").encode(
        place, alt.X("share:Q"), text=alt.Text("share:Q", format=".0%")
    )
    measures = [
        alt.Chart(data_of(rows), width=width, height={"step": 22})
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            place,
            alt.X(f"{column}:Q", title=title, axis=alt.Axis(tickCount=5, labelFlush=False)),
            colour,
            tooltip=["modality:N", alt.Tooltip(f"{column}:Q", format=".4f")],
        )
        for column, title in _CONTRIBUTIONS.items()
    ]
    title = alt.TitleParams(f"What counts in {about}", offset=12)
    return alt.vconcat(bars + labels, *measures, title=title, spacing=18)


def _unit(alt: Any) -> Any:
    return alt.Scale(domain=[0, 1])


def curves_chart(rows: Rows, models: Mapping[str, str], y: str, title: str, *, width: Width = "container") -> Any:
    """Show a quantity by epoch, one line a model and seed, with a dot on the epoch that validation chose.

    Args:
        rows: ``model, seed, epoch, chosen`` and `y`.
        models: Key -> label, in the order of the legend.
        y: The quantity's column.
        title: Of its axis.
        width: In pixels, or that of the place.
    """
    import altair as alt

    base = alt.Chart(data_of(rows), width=width, height=260).encode(
        alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, grid=False, labelFlush=False)),
        alt.Y(f"{y}:Q", title=title, scale=alt.Scale(zero=False)),
        _model_colour(models),
        detail="seed:N",
        tooltip=[
            alt.Tooltip("label:N", title="model"),
            "seed:N",
            "epoch:Q",
            alt.Tooltip(f"{y}:Q", title=title, format=".4f"),
        ],
    )
    lines = base.mark_line(strokeWidth=1.8, opacity=0.75)
    dots = base.mark_point(filled=True, size=60, opacity=1).transform_filter("datum.chosen")
    return lines + dots


def _model_colour(models: Mapping[str, str], *, legend: bool = True) -> Any:
    import altair as alt

    return alt.Color(
        "label:N",
        scale=alt.Scale(domain=list(models.values()), range=model_colours(models)),
        legend=alt.Legend(title=None, orient="top", columns=2, symbolType="stroke", symbolStrokeWidth=3)
        if legend
        else None,
    )


def metric_chart(rows: Rows, models: Mapping[str, str], title: str, *, width: Width = "container") -> Any:
    """Show one metric of every model as bars, with plus and minus one standard deviation over seeds.

    Args:
        rows: ``model, label, mean, std, low, high, placebo``.
        models: Key -> label, from top to bottom.
        title: Of the axis.
        width: In pixels, or that of the place.
    """
    import altair as alt

    base = alt.Chart(data_of(rows), width=width, height=23 * len(rows)).encode(
        alt.Y(
            "label:N", sort=list(models.values()), title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8)
        ),
        tooltip=[
            alt.Tooltip("label:N", title="model"),
            alt.Tooltip("mean:Q", title="mean", format=".4f"),
            alt.Tooltip("std:Q", title="deviation over seeds", format=".4f"),
        ],
    )
    bars = base.mark_bar(cornerRadiusEnd=2, height=15).encode(
        alt.X("mean:Q", title=title, axis=alt.Axis(tickCount=4, labelFlush=False)),
        _model_colour(models, legend=False),
        opacity=alt.condition("datum.placebo", alt.value(0.35), alt.value(1)),
    )
    if not any(row["std"] for row in rows):
        return bars
    spread = base.mark_rule(strokeWidth=1.6, color=INK).encode(alt.X("low:Q"), alt.X2("high:Q"))
    return bars + spread.transform_filter("datum.std > 0")


def difference_chart(rows: Rows, tables: Sequence[str], *, title: str, width: Width = "container") -> Any:
    """Show paired differences with their 95% intervals; to the right of zero the first of the pair is ahead.

    Args:
        rows: ``label, key, table, difference, low, high, significant, p``.
        tables: From top to bottom.
        title: Of the axis.
        width: In pixels, or that of the place.
    """
    import altair as alt

    labels = list(dict.fromkeys(row["label"] for row in rows))
    keys = list(dict.fromkeys(row["key"] for row in rows))
    base = alt.Chart(data_of(rows), width=width, height=23 * len(rows)).encode(
        alt.Y("table:N", sort=list(tables), title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8)),
        alt.YOffset("label:N", sort=labels),
        alt.Color(
            "label:N",
            scale=alt.Scale(domain=labels, range=model_colours(keys)),
            legend=alt.Legend(title=None, orient="top", columns=1, symbolType="stroke", symbolStrokeWidth=3),
        ),
        tooltip=[
            alt.Tooltip("label:N", title="pair"),
            alt.Tooltip("table:N", title="test items"),
            alt.Tooltip("difference:Q", format="+.4f"),
            alt.Tooltip("low:Q", title="95% from", format="+.4f"),
            alt.Tooltip("high:Q", title="to", format="+.4f"),
            alt.Tooltip("p:Q", title="p, corrected", format=".2g"),
        ],
    )
    zero = alt.Chart(data_of([{"zero": 0}])).mark_rule(color="#777", strokeDash=[4, 3]).encode(alt.X("zero:Q"))
    spans = base.mark_rule(strokeWidth=2.5).encode(
        alt.X(
            "low:Q",
            title=title,
            axis=alt.Axis(format="+.4~f", tickCount=5, labelFlush=False, labelOverlap=True),
            scale=around_zero(rows),
        ),
        alt.X2("high:Q"),
    )
    dots = base.encode(alt.X("difference:Q"))
    chart = zero + spans
    # A layer that its filter leaves empty has no extent, of which browsers complain.
    if any(row["significant"] for row in rows):
        chart += dots.transform_filter("datum.significant").mark_point(size=90, filled=True, opacity=1)
    if not all(row["significant"] for row in rows):
        chart += dots.transform_filter("!datum.significant").mark_point(size=90, strokeWidth=2)
    return chart


def recovery_chart(bins: Mapping[str, Sequence[float]], colour: str, *, width: Width = "container") -> Any:
    """Show the recovered share of a modality by its true one: median and quartiles in bins, and where they would be equal.

    Args:
        bins: Columns ``true, count, low, middle, high``.
        colour: Of the model.
        width: In pixels, or that of the place.
    """
    import altair as alt

    rows = [dict(zip(bins, values, strict=True)) for values in zip(*bins.values(), strict=True)]
    axis = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1], labelFlush=False)
    x = alt.X("true:Q", title="true share of the clip's appeal", scale=_unit(alt), axis=axis)
    base = alt.Chart(data_of(rows), width=width, height=240)
    band = base.mark_area(color=colour, opacity=0.22).encode(
        x, alt.Y("low:Q", title="recovered share", scale=_unit(alt), axis=axis), alt.Y2("high:Q")
    )
    line = base.mark_line(color=colour, strokeWidth=2.5, point={"filled": True, "size": 55, "color": colour}).encode(
        x,
        alt.Y("middle:Q"),
        tooltip=[
            alt.Tooltip("true:Q", title="true share, about", format=".0%"),
            alt.Tooltip("middle:Q", title="recovered, median", format=".1%"),
            alt.Tooltip("count:Q", title="modalities of clips", format=","),
        ],
    )
    equal = (
        alt.Chart(data_of([{"at": 0}, {"at": 1}]))
        .mark_line(color="#888", strokeDash=[4, 4], strokeWidth=1.2)
        .encode(alt.X("at:Q"), alt.Y("at:Q"))
    )
    return equal + band + line


def map_chart(rows: Rows, modalities: Sequence[str], *, width: Width = "container") -> Any:
    """Show items in two dimensions by the modality that truly carries most of each one's appeal.

    Args:
        rows: ``x, y, item, title, modality, weight``.
        modalities: In the order of the legend.
        width: In pixels, or that of the place.
    """
    import altair as alt

    named = list(modalities)
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1)
    return (
        alt.Chart(data_of(rows), width=width, height=340)
        .mark_point(filled=True, size=26, opacity=0.75)
        .encode(
            alt.X("x:Q", axis=None, scale=alt.Scale(zero=False, padding=8)),
            alt.Y("y:Q", axis=None, scale=alt.Scale(zero=False, padding=8)),
            alt.Color("modality:N", scale=alt.Scale(domain=named, range=modality_colours(named)), legend=legend),
            alt.Shape("modality:N", scale=alt.Scale(domain=named, range=modality_shapes(named)), legend=legend),
            tooltip=[
                alt.Tooltip("item:N", title="clip"),
                alt.Tooltip("title:N"),
                alt.Tooltip("modality:N", title="about its"),
                alt.Tooltip("weight:Q", title="true share of it", format=".0%"),
            ],
        )
    )
