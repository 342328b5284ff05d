"""InvRL: content behind a mask that leaves what attracts in every environment. B positives, K environments, F features, D width.

Source: Du et al., *Invariant Representation Learning for Multimedia Recommendation*, MM 2022; its backbone and loss are those of
UltraGCN (Mao et al., CIKM 2021), its scheme of environments and gates that of Liu et al., *Heterogeneous Risk Minimization*,
ICML 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from metammf.models.config import Search
from metammf.models.constrained import ConstrainedConfig, ConstraintLosses, ConstraintObjective
from metammf.models.nodes import NodeModel, SearchedScaling, init_free_vectors
from metammf.nn.backbone import Backbone
from metammf.nn.content import Content, MissingContent
from metammf.nn.invariance import StochasticGate, gradient_variance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Float, Int

    from metammf.models.base import Batch, Inputs, Objective, VectorSource

_PAIRS_AT_ONCE = 1 << 16


class InvRLConfig(ConstrainedConfig):
    """Settings of InvRL."""

    name: Literal["invrl"] = "invrl"
    embedding_dim: Annotated[int, Field(ge=2), Search(16, 256, log=True)] = 128
    """Width D of users' and items' vectors: one half for ids, one for content; even."""
    num_environments: Annotated[int, Field(ge=2, le=255), Search(2, 20)] = 10
    """Environments K that train interactions are divided into."""
    warmup_epochs: Annotated[int, Field(ge=0), Search(0, 20)] = 20
    """Epochs in which the predictor learns alone, before environments and mask do beside it: the paper's pretraining."""
    reassign_every: Annotated[int, Field(ge=1), Search(1, 20, log=True)] = 20
    """Epochs after which every interaction goes to the environment that predicts it best."""
    variant_weight: Annotated[float, Field(ge=0), Search(1e-3, 1, log=True)] = 0.01
    """Weight eta of the penalty that keeps environments off the features that the mask lets through."""
    variance_weight: Annotated[float, Field(ge=0), Search(1e-2, 1e2, log=True)] = 1.0
    """Weight alpha of the variance of gradients across environments."""
    gate_weight: Annotated[float, Field(ge=0), Search(1e-3, 1, log=True)] = 0.1
    """Weight lambda of the penalty on the gates' means mu."""
    gate_noise: Annotated[float, Field(ge=0), Search(1e-3, 0.5, log=True)] = 0.01
    """Standard deviation of the gates' noise while the mask is learned."""
    feature_scaling: SearchedScaling = "l2"
    """How features are brought to a common scale, by statistics of the items that have train interactions."""
    feature_components: Annotated[int, Field(ge=1)] | None = None
    """Principal components that are kept of each modality, at most; all columns by default."""
    modalities: tuple[str, ...] | None = None
    """The modalities to use; all that the data set has by default."""
    init_std: Annotated[float, Field(gt=0), Search(0.005, 0.2, log=True)] | None = 0.01
    """Standard deviation of the free vectors and of the projections at the start; none for Glorot's."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.embedding_dim % 2:
            raise ValueError(f"embedding_dim must be even, got {self.embedding_dim}")
        return self


class InvRL(NodeModel):
    r"""Three parts that learn side by side, each with weights of its own; no gradient crosses from one into another.

    x_i are the features of item i, all modalities side by side, m in [0, 1]^F a mask, e_u = [gamma_u | theta_u] a user and v_i an
    item's free vector, D/2 wide each half. L is the loss of UltraGCN, L_O + lambda L_C (+ gamma L_I for the predictor alone).

    1. **Heterogeneous environments.** Each environment e predicts with a projection of its own,
       s^e_ui = gamma_u . v_i + theta_u . (W_e x_i + b_e), and descends L over the interactions that are assigned to it, plus
       eta mean|W_e * m|, which keeps it off the features that count as invariant. Every interaction is then assigned anew, to
       argmax_e s^e_ui. The first assignment is drawn.
    2. **Invariant mask.** s_ui = gamma_u . v_i + theta_u . (W' (m * x_i)), with gates m = min(1, max(0, mu + 1/2 + noise)), over

       .. math:: \frac{1}{K} \sum_e L_e
           + \alpha \Big\| \sum_e \big(\nabla_{W'} L_e - \overline{\nabla_{W'} L}\big)^2 * m \Big\|^2 + \lambda \|\mu\|^2

    3. **Predictor.** e_i = [v_i | W (m * x_i) + b], score e_u . e_i, descends L over all interactions, m held still. It is what
       ranks.

    *One loop.* The paper trains these one after the other: UltraGCN, whose gamma, theta and v the first two parts hold still;
    then, some times over, environments and assignments until these settle, then a mask; last a predictor from scratch.
    Here a step descends all three, the first two at vectors that it holds still. `begin_epoch` counts: for `warmup_epochs` the
    predictor learns alone (with every gate at one half, which W makes up for), and every `reassign_every` epochs after that the
    interactions are assigned anew. So the predictor is one that went on while its mask closed, not one from scratch; each part
    begins where it stood rather than anew; and every epoch has a predictor that validation can judge.

    *Units.* As in the authors' public code the losses in 1 and 2 are sums over as many interactions as a batch has, which gives
    eta, alpha and lambda their meaning; what is descended is this over that number, so that terms are means as everywhere. Each
    environment's mean counts for as many, however many it has in the batch. Features are divided by sqrt(F / M), M modalities, so
    that a row of each has about the norm of one that the public code gives it.

    *The public code besides*: has no L_I; replaces the features that a mask has closed by nothing (m * x) in the predictor but
    only penalises those that it has opened in the environments, as here, where Liu et al. give these (1 - m) * x; weighs the
    variance by mu + 1/2 beyond [0, 1] as well, and draws noise for every environment apart (here one draw a step, lest noise be
    taken for variance); lets alpha and lambda grow by a twentieth a round; draws negatives among all items; lays a tenth of W's
    penalty on W_e and W', and twice gamma's on v (here each kind of parameter has one decay). Its textual features of TikTok are
    words with vectors that it learns; here a modality is a matrix of features.

    *Ours*: features are centred before they are brought to unit length ("l2"), which the public code does not do (rows of some
    encoders point nearly all the same way). A learned vector stands for a modality that an item lacks. An item without a
    train interaction has v_i = 0, which is where a penalty would leave it, and is scored by its content, whether it is in
    the data set or is added later.

    Args:
        config: Its settings.
        inputs: Counts, features, and the train interactions.

    Raises:
        ConfigError: the data set has no features.
        DataError: it lacks a modality that is asked for.
    """

    config_type = InvRLConfig
    keys: Tensor
    environments: Tensor
    epochs: Tensor

    def __init__(self, config: InvRLConfig, inputs: Inputs) -> None:
        super().__init__(inputs, config.embedding_dim, Backbone(), init_std=config.init_std)
        self.config = config
        self.part = config.embedding_dim // 2
        self.item_table = nn.Embedding(inputs.num_items, self.part)
        init_free_vectors(self.item_table, config.init_std, without=inputs.cold_items)
        self.take_content(inputs, config)
        self.concat = MissingContent(self.scaler.out_widths)
        width = sum(self.scaler.out_widths.values())
        self.row_norm = (width / len(self.modalities)) ** 0.5
        self.gate = StochasticGate(width, config.gate_noise)
        self.project = nn.Linear(width, self.part)  # W, b
        self.masked_weight = nn.Parameter(torch.empty(self.part, width))  # W'
        self.environment_weights = nn.Parameter(torch.empty(config.num_environments, self.part, width))  # W_e
        self.environment_biases = nn.Parameter(torch.zeros(config.num_environments, self.part))  # b_e
        for weight in (self.project.weight, self.masked_weight, *self.environment_weights.unbind()):
            _init_projection(weight, config.init_std)
        nn.init.zeros_(self.project.bias)
        self.losses = ConstraintLosses(config, inputs)
        keys = torch.from_numpy(np.sort(inputs.train.keys))
        self.register_buffer("keys", keys, persistent=False)
        drawn = torch.randint(config.num_environments, keys.shape, dtype=torch.uint8)
        self.register_buffer("environments", drawn)  # of the interactions in the order of their keys
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))  # that have begun
        self.exploring = not config.warmup_epochs

    def begin_epoch(self, generator: torch.Generator) -> None:
        """Assign interactions to environments where it is time to."""
        explored = int(self.epochs) - self.config.warmup_epochs
        if explored > 0 and explored % self.config.reassign_every == 0:
            self.assign_environments()
        self.exploring = explored >= 0
        self.epochs += 1

    @torch.no_grad()
    def assign_environments(self) -> None:
        """Give every train interaction to the environment that scores it highest, the first of equal ones."""
        users, items = self.keys // self.num_items, self.keys % self.num_items
        taste = self.user_table.weight[:, self.part :]
        best = torch.full(self.keys.shape, -torch.inf, device=self.keys.device)
        for number in range(self.config.num_environments):
            weight, bias = self.environment_weights[number], self.environment_biases[number]

            def project(rows: Tensor, weight: Tensor = weight, bias: Tensor = bias) -> Tensor:
                return functional.linear(self.features(rows), weight, bias)

            content = self.in_chunks(project, self.all_items(self.keys.device))
            for pairs in torch.split(torch.arange(len(self.keys), device=self.keys.device), _PAIRS_AT_ONCE):
                # The part of the ids is the same in all environments.
                scores = (taste[users[pairs]] * content[items[pairs]]).sum(1)
                better = scores > best[pairs]
                best[pairs[better]] = scores[better]
                self.environments[pairs[better]] = number

    def environments_of(self, users: Int[Tensor, " batch"], items: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Return the environment of each of these train interactions."""
        return self.environments[torch.searchsorted(self.keys, users * self.num_items + items)].long()

    def features(self, items: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """Return x_i of these items."""
        return self._side_by_side(self.scaled_rows(items))

    def _side_by_side(self, content: Content) -> Tensor:
        return self.concat(content) / self.row_norm

    def fuse_scaled(self, content: Content) -> Float[Tensor, "batch width"]:
        """Return the invariant representations W (m * x_i) + b of these items."""
        weight = self.project.weight * self.gate.expected().detach()
        return functional.linear(self._side_by_side(content), weight, self.project.bias)

    def item_inputs(self, items: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return the vectors of these items."""
        return self.encode_scaled(self.scaled_rows(items), items)

    def encode_items(self, content: Content) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items that have no interactions."""
        return self.encode_scaled(self.scale(content))

    def encode_scaled(self, content: Content, items: Int[Tensor, " batch"] | None = None) -> Float[Tensor, "batch dim"]:
        """Return the vectors of items; with `items`, by the free vectors that these known items have."""
        fused = self.fuse_scaled(content)
        own = fused.new_zeros(len(fused), self.part) if items is None else self.item_table(items)
        return torch.cat([own, fused], dim=1)

    def objective(self, training: Any) -> Objective:
        """Return the loss of the predictor, of the environments and of the mask."""
        return InvRLObjective(self, training)

    def embeddings(self, users: Tensor, items: Tensor) -> list[Tensor]:
        """Return the free vectors of both sides."""
        return [self.user_table(users), self.item_table(items)]

    def row_tables(self) -> list[nn.Embedding]:
        """Return the tables of both sides."""
        return [self.user_table, self.item_table]

    def content_parameters(self) -> list[nn.Parameter]:
        """Return all projections, and what stands for a modality that an item lacks."""
        own = [self.masked_weight, self.environment_weights, self.environment_biases]
        return [*self.project.parameters(), *self.concat.parameters(), *own]


def _init_projection(weight: Tensor, std: float | None) -> None:
    with torch.no_grad():
        if std is None:
            nn.init.xavier_uniform_(weight)
        else:
            weight.normal_(std=std)


@dataclass(frozen=True)
class _Part:
    """The interactions of a batch that are of one environment, and all that is held still of them. P of them.

    Args:
        number: The environment.
        users: (P,).
        positives: (P,).
        negatives: (P, K) of each.
        taste: theta of the users, (P, D/2).
        known: gamma_u . v_i of the positives (P, 1) and negatives (P, K), side by side.
        features: x of the distinct items, (n, F).
        places: Of positives and negatives among the distinct items, side by side, (P, 1 + K).
    """

    number: int
    users: Tensor
    positives: Tensor
    negatives: Tensor
    taste: Tensor
    known: Tensor
    features: Tensor
    places: Tensor


class InvRLObjective:
    """The predictor's loss, and after its warm-up beside it those of the environments and of the mask.

    Args:
        model: Whose weights.
        training: How it is trained.

    Raises:
        ConfigError: negatives are shared by the step.
    """

    def __init__(self, model: InvRL, training: Any) -> None:
        self.model = model
        self.predictor = ConstraintObjective(model, model.losses, training)

    def __call__(self, model: VectorSource, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the loss."""
        terms = self.predictor(model, batch)
        if self.model.exploring:
            parts = list(self._parts(batch))
            terms |= {"environments": self.environment_loss(parts), "mask": self.mask_loss(parts)}
        return terms

    @torch.no_grad()
    def _parts(self, batch: Batch) -> Iterator[_Part]:
        """Divide a batch into its environments, those that it has."""
        model = self.model
        environments = model.environments_of(batch.users, batch.positives)
        every = torch.unique(torch.cat([batch.positives, batch.negatives.flatten()]))
        features = model.features(every)
        for number in torch.unique(environments).tolist():
            rows = torch.nonzero(environments == number).flatten()
            users, positives, negatives = batch.users[rows], batch.positives[rows], batch.negatives[rows]
            gamma, taste = model.user_table(users).split(model.part, dim=1)
            nodes = torch.cat([positives.unsqueeze(1), negatives], dim=1)
            items, places = torch.unique(nodes, return_inverse=True)
            free = functional.embedding(places, model.item_table(items))
            known = torch.einsum("pd,pkd->pk", gamma, free)
            own = features[torch.searchsorted(every, items)]
            yield _Part(number, users, positives, negatives, taste, known, own, places)

    def _loss(self, part: _Part, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return L of an environment's interactions under a projection, the mean over them."""
        content = functional.linear(part.features, weight, bias)
        vectors = functional.embedding(part.places, content)
        scores = part.known + torch.einsum("pd,pkd->pk", part.taste, vectors)
        losses = self.model.losses
        main, constraint = losses.pairs(part.users, part.positives, part.negatives, scores[:, 0], scores[:, 1:])
        return (main + losses.constraint_weight * constraint).mean()

    def environment_loss(self, parts: list[_Part]) -> Tensor:
        """Return the sum over environments of L_e + eta mean|W_e * m|, over the number of interactions."""
        model, count = self.model, _count(parts)
        gate = model.gate.expected().detach()
        total = torch.zeros((), device=gate.device)
        for part in parts:
            weight, bias = model.environment_weights[part.number], model.environment_biases[part.number]
            variant = (weight * gate).abs().mean()
            total = total + self._loss(part, weight, bias) + model.config.variant_weight * variant / count
        return total

    def mask_loss(self, parts: list[_Part]) -> Tensor:
        """Return the mean of the L_e, the variance of their gradients, and the penalty on mu, over the number of interactions."""
        model, count = self.model, _count(parts)
        weight = model.masked_weight * model.gate()
        losses = [self._loss(part, weight, None) for part in parts]
        gradients = [count * torch.autograd.grad(loss, model.masked_weight, create_graph=True)[0] for loss in losses]
        variance = gradient_variance(torch.stack(gradients), model.gate.expected())
        penalty = model.config.variance_weight * variance + model.config.gate_weight * model.gate.mu.square().sum()
        return torch.stack(losses).mean() + penalty / count


def _count(parts: list[_Part]) -> int:
    return sum(len(part.users) for part in parts)
