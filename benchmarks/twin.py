"""MetaMMF as its paper writes it down, word for word: what the library's hot path is checked and timed against.

Every item's own weights are formed, all items are fused at every step, messages go along an edge list one by one, negatives
are drawn one at a time from Python sets. N items, F feature width, S meta channels, I in, O out, B positives, K negatives.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness import backward

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Int

    from metammf.data.interactions import Interactions
    from metammf.models.base import Batch, Objective, VectorSource
    from metammf.models.metammf import MetaMMF


def formed_weights(
    meta: Float[Tensor, "num_items meta_dim"],
    shared: Float[Tensor, "in_dim out_dim"],
    dynamic: Float[Tensor, "meta_dim in_dim out_dim"],
) -> Float[Tensor, "num_items in_dim out_dim"]:
    """W_i = W + sum_s s_is T[s] for every item."""
    return shared.to(meta.dtype) + torch.einsum("ns,sio->nio", meta, dynamic.to(meta.dtype))


def own_layer(
    x: Float[Tensor, "num_items in_dim"], weights: Float[Tensor, "num_items in_dim out_dim"]
) -> Float[Tensor, "num_items out_dim"]:
    """x_i W_i for every item."""
    return torch.bmm(x.to(weights.dtype).unsqueeze(1), weights).squeeze(1)


class EdgeList:
    """Both directions of every interaction, users first among the nodes.

    Args:
        log: Who watched what.
    """

    def __init__(self, log: Interactions) -> None:
        users, items = (torch.from_numpy(column.astype(np.int64)) for column in (log.users, log.items))
        items = items + log.num_users
        self.sources, self.targets = torch.cat([items, users]), torch.cat([users, items])
        self.num_nodes = log.num_users + log.num_items
        self.degrees = torch.bincount(self.targets, minlength=self.num_nodes).clamp(min=1).unsqueeze(1).float()

    def mean(self, x: Float[Tensor, "num_nodes dim"]) -> Float[Tensor, "num_nodes dim"]:
        """Gather a vector an edge, add it up at its target, divide by the target's degree; zero without a neighbour."""
        return torch.zeros_like(x).index_add(0, self.targets, x[self.sources]) / self.degrees

    def symmetric(self, x: Float[Tensor, "num_nodes dim"]) -> Float[Tensor, "num_nodes dim"]:
        """Add up messages weighed by 1 / sqrt(degree * degree)."""
        weights = (self.degrees[self.sources] * self.degrees[self.targets]).rsqrt()
        return torch.zeros_like(x).index_add(0, self.targets, weights * x[self.sources])


class SetSampler:
    """Draw each negative until it is not in the user's set.

    Args:
        log: Who watched what in train.
        seed: Of the draws.
    """

    def __init__(self, log: Interactions, seed: int = 0) -> None:
        self.watched: dict[int, set[int]] = {}
        for user, item in zip(log.users.tolist(), log.items.tolist(), strict=True):
            self.watched.setdefault(user, set()).add(item)
        self.candidates = sorted(set(log.items.tolist()))
        self.random = random.Random(seed)

    def negative(self, user: int) -> int:
        """Return an item with a train interaction that the user has not watched."""
        item = self.random.choice(self.candidates)
        while item in self.watched[user]:
            item = self.random.choice(self.candidates)
        return item

    def draw(self, users: list[int], count: int) -> list[list[int]]:
        """Return `count` negatives of each user."""
        return [[self.negative(user) for _ in range(count)] for user in users]


