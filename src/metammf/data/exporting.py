"""Writing a data set in the forms that RecBole and MMRec read, so that it can be used there and come back the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import polars as pl

from metammf.data.dataset import PARTS, Dataset
from metammf.data.folder import id_series, log_table
from metammf.data.progress import Progress, silent
from metammf.errors import ConfigError, DataError, did_you_mean
from metammf.files import atomic_folder, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metammf.data.interactions import Interactions
    from metammf.data.splitting import Split

ExportFormat = Literal["recbole", "mmrec"]
FORMATS: tuple[str, ...] = get_args(ExportFormat)
MARKER = "metammf-export.json"

_MMREC_FILES = {"visual": "image_feat", "acoustic": "audio_feat", "textual": "text_feat"}
_RECBOLE_PARTS = (".train", ".valid", ".test")
_INTER_FIELDS = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}
_BREAKS = r"[\t\r\n]+"
_CHUNK_ROWS = 8_192


def export_dataset(
    dataset: Dataset,
    out: Path | str,
    format: str,  # noqa: A002  # the command line's word
    *,
    progress: Progress = silent,
) -> None:
    """Write a data set as a folder of a foreign form, whole or not at all.

    ``recbole``: ``NAME.inter`` (or one file a part, where the data set carries a split), ``NAME.item`` with titles, the
    items' other columns and the features, ``NAME.user``; NAME is the folder's, as RecBole wants it. ``mmrec``:
    ``NAME.inter`` with ``x_label``, a feature file a modality, ``titles.csv``, and in ``user_ids.csv`` and
    ``item_ids.csv`` what each number stands for; where an item lacks a modality its row is zero. Rows are written
    batch by batch.

    Args:
        dataset: Of any size.
        out: The folder to write; one that metammf exported before is replaced.
        format: One of `FORMATS`.
        progress: Called with the items written, by the form that writes features as text.

    Raises:
        ConfigError: the form is not known.
        DataError: `out` is a folder that metammf did not write, the data set lacks the split that MMRec's form needs,
            or an id holds a tab or a line's end.
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}{did_you_mean(format, FORMATS)}; there are: {', '.join(FORMATS)}")
    if format == "mmrec" and dataset.parts is None:
        raise DataError(f"{dataset.name} carries no split, which MMRec's form needs: name a split method")
    with atomic_folder(out, marker=MARKER) as part:
        name = Path(out).resolve().name
        try:
            if format == "recbole":
                _write_recbole(dataset, part, name, progress)
            else:
                _write_mmrec(dataset, part, name)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"cannot write {out}: {error}") from error
        write_json(part / MARKER, {"form": format, "name": dataset.name, "provenance": dict(dataset.provenance)})


def with_split(dataset: Dataset, split: Split) -> Dataset:
    """Return the data set with the parts of a split as its own; interactions that are in no part are left out.

    Raises:
        DataError: users come with a history beside the parts, as cold ones do, which has no place among them.
    """
    if split.history is not None:
        raise DataError(
            f"split {split.method!r}: expected train, validation and test alone, got histories of"
            f" {len(split.history)} interactions beside them, which these forms cannot hold"
        )
    logs = (split.train, split.validation, split.test)
    log: Interactions = logs[0].union(logs[1]).union(logs[2])
    parts = np.repeat(np.arange(3, dtype=np.int8), [len(part) for part in logs])
    provenance = {**dataset.provenance, "split": split.method}
    return Dataset(dataset.name, log, dataset.catalog, parts, provenance)


