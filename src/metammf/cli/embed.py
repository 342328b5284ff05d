"""``metammf embed``."""

from pathlib import Path


def embed(run: Path, features: Path, out: Path, /) -> None:
    """Turn the content of items, new ones among them, into vectors.

    Parameters
    ----------
    run
        A finished run of a model that fuses content.
    features
        A folder in our layout: items.parquet and features/.
    out
        A Parquet file of item_id and vector.
    """
    import polars as pl

    from metammf.cli.console import err
    from metammf.cli.output import check_extension, write_table
    from metammf.data.folder import load_features
    from metammf.recommender import Recommender

    check_extension(out, (".parquet",))
    recommender = Recommender.load(run)
    ids, content, _ = load_features(features)
    vectors = recommender.embed_items(content)
    frame = pl.DataFrame(
        {
            "item_id": pl.Series(ids.ids.tolist(), dtype=pl.Int64 if ids.is_integer else pl.String),
            "vector": pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1])),
        }
    )
    write_table(frame, out)
    err.print(f"{out}: {len(vectors)} vectors of width {vectors.shape[1]}")
