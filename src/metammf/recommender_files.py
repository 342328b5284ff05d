"""A recommender as a folder: JSON, Parquet and safetensors, no pickle.

::

    recommender.json      the model's config, counts, the data set's folder, and the SHA-256 of each other file
    tensors.safetensors   vectors or what was solved, the network's weights, what it reads of items to fold users in, train and
                          validation interactions
    users.parquet         user_id, in index order
    items.parquet         item_id and the items' other columns, in index order
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from metammf.data.dataset import Catalog
from metammf.data.features import absent_features
from metammf.data.ids import IdMap
from metammf.data.interactions import Interactions
from metammf.data.readers import tables
from metammf.data.splitting import Development
from metammf.errors import ForeignModelError, MetaMMFError, RunError, WriteError, out_of_memory
from metammf.files import atomic_folder, read_json, sha256, write_json
from metammf.models.base import Inputs, Model, Scorer
from metammf.models.registry import model_config, model_type
from metammf.models.scorers import VectorScorer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from metammf.models.config import ModelConfig
    from metammf.recommender import Recommender

FORMAT = "metammf-recommender-1"
MARKER = "recommender.json"
FOLDER = "recommender"
_FILES = ("tensors.safetensors", "users.parquet", "items.parquet")
_MEND = "`metammf train` with the run's options and --resume makes it again from its checkpoint"


def write_recommender(
    recommender: Recommender,
    folder: Path | str,
    *,
    data_path: Path | str | None,
    feature_hashes: Mapping[str, str],
    placebo: tuple[str, int] | None,
) -> None:
    """Write `recommender` into `folder`, whole or not at all.

    Raises:
        WriteError: it cannot be written.
    """
    catalog = recommender.catalog
    tensors = _interactions("train", recommender.train) | _interactions("validation", recommender.validation)
    tensors |= {f"state/{name}": value for name, value in recommender.state.items()}
    if not recommender.state and isinstance(recommender.scorer, VectorScorer):
        scorer = recommender.scorer
        tensors |= {"vectors/users": scorer.users, "vectors/items": scorer.items}
        if scorer.rankable is not None:
            tensors["vectors/rankable"] = scorer.rankable
        if scorer.offsets is not None:
            tensors["vectors/offsets"] = scorer.offsets
        weights = recommender.model.state_dict()
        tensors |= {f"model/{name}": value for name, value in weights.items()}
        tensors |= {f"memory/{name}": value for name, value in recommender.item_memory.items()}
    about = {
        "format": FORMAT,
        "model": recommender.config.model_dump(mode="json"),
        "num_users": catalog.num_users,
        "num_items": catalog.num_items,
        "trained_items": recommender.trained_items,
        "feature_widths": catalog.features.widths,
        "data_path": None if data_path is None else Path(data_path).as_posix(),
        "feature_hashes": dict(feature_hashes),
        "placebo": placebo,
        "strangers": recommender.strangers,
    }
    with atomic_folder(folder, marker=MARKER) as part:
        try:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
                part / "tensors.safetensors",
            )
            _table("user_id", catalog.user_ids).write_parquet(part / "users.parquet")
            items = catalog.items.drop("item_id", strict=False)
            _table("item_id", catalog.item_ids).hstack(items.get_columns()).write_parquet(part / "items.parquet")
        except (SafetensorError, pl.exceptions.PolarsError, OSError) as error:  # a full disk, for one
            raise WriteError(folder, error) from error
        about["files"] = {name: sha256(part / name) for name in _FILES}
        write_json(part / MARKER, about)


def read_recommender(kind: type[Recommender], folder: Path | str) -> Recommender:
    """Read what `write_recommender` wrote; `folder` may be the run that holds it.

    Raises:
        ForeignModelError: its model is from elsewhere, and its code is not to be run.
        RunError: there is nothing of the kind, or it is damaged.
        MemoryError, RuntimeError: there is not enough memory for it.
    """
    folder = _found(folder)
    about = check_files(folder)
    try:
        with safe_open(folder / "tensors.safetensors", framework="pt") as stream:
            # Cloned into aligned memory: the mapped file's odd offsets would change the last bits of a product.
            tensors = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118 - not a mapping
        users, items = (tables.read_table(folder / f"{name}.parquet") for name in ("users", "items"))
        return _assemble(kind, about, tensors, users, items)
    except ForeignModelError as error:
        raise ForeignModelError(error.model, folder) from error
    except RunError:
        raise
    except (
        SafetensorError,
        OSError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
        MemoryError,
        pl.exceptions.PolarsError,
        MetaMMFError,
    ) as error:
        if out_of_memory(error) is not None:
            raise
        raise RunError(f"{folder}: the recommender is damaged ({error}); {_MEND}") from error


def check_files(folder: Path) -> dict[str, Any]:
    """Read ``recommender.json`` and hold the other files against the hashes that it tells.

    Raises:
        RunError: one of them is damaged or missing.
    """
    try:
        about = read_json(folder / MARKER)
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            found = about.get("format") if isinstance(about, dict) else about
            raise RunError(f"{folder / MARKER}: expected the form {FORMAT}, got {found!r}")
        recorded = about.get("files") or {}
        for name in _FILES:
            if name in recorded and sha256(folder / name) != recorded[name]:
                raise RunError(f"{folder / name}: damaged (its content is not what {MARKER} tells); {_MEND}")
    except (OSError, TypeError, MetaMMFError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{folder}: the recommender is damaged ({error}); {_MEND}") from error
    return about


def recommender_hash(folder: Path | str) -> str:
    """Return one SHA-256 of all that a recommender's lists depend on; `folder` may be the run that holds it.

    Raises:
        RunError: there is nothing of the kind.
    """
    folder = _found(folder)
    try:
        files = [sha256(folder / name) for name in (MARKER, "tensors.safetensors", "users.parquet", "items.parquet")]
    except OSError as error:
        raise RunError(f"{folder}: the recommender is damaged ({error})") from error
    return hashlib.sha256("".join(files).encode()).hexdigest()


def _found(folder: Path | str) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder")
    if not (folder / MARKER).is_file():
        folder = folder / FOLDER
    if not (folder / MARKER).is_file():
        raise RunError(
            f"{folder.parent}: holds no finished recommender (no {FOLDER}/{MARKER}); is its training finished?"
        )
    return folder


def _assemble(
    kind: type[Recommender],
    about: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    users: pl.DataFrame,
    items: pl.DataFrame,
) -> Recommender:
    config = model_config(about["model"], from_file=True)
    count = int(about["num_items"])
    features = absent_features(about["feature_widths"], count)
    catalog = Catalog(
        IdMap(users["user_id"].to_numpy(), kind="user"),
        IdMap(items["item_id"].to_numpy(), kind="item"),
        features,
        items.drop("item_id"),
    )
    trained_items = int(about["trained_items"])
    if (catalog.num_users, catalog.num_items) != (about["num_users"], count) or not 0 < trained_items <= count:
        raise RunError(
            f"the recommender is damaged: {catalog.num_users} user ids and {catalog.num_items} item ids, but {MARKER} tells"
            f" of {about['num_users']} and {count}, of which {trained_items} were trained"
        )
    parts = [
        Interactions(tensors[f"{name}/users"].numpy(), tensors[f"{name}/items"].numpy(), about["num_users"], count)
        for name in ("train", "validation")
    ]
    development = Development(parts[0], parts[1], catalog)
    state = {name.removeprefix("state/"): value for name, value in tensors.items() if name.startswith("state/")}
    weights = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
    memory = {name.removeprefix("memory/"): value for name, value in tensors.items() if name.startswith("memory/")}
    for name, rows in memory.items():
        if len(rows) != count:
            raise RunError(f"the recommender is damaged: {len(rows)} rows of memory/{name} for {count} items")
    model_kind = model_type(config.name)
    scorer: Scorer
    build: Callable[[], Model] | None = None
    if issubclass(model_kind, Model):
        optional = (tensors.get(f"vectors/{name}") for name in ("rankable", "offsets"))
        scorer = VectorScorer(tensors["vectors/users"], tensors["vectors/items"], *optional)
        build = _builder(config, development, trained_items, weights)
    else:
        scorer = model_kind(config, Inputs(development.train, features)).scorer(state)
    data_path = None if about["data_path"] is None else Path(about["data_path"])
    placebo = about.get("placebo")
    return kind(
        development,
        config,
        scorer,
        build=build,
        state=state,
        trained_items=trained_items,
        data_path=data_path,
        feature_hashes=about.get("feature_hashes"),
        placebo=None if placebo is None else (placebo[0], int(placebo[1])),
        strangers="model" if about.get("strangers") == "model" else "popularity",
        item_memory=memory or None,
    )


def _builder(
    config: ModelConfig, development: Development, trained_items: int, weights: Mapping[str, Tensor]
) -> Callable[[], Model]:
    """The network is built when it is first asked for: recommending needs vectors alone."""

    def build() -> Model:
        train = development.train
        known = Interactions(train.users, train.items, train.num_users, trained_items)
        inputs = Inputs(known, absent_features(development.catalog.features.widths, trained_items))
        with torch.random.fork_rng(devices=[]):
            model: Model = model_type(config.name)(config, inputs)  # type: ignore[assignment]  # a Model by the caller's check
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise RunError(f"the recommender is damaged: its weights do not fit its config ({error})") from error
        return model.eval()

    return build


def _interactions(name: str, part: Interactions) -> dict[str, Tensor]:
    return {
        f"{name}/users": torch.from_numpy(np.array(part.users)),
        f"{name}/items": torch.from_numpy(np.array(part.items)),
    }


def _table(column: str, ids: IdMap) -> pl.DataFrame:
    dtype = pl.Int64 if ids.is_integer else pl.String
    return pl.DataFrame({column: pl.Series(ids.ids.tolist(), dtype=dtype)})
