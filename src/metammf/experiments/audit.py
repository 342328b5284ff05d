"""The leakage audit of a comparison: what would let a model see the answers is looked for before anything is trained.

Each check says what it found, with numbers; all that fail are told together, and there is no comparison then. U users, N items.
"""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from metammf.data.features import ItemFeatures
from metammf.data.interactions import PARTS
from metammf.errors import LeakageError
from metammf.experiments.comparison_results import Check
from metammf.models.base import Model
from metammf.models.registry import model_type
from metammf.nn.content import ContentScaler
from metammf.training.fit import build_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset
    from metammf.data.interactions import Interactions
    from metammf.data.splitting import Development, Split
    from metammf.models.config import ModelConfig

_NO_SCALER = "it has no ContentScaler; what it may fit by other means is not looked at"
_TEMPORAL = ("user-time", "global-time")


class _LeakError(Exception):
    """A check that failed."""


def audit(dataset: Dataset, split: Split) -> tuple[Check, ...]:
    """Check a split of a data set.

    Args:
        dataset: What was split.
        split: Its parts.

    Raises:
        LeakageError: at least one check fails; the message tells of all that do.
    """
    log = dataset.interactions
    return _checked(
        {
            "parts are apart": partial(_apart, split),
            "no pair comes twice": partial(_once, split, log),
            "parts come from the log": partial(_of_the_log, split, log),
            "train alone is learned from": partial(_train_alone, split),
            "there is something to choose on": partial(_to_choose_on, split),
            "times are in order": partial(_in_order, split),
            "no item from the future": partial(_known_items, split),
            "cold items are cold": partial(_cold, split),
        }
        | ({} if split.history is None else {"cold users are cold": partial(_cold_users, split, split.history)})
    )


def audit_fitting(config: ModelConfig, development: Development, label: str) -> tuple[Check, ...]:
    """Check that what a model fits on features is fitted on items with train interactions alone.

    The model is built twice, the second time with all features of the other items taken away: its scalers must be the same.

    Args:
        config: Of the model.
        development: What it would be trained on.
        label: What the check calls the model.

    Raises:
        LeakageError: they are not.
        ConfigError: the model does not fit the data.
    """
    return _checked({f"{label}: features are scaled by train items alone": partial(_fitting, config, development)})


def _checked(checks: Mapping[str, Callable[[], str]]) -> tuple[Check, ...]:
    passed, failed = [], []
    for name, check in checks.items():
        try:
            passed.append(Check(name, check()))
        except _LeakError as leak:
            failed.append(f"{name}: {leak}")
    if failed:
        raise LeakageError("leakage audit failed: " + "; ".join(failed))
    return tuple(passed)


def _parts(split: Split) -> dict[str, Interactions]:
    parts = {name: getattr(split, name) for name in PARTS}
    return parts if split.history is None else parts | {"history": split.history}


def _apart(split: Split) -> str:
    for (first, a), (second, b) in combinations(_parts(split).items(), 2):
        shared = np.intersect1d(a.keys, b.keys)
        if len(shared):
            raise _LeakError(
                f"{len(shared)} pairs are both in {first} and in {second}, such as {_pair(shared[0], split)}"
            )
    return ", ".join(f"{len(part):,} {name}" for name, part in _parts(split).items()) + ": no pair in two of them"


def _once(split: Split, log: Interactions) -> str:
    for name, part in {"the log": log, **_parts(split)}.items():
        keys, counts = np.unique(part.keys, return_counts=True)
        if (counts > 1).any():
            raise _LeakError(
                f"{int((counts > 1).sum())} pairs come repeatedly in {name}, such as {_pair(keys[counts > 1][0], split)}"
            )
    return f"{len(log):,} pairs, each once"


def _of_the_log(split: Split, log: Interactions) -> str:
    keys = log.keys
    for name, part in _parts(split).items():
        foreign = np.setdiff1d(part.keys, keys)
        if len(foreign):
            raise _LeakError(f"{len(foreign)} pairs of {name} are not in the log, such as {_pair(foreign[0], split)}")
    left_out = len(keys) - sum(map(len, _parts(split).values()))
    return "all of them" + (f"; {left_out:,} of the log are in no part" if left_out else "")


def _train_alone(split: Split) -> str:
    users, items = split.development.train.matrix.nonzero()
    learned = users.astype(np.int64) * split.catalog.num_items + items
    for name in ("validation", "test"):
        shared = np.intersect1d(learned, getattr(split, name).keys)
        if len(shared):
            raise _LeakError(
                f"the matrix of train holds {len(shared)} pairs of {name}, such as {_pair(shared[0], split)}"
            )
    if not np.array_equal(np.sort(learned), np.sort(split.train.keys)):
        raise _LeakError("what is learned from is not the train part")
    held_out = len(np.union1d(split.validation.users, split.test.users))
    return f"{len(learned):,} cells; none of the held-out pairs of {held_out:,} users"


def _to_choose_on(split: Split) -> str:
    if not len(split.validation):
        raise _LeakError("the validation part is empty")
    if not np.array_equal(np.sort(split.development.validation.keys), np.sort(split.validation.keys)):
        raise _LeakError("what chooses is not the validation part")
    return f"validation chooses, on {len(split.validation):,} interactions of {_users(split.validation):,} users"


def _in_order(split: Split) -> str:
    if split.train.timestamps is None:
        return "the data set has no timestamps: order cannot be told"
    if split.method == "global-time":
        return _one_moment(split)
    if split.method == "user-time":
        return _each_user_in_order(split)
    share = float(np.mean(_earlier_than_train(split)))
    return f"not a temporal split: {share:.1%} of the test interactions are older than their user's newest in train"