class LiteralMetaMMF:
    """MetaMMF_MF or MetaMMF_GCN without dropout, from the weights of one of ours; trained by itself from there.

    Args:
        model: Whose weights and features to start from; its fusion is "cp" or "dense".
        train: The train interactions.
        learning_rate: Adam's.
        weight_decay: Adam's.
        precision: Of the per-item weights and their products.
        fused_items: Fuse these items alone, (n,), and take zero for the content of the others: a part of the work, to
            measure what does not fit as a whole. All by default.
    """

    def __init__(
        self,
        model: MetaMMF,
        train: Interactions,
        *,
        learning_rate: float,
        weight_decay: float,
        precision: torch.dtype = torch.float32,
        fused_items: Int[Tensor, " fused"] | None = None,
    ) -> None:
        self.weights = {
            name: weight.detach().clone().requires_grad_()
            for name, weight in model.named_parameters()
            if weight.numel()
        }
        self.depth = self._count("fusion.layers.{}.shared")
        self.hops = self._count("backbone.root.{}.weight")
        self.edges = EdgeList(train)
        self.num_users, self.num_items, self.precision = train.num_users, train.num_items, precision
        self.fused_items = fused_items
        content = model.scale(model.content.rows(torch.arange(self.num_items)))
        self.values, self.present = content.values, content.present
        self.cold = torch.from_numpy(train.item_counts == 0).unsqueeze(1)
        self.optimizer = torch.optim.Adam(self.weights.values(), lr=learning_rate, weight_decay=weight_decay)

    def _count(self, name: str) -> int:
        return next(number for number in itertools.count() if name.format(number) not in self.weights)

    def _features(self) -> Float[Tensor, "num_items width"]:
        """x_i = [x_i^visual || x_i^acoustic || ...]; one learned vector stands for what an item lacks."""
        vectors = [self.weights[f"fusion.concat.vectors.of_{name}"] for name in self.values]
        parts = zip(self.values.values(), self.present.values(), vectors, strict=True)
        x = torch.cat([torch.where(has.unsqueeze(1), value, vector) for value, has, vector in parts], dim=1)
        return x if self.fused_items is None else x[self.fused_items]

    def _dynamic(self, depth: int) -> Float[Tensor, "meta_dim in_dim out_dim"]:
        """T^n, from its factors in CP form."""
        if f"fusion.layers.{depth}.dynamic" in self.weights:
            return self.weights[f"fusion.layers.{depth}.dynamic"]
        factors = [self.weights[f"fusion.layers.{depth}.factor_{side}"] for side in ("in", "out", "meta")]
        return torch.einsum("ir,ro,sr->sio", *factors)

    def fuse(self) -> Float[Tensor, "num_items width"]:
        """h^0 = x_i, h^n = LeakyReLU(h^(n-1) W_i^n), none after the last; all items at once."""
        x = self._features()
        hidden = torch.relu(self._linear("fusion.meta.hidden", x))
        meta = self._linear("fusion.meta.out", hidden).to(self.precision)
        for depth in range(self.depth):
            x = own_layer(x, formed_weights(meta, self.weights[f"fusion.layers.{depth}.shared"], self._dynamic(depth)))
            x = functional.leaky_relu(x) if depth < self.depth - 1 else x
        if self.fused_items is None:
            return x.float()
        return x.new_zeros(self.num_items, x.shape[1]).float().index_copy(0, self.fused_items, x.float())

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def vectors(self) -> Float[Tensor, "num_nodes dim"]:
        """e_u and e_i = [e_i^m || e_i^c], then two GraphSAGE layers along the edge list, where there are any."""
        ids = torch.where(self.cold, self.weights["item_ids.unknown"], self.weights["item_ids.table.weight"])
        x = torch.cat([self.weights["user_table.weight"], torch.cat([self.fuse(), ids], dim=1)])
        for hop in range(self.hops):
            around = self._linear(f"backbone.neighbour.{hop}", self.edges.mean(x))
            x = self._linear(f"backbone.root.{hop}", x) + around
            x = functional.leaky_relu(x) if hop < self.hops - 1 else x
        return x

    def step(
        self, users: Int[Tensor, " batch"], positives: Int[Tensor, " batch"], negatives: Int[Tensor, "batch count"]
    ) -> float:
        """Descend BPR on these triples once, and return the loss before that."""
        x = self.vectors()
        user_vectors, item_vectors = x[: self.num_users], x[self.num_users :]
        of_users = user_vectors[users].unsqueeze(1)
        above = (of_users * item_vectors[positives].unsqueeze(1)).sum(2)
        below = (of_users * item_vectors[negatives]).sum(2)
        loss = -functional.logsigmoid(above - below).mean()
        self.optimizer.zero_grad(set_to_none=True)
        backward(loss)
        self.optimizer.step()
        return float(loss.detach())


class Recorder:
    """An objective that keeps what it was asked and what came out, so that another model can be fed the same.

    Args:
        objective: What is descended.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.batches: list[Batch] = []
        self.losses: list[float] = []

    def __call__(self, model: VectorSource, batch: Batch) -> Mapping[str, Tensor]:
        """Pass on."""
        terms = self.objective(model, batch)
        self.batches.append(batch)
        self.losses.append(sum(float(term.detach()) for term in terms.values()))
        return terms
