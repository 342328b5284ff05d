"""Worlds of known truth: a micro-video platform whose every clip says itself which of its modalities matters.

N clips, U users, M modalities. Clip i has content z_im in each modality m and a mix a_i on the simplex: the share of
its appeal that each modality carries. Most clips are about one modality; the content of the others is as real, and
means nothing to anybody. User u has a taste t_um for the content of each modality. The utility of clip i is

    u_ui = sum_m a_im <t_um, z_im>

and users watch, among what a feed of popular and of fitting clips shows them, what has the highest utility plus
Gumbel noise. The mix follows the clip's style, and the style shows in all of its features: a network can read which
modality counts, and a fusion whose weights follow the clip can use it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import polars as pl
from scipy.special import entr

from metammf.data.dataset import Catalog, Dataset
from metammf.data.ids import IdMap
from metammf.data.interactions import Interactions
from metammf.data.progress import Progress, silent
from metammf.data.synthetic_content import captions, draw_clips, render_features
from metammf.data.synthetic_log import CONTENT_STRENGTH, draw_log, draw_tastes, draw_uploads
from metammf.errors import ConfigError, DataError, FileFormatError
from metammf.files import atomic_open

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import DTypeLike, NDArray

WIDTHS: Mapping[str, int] = {"visual": 64, "acoustic": 32, "textual": 48}
TRUTH_FILE = "truth.npz"

_MAX_DENSITY = 0.25
_MIN_USERS, _MIN_ITEMS = 10, 20
_MAX_KNOB = 100.0


@dataclass(frozen=True, eq=False)
class Truth:
    """What a model of the world would like to know.

    Args:
        modalities: Their names, in order; M of them.
        modality_weights: The share of each clip's appeal that each modality carries, rows on the simplex, shape (N, M).
        item_latents: Content of each clip in each modality, shape (N, M, D).
        user_tastes: Taste of each user for it, shape (U, M, D).
        item_popularity: How often the feed shows each clip, relative to others, shape (N,).
        cold_items: Clips uploaded after the end of training, shape (N,).
    """

    modalities: tuple[str, ...]
    modality_weights: NDArray[np.float32]
    item_latents: NDArray[np.float32]
    user_tastes: NDArray[np.float32]
    item_popularity: NDArray[np.float32]
    cold_items: NDArray[np.bool_]

    def utility(self, users: NDArray[Any], items: NDArray[Any]) -> NDArray[np.float32]:
        """The true appeal of `items[n]` to `users[n]`, before noise, shape (n,)."""
        appeal = self.modality_weights[items, :, None] * self.item_latents[items]
        return np.einsum("nmd,nmd->n", self.user_tastes[users], appeal)

    @property
    def utility_deviation(self) -> float:
        """The standard deviation of the utility over all pairs of a user and a clip; no pair is formed."""
        tastes = self.user_tastes.astype(np.float64).reshape(len(self.user_tastes), -1)  # (U, M D)
        appeal = (
            (self.modality_weights[:, :, None] * self.item_latents)
            .astype(np.float64)
            .reshape(len(self.item_latents), -1)
        )
        square = ((tastes.T @ tastes / len(tastes)) * (appeal.T @ appeal / len(appeal))).sum()
        return math.sqrt(max(0.0, float(square - (tastes.mean(axis=0) @ appeal.mean(axis=0)) ** 2)))

    @property
    def mix_diversity(self) -> float:
        """How much clips differ in which modality matters, from 0 (all share one mix) to 1 (each is about one, all as often).

        The entropy of the mean mix less the mean entropy of the mixes, over log M: what a clip's identity tells of the
        modality that carries its appeal. 0 where there is one modality.
        """
        if len(self.modalities) == 1:
            return 0.0
        mixes = self.modality_weights.astype(np.float64)
        told = entr(mixes.mean(axis=0)).sum() - entr(mixes).sum(axis=1).mean()
        return max(0.0, float(told / math.log(len(self.modalities))))


@dataclass(frozen=True, eq=False)
class World:
    """A data set that carries a published split, and the truth it was made from."""

    dataset: Dataset
    truth: Truth


def generate_world(
    *,
    users: int = 2_500,
    items: int | None = None,
    interactions: int | None = None,
    seed: int = 0,
    modalities: Mapping[str, int] = WIDTHS,
    cold_share: float = 0.2,
    missing_share: float = 0.1,
    content_strength: float = CONTENT_STRENGTH,
    mix_sharpness: float = 1.0,
    dtype: DTypeLike = np.float32,
    progress: Progress = silent,
) -> World:
    """Generate a world. The same arguments give the same world, bit for bit.

    Memory grows with users + items + interactions, never with their products: a million users and twenty million
    interactions fit into a few GiB.

    Args:
        users: All of them watch something in train.
        items: Clips, of which a few in the tail may never be watched. Default: 3,200, and more (as users^0.74)
            for more than 2,500 users.
        interactions: Distinct pairs, exactly this many; about 80% train, 10% validation, 10% test, by time. Default:
            24 a user.
        seed: Any whole number from 0.
        modalities: Feature width of each modality, in order.
        cold_share: Share of the clips that are uploaded after the end of training, at most 0.5.
        missing_share: Share of the clips that lack one modality.
        content_strength: How much content decides what users take of what the feed shows, against noise of the scale 1; at 0
            they take any of it. The feed itself stays as it is.
        mix_sharpness: Power that the mixes are raised to: at 0 all clips share one mix, over the modalities that they have,
            and neither choice nor feed follows their style; at large numbers one modality carries all of a clip's appeal.
        dtype: float32 or float16 features.
        progress: Called with the items rendered, and with the interactions drawn.

    Raises:
        ConfigError: an argument is out of range, or so many interactions do not fit.
    """
    items, interactions = check_world(
        users=users,
        items=items,
        interactions=interactions,
        seed=seed,
        cold_share=cold_share,
        content_strength=content_strength,
        mix_sharpness=mix_sharpness,
    )
    _check_content(modalities, missing_share, dtype)
    names = tuple(modalities)
    streams = np.random.SeedSequence(seed).spawn(3)
    clip_rng, log_rng = (np.random.default_rng(stream) for stream in streams[:2])
    clips = draw_clips(items, len(names), missing_share, clip_rng, mix_sharpness=mix_sharpness)
    cold = np.zeros(items, dtype=np.bool_)
    cold[clip_rng.permutation(items)[: round(items * cold_share)]] = True
    uploaded_at = draw_uploads(cold, clip_rng)
    table = pl.DataFrame({"title": captions(clips, names), "uploaded_at": uploaded_at})
    features = render_features(clips, modalities, dtype, streams[2].spawn(len(names)), progress)
    tastes = draw_tastes(users, clips, log_rng)
    log = draw_log(clips, tastes, cold, uploaded_at, interactions, log_rng, progress, content_strength=content_strength)
    # Ids begin at 1, indices at 0: whoever takes one for the other finds out.
    catalog = Catalog(
        IdMap(np.arange(1, users + 1), kind="user"), IdMap(np.arange(1, items + 1), kind="item"), features, table
    )
    dataset = Dataset(
        f"synthetic-{users}-{items}-{interactions}-{seed}",
        Interactions(log.users, log.items, users, items, timestamps=log.timestamps),
        catalog,
        log.parts,
        provenance={
            "source": "metammf.data.synthetic.generate_world",
            "licence": "Apache-2.0",
            "arguments": {
                "users": users,
                "items": items,
                "interactions": interactions,
                "seed": seed,
                "modalities": dict(modalities),
                "cold_share": cold_share,
                "missing_share": missing_share,
                "content_strength": content_strength,
                "mix_sharpness": mix_sharpness,
                "dtype": np.dtype(dtype).name,
            },
        },
    )
    return World(dataset, Truth(names, clips.mix, clips.latents, tastes.vectors, clips.popularity, cold))


def check_world(
    *,
    users: int,
    items: int | None = None,
    interactions: int | None = None,
    seed: int = 0,
    cold_share: float = 0.2,
    content_strength: float = CONTENT_STRENGTH,
    mix_sharpness: float = 1.0,
) -> tuple[int, int]:
    """Find out before the work whether a world can be, and return how many items and interactions it has.

    The arguments are those of `generate_world`.

    Raises:
        ConfigError: one is out of range, or so many interactions do not fit.
    """
    if items is None:
        items = max(3_200, 100 * round(32 * (max(users, 1) / 2_500) ** 0.74))
    if interactions is None:
        interactions = min(24 * users, int(users * items * _MAX_DENSITY))
    _check_sizes(users, items, interactions, seed)
    _check_share("cold_share", cold_share, 0.5)
    for name, knob in (("content_strength", content_strength), ("mix_sharpness", mix_sharpness)):
        if not 0 <= knob <= _MAX_KNOB:
            raise ConfigError(f"{name}: expected a number from 0 to {_MAX_KNOB:g}, got {knob}")
    return items, interactions


def _check_share(option: str, share: float, most: float) -> None:
    if not (math.isfinite(share) and 0 <= share <= most):
        raise ConfigError(f"{option}: expected a share from 0 to {most}, got {share}")


def _check_sizes(users: int, items: int, interactions: int, seed: int) -> None:
    for name, value, least in (("users", users, _MIN_USERS), ("items", items, _MIN_ITEMS), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"{name}: expected a whole number of at least {least}, got {value}")
    most = int(users * items * _MAX_DENSITY)
    if not 2 * users <= interactions <= most:
        raise ConfigError(
            f"interactions: expected {2 * users} (two a user) to {most} (a quarter of {users} users x {items} items),"
            f" got {interactions}"
        )


def _check_content(modalities: Mapping[str, int], missing_share: float, dtype: DTypeLike) -> None:
    if not modalities:
        raise ConfigError("modalities: expected at least one, with its width")
    for name, width in modalities.items():
        if width < 1:
            raise ConfigError(f"modalities: expected a width of at least 1 for {name!r}, got {width}")
    _check_share("missing_share", missing_share, 1.0)
    if missing_share and len(modalities) == 1:
        raise ConfigError("missing_share: a clip of one modality cannot lack it; expected 0")
    try:
        fits = np.dtype(dtype) in (np.dtype(np.float16), np.dtype(np.float32))
    except TypeError:
        fits = False
    if not fits:
        raise ConfigError(f"dtype: expected float16 or float32, got {dtype}")


def save_world(world: World, path: Path | str, *, progress: Progress = silent) -> None:
    """Write the data set in our layout to the folder `path`, and the truth beside it in ``truth.npz``.

    Args:
        world: What `generate_world` returned.
        path: The folder to write.
        progress: See `metammf.data.folder.save_dataset`.

    Raises:
        DataError: the folder cannot be written to, or holds something else.
    """
    from metammf.data.folder import save_dataset

    save_dataset(world.dataset, path, progress=progress)
    truth = world.truth
    arrays: dict[str, NDArray[Any]] = {
        name: getattr(truth, name) for name in Truth.__dataclass_fields__ if name != "modalities"
    }
    with atomic_open(Path(path) / TRUTH_FILE, "wb") as stream:
        np.savez(stream, allow_pickle=False, modalities=np.array(truth.modalities), **arrays)


def load_truth(path: Path | str) -> Truth:
    """Read the truth of a world from its folder.

    Raises:
        DataError: there is none.
        FileFormatError: it is damaged.
    """
    file = Path(path) / TRUTH_FILE
    if not file.is_file():
        raise DataError(f"{file}: no such file; only a generated world has a truth")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in Truth.__dataclass_fields__}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise FileFormatError(file, f"not readable ({error})", "the file that save_world writes") from error
    values["modalities"] = tuple(values["modalities"].tolist())
    return Truth(**values)
