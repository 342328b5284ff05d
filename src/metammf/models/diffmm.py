r"""DiffMM: in each modality a graph of who might watch what, made by diffusion. U users, N items, M modalities, D width.

Source: Jiang et al., *DiffMM: Multi-Modal Diffusion Model for Recommendation*, MM 2024, section 3. With E_u, E_i free vectors
and P x = D^-1/2 (A + I) D^-1/2 x over the nodes [users; items] of the train interactions A, P^m the same for a generated A^m:

1. **Diffusion** (eqs. 1-3). A user's row a_0 of A becomes a_t = sqrt(g_t) a_0 + sqrt(1 - g_t) noise, t = 1..T,
   1 - g_t = s (g_min + (t - 1) / (T - 1) (g_max - g_min)). A denoiser of each modality guesses a^ = f(a_t, t).
2. **Its loss** (eqs. 13, 14, 24), t drawn uniformly: |a^ - a_0|^2 + lambda_0 |a^ e^m - a_0 E_i|^2. The second part injects the
   modality; vectors enter it as constants.
3. **Generated graph**. From a_0, without noise, T reverse steps along their means; the k largest entries are the user's edges.
4. **Vectors** (eqs. 15, 20-23). e^m = Norm(W_m F^m + b_m). x = P [E_u; e^m], z^m = x + P [x_u; E_i] + w P^m [E_u; E_i].
   H_0 = sum_m softmax(kappa)_m z^m, H_l = P H_(l-1), H = H_0 + ... + H_L + omega Norm(H_0). A score is H_u . H_i.
5. **Contrast** (eqs. 16-19). v^m = sum over l = 0..L of P^l P^m [E_u; e^m]. InfoNCE of users and of items, each against all,
   between H and every v^m ("main"), or between every two v^m ("modality").
6. Loss: BPR of 4, lambda_1 times 5, a penalty, and 2.

Self-loops, and the detail of the three parts of z^m, are those of the authors' code. It departs from its paper, or from us, in
this: it weighs the first part of 2 by differences of the signal-to-noise ratio, takes means for both squares, injects
W_m F^m + b_m before it is normalised, and trains the denoisers on all users before each epoch, where here each step takes its
share of the users along and the terms are added up (no gradient of one reaches what the other trains); it sets the noise of
the first step to 1e-4; and it drops entries of a generated graph after it is normalised, self-loops too, where here edges go
before (`generated_edge_dropout`). In the first epoch denoisers know nothing, and neither do their graphs.

So its lambda_0 is on another scale. Of means over n train items and over D coordinates, with weights of the first part that
are w on average over the steps, lambda_0 is lambda_0 n / (D w) of sums. With its schedule w = 1904: the 0.1 of its run on
TikTok (n = 6,245, D = 64) is 0.005 here, which the recipe takes.

A user has `generated_edges` = 5 in a generated graph, the default of that code as it was first published; a later version's is 1,
and its command for TikTok names none. It takes features as they come, where here they are standardised (`feature_scaling`).

Ours: any modalities; a learned vector stands for W_m F_i^m + b_m where an item lacks one. An item without train interactions has
E_i = 0, no edges, no part in 2, 3 and 5: it has the vector that its content gives to a node by itself, in the data set as
when it is added later. Memory: a block of users is diffused at a time, so that U x N numbers never exist; but first and last
layer of a denoiser are as wide as the train items are many, as in the paper: 2 x items x hidden parameters a modality.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from metammf.models.config import Search
from metammf.models.extended import AllVectors, ExtendedObjective
from metammf.models.nodes import ContentConfig, FreeVectorModel
from metammf.nn.backbone import Backbone
from metammf.nn.content import modality_key
from metammf.nn.diffusion import Denoiser, NoiseSchedule
from metammf.nn.looped_graph import LoopedGraph
from metammf.nn.losses import contrastive_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float, Int

    from metammf.models.base import Batch, Inputs, Objective, VectorSource
    from metammf.nn.content import Content

_DIFFUSED_AT_ONCE = 1 << 24
"""Entries of users' rows that exist at a time: 64 MB of float32."""


