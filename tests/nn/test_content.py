"""Scaling of features and what stands for a modality that an item lacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from metammf.nn.content import Content, ContentScaler, MissingContent

WIDTHS = {"visual": 6, "acoustic": 4}
SCALINGS = ("none", "center", "standardize", "l2")


def content(count: int = 50, seed: int = 0) -> Content:
    rng = np.random.default_rng(seed)
    values = {
        name: torch.as_tensor(rng.normal(3.0, 10.0, (count, width)), dtype=torch.float32)
        for name, width in WIDTHS.items()
    }
    return Content(values, {name: torch.from_numpy(rng.random(count) < 0.8) for name in WIDTHS})


def fitted(scaling: str, source: Content) -> ContentScaler:
    scaler = ContentScaler(WIDTHS, scaling)
    scaler.fit(source)
    return scaler


def rows(source: Content, name: str) -> Tensor:
    return source.values[name][source.present[name]]


def test_none_leaves_values_as_they_are() -> None:
    source = content()
    scaled = fitted("none", source)(source)
    for name in WIDTHS:
        torch.testing.assert_close(rows(scaled, name), rows(source, name))


def test_standardize_gives_zero_mean_and_unit_variance() -> None:
    source = content()
    scaled = fitted("standardize", source)(source)
    for name, width in WIDTHS.items():
        found = rows(scaled, name)
        torch.testing.assert_close(found.mean(0), torch.zeros(width), atol=1e-5, rtol=0)
        torch.testing.assert_close(found.var(0, correction=0), torch.ones(width), atol=1e-4, rtol=0)


def test_center_divides_by_one_number_a_modality() -> None:
    source = content()
    scaled = fitted("center", source)(source)
    for name in WIDTHS:
        centred = rows(source, name) - rows(source, name).mean(0)
        torch.testing.assert_close(rows(scaled, name), centred / centred.square().mean().sqrt(), atol=1e-5, rtol=1e-4)


def test_l2_gives_rows_one_norm() -> None:
    source = content()
    scaled = fitted("l2", source)(source)
    norm = (sum(WIDTHS.values()) / len(WIDTHS)) ** 0.5  # one for all modalities, whatever their widths
    for name in WIDTHS:
        centred = rows(source, name) - rows(source, name).mean(0)
        torch.testing.assert_close(
            rows(scaled, name), torch.nn.functional.normalize(centred, dim=1) * norm, atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("scaling", SCALINGS)
def test_rows_that_lack_a_modality_have_no_say(scaling: str) -> None:
    """Neither in the statistics nor in the result, whatever stands in them."""
    source = content()
    poisoned = Content(
        {name: torch.where(source.present[name].unsqueeze(1), value, 3e38) for name, value in source.values.items()},
        source.present,
    )
    clean, dirty = fitted(scaling, source)(source), fitted(scaling, poisoned)(poisoned)
    for name in WIDTHS:
        assert torch.equal(clean.values[name], dirty.values[name])
        assert not clean.values[name][~source.present[name]].any()


@pytest.mark.parametrize("scaling", ["center", "standardize", "l2"])
def test_constant_columns_become_zero(scaling: str) -> None:
    source = content()
    value = torch.full((50, 6), 0.1)
    value[:, 0] = source.values["visual"][:, 0]
    mixed = Content({**source.values, "visual": value}, source.present)
    scaled = rows(fitted(scaling, mixed)(mixed), "visual")
    assert scaled[:, 0].abs().max() > 0.5
    torch.testing.assert_close(scaled[:, 1:], torch.zeros_like(scaled[:, 1:]), atol=1e-6, rtol=0)
    constant = Content({**source.values, "visual": torch.full((50, 6), 0.1)}, source.present)
    assert not fitted(scaling, constant)(constant).values["visual"].any()


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_modality_that_all_items_lack(scaling: str) -> None:
    source = content().without("acoustic")
    scaled = fitted(scaling, source)(source)
    assert not scaled.values["acoustic"].any()
    assert torch.isfinite(fitted(scaling, source)(content(seed=1)).values["acoustic"]).all()


@pytest.mark.parametrize("scaling", SCALINGS)
def test_statistics_travel_with_the_state(scaling: str) -> None:
    source = content()
    scaler = fitted(scaling, source)
    other = ContentScaler(WIDTHS, scaling)
    other.load_state_dict(scaler.state_dict())
    for name in WIDTHS:
        assert torch.equal(other(source).values[name], scaler(source).values[name])


def test_scaler_orders_modalities_and_drops_strangers() -> None:
    """Side by side in another order they would be other features, of the right width in sum."""
    source = content()
    other = {"textual": torch.zeros(50, 3), "acoustic": source.values["acoustic"], "visual": source.values["visual"]}
    turned = Content(other, {"textual": torch.ones(50, dtype=torch.bool), **source.present})
    scaler = fitted("standardize", source)
    assert scaler(turned).modalities == tuple(WIDTHS)
    for name in WIDTHS:
        assert torch.equal(scaler(turned).values[name], scaler(source).values[name])


def test_missing_content_puts_modalities_side_by_side() -> None:
    source = content(5)
    concat = MissingContent(WIDTHS)
    with torch.no_grad():
        for number, vector in enumerate(concat.vectors.values()):
            vector.fill_(number + 100)
    turned = Content(dict(reversed(source.values.items())), source.present)
    for given in (source, turned):
        found = concat(given)
        for item in range(5):
            expected = [
                source.values[name][item] if source.present[name][item] else concat.vectors[f"of_{name}"]
                for name in WIDTHS
            ]
            assert torch.equal(found[item], torch.cat(expected))


def test_gradients_reach_the_vector_of_what_lacks_and_only_from_there() -> None:
    source = content(6)
    source.present["visual"][:] = True
    source.present["acoustic"][:] = torch.tensor([True, False, True, False, True, True])
    concat = MissingContent(WIDTHS)
    concat(source).sum().backward()
    assert torch.equal(concat.vectors["of_acoustic"].grad, torch.full((4,), 2.0))
    assert concat.vectors["of_visual"].grad is None


def test_names_that_torch_would_not_take() -> None:
    widths = {"image_feat.v2": 2, "image_feat%2Ev2": 2, "items": 3, "type": 1}
    source = Content(
        {name: torch.randn(4, width) for name, width in widths.items()},
        {name: torch.ones(4, dtype=torch.bool) for name in widths},
    )
    scaler = ContentScaler(widths, "standardize")
    scaler.fit(source)
    assert MissingContent(widths)(scaler(source)).shape == (4, 8)


def test_without_hides_one_modality() -> None:
    source = content()
    hidden = source.without("visual")
    assert not hidden.present["visual"].any()
    assert torch.equal(hidden.present["acoustic"], source.present["acoustic"])
    assert source.present["visual"].any()


def test_map_changes_every_tensor() -> None:
    chosen = content().map(lambda tensor: tensor[:3])
    assert {value.shape[0] for value in (*chosen.values.values(), *chosen.present.values())} == {3}


# Principal components --------------------------------------------------------------------------------------------


def test_components_are_those_of_numpy() -> None:
    """Against NumPy's SVD of the scaled rows: the same distances, and as many columns as were asked for."""
    source = content()
    scaler = ContentScaler(WIDTHS, "standardize", components=3)
    scaler.fit(source)
    scaled, projected = fitted("standardize", source)(source), scaler(source)
    for name, width in WIDTHS.items():
        assert scaler.out_widths[name] == min(3, width)
        wide = rows(scaled, name).double().numpy()
        left, sizes, _ = np.linalg.svd(wide - wide.mean(0), full_matrices=False)
        expected = (left * sizes)[:, : min(3, width)]
        found = rows(projected, name).double().numpy()
        assert np.abs(found) == pytest.approx(np.abs(expected), abs=1e-4)


def test_more_components_than_columns_turn_and_lose_nothing() -> None:
    source = content()
    scaler = ContentScaler(WIDTHS, "center", components=1000)
    scaler.fit(source)
    whole = fitted("center", source)(source)
    for name in WIDTHS:
        first, second = rows(scaler(source), name), rows(whole, name)
        torch.testing.assert_close(first @ first.T, second @ second.T, atol=1e-3, rtol=1e-3)


def test_components_come_back_from_a_state() -> None:
    source = content()
    scaler = ContentScaler(WIDTHS, "l2", components=2)
    scaler.fit(source)
    other = ContentScaler(WIDTHS, "l2", components=2)
    other.load_state_dict(scaler.state_dict())
    for name in WIDTHS:
        assert torch.equal(other(source).values[name], scaler(source).values[name])
