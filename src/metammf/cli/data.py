"""``metammf data``: import foreign data sets, describe, generate and export."""

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from metammf.data.dataset import Dataset
    from metammf.data.progress import Progress

app = App(name="data", help="Import, describe, generate and export data sets.")

FormatName = Literal["tiktok", "movielens", "recbole", "mmrec", "metammf", "log"]
ExportName = Literal["recbole", "mmrec"]
SplitName = Literal["published", "random", "leave-one-out", "user-time", "global-time", "cold-item"]


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What some formats take; another refuses it.

    Parameters
    ----------
    min_rating
        The lowest rating that counts as an interaction (movielens: 4; recbole, log: every row counts).
    k_core
        Leave out users and items with fewer interactions, until none is left (log).
    user_column
        Column of user ids (recbole, log: user_id).
    item_column
        Column of item ids (recbole, log: item_id).
    timestamp_column
        Column of timestamps (recbole, log: timestamp, where there is one).
    rating_column
        Column of ratings (recbole, log: rating, where there is one).
    timestamp_unit
        What a number in the timestamp column counts (log: s).
    items
        Table of items: ids, titles and others (log).
    features
        Folder of .npy files, rows in the order of --items (log).
    tags_before
        Take tags dated before this moment, in seconds since 1970, into the textual features (movielens: no tags).
    num_users
        The number that items are numbered from, where a folder does not tell (metammf).
    """

    min_rating: float | None = None
    k_core: int | None = None
    user_column: str | None = None
    item_column: str | None = None
    timestamp_column: str | None = None
    rating_column: str | None = None
    timestamp_unit: Literal["s", "ms", "us"] | None = None
    items: Path | None = None
    features: Path | None = None
    tags_before: int | None = None
    num_users: int | None = None


@app.command(name="import")
def import_(
    source: Path,
    out: Path,
    /,
    *,
    format: FormatName | None = None,  # noqa: A002  # the option's name
    name: str | None = None,
    licence: str | None = None,
    options: Annotated[ImportOptions | None, Parameter(name="*")] = None,
) -> None:
    """Import a foreign data set into a folder in our layout.

    Parameters
    ----------
    source
        A folder, or the file of a log.
    out
        The folder to write; one that metammf wrote before is replaced.
    format
        Recognised where it can be.
    name
        Of the data set; where not given, that of the source, and of a log, whose file may be named anything, that of OUT.
    licence
        Under which the data may be used, to be kept with them.
    """
    from metammf.data.folder import check_target, save_dataset
    from metammf.data.importers.registry import import_dataset

    check_target(out)
    given = vars(options or ImportOptions())
    chosen = {key: value for key, value in given.items() if value is not None}
    with _working(f"importing {source.name}") as progress:
        dataset = import_dataset(source, format, progress=progress, **chosen)
        provenance = dataset.provenance if licence is None else {**dataset.provenance, "licence": licence}
        usual = out.resolve().name if provenance["format"] == "log" else dataset.name
        dataset = replace(dataset, name=usual if name is None else name, provenance=provenance)
        save_dataset(dataset, out, progress=progress)
    sys.stdout.write(_summary(dataset, out, provenance.get("notes", ())))


@app.command
def describe(data: Path, /, *, json: bool = False, seed: int = 0) -> None:  # the option's name
    """Show counts, the long tail, modalities, parts, and whether features say anything about taste.

    Parameters
    ----------
    data
        A folder in our layout.
    json
        Print JSON instead of tables.
    seed
        Of the pairs that the feature lift is measured on.
    """
    from metammf.data.describe import describe as describe_dataset
    from metammf.data.folder import load_dataset

    with _working(f"describing {data.name}") as progress:
        description = describe_dataset(load_dataset(data, progress=progress), seed=seed, progress=progress)
    if json:
        _print_json(description.to_dict())
        return
    from metammf.cli.describing import show

    show(description)


@app.command
def generate(
    out: Path,
    /,
    *,
    users: int,
    items: int,
    interactions: int,
    seed: int = 0,
    widths: str = "visual=64,acoustic=32,textual=48",
    dtype: Literal["float32", "float16"] = "float32",
    cold_share: float = 0.2,
    missing_share: float = 0.1,
    content_strength: float = 8.0,
    mix_sharpness: float = 1.0,
) -> None:
    """Generate a micro-video world of known truth, from a few hundred users to millions.

    Parameters
    ----------
    out
        The folder to write; one that metammf wrote before is replaced.
    users
        How many users.
    items
        How many clips.
    interactions
        How many interactions: distinct pairs, exactly as many.
    seed
        The same seed gives the same world.
    widths
        Modalities, each with the width of its features.
    dtype
        Of the features.
    cold_share
        Share of the clips that are uploaded after the end of training.
    missing_share
        Share of the clips that lack one modality.
    content_strength
        How much content decides what users take of what the feed shows; at 0 they take any of it.
    mix_sharpness
        How sharply a clip is about one modality: at 0 all clips share one mix, at large numbers each is about one alone.
    """
    from metammf.data.folder import check_target
    from metammf.data.synthetic import generate_world, save_world

    modalities = _widths(widths)
    check_target(out, modalities)
    with _working("generating") as progress:
        world = generate_world(
            users=users,
            items=items,
            interactions=interactions,
            seed=seed,
            modalities=modalities,
            dtype=dtype,
            cold_share=cold_share,
            missing_share=missing_share,
            content_strength=content_strength,
            mix_sharpness=mix_sharpness,
            progress=progress,
        )
        save_world(world, out, progress=progress)
    sys.stdout.write(_summary(world.dataset, out))


def _widths(text: str) -> dict[str, int]:
    """Read ``visual=64,acoustic=32``; the library looks at the numbers themselves."""
    from metammf.errors import ConfigError

    widths: dict[str, int] = {}
    for entry in text.split(","):
        name, _, width = (word.strip() for word in entry.partition("="))
        if not (name and width.isascii() and width.isdecimal()):
            raise ConfigError(f"--widths: expected NAME=WIDTH,NAME=WIDTH,..., got {entry!r} in {text!r}")
        if name in widths:
            raise ConfigError(f"--widths: {name!r} comes twice in {text!r}")
        widths[name] = int(width)
    return widths


@app.command
def export(
    data: Path,
    out: Path,
    /,
    *,
    format: ExportName,  # noqa: A002  # the option's name
    split: SplitName | None = None,
    seed: int = 0,
) -> None:
    """Write a data set in the form that another toolkit reads.

    Parameters
    ----------
    data
        A folder in our layout.
    out
        The folder to write; one that metammf exported before is replaced.
    format
        recbole: atomic files; mmrec: one .inter with x_label, and .npy files.
    split
        How to split; a data set that carries a split is exported with that.
    seed
        Of a split that draws.
    """
    from metammf.data.exporting import export_dataset, with_split
    from metammf.data.folder import load_dataset

    with _working(f"exporting {data.name}") as progress:
        dataset = load_dataset(data, progress=progress)
        if split is not None:
            dataset = with_split(dataset, dataset.split(split, seed=seed))
        export_dataset(dataset, out, format, progress=progress)
    sys.stdout.write(_summary(dataset, out))


def _summary(dataset: "Dataset", out: Path, notes: "Iterable[str]" = ()) -> str:
    """Say what was found, what the importer has to tell, and where it all lies now."""
    import numpy as np

    from metammf.data.dataset import PARTS

    lines = [
        f"{dataset.name}: {dataset.num_users:,} users, {dataset.num_items:,} items,"
        f" {len(dataset.interactions):,} interactions"
    ]
    if dataset.parts is not None:
        sizes = np.bincount(dataset.parts, minlength=len(PARTS))
        lines.append("split: " + ", ".join(f"{name} {size:,}" for name, size in zip(PARTS, sizes, strict=True)))
    for name, width in dataset.features.widths.items():
        share = 1 - dataset.features.present[name].mean()
        lines.append(f"{name}: {width} features" + (f", {share:.1%} of the items lack them" if share else ""))
    if not dataset.features.modalities:
        lines.append("no features")
    repeats = dataset.provenance.get("repeats_merged")
    if repeats:
        lines.append(f"{repeats:,} repeated interactions merged")
    return "\n".join([*lines, *notes, f"written to {out}", ""])


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def _working(what: str) -> "Iterator[Progress]":
    """Show on a terminal's stderr what is going on and how far it is."""
    from metammf.cli.console import bar

    with bar(what) as shown:
        task = shown.add_task(what, total=None, note="")
        stage = ""

        def show(now: str, done: int, total: int) -> None:
            nonlocal stage
            if now != stage:
                stage = now
                shown.reset(task, note=now)
            shown.update(task, completed=done, total=total or None)

        yield show
