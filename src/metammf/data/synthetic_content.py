"""The clips of a synthetic world: what each is about, what it looks, sounds and reads like, and its caption.

N clips, M modalities, K clusters of content a modality (scenes, genres of music, topics), D latent width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metammf.data.features import ItemFeatures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import DTypeLike, NDArray

LATENT_DIM = 6

_CHUNK_ROWS = 65_536
_MAX_CLUSTERS = 120

# Concentration of the clips' mixes: well below one, so that most clips are about one modality.
_MIX_CONCENTRATION = 0.3
# Share of a latent's variance that its cluster's centre carries; the rest is the clip's own.
_CENTRE_SHARE = 0.6
# Scales within the features, against unit variance of the latent content.
_STYLE_SCALE = 1.0
_STYLE_NOISE = 0.1
_CURVATURE = 0.5
_FEATURE_NOISE = 0.5
# Spread of log popularity: a Gini near 0.6 of what is watched, as in logs of micro-videos.
_POPULARITY_SPREAD = 1.1


@dataclass(frozen=True, eq=False)
class Clips:
    """What is true of the clips, before anybody watches.

    Args:
        mix: How much of a clip's appeal each modality carries, rows on the simplex, shape (N, M).
        latents: Content of each modality, unit variance an axis, shape (N, M, D).
        clusters: Cluster of that content, shape (N, M).
        centres: Centre of each cluster, shape (M, K, D).
        present: Whether the clip has the modality, shape (N, M); what it lacks carries nothing of its appeal.
        popularity: How often the feed shows a clip, relative to others, shape (N,).
    """

    mix: NDArray[np.float32]
    latents: NDArray[np.float32]
    clusters: NDArray[np.int64]
    centres: NDArray[np.float32]
    present: NDArray[np.bool_]
    popularity: NDArray[np.float32]

    @property
    def dominant(self) -> NDArray[np.int64]:
        """The modality that carries most of each clip's appeal, shape (N,)."""
        return self.mix.argmax(axis=1)


def draw_clips(count: int, num_modalities: int, missing_share: float, rng: np.random.Generator) -> Clips:
    """Draw what `count` clips are about."""
    num_clusters = int(np.clip(round(count**0.5 / 4), 6, _MAX_CLUSTERS))
    centres = rng.standard_normal((num_modalities, num_clusters, LATENT_DIM), dtype=np.float32)
    clusters = rng.integers(num_clusters, size=(count, num_modalities))
    own = rng.standard_normal((count, num_modalities, LATENT_DIM), dtype=np.float32)
    latents = _CENTRE_SHARE**0.5 * centres[np.arange(num_modalities), clusters] + (1 - _CENTRE_SHARE) ** 0.5 * own
    mix = rng.dirichlet(np.full(num_modalities, _MIX_CONCENTRATION), size=count)
    present = _draw_present(mix, missing_share, rng)
    mix = np.where(present, mix, 0)
    mix /= mix.sum(axis=1, keepdims=True)
    popularity = rng.lognormal(sigma=_POPULARITY_SPREAD, size=count)
    return Clips(
        mix.astype(np.float32), latents.astype(np.float32), clusters, centres, present, popularity.astype(np.float32)
    )


def _draw_present(mix: NDArray[Any], missing_share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    # A clip lacks one modality, never the one that it is about: a clip about its music has sound.
    count, num_modalities = mix.shape
    present = np.ones((count, num_modalities), dtype=np.bool_)
    lacking = rng.permutation(count)[: round(count * missing_share)]
    step = rng.integers(1, max(2, num_modalities), size=len(lacking))
    present[lacking, (mix[lacking].argmax(axis=1) + step) % num_modalities] = False
    return present


def render_features(
    clips: Clips, widths: Mapping[str, int], dtype: DTypeLike, seeds: list[np.random.SeedSequence]
) -> ItemFeatures:
    """Show latents and mix as an encoder would: a linear image of both, a bend, and noise.

    For modality m with content z_im and style code c_i = a_i - 1/M (seen through noise of its own in each modality),
    x_im = z_im P_m + style c_i Q_m + curvature tanh([z_im, c_i] G_m) + noise, in chunks of clips.
    """
    matrices, present = {}, {}
    for modality, (name, width) in enumerate(widths.items()):
        rng = np.random.default_rng(seeds[modality])
        matrices[name] = _render(clips, modality, width, dtype, rng)
        present[name] = clips.present[:, modality]
    return ItemFeatures(matrices, present, num_items=len(clips.mix))


def _render(clips: Clips, modality: int, width: int, dtype: DTypeLike, rng: np.random.Generator) -> NDArray[Any]:
    count, num_modalities = clips.mix.shape

    def projection(rows: int) -> NDArray[np.float32]:
        return rng.standard_normal((rows, width), dtype=np.float32) / np.float32(rows**0.5)

    content, style, bend = projection(LATENT_DIM), projection(num_modalities), projection(LATENT_DIM + num_modalities)
    matrix = np.zeros((count, width), dtype=dtype)
    # A code of unit variance an axis: comparable to the content's, whatever the number of modalities.
    spread = max(float(clips.mix.std()), 1e-6)
    for start in range(0, count, _CHUNK_ROWS):
        rows = slice(start, min(start + _CHUNK_ROWS, count))
        latents = clips.latents[rows, modality]
        code = (clips.mix[rows] - 1 / num_modalities) / spread
        code = (code + _STYLE_NOISE * rng.standard_normal(code.shape, dtype=np.float32)).astype(np.float32)
        shown = latents @ content + _STYLE_SCALE * (code @ style)
        shown += _CURVATURE * np.tanh(np.concatenate([latents, code], axis=1) @ bend)
        shown += _FEATURE_NOISE * rng.standard_normal(shown.shape, dtype=np.float32)
        matrix[rows] = np.where(clips.present[rows, modality, None], shown, 0)
    return matrix


_MOODS = (
    "late-night",
    "tiny",
    "homemade",
    "vintage",
    "rainy",
    "neon",
    "lazy",
    "wild",
    "secret",
    "sunny",
    "frozen",
    "retro",
)
_SUBJECTS = (
    "noodles",
    "skateboards",
    "puppies",
    "rooftops",
    "gardens",
    "trains",
    "sneakers",
    "beaches",
    "robots",
    "cakes",
)
_FORMATS = {
    "visual": ("in slow motion", "timelapse", "up close", "from above"),
    "acoustic": ("remix", "live session", "with the sound on", "beat challenge"),
    "textual": ("explained", "story time", "in five steps", "myths"),
}


def captions(clips: Clips, modalities: tuple[str, ...], rng: np.random.Generator) -> list[str | None]:
    """Write a short caption for each clip: its topic, and what it is about. A clip without text has none."""
    textual = modalities.index("textual") if "textual" in modalities else 0
    formats = [_FORMATS.get(name, ("clip",)) for name in modalities]
    variants = rng.integers(1_000_000, size=len(clips.mix)).tolist()
    titles: list[str | None] = []
    rows = zip(
        clips.clusters[:, textual].tolist(),
        clips.dominant.tolist(),
        clips.present[:, textual].tolist(),
        variants,
        strict=True,
    )
    for topic, dominant, has_text, variant in rows:
        mood, subject = _MOODS[topic // len(_SUBJECTS) % len(_MOODS)], _SUBJECTS[topic % len(_SUBJECTS)]
        kinds = formats[dominant]
        titles.append(f"{mood} {subject} {kinds[variant % len(kinds)]}" if has_text else None)
    return titles
