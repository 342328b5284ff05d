"""Named protocols: how the data are divided, what a ranking leaves out, what is measured, and what a figure may stand beside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from metammf.errors import ConfigError, DataError, did_you_mean
from metammf.experiments.comparison_results import ProfileSummary
from metammf.experiments.config import SplitConfig
from metammf.experiments.pair_tests import TESTED_TABLES

if TYPE_CHECKING:
    from metammf.data.dataset import Dataset
    from metammf.data.splitting import SplitMethod
    from metammf.evaluation.evaluate import Seen


@dataclass(frozen=True)
class Profile:
    """A protocol.

    Args:
        name: Of the profile.
        description: What it is, in a sentence.
        comparable: What its figures may be laid beside, and with what reservations.
        methods: How the data are divided: the first of these that the data set allows.
        seen: What a ranking for the test part leaves out.
        ks: Lengths of the lists.
        metrics: What tables show, each at each k.
        chosen_by: The validation metric that chooses epochs and settings.
        tested: What pairs of models are tested on.
        tables: In which tables.
        cold_share: Share of the items, or of the users, that lose their train interactions, for the splits that make them cold.
    """

    name: str
    description: str
    comparable: str
    methods: tuple[SplitMethod, ...]
    seen: Seen
    ks: tuple[int, ...] = (10, 20)
    metrics: tuple[str, ...] = ("recall", "ndcg")
    chosen_by: str = "recall@20"
    tested: tuple[str, ...] = ("recall@20", "ndcg@20")
    tables: tuple[str, ...] = TESTED_TABLES
    cold_share: float = 0.2

    def split(self, dataset: Dataset) -> SplitConfig:
        """Return how a data set is divided under this protocol.

        Raises:
            DataError: the data set lacks what the protocol needs.
        """
        allowed = self._allowed(dataset)
        if not allowed:
            others = ", ".join(one.name for one in PROFILES.values() if one._allowed(dataset))
            raise DataError(
                f"profile {self.name}: {_lacks(self.methods[-1], dataset)}; the profiles that fit it: {others}"
            )
        return SplitConfig(method=allowed[0], cold_share=self.cold_share)

    def elsewhere(self) -> Profile:
        """Return the same lists, masks and metrics for a split that is not the one that it is named for."""
        return replace(
            self,
            description=f"The lists, masks and metrics of {self.name}, on another data set's published split.",
            comparable="Nothing published under this profile, which is of another split.",
        )

    def _allowed(self, dataset: Dataset) -> list[SplitMethod]:
        return [method for method in self.methods if _lacks(method, dataset) is None]

    def summary(self, split: SplitConfig) -> ProfileSummary:
        """Return it as plain data, with the split that was taken."""
        return ProfileSummary(
            name=self.name,
            description=self.description,
            comparable=self.comparable,
            split=split.model_dump(mode="json"),
            seen=self.seen,
            ks=self.ks,
            metrics=self.metrics,
            chosen_by=self.chosen_by,
            tested=self.tested,
        )


def _lacks(method: SplitMethod, dataset: Dataset) -> str | None:
    """Say what a data set lacks for a split, if anything."""
    if method == "published" and dataset.parts is None:
        return f"{dataset.name} carries no published split"
    if method in ("user-time", "global-time") and dataset.interactions.timestamps is None:
        return f"{dataset.name} has no timestamps"
    return None


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "metammf",
            "The MetaMMF paper: 80/10/10 of each user's interactions at random, or the published split; train alone is masked.",
            "The tables of the MetaMMF paper (TOIS 2023), on its data sets; its HR is micro_recall here.",
            methods=("published", "random"),
            seen="train",
            metrics=("precision", "recall", "micro_recall", "ndcg"),
            chosen_by="recall@10",
            tested=("recall@10", "ndcg@10"),
        ),
        Profile(
            "hkuds-tiktok",
            "The public TikTok split of DiffMM and the papers after it; train alone is masked.",
            "Tables on that split (DiffMM, MMHCL and later); most picked the epoch on the test part, which flatters them.",
            methods=("published",),
            seen="train",
            metrics=("recall", "precision", "ndcg"),
        ),
        Profile(
            "mmrec",
            "The MMRec framework: the data set's own x_label split; train alone is masked; recall@20 on validation chooses.",
            "Tables made with MMRec, which picks settings by the test part, and leaves out users without train interactions.",
            methods=("published",),
            seen="train",
            ks=(5, 10, 20, 50),
            metrics=("recall", "ndcg", "precision", "map"),
        ),
        Profile(
            "user-time",
            "Each user's last interactions by time: a tenth for test, the tenth before for validation.",
            "Other per-user temporal splits of the same data. What other users do later is known: see global-time.",
            methods=("user-time",),
            seen="train+validation",
        ),
        Profile(
            "global-time",
            "One moment for all users: nothing that is learned from comes after anything that is asked.",
            "Other global temporal splits of the same data; the closest to a deployment, and the control of user-time.",
            methods=("global-time",),
            seen="train+validation",
        ),
        Profile(
            "cold-item",
            "A fifth of the items, drawn at random, loses its train interactions: what content alone can tell.",
            "Cold-item studies of the same share; validation chooses on the same cold items, by other interactions.",
            methods=("cold-item",),
            seen="train+validation",
        ),
        Profile(
            "cold-user",
            "A fifth of the users, drawn at random, loses its train interactions and comes with the first five when ranked for.",
            "Cold-user studies of the same share and history; models that take no user in rank for them by popularity.",
            methods=("cold-user",),
            seen="train+validation",
            tables=("all", "cold users"),
        ),
    )
}


def profile_named(name: str) -> Profile:
    """Return a profile.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}{did_you_mean(name, PROFILES)}; there are: {', '.join(PROFILES)}")
    return PROFILES[name]
