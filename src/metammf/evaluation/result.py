"""The result of an evaluation as plain data: printed, written, read back."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import polars as pl

from metammf.errors import DataError, FileFormatError
from metammf.files import atomic_path, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TABLES: Mapping[str, str] = {
    "all": "",
    "warm": "warm/",
    "cold_among_all": "cold_among_all/",
    "cold_among_cold": "cold_among_cold/",
}
"""Table -> prefix of its columns in `Evaluation.per_user`."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a recommender ranks the held-out interactions of one part.

    Args:
        part: ``validation`` or ``test``.
        seen: What was left out of each user's ranking: ``train`` or ``train+validation``.
        ks: Lengths of the lists.
        all_users: Whether users without an interaction in the part count as zero, instead of not at all.
        num_users: Users that `metrics` is a mean over.
        num_interactions: Interactions of the part.
        metrics: ``"recall@20"`` and so on, full precision: the means of `per_user`, and coverage, gini, novelty and
            popularity of the lists.
        warm: The interactions with items that have a train interaction, ranked among all items: ``num_items``,
            ``num_users``, ``num_interactions`` and ``among_all``, a table as `metrics`; users without one do not count.
        cold: The others, likewise; and ``among_cold``, ranked among cold items alone. A table is empty where there
            is no such interaction.
        cold_users: The interactions of users without a train interaction, likewise; and ``cold_items``, of these those with
            cold items.
        seconds: Wall-clock time.
        run: What was evaluated, where it was a run: model, seed, placebo, and whether it was refitted on validation too.
        sample: How many users of the part were looked at, where not all were.
        per_user: One row a user: ``user_id``, ``relevant``, each metric at each k; and the same of the tables, as
            ``warm/...``, ``cold_among_all/...``, ``cold_among_cold/...``, ``cold_users/...`` and ``cold_users_cold_items/...``,
            null where the user is not in the table.
            Not part of the JSON form.
    """

    part: str
    seen: str
    ks: tuple[int, ...]
    all_users: bool
    num_users: int
    num_interactions: int
    metrics: Mapping[str, float]
    warm: Mapping[str, Any]
    cold: Mapping[str, Any]
    seconds: float
    run: Mapping[str, Any] = field(default_factory=dict)
    cold_users: Mapping[str, Any] = field(default_factory=dict)
    sample: int | None = None
    per_user: pl.DataFrame = field(default_factory=pl.DataFrame, repr=False)

    @property
    def tables(self) -> dict[str, dict[str, float]]:
        """The metrics of each of `TABLES`; empty where the part has no such interaction."""
        found = (self.metrics, self.warm["among_all"], self.cold["among_all"], self.cold["among_cold"])
        return {name: dict(metrics) for name, metrics in zip(TABLES, found, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Return everything but `per_user` as plain values that JSON can hold."""
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "per_user"}
        return plain | {
            "ks": list(self.ks),
            "metrics": dict(self.metrics),
            "run": dict(self.run),
            "warm": dict(self.warm),
            "cold": dict(self.cold),
            "cold_users": dict(self.cold_users),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], per_user: pl.DataFrame | None = None) -> Evaluation:
        """Build an evaluation from what `to_dict` gave; further keys are left aside.

        Raises:
            DataError: a key is missing.
        """
        names = [entry.name for entry in fields(cls) if entry.name != "per_user"]
        values = {"run": {}, "sample": None, "cold_users": {}, **values}
        missing = [name for name in names if name not in values]
        if missing:
            raise DataError(f"evaluation: expected the keys {', '.join(names)}; {', '.join(missing)} missing")
        plain = {name: values[name] for name in names} | {"ks": tuple(values["ks"])}
        return cls(**plain, per_user=pl.DataFrame() if per_user is None else per_user)

    @classmethod
    def read(cls, path: Path, columns: list[str] | None = None) -> Evaluation:
        """Read back what `write_json` has written, and from beside it, by the same name, what `write_parquet` has.

        Args:
            path: The JSON file.
            columns: Those of `per_user` that are wanted; None for all.

        Raises:
            DataError: names the file that is missing, or damaged.
        """
        values, users = read_json(path), path.with_suffix(".parquet")
        if not isinstance(values, dict):
            raise FileFormatError(path, f"is a {type(values).__name__}", "an evaluation")
        try:
            per_user = pl.read_parquet(users, columns=columns)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:  # a panic is no `Exception`
            told = str(error).strip().partition("\n")[0] or type(error).__name__
            raise FileFormatError(users, f"cannot be read as a table ({told})") from error
        try:
            return cls.from_dict(values, per_user)
        except DataError as error:
            raise FileFormatError(path, str(error)) from error

    def write_json(self, path: Path | str) -> None:
        """Write `to_dict` as JSON, atomically."""
        write_json(path, self.to_dict())

    def write_parquet(self, path: Path | str) -> None:
        """Write `per_user` as Parquet, atomically."""
        with atomic_path(path) as part:
            self.per_user.write_parquet(part)

    def __str__(self) -> str:
        who = "all users" if self.all_users else "users, a sample" if self.sample else "users"
        head = (
            f"{self.part}: {self.num_users:,} {who}, {self.num_interactions:,} interactions, "
            f"{self.seen} left out ({self.seconds:.1f} s)"
        )
        if self.run.get("placebo"):
            head += f"\nplacebo: features replaced by {self.run['placebo']}"
        if self.run.get("refit"):
            head += "\nrefitted on train and validation: not to be set beside models that were fitted on train alone"
        names = dict.fromkeys(key.rpartition("@")[0] for key in self.metrics)
        main = [[name, *(_number(self.metrics[f"{name}@{k}"]) for k in self.ks)] for name in names]
        apart = [f"{name}@{k}" for name in ("recall", "ndcg") for k in self.ks]
        rows = [
            [title, f"{table['num_interactions']:,}", *(_number(table[key][name]) for name in apart)]
            for title, table, key in (
                ("warm items", self.warm, "among_all"),
                ("cold items", self.cold, "among_all"),
                ("cold among cold", self.cold, "among_cold"),
                ("cold users", self.cold_users, "among_all"),
            )
            if table.get(key)
        ]
        blocks = [
            _aligned(["", *(f"@{k}" for k in self.ks)], main),
            _aligned(["", "interactions", *apart], rows),
        ]
        return "\n\n".join([head, *blocks])


def _aligned(head: list[str], rows: list[list[str]]) -> str:
    """Set cells in columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(f"{cell:<{width}}" if place == 0 else f"{cell:>{width}}" for place, (cell, width) in enumerate(cells))
        for cells in (zip(row, widths, strict=True) for row in (head, *rows))
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"