class DiffMMConfig(ContentConfig):
    """Settings of DiffMM; the defaults are those that its authors publish for TikTok."""

    name: Literal["diffmm"] = "diffmm"
    embedding_dim: Annotated[int, Field(ge=1), Search(16, 256, log=True)] = 64
    """Width D of users' and items' vectors."""
    num_layers: Annotated[int, Field(ge=0), Search(1, 3)] = 1
    """Hops L over who watched what."""
    generated_weight: Annotated[float, Field(ge=0), Search(0, 1)] = 0.2
    """Weight w of the generated graph in the vectors."""
    residual_weight: Annotated[float, Field(ge=0), Search(0, 1)] = 0.5
    """Weight omega of what enters the hops, normalised."""
    contrast_weight: Annotated[float, Field(ge=0), Search(1e-3, 1e-1, log=True)] = 1e-2
    """Weight lambda_1 of the contrast."""
    contrast_temperature: Annotated[float, Field(gt=0), Search(0.1, 1, log=True)] = 0.5
    """Its temperature."""
    contrast_anchor: Literal["main", "modality"] = "main"
    """What is contrasted: the final vectors with those of each modality, or those of every two modalities."""
    generated_edges: Annotated[int, Field(ge=1), Search(1, 20, log=True)] = 5
    """Edges k of each user in a generated graph."""
    generated_edge_dropout: Annotated[float, Field(ge=0, lt=1), Search(0, 0.7)] = 0.5
    """Share of these that an epoch leaves out."""
    injection_weight: Annotated[float, Field(ge=0), Search(1e-3, 1, log=True)] = 5e-3
    """Weight lambda_0 of the modality in the denoisers' loss: the published 0.1 for TikTok, on the scale of sums."""
    diffusion_steps: Annotated[int, Field(ge=2)] = 5
    """Steps T."""
    noise_scale: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Scale s of the noise."""
    noise_min: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """Lower end g_min of the noise."""
    noise_max: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Upper end g_max of the noise."""
    denoiser_dims: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1000,), min_length=1)
    """Widths between the first and the last layer of a denoiser, which are as wide as the train items are many."""
    denoiser_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """On the noisy rows."""
    time_dim: Annotated[int, Field(ge=2)] = 10
    """Width of the embedding of a diffusion step."""


Nodes = tuple[Tensor, Tensor]
"""Vectors of all users (U, D) and of all items (N, D)."""


@dataclass(frozen=True)
class Views:
    """The vectors of all nodes.

    Args:
        final: H.
        modalities: v^m, one a modality.
    """

    final: Nodes
    modalities: tuple[Nodes, ...]


