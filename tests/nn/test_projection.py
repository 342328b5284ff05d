"""Maps of rows read a chunk at a time against the same maps of all rows."""

from __future__ import annotations

import pytest
import torch

from metammf.nn import projection
from metammf.nn.projection import Projections
from metammf.testing.probes import LargestTensor

ROWS = {"visual": torch.randn(9, 5), "a.b": torch.randn(9, 3)}


@pytest.mark.parametrize("chunk", [1, 4, 9, 100])
def test_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "_CHUNK_ROWS", chunk)
    layers = Projections({name: rows.shape[1] for name, rows in ROWS.items()}, 4)
    weight = {name: torch.randn(9, 4) for name in ROWS}

    def gradients(outs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        loss = torch.stack([(outs[name] * weight[name]).sum() for name in ROWS]).sum()
        return torch.autograd.grad(loss, list(layers.parameters()))

    found = layers.of_all(lambda rows: {name: values[rows] for name, values in ROWS.items()}, 9)
    expected = {name: layers(name, values) for name, values in ROWS.items()}
    for name in ROWS:
        torch.testing.assert_close(found[name], expected[name])
    torch.testing.assert_close(gradients(found), gradients(expected))


def test_no_map_of_nothing() -> None:
    assert Projections({}, 4).of_all(lambda _: {}, 9) == {}


def test_features_are_never_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "_CHUNK_ROWS", 10)
    layers = Projections({"visual": 50}, 2)
    with LargestTensor() as largest:
        layers.of_all(lambda rows: {"visual": torch.ones(len(rows), 50)}, 200)["visual"].sum().backward()
    assert largest.numel <= 500, largest.operation
