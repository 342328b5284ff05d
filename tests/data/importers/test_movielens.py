from __future__ import annotations

import numpy as np
import pytest

from metammf.data.importers.registry import import_dataset
from metammf.errors import FileFormatError

FILES = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,30,4.0,100\n1,10,3.5,110\n7,10,5.0,120\n7,20,4.5,90\n9,20,1.0,80\n",
    "movies.csv": (
        'movieId,title,genres\n10,Toy Story (1995),Animation|Comedy\n20,"Story, The (1996)",Comedy\n'
        "30,Comedy of Toys (1995),(no genres listed)\n40,Unseen (2000),Drama\n"
    ),
    "tags.csv": "userId,movieId,tag,timestamp\n1,30,pixar fun,50\n7,10,pixar,60\n7,20,pixar,500\n9,40,pixar,1\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    visual = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.savez(tmp_path / "features.npz", movieId=np.array([40, 30, 10]), visual=visual, acoustic=visual + 10)
    return tmp_path


def test_liked_movies_and_the_users_who_liked(folder):
    dataset = import_dataset(folder)
    assert dataset.catalog.user_ids.ids.tolist() == [1, 7]
    assert dataset.catalog.item_ids.ids.tolist() == [10, 20, 30]
    log = dataset.interactions
    assert list(zip(log.users, log.items, log.timestamps, log.ratings, strict=True)) == [
        (0, 2, 100, 4.0),
        (1, 0, 120, 5.0),
        (1, 1, 90, 4.5),
    ]
    assert dataset.catalog.titles == ["Toy Story (1995)", "Story, The (1996)", "Comedy of Toys (1995)"]
    assert dataset.catalog.items["genres"].to_list()[0] == "Animation|Comedy"
    assert "no commercial use" in dataset.provenance["licence"]
    assert dataset.provenance["options"] == {"min_rating": 4.0, "tags_before": None}
    assert import_dataset(folder, min_rating=5).num_items == 1


def test_movies_without_features_lack_the_modalities(folder):
    features = import_dataset(folder).features
    assert features.modalities == ("visual", "acoustic", "textual")
    assert features.present["visual"].tolist() == features.present["acoustic"].tolist() == [True, False, True]
    assert features.matrices["visual"][[0, 2]].tolist() == [[4, 5], [2, 3]]
    (folder / "features.npz").unlink()
    assert import_dataset(folder).features.modalities == ("textual",)


def test_text_is_of_titles_and_genres_and_of_tags_only_where_dated(folder):
    def cosines(**options):
        dataset = import_dataset(folder, **options)
        rows = dataset.features.matrices["textual"]
        return rows @ rows.T, dataset.provenance["textual"]

    plain, told = cosines()
    assert "no tags" in told
    early, told = cosines(tags_before=100)
    assert "tags dated before 100" in told
    late, _ = cosines(tags_before=501)
    np.testing.assert_array_equal(plain, cosines(tags_before=0)[0])
    assert early[0, 2] > plain[0, 2]  # both are tagged "pixar" early
    assert late[1, 2] > early[1, 2]  # and the second later


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("ratings.csv", "rating,", "stars,", "has no column 'rating'"),
        ("ratings.csv", "5.0", "good", "row 3, column 'rating' is 'good'"),
        ("ratings.csv", "120", "", "row 3, column 'timestamp' is missing"),
        ("ratings.csv", "7,20", "7,99", "is 99: unknown movie id"),
        ("movies.csv", "20,", "10,", "row 2: movieId 10 comes a second time"),
        ("movies.csv", "genres", "kind", "has no column 'genres'"),
        ("tags.csv", "500", "x", "row 3, column 'timestamp' is 'x'"),
    ],
)
def test_bad_tables_are_refused(folder, name, old, new, message):
    (folder / name).write_text(FILES[name].replace(old, new))
    with pytest.raises(FileFormatError, match=message):
        import_dataset(folder, tags_before=1000)


def test_no_rating_high_enough_or_no_tags(folder):
    with pytest.raises(FileFormatError, match="none of 5 ratings reaches 6"):
        import_dataset(folder, min_rating=6)
    (folder / "tags.csv").unlink()
    with pytest.raises(FileFormatError, match=r"tags\.csv: no such file"):
        import_dataset(folder, tags_before=1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"visual": np.zeros((3, 2))}, "has no whole numbers 'movieId'"),
        ({"movieId": np.array([10, 10, 20]), "visual": np.zeros((3, 2))}, "movieId 10 comes twice"),
        ({"movieId": np.array([10, 20]), "visual": np.zeros((3, 2))}, "array 'visual': has 3 rows; expected 2"),
        ({"movieId": np.array([10]), "visual": np.array([[np.inf]])}, "row 0, column 0 .from 0. is inf"),
        (
            {"movieId": np.array([10]), "visual": np.array([[1e300]])},
            "is 1e.300; expected numbers that single precision",
        ),
        ({"movieId": np.empty(0, np.int64), "visual": np.empty((0, 10**9))}, "names 0 movies"),
    ],
)
def test_bad_features_are_refused(folder, arrays, message):
    np.savez(folder / "features.npz", **arrays)
    with pytest.raises(FileFormatError, match=message):
        import_dataset(folder)


def test_the_real_one(real_data):
    dataset = import_dataset(real_data / "movielens-small")
    assert dataset.num_users == 671
    assert dataset.interactions.ratings.min() >= 4
    assert dataset.features.widths == {"visual": 107, "acoustic": 100, "textual": 128}
    assert 0.2 < dataset.features.present["visual"].mean() < 0.3
    assert dataset.features.present["textual"].all()
    titles, rows = dataset.catalog.titles, dataset.features.matrices["textual"]
    toy_story = titles.index("Toy Story (1995)")
    nearest = np.argsort(-(rows @ rows[toy_story]))[1:4]
    assert "Toy Story 2 (1999)" in {titles[item] for item in nearest}
    split = dataset.split("user-time")
    assert split.cold_items.any()