class DiffMM(FreeVectorModel):
    """Free vectors and projected content, propagated over the train interactions and over generated ones.

    Args:
        config: Its settings.
        inputs: Counts, features, and the graph.

    Raises:
        ConfigError: the data set has no features.
        DataError: it lacks a modality that is asked for.
    """

    config_type = DiffMMConfig
    shares_vectors = False
    known: Tensor
    generated: Tensor

    def __init__(self, config: DiffMMConfig, inputs: Inputs) -> None:
        super().__init__(inputs, config.embedding_dim, Backbone(), without=inputs.cold_items)
        self.config = config
        dim, matrix = config.embedding_dim, inputs.train.matrix
        self.graph = LoopedGraph(matrix)
        self.take_content(inputs, config)
        keys = {modality_key(name): width for name, width in self.scaler.out_widths.items()}
        self.projections = nn.ModuleDict({key: nn.Linear(width, dim) for key, width in keys.items()})
        self.stand_ins = nn.ParameterDict({key: nn.Parameter(torch.randn(dim) / dim**0.5) for key in keys})
        self.modality_logits = nn.Parameter(torch.zeros(len(keys)))
        self.schedule = NoiseSchedule(config.diffusion_steps, config.noise_scale, config.noise_min, config.noise_max)
        self.register_buffer("known", torch.nonzero(~inputs.cold_items).flatten(), persistent=False)
        count = len(self.known)
        self.denoisers = nn.ModuleDict(
            {key: Denoiser(count, config.denoiser_dims, config.time_dim, config.denoiser_dropout) for key in keys}
        )
        self.rows = sparse.csr_array(matrix[:, self.known.numpy()])
        self.active = torch.from_numpy(inputs.train.user_counts > 0).nonzero().flatten()
        self._waiting = self.active
        # Items of each user's edges in each modality, -1 for none.
        edges = torch.full((len(keys), inputs.num_users, min(config.generated_edges, count)), -1)
        self.register_buffer("generated", edges)
        self._graphs: list[LoopedGraph] | None = None
        self.register_load_state_dict_post_hook(_forget_graphs)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def _apply(self, *arguments: Any, **options: Any) -> Self:
        self._graphs = None  # made anew where the edges are
        return super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    @torch.no_grad()
    def begin_epoch(self, generator: torch.Generator) -> None:
        """Generate the graphs of the epoch, and put the users in the order in which the denoisers will see them."""
        for place, name in enumerate(self.modalities):
            denoiser = self._denoiser(name)
            chain = denoiser.chain()
            for users in torch.split(self.active, max(1, _DIFFUSED_AT_ONCE // max(1, len(self.known)))):
                guesses = denoiser.denoised(self._histories(users), self.schedule, chain)
                self.generated[place, users] = self.known[guesses.topk(self.generated.shape[2]).indices]
        dropped = torch.rand(self.generated.shape, generator=generator, device=self.generated.device)
        self.generated.masked_fill_(dropped < self.config.generated_edge_dropout, -1)
        self._graphs = None
        order = torch.randperm(len(self.active), generator=generator, device=self.generated.device)
        self._waiting = self.active[order.cpu()]

    def next_users(self, positives: int) -> Tensor:
        """Return the users whom the denoisers see at a step of so many positives; all pass in an epoch."""
        share = -(-len(self.active) * positives // self.rows.nnz)
        users, self._waiting = self._waiting[:share], self._waiting[share:]
        return users

    def _denoiser(self, modality: str) -> Denoiser:
        denoiser = self.denoisers[modality_key(modality)]
        assert isinstance(denoiser, Denoiser)
        return denoiser

    def _histories(self, users: Tensor) -> Tensor:
        """Rows of users over the known items, (B, n), CSR."""
        rows, device = sparse.csr_array(self.rows[users.numpy()]), self.known.device
        indptr, indices, data = (torch.from_numpy(part).to(device) for part in (rows.indptr, rows.indices, rows.data))
        return torch.sparse_csr_tensor(indptr, indices, data, size=tuple(rows.shape), check_invariants=False)

    def generated_graphs(self) -> list[LoopedGraph]:
        """Return the graph of each modality."""
        if self._graphs is None:
            self._graphs = [self._graph_of(items).to(self.known.device) for items in self.generated.cpu()]
        return self._graphs

    def _graph_of(self, items: Int[Tensor, "num_users edges"]) -> LoopedGraph:
        users, places = (items >= 0).nonzero(as_tuple=True)
        ones = torch.ones(len(users)).numpy()
        pairs = users.numpy(), items[users, places].numpy()
        return LoopedGraph(sparse.csr_array((ones, pairs), shape=(self.num_users, self.num_items)))

    def modality_vectors(self, content: Content) -> list[Float[Tensor, "batch dim"]]:
        """Return e^m of scaled content, one a modality."""
        vectors = []
        for name in self.modalities:
            key = modality_key(name)
            projected = self.projections[key](content.values[name])
            present = content.present[name].unsqueeze(1)
            vectors.append(functional.normalize(torch.where(present, projected, self.stand_ins[key]), dim=1))
        return vectors

    def final(self, content: list[Tensor]) -> Nodes:
        """Return H, by e^m of all items."""
        users, items, graph = self.user_table.weight, self.item_table.weight, self.graph
        parts = []
        for vectors, generated in zip(content, self.generated_graphs(), strict=True):
            direct = graph(users, vectors)
            parts.append((direct, graph(direct[0], items), generated(users, items)))
        kappa = torch.softmax(self.modality_logits, dim=0)
        mixed = [
            sum_of(
                weight * (first[side] + second[side] + self.config.generated_weight * third[side])
                for weight, (first, second, third) in zip(kappa, parts, strict=True)
            )
            for side in (0, 1)
        ]
        hops = self._hops((mixed[0], mixed[1]))
        residual = [self.config.residual_weight * functional.normalize(side, dim=1) for side in mixed]
        return hops[0] + residual[0], hops[1] + residual[1]

    def _hops(self, nodes: Nodes) -> Nodes:
        """Sum over hops 0..L."""
        users, items = nodes
        for _ in range(self.config.num_layers):
            nodes = self.graph(*nodes)
            users, items = users + nodes[0], items + nodes[1]
        return users, items

    def views(self, content: list[Tensor]) -> Views:
        """Return the vectors of all nodes, by e^m of all items."""
        own = [
            self._hops(generated(self.user_table.weight, vectors))
            for vectors, generated in zip(content, self.generated_graphs(), strict=True)
        ]
        return Views(self.final(content), tuple(own))

    def content_vectors(self) -> list[Float[Tensor, "num_items dim"]]:
        """Return e^m of all items, one a modality."""
        return list(self.in_chunks(self._stacked, self.all_items(self.known.device)).unbind(1))

    def _stacked(self, items: Tensor) -> Tensor:
        return torch.stack(self.modality_vectors(self.scaled_rows(items)), dim=1)

    def forward(
        self, users: Int[Tensor, " users"], items: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """Return H of these nodes."""
        all_users, all_items = self.final(self.content_vectors())
        return all_users[users], all_items[items]

    def encode_items(self, content: Content) -> Float[Tensor, "batch dim"]:
        """Return H of items that have no interactions, whose every hop leads back to themselves."""
        kappa = torch.softmax(self.modality_logits, dim=0)
        vectors = self.modality_vectors(self.scaler(content))
        mixed = sum_of(weight * part for weight, part in zip(kappa, vectors, strict=True))
        residual = self.config.residual_weight * functional.normalize(mixed, dim=1)
        return (1 + self.config.num_layers) * mixed + residual

    def denoising(self, users: Tensor, content: list[Tensor]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return both parts of the denoisers' loss, summed over modalities: reconstruction, and injection without its weight.

        Zero where no user is left: shares are rounded up, so that all may have passed before the epoch's last step.
        """
        rows = self._histories(users).to_dense()
        watched = rows @ self.item_table.weight.detach()[self.known]
        reconstruction, injection = rows.new_zeros(()), rows.new_zeros(())
        if not len(users):  # whose mean would be no number
            return reconstruction, injection
        for name, vectors in zip(self.modalities, content, strict=True):
            steps = torch.randint(1, self.schedule.steps + 1, (len(rows),), device=rows.device)
            guesses = self._denoiser(name)(self.schedule.noisy(rows, steps), steps)
            reconstruction = reconstruction + (guesses - rows).square().sum(1).mean()
            found = guesses @ vectors.detach()[self.known]
            injection = injection + (found - watched).square().sum(1).mean()
        return reconstruction, injection

    def extended(self, standard: Objective) -> Objective:
        """Return the objective with the contrast and the denoisers' loss."""
        return DiffMMObjective(self, standard)

    def row_tables(self) -> list[nn.Embedding]:
        """Return none: the free vectors of all are propagated."""
        return []

    def content_parameters(self) -> list[nn.Parameter]:
        """Return W_m and b_m, what stands for a modality that an item lacks, and the denoisers."""
        return [*self.projections.parameters(), *self.stand_ins.parameters(), *self.denoisers.parameters()]


class DiffMMObjective(ExtendedObjective[DiffMM]):
    """An objective, the contrast of the views, and the denoisers' loss."""

    def __call__(self, model: VectorSource, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss."""
        own, config = self.model, self.model.config
        content = own.content_vectors()
        views = own.views(content)
        terms = dict(self.standard(AllVectors(*views.final, model), batch))
        pairs = list(self._pairs(views))
        if config.contrast_weight and pairs:
            users = torch.unique(batch.users)
            items = torch.searchsorted(own.known, torch.unique(batch.positives))
            terms["contrast"] = config.contrast_weight * sum_of(
                self._contrast(first[0], second[0], users)
                + self._contrast(first[1][own.known], second[1][own.known], items)
                for first, second in pairs
            )
        reconstruction, injection = own.denoising(own.next_users(len(batch.users)), content)
        return terms | {"denoising": reconstruction, "injection": config.injection_weight * injection}

    def _pairs(self, views: Views) -> Iterator[tuple[Nodes, Nodes]]:
        if self.model.config.contrast_anchor == "main":
            return ((views.final, other) for other in views.modalities)
        return itertools.combinations(views.modalities, 2)

    def _contrast(self, first: Tensor, second: Tensor, nodes: Tensor) -> Tensor:
        return contrastive_loss(first[nodes], second, nodes, self.model.config.contrast_temperature)


def sum_of(parts: Iterator[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape."""
    return torch.stack(list(parts)).sum(0)


def _forget_graphs(model: Any, _: Any) -> None:
    model._graphs = None
