"""A data set's description on the screen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from metammf.data.describe import Activity, Description, ModalityDescription

_VERDICTS = {
    "follows taste": "users watch what is alike by this modality",
    "weak": "a little of what users watch shows in this modality",
    "unclear": "cannot be told from chance on so little data",
    "none": "no relation to what users watch, on data that would show one: are the rows in the items' order?",
    "constant": "all items have the same features: they tell nothing",
    "too few pairs": "too few pairs of items of one user to tell",
}


def show(description: Description, console: Console | None = None) -> None:
    """Print tables of a description to stdout, or to the console given."""
    console = console or Console()
    console.print(_overview(description))
    if description.parts:
        console.print(_parts(description))
    if not description.modalities:
        console.print("no features")
        return
    console.print(_modalities(description))
    console.print(_lifts(description))
    for modality in description.modalities:
        console.print(f"{modality.name}: {_VERDICTS[modality.lift.verdict]}")


def _overview(description: Description) -> Table:
    table = Table(title=description.name, show_header=False, title_justify="left")
    table.add_row("users", _activity(description.num_users, description.users))
    table.add_row("items", _activity(description.num_items, description.items))
    table.add_row("interactions", f"{description.num_interactions:,} (density {description.density:.3%})")
    tail = description.long_tail
    table.add_row(
        "long tail",
        f"the top 1% / 10% / 20% of the items draw {tail.share_top_1:.1%} / {tail.share_top_10:.1%} /"
        f" {tail.share_top_20:.1%}; Gini {tail.gini:.3f}; {tail.items_below_5:,} items below 5",
    )
    if description.first_timestamp is not None and description.last_timestamp is not None:
        table.add_row("time", f"{_date(description.first_timestamp)} to {_date(description.last_timestamp)}")
    if description.titles is not None:
        table.add_row("titles", f"{description.titles:.1%} of the items")
    table.add_row("licence", description.licence or "none stated")
    return table


def _activity(count: int, activity: Activity) -> str:
    without = f", {activity.without:,} without interactions" if activity.without else ""
    return (
        f"{count:,}{without}; interactions each: mean {activity.mean:.1f}, median {activity.median:g},"
        f" most {activity.most:,}"
    )


def _date(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, tz=UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):  # a moment that no calendar here holds
        return f"{seconds} s"


def _parts(description: Description) -> Table:
    table = _table("split", "interactions", "users", "items", "cold items", "on cold items")
    for part in description.parts:
        numbers = (part.interactions, part.users, part.items, part.cold_items, part.cold_interactions)
        table.add_row(part.name, *(f"{number:,}" for number in numbers))
    return table


def _modalities(description: Description) -> Table:
    table = _table("modality", "width", "type", "missing", "constant columns", "constant rows", "duplicate rows")
    for modality in description.modalities:
        table.add_row(
            modality.name,
            f"{modality.width:,}",
            modality.dtype,
            f"{modality.missing_share:.1%}",
            *(f"{count:,}" for count in (modality.constant_columns, modality.constant_rows, modality.duplicate_rows)),
        )
    return table


def _lifts(description: Description) -> Table:
    table = _table("feature lift", "same user", "like popularity", "lift", "z", "shuffled", "its z")
    for modality in description.modalities:
        table.add_row(modality.name, *_lift_cells(modality))
    return table


def _lift_cells(modality: ModalityDescription) -> list[str]:
    lift = modality.lift
    cells: list[tuple[Any, str]] = [
        (lift.same_user, "+.4f"),
        (lift.like_popularity, "+.4f"),
        (lift.lift, "+.4f"),
        (lift.z, ".1f"),
        (lift.shuffled_lift, "+.4f"),
        (lift.shuffled_z, ".1f"),
    ]
    return ["–" if value is None else format(value, form) for value, form in cells]


def _table(first: str, *others: str) -> Table:
    table = Table(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table
