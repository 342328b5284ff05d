"""Each leak that the audit knows is planted and found; a clean split passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from metammf.data.dataset import Dataset
from metammf.data.features import ItemFeatures, absent_features
from metammf.data.splitting import METHODS, Split
from metammf.errors import ConfigError, LeakageError
from metammf.experiments import audit as audit_module
from metammf.experiments.audit import FittingAudit, _told, audit, with_other_cold_features
from metammf.experiments.config import merge, recipe_names
from metammf.models import item_graphs, mmhcl, nodes
from metammf.models.base import Model
from metammf.models.freedom import FREEDOMConfig
from metammf.models.lattice import LATTICEConfig
from metammf.models.mgcn import MGCNConfig
from metammf.models.mmhcl import MMHCLConfig
from metammf.models.registry import model_type
from metammf.models.vbpr import VBPR, VBPRConfig
from metammf.nn.content import Content, ContentScaler
from metammf.nn.content_graph import ContentGraph
from metammf.nn.hypergraph import SimilarItems
from metammf.testing.contracts import takes_content
from metammf.testing.data import taste_groups

GROUPS = taste_groups(6, cold=2, lacking=True)


@pytest.fixture
def dataset():
    """Two groups of users; everybody watches an item a second, in an order of their own."""
    log = GROUPS.train.union(GROUPS.validation).union(GROUPS.test)
    times = np.random.default_rng(0).permutation(len(log))
    labels = np.repeat(np.arange(3, dtype=np.int8), [len(GROUPS.train), len(GROUPS.validation), len(GROUPS.test)])
    return Dataset("two groups", replace(log, timestamps=times), GROUPS.catalog, labels)


def planted(split, **parts):
    """The same split with other parts, which its own check of overlaps does not see."""
    whole = {name: getattr(split, name) for name in ("train", "validation", "test")} | parts
    return Split(**whole, catalog=split.catalog, method=split.method, of_one_log=True)


def move(split, source, target):
    """One interaction of `source` stands in `target` as well."""
    one = np.zeros(len(getattr(split, source)), dtype=np.bool_)
    one[0] = True
    first = getattr(split, source).select(one)
    return planted(split, **{target: getattr(split, target).union(first)})


@pytest.mark.parametrize("method", METHODS)
def test_every_split_of_ours_passes(dataset, method):
    options = {"validation_share": 0.2, "test_share": 0.2}
    checks = audit(dataset, dataset.split(method, **options))
    assert len(checks) == len({check.name for check in checks}) == (9 if method == "cold-user" else 8)
    assert all(check.found for check in checks)


@pytest.mark.parametrize(("source", "target"), [("test", "train"), ("validation", "train"), ("test", "validation")])
def test_a_pair_in_two_parts_is_found_and_named(dataset, source, target):
    split = dataset.split("published")
    user, item = int(getattr(split, source).users[0]), int(getattr(split, source).items[0])
    with pytest.raises(LeakageError, match=f"parts are apart: 1 pairs .* user 'user-{user}' and item 'item-{item}'"):
        audit(dataset, move(split, source, target))


def test_ids_that_are_numbers_are_told_as_numbers(dataset):
    """As people write them, not as NumPy does."""
    assert [_told(np.int64(7)), _told(np.str_("it's")), _told("a")] == ["7", '"it\'s"', "'a'"]


def test_held_out_rows_in_the_train_matrix_are_found(dataset):
    with pytest.raises(LeakageError, match="the matrix of train holds 1 pairs of test"):
        audit(dataset, move(dataset.split("published"), "test", "train"))


def test_a_pair_that_comes_twice_is_found(dataset):
    split = dataset.split("published")
    twice = split.test._of_distinct(
        *(np.repeat(getattr(split.test, name), 2) for name in ("users", "items")), None, None
    )
    with pytest.raises(LeakageError, match=r"no pair comes twice: .* come repeatedly in test"):
        audit(dataset, planted(replace_times(split, None), test=twice))


def replace_times(split, times):
    parts = {name: replace(getattr(split, name), timestamps=times) for name in ("train", "validation", "test")}
    return planted(split, **parts)


def test_pairs_that_are_not_in_the_log_are_found(dataset):
    split = dataset.split("published")
    fewer = replace(
        dataset, interactions=dataset.interactions.select(np.arange(len(dataset.interactions)) > 0), parts=None
    )
    with pytest.raises(LeakageError, match="parts come from the log: 1 pairs of train are not in the log"):
        audit(fewer, split)


@pytest.mark.parametrize("method", ["user-time", "global-time"])
def test_times_from_the_future_are_found(dataset, method):
    split = dataset.split(method, validation_share=0.2, test_share=0.2)
    late = replace(split.train, timestamps=np.where(np.arange(len(split.train)) == 0, 10_000, split.train.timestamps))
    with pytest.raises(LeakageError, match=r"times are in order: 1 (users|interactions)"):
        audit(dataset, planted(split, train=late))


def test_how_much_of_the_future_a_split_without_time_shows_is_told(dataset):
    checks = {check.name: check.found for check in audit(dataset, dataset.split("random"))}
    assert "test interactions are older than their user's newest in train" in checks["times are in order"]


@pytest.mark.parametrize("kind", [pl.Int64, pl.Datetime("ms")])
def test_items_from_the_future_are_found(dataset, kind):
    """Item 0 is watched in train, and was uploaded long after."""
    seconds = pl.Series([10_000 if item == 0 else None for item in range(dataset.num_items)], dtype=pl.Int64)
    uploaded = seconds if kind == pl.Int64 else (seconds * 1000).cast(kind)
    items = pl.DataFrame({"uploaded_at": uploaded})
    later = replace(dataset, catalog=replace(dataset.catalog, items=items))
    with pytest.raises(LeakageError, match=r"no item from the future: .*item 'item-0'"):
        audit(later, later.split("global-time", validation_share=0.2, test_share=0.2))
    assert audit(later, later.split("random"))


def test_a_split_without_anything_to_choose_on_is_found(dataset):
    split = dataset.split("published")
    with pytest.raises(LeakageError, match="the validation part is empty"):
        audit(
            dataset, planted(split, validation=split.validation.select(np.zeros(len(split.validation), dtype=np.bool_)))
        )


def test_held_out_pairs_that_choose_are_found(dataset):
    """Parts that are apart, and a model that is shown others."""
    split = dataset.split("published")
    shown = replace(split.development, validation=split.validation.union(split.test))
    vars(split)["development"] = shown
    with pytest.raises(LeakageError, match="what chooses is not the validation part"):
        audit(dataset, split)


def test_a_cold_split_without_cold_items_is_found(dataset):
    split = replace(dataset.split("random"), method="cold-item", of_one_log=True)
    with pytest.raises(LeakageError, match="the split makes none cold"):
        audit(dataset, split)


def test_a_cold_user_split_that_teaches_of_a_history_is_found(dataset):
    split = dataset.split("cold-user")
    taught = replace(split, train=split.train.union(split.history), history=split.history, of_one_log=True)
    with pytest.raises(LeakageError, match=r"cold users are cold: .* of users that are learned from"):
        audit(dataset, taught)


def test_a_cold_user_split_without_cold_users_is_found(dataset):
    split = dataset.split("published")
    nobody = split.train.select(np.zeros(len(split.train), dtype=np.bool_))
    with pytest.raises(LeakageError, match="no test interaction is of a cold user"):
        audit(dataset, replace(split, history=nobody, of_one_log=True))


def test_all_that_fails_is_told_together(dataset):
    split = dataset.split("published")
    leaky = move(move(split, "test", "train"), "validation", "train")
    with pytest.raises(LeakageError) as caught:
        audit(dataset, leaky)
    assert "parts are apart" in str(caught.value)
    assert "train alone is learned from" in str(caught.value)


def fitting(config, label="it", development=GROUPS.development):
    (check,) = FittingAudit(development).check(config, label)
    return check


@pytest.mark.parametrize("name", recipe_names())
def test_no_recipe_of_ours_knows_what_cold_items_look_like(name):
    config = merge(name, {}, {}).config.model
    check = fitting(config, name)
    assert check.name.startswith(f"{name}: ")
    if issubclass(model_type(config.name), Model):
        assert check.found.startswith("scalers, and" if takes_content(config) or name == "bm3" else "it has no Cont")
        told = "vectors of 13 users and 12 items with train interactions: the same with other features of the other 4;"
        assert told in check.found
    else:
        assert check.found.startswith("it is solved, not trained")


def test_a_scaler_that_is_fitted_on_all_items_is_found(monkeypatch):
    monkeypatch.setattr(nodes, "_statistics_items", lambda inputs: torch.arange(inputs.num_items))
    with pytest.raises(
        LeakageError, match=r"^leakage audit failed: it: .*scaler\.mean_of_visual.* depend on the features of items"
    ):
        fitting(VBPRConfig())


def test_a_scaler_that_is_fitted_on_all_items_whatever_they_lack_is_found(monkeypatch):
    """Taking the features of cold items away would change nothing: it does not look at who has some."""
    fit = ContentScaler.fit

    def fit_on_all(scaler, content):
        fit(scaler, Content(content.values, {name: torch.ones_like(mask) for name, mask in content.present.items()}))

    monkeypatch.setattr(ContentScaler, "fit", fit_on_all)
    monkeypatch.setattr(nodes, "_statistics_items", lambda inputs: torch.arange(inputs.num_items))
    with pytest.raises(
        LeakageError, match=r"scaler\.mean_of_visual, scaler\.scale_of_visual, .* depend on the features"
    ):
        fitting(VBPRConfig())


class GraphOfAll(ContentGraph):
    """A graph in which cold items are neighbours of the others."""

    def __init__(self, features, members, num_neighbours, *, weighted):
        super().__init__(features, torch.ones_like(members), num_neighbours, weighted=weighted)


class HyperedgesOfAll(SimilarItems):
    def __init__(self, content, known, num_neighbours):
        super().__init__(content, torch.ones_like(known), num_neighbours)


@pytest.mark.parametrize(
    ("module", "name", "leak", "config"),
    [
        (item_graphs, "ContentGraph", GraphOfAll, LATTICEConfig(embedding_dim=8, feature_dim=8, num_neighbours=3)),
        (item_graphs, "ContentGraph", GraphOfAll, LATTICEConfig(embedding_dim=8, feature_dim=8)),
        (item_graphs, "ContentGraph", GraphOfAll, FREEDOMConfig(embedding_dim=8, num_neighbours=3)),
        (item_graphs, "ContentGraph", GraphOfAll, MGCNConfig(embedding_dim=8, num_neighbours=3)),
        (mmhcl, "SimilarItems", HyperedgesOfAll, MMHCLConfig(embedding_dim=8, num_neighbours=3)),
    ],
)
def test_cold_items_among_the_neighbours_of_others_are_found(monkeypatch, module, name, leak, config):
    monkeypatch.setattr(module, name, leak)
    with pytest.raises(LeakageError, match=r"no vector of others: \d+ of 1[23] (user|item) vectors.* depend on"):
        fitting(config)


def test_what_tells_how_many_cold_items_have_a_modality_is_found(monkeypatch):
    fuse = VBPR.fuse_scaled

    def fuse_scaled(self, content):
        return fuse(self, content) * float(self.content.features.present["visual"].mean())

    monkeypatch.setattr(VBPR, "fuse_scaled", fuse_scaled)
    with pytest.raises(LeakageError, match=r"it: .*: 1[12] of 12 item vectors depend on"):
        fitting(VBPRConfig())


def test_what_is_made_as_an_epoch_begins_is_looked_at(monkeypatch):
    def begin_epoch(self, generator):
        self.user_table.weight.data += self.content.rows(torch.arange(self.num_items)).values["visual"].mean()

    monkeypatch.setattr(VBPR, "begin_epoch", begin_epoch)
    with pytest.raises(LeakageError, match="13 of 13 user vectors depend on"):
        fitting(VBPRConfig())


def test_offsets_are_looked_at(monkeypatch):
    def offsets(self, items):
        return self.content.rows(torch.arange(self.num_items)).values["visual"].mean().expand(len(items))

    monkeypatch.setattr(VBPR, "item_offsets", offsets)
    with pytest.raises(LeakageError, match="12 of 12 item offsets depend on"):
        fitting(VBPRConfig())


def test_rounding_is_no_leak_and_what_is_no_number_is_the_same_as_itself(monkeypatch):
    vectors, signs = VBPR.vectors, iter((1, -1))

    def rounded(self):
        users, items = vectors(self)
        users[0, 0] = torch.nan
        return users, items * (1 + 2e-7 * next(signs))

    monkeypatch.setattr(VBPR, "vectors", rounded)
    assert "the same with other features" in fitting(VBPRConfig()).found


def test_where_no_item_is_cold_there_is_nothing_to_know():
    found = fitting(VBPRConfig(), development=taste_groups(6).development).found
    assert found == "all 12 items have train interactions: there are no others"


def test_a_model_that_does_not_fit_the_data_is_told_of():
    bare = GROUPS.development.with_features(absent_features({}, GROUPS.catalog.num_items))
    with pytest.raises(ConfigError, match="this data set has no features"):
        fitting(VBPRConfig(), development=bare)


def test_other_features_are_made_once_for_all_models(monkeypatch):
    made = []

    def counted(development):
        made.append(with_other_cold_features(development))
        return made[-1]

    monkeypatch.setattr(audit_module, "with_other_cold_features", counted)
    fitting = FittingAudit(GROUPS.development)
    for config in (VBPRConfig(), MMHCLConfig()):
        fitting.check(config, "it")
    assert len(made) == 1


@pytest.mark.parametrize("precision", [np.float16, np.float32])
def test_other_features_are_those_of_cold_items_alone(precision):
    own = GROUPS.catalog.features
    features = ItemFeatures({name: matrix.astype(precision) for name, matrix in own.matrices.items()}, own.present)
    kept = {name: matrix.copy() for name, matrix in features.matrices.items()}
    development = GROUPS.development.with_features(features)
    other = with_other_cold_features(development).catalog.features.check_finite()
    again = with_other_cold_features(development).catalog.features
    cold = development.cold_items
    for name, matrix in features.matrices.items():
        new, warm = other.matrices[name], matrix[~cold & features.present[name]]
        assert new.dtype == precision
        np.testing.assert_array_equal(matrix, kept[name])
        np.testing.assert_array_equal(new, again.matrices[name])
        np.testing.assert_array_equal(new[~cold], matrix[~cold])
        np.testing.assert_array_equal(other.present[name][~cold], features.present[name][~cold])
        assert (new[cold] != matrix[cold]).any(1).all()
        alike = np.array([(row == warm).all(1).any() for row in new[cold]])
        assert alike.sum() == 2
        assert other.present[name][cold][alike].all()
        assert (other.present[name][cold][~alike] != features.present[name][cold][~alike]).all()


def test_a_modality_that_no_warm_item_has_is_changed_as_well():
    own, cold = GROUPS.catalog.features, GROUPS.cold_items
    features = ItemFeatures(own.matrices, {**own.present, "visual": cold})
    other = with_other_cold_features(GROUPS.development.with_features(features)).catalog.features
    assert not other.present["visual"].any()
    assert (other.matrices["visual"][cold] != own.matrices["visual"][cold]).all()
