"""MovieLens latest-small: ratings with timestamps, titles, genres and tags, and features of trailers beside them.

``ratings.csv`` (userId, movieId, rating, timestamp), ``movies.csv`` (movieId, title, genres), ``tags.csv`` (userId, movieId,
tag, timestamp; optional), ``features.npz`` (movieId, and a matrix a modality; optional).

A rating of `min_rating` or more is an interaction. The data set holds the users and movies with one at least: a movie
that nobody liked can neither be learned nor be asked for here. Movies that `features.npz` does not name lack its
modalities. The textual features are made here, from the words of title and genres: TF-IDF, reduced by truncated SVD.
Tags come from the same users and may postdate the split, so they are left out unless `tags_before` dates them: a
timestamp no later than the split's first held-out interaction keeps what a tag tells out of the past.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metammf.data.features import ItemFeatures
from metammf.data.ids import IdMap
from metammf.data.importers.assembling import Pairs, hashes, make_dataset
from metammf.data.importers.text import bag_of_words
from metammf.data.readers import tables
from metammf.data.readers.arrays import read_npz
from metammf.data.readers.features import as_features, in_usual_order
from metammf.errors import FileFormatError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset

_LICENCE = (
    "GroupLens terms: research use; no commercial use without permission; redistribution under the same conditions;"
    " cite Harper and Konstan (2015), doi 10.1145/2827872. See README.txt of the data set."
)
_MAX_SPREAD = 100  # a matrix of all movies takes at most so many times the memory of what the file holds
_NO_GENRE = "(no genres listed)"


def recognise(source: Path) -> bool:
    """Whether the folder holds ratings and movies."""
    return (source / "ratings.csv").is_file() and (source / "movies.csv").is_file()


def read(source: Path, min_rating: float = 4.0, tags_before: int | None = None) -> Dataset:
    """Import a folder of this form.

    Args:
        source: The folder.
        min_rating: The lowest rating that counts as an interaction.
        tags_before: Take tags dated before this moment (seconds since 1970) into the textual features.

    Raises:
        FileFormatError: a file is missing or damaged, a column is missing, a movie is unknown.
    """
    ratings, movies, tags, features = (
        source / name for name in ("ratings.csv", "movies.csv", "tags.csv", "features.npz")
    )
    table = _read_ratings(ratings, min_rating)
    user_ids = IdMap(np.unique(table["userId"].to_numpy()), kind="user")
    item_ids = IdMap(np.unique(table["movieId"].to_numpy()))
    known = _read_movies(movies, item_ids)
    pairs = Pairs(
        np.searchsorted(user_ids.ids, table["userId"].to_numpy()),
        np.searchsorted(item_ids.ids, table["movieId"].to_numpy()),
        None,
        table["timestamp"].to_numpy(),
        table["rating"].to_numpy(),
    )
    words = [_words(title, genres) for title, genres in known.iter_rows()]
    if tags_before is not None:
        _add_tags(words, tags, item_ids, tags_before)
    text, has_text = bag_of_words(words)
    matrices, masks = _read_features(features, item_ids) if features.is_file() else ({}, {})
    matrices["textual"], masks["textual"] = text, has_text
    order = in_usual_order(matrices)
    files = [path for path in (ratings, movies, tags, features) if path.is_file()]
    return make_dataset(
        source.resolve().name,
        pairs,
        user_ids,
        ItemFeatures({name: matrices[name] for name in order}, masks),
        item_ids,
        items=known,
        provenance=_provenance(min_rating, tags_before, text.shape[1], files),
        path=ratings,
    )


def _provenance(min_rating: float, tags_before: int | None, width: int, files: list[Path]) -> dict[str, Any]:
    tags = "; no tags" if tags_before is None else f" and of tags dated before {tags_before}"
    return {
        "format": "movielens",
        "licence": _LICENCE,
        "options": {"min_rating": min_rating, "tags_before": tags_before},
        "textual": f"TF-IDF of title words and genres{tags}, truncated SVD to {width} dimensions, rows of unit length",
        "sources": hashes(files),
    }


def _read_ratings(path: Path, min_rating: float) -> pl.DataFrame:
    table = tables.read_table(path, ("userId", "movieId", "rating", "timestamp"))
    whole = {name: tables.whole(table[name], path) for name in ("userId", "movieId", "timestamp")}
    frame = pl.DataFrame({**whole, "rating": tables.ratings(table["rating"], path)})
    kept = frame.filter(pl.col("rating") >= min_rating)
    if not kept.height:
        raise FileFormatError(path, f"none of {frame.height} ratings reaches {min_rating:g}", "an interaction")
    return kept


def _read_movies(path: Path, item_ids: IdMap) -> pl.DataFrame:
    table = tables.read_table(path, ("movieId", "title", "genres"))
    movies = pl.Series(tables.whole(table["movieId"], path))
    if movies.n_unique() < len(movies):
        row = int(movies.is_first_distinct().not_().arg_max() or 0)
        raise FileFormatError(path, f"row {row + 1}: movieId {movies[row]} comes a second time", "each movie once")
    places = tables.index_ids(pl.Series("movieId", item_ids.ids), movies, path, "movie")
    return table.select("title", "genres")[places]


def _words(title: str | None, genres: str | None) -> list[str]:
    named = [f"genre:{genre}" for genre in (genres or "").split("|") if genre and genre != _NO_GENRE]
    return re.findall(r"\w+", (title or "").lower()) + named


def _add_tags(words: list[list[str]], path: Path, item_ids: IdMap, before: int) -> None:
    if not path.is_file():
        raise FileFormatError(path, "no such file", "the tags that tags_before asks for")
    table = tables.read_table(path, ("movieId", "tag", "timestamp"))
    movies, when = (tables.whole(table[name], path) for name in ("movieId", "timestamp"))
    for movie, tag, moment in zip(movies.tolist(), table["tag"].to_list(), when.tolist(), strict=True):
        if moment < before and movie in item_ids:
            words[item_ids.index(movie)] += re.findall(r"\w+", (tag or "").lower())


def _read_features(path: Path, item_ids: IdMap) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.bool_]]]:
    arrays = read_npz(path)
    movies = arrays.pop("movieId", None)
    if movies is None or movies.ndim != 1 or movies.dtype.kind not in "iu":
        raise FileFormatError(path, f"has no whole numbers 'movieId'; it holds {', '.join(arrays)}")
    values, counts = np.unique(movies, return_counts=True)
    if len(values) < len(movies):
        raise FileFormatError(path, f"movieId {values[counts > 1][0]} comes twice", "each movie once")
    used = np.flatnonzero(np.isin(movies, item_ids.ids))
    places = np.searchsorted(item_ids.ids, movies[used])
    has = np.zeros(len(item_ids), dtype=np.bool_)
    has[places] = True
    if len(movies) * _MAX_SPREAD < len(item_ids):
        raise FileFormatError(path, f"names {len(movies)} movies", f"a hundredth of {len(item_ids)} at least")
    matrices: dict[str, NDArray[Any]] = {}
    for name, matrix in arrays.items():
        rows = as_features(matrix, f"{path}, array {name!r}", len(movies))
        full = np.zeros((len(item_ids), rows.shape[1]), dtype=np.float32)
        full[places] = rows[used]
        matrices[name] = full
    return matrices, dict.fromkeys(matrices, has)
