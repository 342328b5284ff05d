"""The leakage audit of a comparison: what would let a model see the answers is looked for before anything is trained.

Each check says what it found, with numbers; all that fail are told together, and there is no comparison then. U users, N items,
cold ones without a train interaction, warm ones with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

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

_SOLVED = "it is solved, not trained: it has no vectors before that, and what it fits on features is not looked at"
_NOISE = 1e3
"""Standard deviation of features that stand for others: it moves any statistic, and float16 can hold it."""
_ROUNDING = 1e-5
"""How far vectors may lie apart, by their largest entry: a model that multiplies the rows of the items that have a modality, and
no others, multiplies matrices of another height where other items have it, and they may be rounded otherwise."""
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


class FittingAudit:
    """Checks that models take from the features of warm items alone what they know before training.

    A model is built twice, the second time with other features of the cold items: see `with_other_cold_features`, which is called
    once for all models. What its scalers have fitted must be the same bits, and what it gives users and warm items in evaluation
    mode, as its first epoch begins, the same vectors up to rounding. So graphs of items that are alike, which decide those
    vectors, are looked at as well; what a model reads for its losses alone is not.

    Args:
        development: What the models would be trained on.
    """

    def __init__(self, development: Development) -> None:
        self.development = development

    @cached_property
    def other(self) -> Development:
        """The same with other features of the cold items."""
        return with_other_cold_features(self.development)

    def check(self, config: ModelConfig, label: str) -> tuple[Check, ...]:
        """Check one model.

        Args:
            config: Of the model.
            label: What the check calls it.

        Raises:
            LeakageError: the features of cold items have a say.
            ConfigError: the model does not fit the data.
            DataError: the data lack what it needs.
        """
        name = f"{label}: cold items' features set no scaler and no vector of others"
        return _checked({name: partial(self._fitting, config)})

    def _fitting(self, config: ModelConfig) -> str:
        if not issubclass(model_type(config.name), Model):
            return _SOLVED
        first = _Untrained.build(config, self.development)
        cold = int(self.development.cold_items.sum())
        if not cold:
            return f"all {self.development.train.num_items:,} items have train interactions: there are no others"
        changed = first.changes(_Untrained.build(config, self.other))
        if changed:
            raise _LeakError(f"{', '.join(changed)} depend on the features of items without train interactions")
        fitted = "scalers" if first.scalers else "it has no ContentScaler"
        return (
            f"{fitted}, and the untrained model's vectors of {len(first.vectors['user vectors']):,} users and"
            f" {len(first.vectors['item vectors']):,} items with train interactions: the same with other features of the other"
            f" {cold:,};"
            " what only its losses read is not looked at"
        )


def with_other_cold_features(development: Development) -> Development:
    """Return the same with other features of the cold items, of which a model that may not read them can tell nothing.

    In each modality every second cold item has the features of a warm one, so that it is among the nearest of that one wherever
    it is let in. The others have large noise, and lack the modality where they had it, or have it where they lacked it. So what
    ignores masks reads other values, and what obeys them reads other items. The same at each call.

    Features are copied whole, in their own precision: this takes as much memory as all of them.
    """
    features, cold = development.catalog.features, np.flatnonzero(development.cold_items)
    rng = np.random.default_rng(0)
    matrices, present = {}, {}
    for turn, name in enumerate(features.modalities):
        matrix, mask = np.array(features.matrices[name]), features.present[name].copy()
        warm = np.flatnonzero(mask & ~development.cold_items)
        alike, noisy = (cold[turn % 2 :: 2], cold[1 - turn % 2 :: 2]) if len(warm) else (cold[:0], cold)
        matrix[noisy] = _NOISE * rng.standard_normal((len(noisy), matrix.shape[1]))
        mask[noisy] = ~mask[noisy]
        if len(alike):
            matrix[alike] = matrix[rng.choice(warm, len(alike))]
            mask[alike] = True
        matrices[name], present[name] = matrix, mask
    return development.with_features(ItemFeatures(matrices, present, num_items=features.num_items))


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
                user = _told(split.catalog.user_ids.ids[wrong[0]])
                raise _LeakError(
                    f"{len(wrong)} users have something in {before} that is newer than in {after}, such as user {user}"
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


@dataclass(frozen=True)
class _Untrained:
    """What a model knows before its first step.

    Args:
        scalers: What they have fitted, by name.
        vectors: Of all users (U, D), and of the warm items (n, D) and their offsets (n, 1), where it has offsets.
    """

    scalers: dict[str, torch.Tensor]
    vectors: dict[str, torch.Tensor]

    @classmethod
    def build(cls, config: ModelConfig, development: Development) -> _Untrained:
        """Build a model, and ask it.

        Raises:
            ConfigError: it does not fit the data.
            DataError: the data lack what it needs.
        """
        model = build_model(config, development, seed=0, device=torch.device("cpu"))
        scalers = {name: part for name, part in model.named_modules() if isinstance(part, ContentScaler)}
        fitted = {f"{name}.{key}": value for name, part in scalers.items() for key, value in part.state_dict().items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model.begin_epoch(torch.Generator().manual_seed(0))  # which makes graphs, in some
            users, items = model.vectors()
            offsets = model.all_offsets()
        warm = torch.from_numpy(~development.cold_items)
        vectors = {"user vectors": users, "item vectors": items[warm]}
        return cls(fitted, vectors if offsets is None else vectors | {"item offsets": offsets[warm].unsqueeze(1)})

    def changes(self, other: _Untrained) -> list[str]:
        """Return what is not the same in another."""
        found = [name for name, value in self.scalers.items() if not torch.equal(value, other.scalers[name])]
        for name, rows in self.vectors.items():
            bound = _ROUNDING * float(rows.nan_to_num(0, 0, 0).abs().max())
            same = torch.isclose(rows, other.vectors[name], rtol=0, atol=bound, equal_nan=True).all(1)
            if not same.all():
                found.append(f"{int((~same).sum()):,} of {len(rows):,} {name}")
        return found


def _pair(key: np.int64, split: Split) -> str:
    user, item = divmod(int(key), split.catalog.num_items)
    return f"user {_told(split.catalog.user_ids.ids[user])} and item {_told(split.catalog.item_ids.ids[item])}"


def _told(name: Any) -> str:
    """An id as people write it: a number bare, a text in quotes."""
    return repr(name.item() if isinstance(name, np.generic) else name)


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
