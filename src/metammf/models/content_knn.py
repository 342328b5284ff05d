"""Content kNN: the items that look, sound and read like what the user has watched. N items, F_m width of modality m.

A control: what content tells without anything being learned. The rule is that of item-based neighbours (Sarwar et al.,
*Item-based Collaborative Filtering Recommendation Algorithms*, WWW 2001), with cosines of content for those of co-occurrence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from scipy import sparse

from metammf.models.base import Scorer, SolvedModel
from metammf.models.config import ModelConfig, Search
from metammf.models.nodes import SearchedScaling, fitted_scaler
from metammf.models.scorers import NeighbourScorer, csr_of, csr_state
from metammf.nn.content import Content, ContentScaler
from metammf.nn.item_graph import nearest, nearest_known

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    Share = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]
    """Rows, columns and values of entries."""


class ContentKNNConfig(ModelConfig):
    """Settings of content kNN."""

    name: Literal["content-knn"] = "content-knn"
    num_neighbours: Annotated[int, Field(ge=1), Search(5, 1000, log=True)] = 100
    """Nearest items with train interactions that are kept of each item, of each modality."""
    feature_scaling: SearchedScaling = "center"
    """How features are brought to a common scale, by statistics of the items that have train interactions."""
    modalities: tuple[str, ...] | None = None
    """The modalities to use; all that the data set has by default."""


class ContentKNN(SolvedModel):
    """score(u, i) = mean over i's modalities m of the sum of cos_m(i, j) over the j that u has watched among the k nearest to i.

    Neighbours have train interactions and the modality, and a positive cosine; equal cosines, the lower index first. An item
    without train interactions is scored as any other, whether it is in the data set or is added later; one that lacks all
    modalities scores zero.
    """

    config_type = ContentKNNConfig

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that it looks at."""
        return self.config.modalities or self.inputs.features.modalities

    def solve(self) -> dict[str, Tensor]:
        """Find the neighbours of each item, and keep the content among which those of new items are to be found.

        Raises:
            ConfigError: the data set has no features.
            DataError: it lacks a modality that is asked for.
        """
        scaler = fitted_scaler(self.inputs, self.config.modalities, self.config.feature_scaling, None)
        content = scaler(self.inputs.content.rows(torch.arange(self.num_items)))
        cold = self.inputs.cold_items
        new, fresh = cold.nonzero().flatten(), content.map(lambda part: part[cold])
        state = {f"scaler/{name}": value for name, value in scaler.state_dict().items()}
        shares = []
        for name in self.modalities:
            known = content.present[name] & ~cold
            state |= {f"known/{name}": content.values[name][known], f"items/{name}": known.nonzero().flatten()}
            found, cosines = nearest(content.values[name], self.config.num_neighbours, present=known)
            found[new], cosines[new] = self._nearest_known(state, fresh, name)
            shares.append(_share(found, cosines, content))
        return state | csr_state(_summed(shares, self.num_items, self.num_items))

    def with_items(self, state: Mapping[str, Tensor], content: Content) -> dict[str, Tensor]:
        """Return what was solved with the neighbours of further items."""
        widths = {name: content.values[name].shape[1] for name in self.modalities}
        scaler = ContentScaler(widths, self.config.feature_scaling)
        scaler.load_state_dict({name: state[f"scaler/{name}"] for name in scaler.state_dict()})
        content = scaler(content)
        shares = [_share(*self._nearest_known(state, content, name), content) for name in self.modalities]
        known = csr_of(state, self.num_items)
        new = _summed(shares, len(content.present[self.modalities[0]]), self.num_items)
        return dict(state) | csr_state(sparse.vstack([known, new], format="csr"))

    def _nearest_known(self, state: Mapping[str, Tensor], content: Content, modality: str) -> tuple[Tensor, Tensor]:
        """Return the nearest items with train interactions, and their cosines, of content that nobody has watched yet."""
        found, cosines = nearest_known(
            content.values[modality],
            state[f"known/{modality}"],
            self.config.num_neighbours,
            new_present=content.present[modality],
        )
        return torch.where(found < 0, found, state[f"items/{modality}"][found]), cosines

    def scorer(self, state: Mapping[str, Tensor]) -> Scorer:
        """Return the finished scorer."""
        return NeighbourScorer(self.train.matrix, csr_of(state, self.num_items))


def _share(found: Tensor, cosines: Tensor, content: Content) -> Share:
    """Return the share of one modality in the similarities: positive cosines over the modalities that the item has."""
    has = torch.stack([content.present[name] for name in content.modalities]).sum(0)
    rows, places = ((found >= 0) & (cosines > 0)).nonzero(as_tuple=True)
    values = cosines[rows, places] / has[rows]
    return rows.int().numpy(), found[rows, places].int().numpy(), values.numpy()


def _summed(shares: Sequence[Share], num_rows: int, num_columns: int) -> sparse.csr_array:
    """Return what all modalities say of a pair together."""
    rows, columns, values = (np.concatenate(part) for part in zip(*shares, strict=True))
    return sparse.csr_array((values, (rows, columns)), shape=(num_rows, num_columns))
