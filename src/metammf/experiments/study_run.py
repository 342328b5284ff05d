"""Run a study: every variant trained and measured alike, in a folder that the same call goes on with.

Its folder holds the runs (see `metammf.experiments.study_jobs`) and study.json, all that was found as plain data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metammf.data.folder import load_dataset
from metammf.data.synthetic import TRUTH_FILE, load_truth
from metammf.evaluation.significance import compare, holm
from metammf.experiments.clusters import taste_communities
from metammf.experiments.comparison_results import TABLES
from metammf.experiments.environment import environment
from metammf.experiments.measuring import data_summary
from metammf.experiments.pair_tests import as_pair
from metammf.experiments.run import data_hash
from metammf.experiments.studies import config_of
from metammf.experiments.study_jobs import (
    STUDY_FILE,
    Runs,
    StudyOptions,
    all_tried,
    check_metric,
    held,
    make_rows,
    refuse_unable,
)
from metammf.experiments.study_results import Mapped, StudyResults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from metammf.data.dataset import Dataset
    from metammf.data.splitting import Split
    from metammf.experiments.comparison_results import PairTest
    from metammf.experiments.studies import Plan
    from metammf.experiments.study_jobs import Progress, StudyOutcome

_MAPPED_ITEMS = 1_000


def run_study(
    plan: Plan,
    data: Path | str,
    out: Path | str,
    options: StudyOptions | None = None,
    *,
    command: str = "",
    progress: Progress | None = None,
) -> StudyResults:
    """Run what is missing of a study, write study.json into its folder and return what that holds.

    All settings are checked before anything is trained. A variant that then fails, for want of memory for one, or whose process
    dies, is a row that says why; the others go on, and the same call tries it again.

    Args:
        plan: What is compared.
        data: The data set's folder.
        out: The study's folder; one of the same study on the same data is gone on with.
        options: How.
        command: What the page says made it.
        progress: Called with the runs done, how many there are, and what was done last.

    Raises:
        ConfigError: a setting does not exist, or does not fit, or the data set can serve no variant.
        DataError: the data cannot be read or split, or `out` is somebody else's.
        RunError: `out` is in use or holds another study, or a process was told to end.
        WriteError: the disk is full, for one.
    """
    options, out, data = options or StudyOptions(), Path(out), Path(data)
    configs = [
        config_of(one, options.settings, options.seed, tried) for one, tried in all_tried(plan.variants, options)
    ]
    dataset = load_dataset(data)
    split = configs[0].config.split.apply(dataset)
    check_metric(options.metric)
    refuse_unable(plan.name, plan.variants, options, dataset)
    with held(out, plan.name, data_hash(dataset)):
        groups = _groups(plan, data, split, options)
        looked_at = None if groups is None else (groups.items, groups.own)
        runs = Runs(lambda *_: data, out / "runs", options, looked_at, progress)
        rows, found = make_rows(plan.variants, runs)
        results = StudyResults(
            name=plan.name,
            title=plan.title,
            question=plan.question,
            data=data_summary(dataset, split),
            split=split.method,
            seen=options.seen,
            metric=options.metric,
            seed_numbers=tuple(range(options.seed, options.seed + options.num_seeds)),
            axis=plan.axis,
            log_axis=plan.log_axis,
            rows=tuple(rows),
            tests=_tests(plan, found, options.metric),
            mapped=None if groups is None else _mapped(groups, dataset, found),
            command=command,
            environment=environment(options.device, options.precision),
        )
        results.write(out / STUDY_FILE)
    return results


@dataclass(frozen=True, eq=False)
class _Groups:
    """Items that are mapped, and the groups that they are of."""

    grouped_by: str
    items: NDArray[np.int64]
    own: NDArray[np.int64]
    names: tuple[str, ...]


def _groups(plan: Plan, data: Path, split: Split, options: StudyOptions) -> _Groups | None:
    """Of a world what each item is truly about; elsewhere who watches what, which no fusion is told of an item's content."""
    if not any(variant.vectors for variant in plan.variants):
        return None
    if (data / TRUTH_FILE).is_file():
        truth = load_truth(data)
        every, names = truth.modality_weights.argmax(axis=1).astype(np.int64), truth.modalities
        by = "the modality that truly carries most of the item's appeal"
    else:
        every = taste_communities(split.train, seed=options.seed)
        names = tuple(f"community {number + 1}" for number in range(int(every.max()) + 1))
        by = "communities of items that the same users have watched in train, told apart with no look at content"
    order = np.random.default_rng(options.seed).permutation(np.flatnonzero(every >= 0))
    items = np.sort(order[:_MAPPED_ITEMS])
    return _Groups(by, items, every[items], names)


def _tests(plan: Plan, found: Mapping[str, Sequence[StudyOutcome]], metric: str) -> tuple[PairTest, ...]:
    """All pairs on all tables, on the seeds that both were run with; one correction over them all."""
    tests = []
    for a, b in plan.pairs:
        if a not in found or b not in found:
            continue
        seeds = {_seed(one) for one in found[a]} & {_seed(one) for one in found[b]}
        left, right = (
            [one.test for one in found[key] if one.test is not None and _seed(one) in seeds] for key in (a, b)
        )
        for table, prefix in TABLES.items():
            if _has(found[a], table) and _has(found[b], table):
                tests.append(as_pair(metric, table, a, b, compare(left, right, prefix + metric)))
    adjusted = holm([test.p for test in tests]).tolist()
    return tuple(replace(test, p_holm=p) for test, p in zip(tests, adjusted, strict=True))


def _has(outcomes: Sequence[StudyOutcome], table: str) -> bool:
    """Whether the test part has an interaction of a table; that of cold users is there where the split makes some."""
    return any(table in one.result.test for one in outcomes if one.result is not None)


def _seed(outcome: StudyOutcome) -> int:
    return outcome.job.merged.config.seed


def _mapped(groups: _Groups, dataset: Dataset, found: Mapping[str, Sequence[StudyOutcome]]) -> Mapped:
    titles = dataset.catalog.titles or [None] * dataset.num_items
    panels = {}
    for key, outcomes in found.items():
        if outcomes[0].layout is not None:
            x, y = outcomes[0].layout.astype(np.float64).round(2).T.tolist()
            panels[key] = {"x": tuple(x), "y": tuple(y)}
    return Mapped(
        groups.grouped_by,
        tuple(dataset.catalog.item_ids.ids[groups.items].tolist()),
        tuple(titles[item] for item in groups.items),
        tuple(groups.names[place] for place in groups.own),
        panels,
    )
