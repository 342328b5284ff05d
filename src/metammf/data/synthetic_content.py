"""The clips of a synthetic world: what each is about, what it looks, sounds and reads like, and its caption.

N clips, M modalities, K clusters of content a modality (scenes, genres of music, topics), D latent width, S style width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metammf.data.features import ItemFeatures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import DTypeLike, NDArray

    from metammf.data.progress import Progress

LATENT_DIM = 4
STYLE_DIM = 2

_CHUNK_ROWS = 65_536
_MAX_CLUSTERS = 120

# How sharply a style decides for one modality, and how much of that can be read off the style linearly.
_DECISION = 4.0
_LINEAR_SHARE = 0.25
# What of a clip's mix is its own, not its style's, and how blurred the style shows.
_OWN_MIX = 0.1
_OWN_CONCENTRATION = 0.3
_STYLE_BLUR = 0.1
# Share of a latent's variance that its cluster's centre carries; the rest is the clip's own.
_CENTRE_SHARE = 0.6
# Scales within the features, against unit variance of the latent content. The noise is small, since an encoder's output
# lies near a surface of few dimensions.
_STYLE_SCALE = 2.0
_CURVATURE = 0.5
_FEATURE_NOISE = 0.1
# Spread of log popularity: a Gini between 0.6 and 0.7 of what is watched, as in logs of micro-videos.
_POPULARITY_SPREAD = 0.7


@dataclass(frozen=True, eq=False)
class Clips:
    """What is true of the clips, before anybody watches.

    Args:
        mix: How much of a clip's appeal each modality carries, rows on the simplex, shape (N, M).
        style: Pace, mood, cut: a point near a circle in the plane; it decides most of the mix. Shape (N, S).
        latents: Content of each modality, unit variance an axis, shape (N, M, D).
        clusters: Cluster of that content, shape (N, M).
        centres: Centre of each cluster, shape (M, K, D).
        present: Whether the clip has the modality, shape (N, M); what it lacks carries nothing of its appeal.
        about: The modality that the clip is about, by which the feed files it and of which its caption speaks: the one
            that carries most of its appeal, where mixes differ. Shape (N,).
        popularity: How often the feed shows a clip, relative to others, shape (N,).
    """

    mix: NDArray[np.float32]
    style: NDArray[np.float32]
    latents: NDArray[np.float32]
    clusters: NDArray[np.int64]
    centres: NDArray[np.float32]
    present: NDArray[np.bool_]
    about: NDArray[np.int64]
    popularity: NDArray[np.float32]


def draw_clips(
    count: int, num_modalities: int, missing_share: float, rng: np.random.Generator, *, mix_sharpness: float = 1.0
) -> Clips:
    """Draw what `count` clips are about.

    Args:
        count: N.
        num_modalities: M.
        missing_share: Share of the clips that lack one modality.
        rng: What it is drawn with.
        mix_sharpness: Power that the mixes are raised to: 0 gives all clips one mix, even over what they have, and large
            numbers give each a single modality. Below 1 a clip is about any of its modalities, of the one that carries
            most in proportion to this, so that at 0 neither its appeal nor the feed follows its style.
    """
    angle = rng.uniform(0, 2 * np.pi, size=count)
    mix = (1 - _OWN_MIX) * _style_mix(angle, num_modalities)
    mix += _OWN_MIX * rng.dirichlet(np.full(num_modalities, _OWN_CONCENTRATION), size=count)
    style = 2**0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    style += _STYLE_BLUR * rng.standard_normal(style.shape)
    present = _draw_present(mix, missing_share, rng)
    mix = np.where(present, mix**mix_sharpness, 0)
    mix /= mix.sum(axis=1, keepdims=True)
    num_clusters = int(np.clip(round(count**0.5 / 4), 6, _MAX_CLUSTERS))
    centres = rng.standard_normal((num_modalities, num_clusters, LATENT_DIM), dtype=np.float32)
    clusters = rng.integers(num_clusters, size=(count, num_modalities))
    own = rng.standard_normal((count, num_modalities, LATENT_DIM), dtype=np.float32)
    latents = _CENTRE_SHARE**0.5 * centres[np.arange(num_modalities), clusters] + (1 - _CENTRE_SHARE) ** 0.5 * own
    popularity = rng.lognormal(sigma=_POPULARITY_SPREAD, size=count)
    weights = mix.astype(np.float32)
    about = weights.argmax(axis=1)
    if mix_sharpness < 1:
        anyway = rng.random(count) >= mix_sharpness
        about[anyway] = np.where(present, rng.random(present.shape), -1.0)[anyway].argmax(axis=1)
    return Clips(
        mix=weights,
        style=style.astype(np.float32),
        latents=latents.astype(np.float32),
        clusters=clusters,
        centres=centres,
        present=present,
        about=about,
        popularity=popularity.astype(np.float32),
    )


def _style_mix(angle: NDArray[np.float64], num_modalities: int) -> NDArray[np.float64]:
    """Return the mix that goes with each style, shape (N, M).

    Its logits are a linear function of the style and, more so, a quadratic one: each modality has two opposite arcs
    of the circle, one of them the wider, so that no straight cut tells what a clip is about.
    """
    turn = 2 * np.pi * np.arange(num_modalities) / num_modalities
    logits = (1 - _LINEAR_SHARE) * np.cos(2 * angle[:, None] - turn) + _LINEAR_SHARE * np.cos(angle[:, None] - turn)
    weights = np.exp(_DECISION * logits)
    return weights / weights.sum(axis=1, keepdims=True)


def _draw_present(mix: NDArray[Any], missing_share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    # A clip lacks one modality, never the one that it is about: a clip about its music has sound.
    count, num_modalities = mix.shape
    present = np.ones((count, num_modalities), dtype=np.bool_)
    lacking = rng.permutation(count)[: round(count * missing_share)]
    step = rng.integers(1, max(2, num_modalities), size=len(lacking))
    present[lacking, (mix[lacking].argmax(axis=1) + step) % num_modalities] = False
    return present


def render_features(
    clips: Clips, widths: Mapping[str, int], dtype: DTypeLike, seeds: list[np.random.SeedSequence], progress: Progress
) -> ItemFeatures:
    """Show content and style as an encoder would: a linear image of both, a bend, and noise, in chunks of clips.

    For modality m with content z_im, and style s_i of the clip,
    x_im = z_im P_m + 2 s_i Q_m + 0.5 tanh([z_im, s_i] G_m) + 0.1 noise.
    """
    matrices, present = {}, {}
    for modality, (name, width) in enumerate(widths.items()):
        rng = np.random.default_rng(seeds[modality])
        matrices[name] = _render(clips, modality, width, dtype, rng)
        progress("drawing features", modality + 1, len(widths))
        present[name] = clips.present[:, modality]
    return ItemFeatures(matrices, present, num_items=len(clips.mix))


def _render(clips: Clips, modality: int, width: int, dtype: DTypeLike, rng: np.random.Generator) -> NDArray[Any]:
    def projection(rows: int) -> NDArray[np.float32]:
        return rng.standard_normal((rows, width), dtype=np.float32) / np.float32(rows**0.5)

    count = len(clips.mix)
    content, style, bend = projection(LATENT_DIM), projection(STYLE_DIM), projection(LATENT_DIM + STYLE_DIM)
    matrix = np.zeros((count, width), dtype=dtype)
    for start in range(0, count, _CHUNK_ROWS):
        rows = slice(start, min(start + _CHUNK_ROWS, count))
        shows = np.concatenate([clips.latents[rows, modality], clips.style[rows]], axis=1)
        features = shows[:, :LATENT_DIM] @ content + _STYLE_SCALE * (shows[:, LATENT_DIM:] @ style)
        features += _CURVATURE * np.tanh(shows @ bend)
        features += _FEATURE_NOISE * rng.standard_normal(features.shape, dtype=np.float32)
        matrix[rows] = np.where(clips.present[rows, modality, None], features, 0)
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
_PHRASES = {
    "visual": ("in slow motion", "timelapse", "up close", "from above"),
    "acoustic": ("remix", "live session", "with the sound on", "beat challenge"),
    "textual": ("explained", "story time", "in five steps", "myths"),
}


def captions(clips: Clips, modalities: tuple[str, ...]) -> list[str | None]:
    """Write a short caption for each clip: its topic, and what it is about. A clip without text has none."""
    textual = modalities.index("textual") if "textual" in modalities else 0
    phrases = [_PHRASES.get(name, ("clip",)) for name in modalities]
    topics = [
        f"{_MOODS[topic // len(_SUBJECTS) % len(_MOODS)]} {_SUBJECTS[topic % len(_SUBJECTS)]}"
        for topic in range(_MAX_CLUSTERS)
    ]
    quadrant = (2 * (clips.style[:, 0] > 0) + (clips.style[:, 1] > 0)).tolist()
    told = zip(
        clips.clusters[:, textual].tolist(),
        clips.about.tolist(),
        quadrant,
        clips.present[:, textual].tolist(),
        strict=True,
    )
    return [
        f"{topics[topic]} {phrases[about][variant % len(phrases[about])]}" if has_text else None
        for topic, about, variant, has_text in told
    ]
