"""Figures of comparisons and studies: bars with error bars, spreads of trials, leads with intervals, lines over an axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from metammf.report.figures import INK, Rows, Width, around_zero, data_of, roomy
from metammf.report.labelling import GAP, sides
from metammf.report.palette import KINDS, series_colours

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROW = 21
_BESIDE = " beside"
_COST_WIDTH, _COST_HEIGHT = 1_000, 420
"""Pixels of the figure of costs; its place in a page is about as wide."""
_STANDS: Mapping[str, Any] = {
    "right": {"align": "left", "baseline": "middle", "dx": GAP},
    "left": {"align": "right", "baseline": "middle", "dx": -GAP},
    "above": {"align": "center", "baseline": "bottom", "dy": -GAP},
    "below": {"align": "center", "baseline": "top", "dy": GAP},
}
"""Side of a dot -> how its name stands there."""


def _place(alt: Any, order: Sequence[str]) -> Any:
    axis = alt.Axis(ticks=False, domain=False, labelPadding=8)
    return alt.Y("label:N", sort=list(order), title=None, axis=axis)


def _kind(alt: Any, rows: Rows, *, legend: bool = False) -> Any:
    """Colour by kind; a legend names those that are there, the known kinds first."""
    found = list(dict.fromkeys(row["kind"] for row in rows))
    there = [*(kind for kind in KINDS if kind in found), *(kind for kind in found if kind not in KINDS)]
    scale = alt.Scale(domain=there, range=series_colours(there))
    shown = alt.Legend(title=None, orient="top") if legend and len(there) > 1 else None
    return alt.Color("kind:N", scale=scale, legend=shown)


def ranked_chart(rows: Rows, title: str, *, legend: bool = True, width: Width = "container") -> Any:
    """Show means as bars, with plus and minus one deviation over seeds, in the order of the rows.

    Args:
        rows: ``label, kind, mean, low, high, spread`` (whether there is a deviation).
        title: Of the axis.
        legend: Whether it names the kinds itself; a narrow figure has no room for more than two or three.
        width: In pixels, or that of the place.
    """
    import altair as alt

    base = alt.Chart(data_of(rows), width=width, height=_ROW * len(rows)).encode(
        _place(alt, [row["label"] for row in rows]),
        tooltip=[
            alt.Tooltip("label:N", title="model"),
            alt.Tooltip("mean:Q", format=".4f"),
            alt.Tooltip("low:Q", title="less a deviation", format=".4f"),
            alt.Tooltip("high:Q", title="and one more", format=".4f"),
        ],
    )
    bars = base.mark_bar(cornerRadiusEnd=2, height=14).encode(
        alt.X("mean:Q", title=title, axis=alt.Axis(tickCount=4, labelFlush=False)), _kind(alt, rows, legend=legend)
    )
    if not any(row["spread"] for row in rows):
        return bars
    return bars + base.transform_filter("datum.spread").mark_rule(strokeWidth=1.6, color=INK).encode(
        alt.X("low:Q"), alt.X2("high:Q")
    )


def lead_chart(rows: Rows, title: str, *, width: Width = "container") -> Any:
    """Show paired differences with their 95% intervals; a filled dot where a test tells the pair apart.

    Args:
        rows: ``label, kind, difference, low, high, significant, p``, in order.
        title: Of the axis.
        width: In pixels, or that of the place.
    """
    import altair as alt

    base = alt.Chart(data_of(rows), width=width, height=_ROW * len(rows)).encode(
        _place(alt, [row["label"] for row in rows]),
        _kind(alt, rows),
        tooltip=[
            alt.Tooltip("label:N", title="against"),
            alt.Tooltip("difference:Q", format="+.4f"),
            alt.Tooltip("low:Q", title="95% from", format="+.4f"),
            alt.Tooltip("high:Q", title="to", format="+.4f"),
            alt.Tooltip("p:Q", title="p, corrected", format=".2g"),
        ],
    )
    zero = alt.Chart(data_of([{"zero": 0}])).mark_rule(color="#777", strokeDash=[4, 3]).encode(alt.X("zero:Q"))
    axis = alt.Axis(format="+.4~f", tickCount=5, labelFlush=False, labelOverlap=True)
    x = alt.X("low:Q", title=title, axis=axis, scale=around_zero(rows))
    chart = zero + base.mark_rule(strokeWidth=2.2).encode(x, alt.X2("high:Q"))
    dots = base.encode(alt.X("difference:Q"))
    # A layer that its filter leaves empty has no extent, of which browsers complain.
    if any(row["significant"] for row in rows):
        chart += dots.transform_filter("datum.significant").mark_point(size=80, filled=True, opacity=1)
    if not all(row["significant"] for row in rows):
        chart += dots.transform_filter("!datum.significant").mark_point(size=80, strokeWidth=2)
    return chart


def spread_chart(rows: Rows, order: Sequence[str], title: str, *, width: Width = "container") -> Any:
    """Show what each trial of a search reached on validation, a tick each, and a dot on the one that was chosen.

    Args:
        rows: ``label, kind, value, trial, settings, chosen``.
        order: Labels, from top to bottom.
        title: Of the axis.
        width: In pixels, or that of the place.
    """
    import altair as alt

    base = alt.Chart(data_of(rows), width=width, height=_ROW * len(order)).encode(
        _place(alt, order),
        alt.X("value:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5, labelFlush=False)),
        _kind(alt, rows),
        tooltip=[
            alt.Tooltip("label:N", title="model"),
            alt.Tooltip("trial:Q"),
            alt.Tooltip("value:Q", format=".4f"),
            alt.Tooltip("settings:N"),
        ],
    )
    return base.mark_tick(thickness=1.6, opacity=0.75, height=12) + base.transform_filter("datum.chosen").mark_point(
        filled=True, size=75, opacity=1
    )


def cost_chart(rows: Rows, title: str, *, width: Width = "container") -> Any:
    """Show a metric by the seconds of an epoch, one named dot a model.

    Args:
        rows: ``label, short, kind, mean, seconds``; `short` stands beside the dot, on the side where it covers least.
        title: Of the metric's axis.
        width: In pixels, or that of the place.
    """
    import altair as alt

    xs, ys = [math.log(row["seconds"]) for row in rows], [row["mean"] for row in rows]
    (left, right), (bottom, top) = roomy(min(xs), max(xs)), roomy(min(ys), max(ys))
    if len(set(xs)) == 1:
        left, right = xs[0] - 1, xs[0] + 1
    across = float(_COST_WIDTH if width == "container" else width)
    dots_at = [
        ((x - left) / (right - left) * across, (top - y) / (top - bottom) * _COST_HEIGHT, row["short"])
        for x, y, row in zip(xs, ys, rows, strict=True)
    ]
    placed = [row | {"side": side} for row, side in zip(rows, sides(dots_at, across, _COST_HEIGHT), strict=True)]
    seconds, means = [math.exp(left), math.exp(right)], [bottom, top]
    base = alt.Chart(data_of(placed), width=width, height=_COST_HEIGHT).encode(
        alt.X(
            "seconds:Q",
            title="seconds an epoch, one core",
            scale=alt.Scale(type="log", nice=False, domain=seconds),
            axis=alt.Axis(format="~g", labelFlush=False, labelOverlap=True),
        ),
        alt.Y("mean:Q", title=title, scale=alt.Scale(zero=False, nice=False, domain=means), axis=alt.Axis(tickCount=5)),
    )
    tooltip = [
        alt.Tooltip("label:N", title="model"),
        alt.Tooltip("mean:Q", format=".4f"),
        alt.Tooltip("seconds:Q", format=".3g"),
    ]
    chart = base.mark_point(filled=True, size=90, opacity=1).encode(_kind(alt, rows), tooltip=tooltip)
    for side in dict.fromkeys(row["side"] for row in placed):
        names = base.transform_filter(alt.datum.side == side).encode(alt.Text("short:N"))
        chart += names.mark_text(fontSize=11, color=INK, **_STANDS[side])
    return chart


def axis_chart(
    rows: Rows,
    levels: Rows,
    series: Sequence[str],
    axis: str,
    title: str,
    *,
    log: bool,
    joined: bool = True,
    width: Width = "container",
) -> Any:
    """Show means over an axis, a line a series, with plus and minus one deviation over seeds; and levels beside the lines.

    The quantity's axis begins at 0, so that what looks large is large.

    Args:
        rows: ``series, x, mean, low, high, spread``.
        levels: ``series, mean``: drawn as dashed lines across.
        series: All of them, in the order of the legend.
        axis: Title of the axis.
        title: Of the quantity.
        log: Whether the axis counts in powers of two.
        joined: Whether a line joins a series.
        width: In pixels, or that of the place.
    """
    import altair as alt

    values = sorted({row["x"] for row in rows})
    colour = alt.Color(
        "series:N",
        scale=alt.Scale(domain=list(series), range=series_colours(series)),
        legend=alt.Legend(title=None, orient="top", symbolType="stroke", symbolStrokeWidth=3),
    )
    scale = alt.Scale(type="log", base=2) if log else alt.Scale(zero=False, padding=12)
    x = alt.X("x:Q", title=axis, scale=scale, axis=alt.Axis(values=values, grid=False, format="d", labelFlush=False))
    y = alt.Y("mean:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=5))
    tooltip = [
        alt.Tooltip("series:N"),
        alt.Tooltip("x:Q", title=axis),
        alt.Tooltip("mean:Q", title=title, format=".4~g"),
    ]
    base = alt.Chart(data_of(rows), width=width, height=260).encode(x, colour)
    line = base.mark_line(strokeWidth=2, point={"filled": True, "size": 55})
    chart = (line if joined else base.mark_point(filled=True, size=55, opacity=1)).encode(y, tooltip=tooltip)
    if any(row["spread"] for row in rows):
        spans = base.transform_filter("datum.spread").mark_rule(strokeWidth=1.5, opacity=0.8)
        chart += spans.encode(alt.Y("low:Q", title=title), alt.Y2("high:Q"))
    if levels:
        chart += (
            alt.Chart(data_of(levels))
            .mark_rule(strokeDash=[6, 4], strokeWidth=1.8)
            .encode(alt.Y("mean:Q"), colour, tooltip=[tooltip[0], tooltip[2]])
        )
    return chart


def gains_chart(
    rows: Rows,
    dots: Rows,
    order: Sequence[str],
    series: Mapping[str, str],
    axis: str,
    title: str,
    *,
    span: tuple[float, float],
    joined: bool,
    width: Width = "container",
) -> Any:
    """Show paired differences over places, with their 95% intervals; a filled dot where the pair is told apart.

    Args:
        rows: ``place, series, difference, low, high, significant, p, percent, agree``.
        dots: ``place, series, difference``, of each world or seed: small marks beside the mean.
        order: Places, from left to right; what stands after a bar in one goes below.
        series: All of them with their colours, in the order of the legend.
        axis: Title of the axis of places.
        title: Of the differences.
        span: Ends of the differences' axis, the same in all panels.
        joined: Whether a line joins a series.
        width: In pixels, or that of the place.
    """
    import altair as alt

    colour = alt.Color(
        "series:N",
        scale=alt.Scale(domain=list(series), range=list(series.values())),
        legend=alt.Legend(title=None, orient="top", symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1),
    )
    labels = alt.Axis(labelAngle=0, labelExpr="split(datum.label, '|')", grid=False, labelLimit=160)
    x = alt.X("place:N", sort=list(order), title=axis, axis=labels, scale=alt.Scale(type="point", padding=0.5))
    # A mean and, beside it, its single values: each of a series' two has a slot, so many pixels from the tick.
    slots = [name + beside for name in series for beside in ("", _BESIDE)]
    offset = alt.XOffset("slot:N", scale=alt.Scale(type="point", domain=slots, range=[-12, 12]))
    y = alt.Y("difference:Q", title=title, scale=alt.Scale(domain=list(span), nice=True), axis=alt.Axis(format="+.3~f"))
    tooltip = [
        alt.Tooltip("series:N", title="test items"),
        alt.Tooltip("place:N", title=axis),
        alt.Tooltip("difference:Q", format="+.4f"),
        alt.Tooltip("percent:Q", title="in percent", format="+.1f"),
        alt.Tooltip("low:Q", title="95% from", format="+.4f"),
        alt.Tooltip("high:Q", title="to", format="+.4f"),
        alt.Tooltip("p:Q", title="p, corrected", format=".2g"),
        alt.Tooltip("agree:N", title="single marks that agree in sign"),
    ]
    zero = alt.Chart(data_of([{"zero": 0}])).mark_rule(color="#777", strokeDash=[4, 3]).encode(alt.Y("zero:Q"))
    means = [row | {"slot": row["series"]} for row in rows]
    base = alt.Chart(data_of(means), width=width, height=260).encode(x, offset, colour)
    chart = zero + base.mark_rule(strokeWidth=2.2).encode(alt.Y("low:Q", title=title), alt.Y2("high:Q"))
    if joined:
        chart += base.mark_line(strokeWidth=1.4, opacity=0.55).encode(y)
    if dots:
        single = alt.Chart(data_of([dot | {"slot": dot["series"] + _BESIDE} for dot in dots]))
        chart += single.encode(x, offset, colour, y).mark_point(size=16, strokeWidth=1.1, opacity=0.8)
    shown = base.encode(y, tooltip=tooltip)
    # A layer that its filter leaves empty has no extent, of which browsers complain.
    if any(row["significant"] for row in rows):
        chart += shown.transform_filter("datum.significant").mark_point(size=80, filled=True, opacity=1)
    if not all(row["significant"] for row in rows):
        chart += shown.transform_filter("!datum.significant").mark_point(size=80, strokeWidth=2)
    return chart


def groups_chart(rows: Rows, groups: Mapping[str, tuple[str, str]], *, width: Width = "container") -> Any:
    """Show items in two dimensions by the group that they are of.

    Args:
        rows: ``x, y, item, title, group``.
        groups: Group -> colour and mark, in the order of the legend.
        width: In pixels, or that of the place.
    """
    import altair as alt

    colours, marks = (alt.Scale(domain=list(groups), range=list(kind)) for kind in zip(*groups.values(), strict=True))
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1, columns=4)
    flat = alt.Scale(zero=False, padding=8)
    return (
        alt.Chart(data_of(rows), width=width, height=340)
        .mark_point(filled=True, size=26, opacity=0.75)
        .encode(
            alt.X("x:Q", axis=None, scale=flat),
            alt.Y("y:Q", axis=None, scale=flat),
            alt.Color("group:N", scale=colours, legend=legend),
            alt.Shape("group:N", scale=marks, legend=legend),
            tooltip=[alt.Tooltip("item:N"), alt.Tooltip("title:N"), alt.Tooltip("group:N")],
        )
    )