def _one_moment(split: Split) -> str:
    parts = [(name, part) for name, part in _parts(split).items() if len(part)]
    for (before, earlier), (after, later) in combinations(parts, 2):
        end, begin = int(_times(earlier).max()), int(_times(later).min())
        late = int((_times(earlier) >= begin).sum())
        if late:
            raise _LeakError(
                f"{late} interactions of {before} are not before {after} begins ({end} against {begin}, in seconds)"
            )
    return f"train ends at {int(_times(split.train).max())}, test begins at {int(_times(split.test).min())} (seconds)"


def _each_user_in_order(split: Split) -> str:
    for (before, earlier), (after, later) in combinations(_parts(split).items(), 2):
        if len(earlier) and len(later):
            newest, oldest = _newest(earlier), -_newest(later, -1)
            both = (earlier.user_counts > 0) & (later.user_counts > 0)
            wrong = np.flatnonzero(both & (newest > oldest))
            if len(wrong):
                user = split.catalog.user_ids.ids[wrong[0]]
                raise _LeakError(
                    f"{len(wrong)} users have something in {before} that is newer than in {after}, such as user {user!r}"
                )
    return f"of each of {_users(split.test):,} users with a test interaction"


def _known_items(split: Split) -> str:
    """Under a temporal split nobody can have watched an item before it was there."""
    columns = split.catalog.items
    if split.train.timestamps is None or "uploaded_at" not in columns.columns:
        return "nothing tells when items were uploaded"
    uploaded = columns["uploaded_at"]
    if uploaded.dtype.is_temporal():
        uploaded = uploaded.cast(pl.Datetime("us")).dt.epoch("s")
    if not uploaded.dtype.is_numeric():
        return "uploaded_at holds neither moments nor seconds: it is not looked at"
    moments = uploaded.cast(pl.Float64).fill_null(-np.inf).to_numpy()
    early = _times(split.train) < moments[split.train.items]
    if early.any() and split.method in _TEMPORAL:
        pair = _pair(split.train.keys[early][0], split)
        raise _LeakError(f"{int(early.sum())} train interactions are older than their item's upload, such as {pair}")
    return f"{int(early.sum()):,} train interactions are older than the upload of their item"


def _cold(split: Split) -> str:
    cold = split.cold_items
    tested = int(cold[split.test.items].sum())
    if split.method == "cold-item" and not tested:
        raise _LeakError("no test interaction is with a cold item: the split makes none cold")
    told = int(np.isin(split.train.items, np.flatnonzero(cold)).sum())
    if told:
        raise _LeakError(f"{told} train interactions are with cold items")
    return f"{int(cold.sum()):,} items have no train interaction; {tested:,} test interactions are with them"


def _cold_users(split: Split, history: Interactions) -> str:
    told = int((split.train.user_counts[history.users] > 0).sum())
    if told:
        raise _LeakError(f"{told} interactions of histories are of users that are learned from")
    cold = split.train.user_counts == 0
    tested = int(cold[split.test.users].sum())
    if not tested:
        raise _LeakError("no test interaction is of a cold user: the split makes none cold")
    who = f"{int(cold.sum()):,} users have no train interaction, {_users(history):,} of them a history"
    return f"{who}; {tested:,} test interactions are theirs"


def _fitting(config: ModelConfig, development: Development) -> str:
    features, cold = development.catalog.features, development.cold_items
    if not features.modalities or not issubclass(model_type(config.name), Model):
        return _NO_SCALER
    scalers = _scalers(config, development)
    if not scalers:
        return _NO_SCALER
    warm_alone = {name: mask & ~cold for name, mask in features.present.items()}
    fewer = ItemFeatures(features.matrices, warm_alone, num_items=features.num_items)
    without = _scalers(config, development.with_features(fewer))
    changed = [name for name, value in scalers.items() if not torch.equal(value, without[name])]
    if changed:
        raise _LeakError(f"{', '.join(changed)} depend on the features of items without train interactions")
    return f"fitted on {int((~cold).sum()):,} items; the same without the features of the other {int(cold.sum()):,}"


def _scalers(config: ModelConfig, development: Development) -> dict[str, torch.Tensor]:
    """Return what the scalers of a new model have fitted, by name."""
    model = build_model(config, development, seed=0, device=torch.device("cpu"))
    scalers = {name: part for name, part in model.named_modules() if isinstance(part, ContentScaler)}
    return {f"{name}.{key}": value for name, part in scalers.items() for key, value in part.state_dict().items()}


def _pair(key: np.int64, split: Split) -> str:
    user, item = divmod(int(key), split.catalog.num_items)
    return f"user {split.catalog.user_ids.ids[user]!r} and item {split.catalog.item_ids.ids[item]!r}"


def _users(part: Interactions) -> int:
    return int((part.user_counts > 0).sum())


def _times(part: Interactions) -> NDArray[np.int64]:
    assert part.timestamps is not None
    return part.timestamps


def _newest(part: Interactions, sign: int = 1) -> NDArray[np.float64]:
    """Return each user's largest `sign` times the moment of an interaction, shape (U,); -inf for none."""
    newest = np.full(part.num_users, -np.inf)
    np.maximum.at(newest, part.users, sign * _times(part).astype(np.float64))
    return newest


def _earlier_than_train(split: Split) -> NDArray[np.bool_]:
    return _times(split.test) < _newest(split.train)[split.test.users]