def _write_recbole(dataset: Dataset, out: Path, name: str, progress: Progress) -> None:
    catalog = dataset.catalog
    users, items = id_series(catalog.user_ids), id_series(catalog.item_ids)
    for kind, ids in (("user", users), ("item", items)):
        broken = ids.filter(ids.str.contains(_BREAKS)) if ids.dtype == pl.String else ids.clear()
        if len(broken):
            raise DataError(f"{kind} id {broken[0]!r}: an id with a tab or a line's end cannot be written in this form")
    progress("writing interactions", 0, 0)
    log = log_table(dataset)
    if dataset.parts is None:
        _write_inter(log, out / f"{name}.inter")
    else:
        for part, ending in zip(PARTS, _RECBOLE_PARTS, strict=True):
            _write_inter(log.filter(pl.col("split") == part), out / f"{name}{ending}.inter")
    _write_tsv(pl.DataFrame({"user_id:token": users}), out / f"{name}.user")
    rest = {f"{column}:{_recbole_type(column, values)}": values for column, values in catalog.items.to_dict().items()}
    features = dataset.features
    # Features as text are many times their size: a slice of the items at a time.
    with (out / f"{name}.item").open("wb") as stream:
        for start in range(0, max(1, dataset.num_items), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            columns = {"item_id:token": items[rows], **{key: values[rows] for key, values in rest.items()}}
            for modality, matrix in features.matrices.items():
                cells = _cells(matrix[rows], features.present[modality][rows])
                columns[f"{modality}:float_seq"] = cells
            _write_tsv(pl.DataFrame(columns), stream, header=start == 0)
            progress("writing items", min(start + _CHUNK_ROWS, dataset.num_items), dataset.num_items)


def _write_inter(log: pl.LazyFrame, path: Path) -> None:
    there = log.collect_schema().names()
    typed = [pl.col(name).alias(f"{name}:{kind}") for name, kind in _INTER_FIELDS.items() if name in there]
    log.select(typed).sink_csv(path, separator="\t", quote_style="never")


def _recbole_type(column: str, values: pl.Series) -> str:
    if column == "title":
        return "token_seq"
    return "float" if values.dtype.is_numeric() else "token"


def _cells(matrix: NDArray[Any], present: NDArray[np.bool_]) -> pl.Series:
    form = " ".join(["%.9g"] * matrix.shape[1])  # nine digits tell one float32 from every other
    rows = [form % tuple(row) if has else None for row, has in zip(matrix.tolist(), present, strict=True)]
    return pl.Series(rows, dtype=pl.String)


def _write_mmrec(dataset: Dataset, out: Path, name: str) -> None:
    log, catalog, features = dataset.interactions, dataset.catalog, dataset.features
    columns = {"userID": pl.Series(log.users), "itemID": pl.Series(log.items)}
    columns["rating"] = pl.Series(np.ones(len(log), dtype=np.float32) if log.ratings is None else log.ratings)
    if log.timestamps is not None:
        columns["timestamp"] = pl.Series(log.timestamps)
    columns["x_label"] = pl.Series(dataset.parts)
    _write_tsv(pl.DataFrame(columns), out / f"{name}.inter")
    numbers = {
        kind: pl.Series(np.arange(count)) for kind, count in (("user", catalog.num_users), ("item", catalog.num_items))
    }
    pl.DataFrame({"userID": numbers["user"], "user_id": id_series(catalog.user_ids)}).write_csv(out / "user_ids.csv")
    lacking = {f"has_{key}": pl.Series(mask) for key, mask in features.present.items() if not mask.all()}
    pl.DataFrame({"itemID": numbers["item"], "item_id": id_series(catalog.item_ids), **lacking}).write_csv(
        out / "item_ids.csv"
    )
    if catalog.titles is not None:
        titles = pl.DataFrame({"itemID": numbers["item"], "title": catalog.items["title"]})
        titles.filter(pl.col("title").is_not_null()).write_csv(out / "titles.csv")
    for modality, matrix in features.matrices.items():
        _write_features(out / f"{_MMREC_FILES.get(modality, modality)}.npy", matrix, features.present[modality])


def _write_features(path: Path, matrix: NDArray[Any], present: NDArray[np.bool_]) -> None:
    target = np.lib.format.open_memmap(path, mode="w+", dtype=matrix.dtype, shape=matrix.shape)
    for start in range(0, len(matrix), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        target[rows] = np.where(present[rows, None], matrix[rows], 0)
    target.flush()


def _write_tsv(table: pl.DataFrame, target: Any, *, header: bool = True) -> None:
    """Write a tab-separated table without quotes, which these forms do not know."""
    for name, column in table.to_dict().items():
        if column.dtype == pl.String and column.str.contains(_BREAKS).any():
            table = table.with_columns(column.str.replace_all(_BREAKS, " ").alias(name))
    table.write_csv(target, separator="\t", quote_style="never", include_header=header)
