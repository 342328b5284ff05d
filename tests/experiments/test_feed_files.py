from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from filelock import FileLock

from metammf.errors import ConfigError, DataError
from metammf.experiments.feed_files import COLUMNS, MARKER, OneProcess, write_feed_file, write_feed_folder
from metammf.files import read_json, write_json

ASKED = {"k": 5}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def recommender(vector_recommender):
    """So many items that a batch holds a fifth of the users."""
    return vector_recommender(num_users=1280, num_items=25_000)


@pytest.fixture(scope="module")
def feeds(recommender):
    return recommender.feeds(5)


@pytest.fixture(scope="module")
def expected(recommender):
    return pl.concat(recommender.recommend_many(None, 5)).select(COLUMNS)


class Counting(OneProcess):
    """Counts the parts that it writes, and breaks off before one."""

    def __init__(self, breaks_before=None):
        self.written, self.breaks_before = [], breaks_before

    def write(self, feeds, parts):
        for part in parts:
            if len(self.written) == self.breaks_before:
                raise KeyboardInterrupt
            yield from super().write(feeds, [part])
            self.written.append(part.path.name)


def test_a_folder_holds_what_recommend_many_gives(feeds, expected, tmp_path):
    told = []
    rows = write_feed_folder(
        feeds, tmp_path / "out", ASKED, OneProcess(), users_per_part=60, progress=lambda *at: told.append(at)
    )
    assert pl.read_parquet(tmp_path / "out" / "*.parquet").equals(expected)
    assert rows == expected.height == read_json(tmp_path / "out" / MARKER)["rows"]
    assert told == [(256, 1280), (512, 1280), (768, 1280), (1024, 1280), (1280, 1280)]  # whole batches


@pytest.mark.parametrize("extension", ["parquet", "csv"])
def test_a_file_holds_the_same(monkeypatch, feeds, expected, tmp_path, extension):
    monkeypatch.setattr("metammf.experiments.feed_files._PART_ROWS", 2000)
    file = tmp_path / "new" / f"feeds.{extension}"
    told = []
    rows = write_feed_file(feeds, np.arange(1280), file, progress=lambda *at: told.append(at))
    found = pl.read_parquet(file) if extension == "parquet" else pl.read_csv(file, schema=expected.schema)
    assert found.equals(expected)
    assert rows == expected.height
    assert told[-1] == (1280, 1280)
    assert len(told) > 2
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_an_interrupted_folder_goes_on_with_what_is_missing(feeds, expected, tmp_path):
    out = tmp_path / "out"
    first, second, third = Counting(breaks_before=2), Counting(), Counting()
    with pytest.raises(KeyboardInterrupt):
        write_feed_folder(feeds, out, ASKED, first, users_per_part=256)
    assert read_json(out / MARKER)["finished"] is False
    rest = out / ".part-00002.parquet.abc.part"
    rest.write_bytes(b"half")
    write_feed_folder(feeds, out, ASKED, second, users_per_part=256)
    assert (len(first.written), len(second.written)) == (2, 3)
    assert pl.read_parquet(out / "*.parquet").equals(expected)
    assert not rest.exists()
    assert write_feed_folder(feeds, out, ASKED, third, users_per_part=256) == expected.height
    assert third.written == []


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_a_damaged_part_is_made_again(feeds, expected, tmp_path, content):
    write_feed_folder(feeds, tmp_path, ASKED, OneProcess(), users_per_part=256)
    (tmp_path / "part-00001.parquet").write_bytes(content)
    again = Counting()
    assert write_feed_folder(feeds, tmp_path, ASKED, again, users_per_part=256) == expected.height
    assert again.written == ["part-00001.parquet"]
    assert pl.read_parquet(tmp_path / "*.parquet").equals(expected)


def test_a_job_killed_before_its_wishes_were_written(feeds, expected, tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / f".{MARKER}.abc.part").touch()
    assert write_feed_folder(feeds, tmp_path, ASKED, OneProcess()) == expected.height


def test_parts_of_other_wishes_are_not_mixed(recommender, feeds, tmp_path):
    write_feed_folder(feeds, tmp_path, ASKED, OneProcess())
    with pytest.raises(ConfigError, match="k was 5, is 6"):
        write_feed_folder(recommender.feeds(6), tmp_path, {"k": 6}, OneProcess())
    with pytest.raises(ConfigError, match="users_per_part was 1280, is 256"):
        write_feed_folder(feeds, tmp_path, ASKED, OneProcess(), users_per_part=1)


def test_folders_of_others_are_left_alone(feeds, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="holds no recommendations"):
        write_feed_folder(feeds, tmp_path, ASKED, OneProcess())
    with pytest.raises(DataError, match="cannot write"):
        write_feed_folder(feeds, tmp_path / "letter.txt" / "out", ASKED, OneProcess())
    for damaged in ([], {"format": "another"}):
        write_json(tmp_path / "damaged" / MARKER, damaged)
        with pytest.raises(DataError, match="expected the form"):
            write_feed_folder(feeds, tmp_path / "damaged", ASKED, OneProcess())


def test_one_folder_is_written_by_one_job(feeds, tmp_path):
    write_feed_folder(feeds, tmp_path, ASKED, OneProcess())
    with FileLock(tmp_path / ".lock"), pytest.raises(DataError, match="in use"):
        write_feed_folder(feeds, tmp_path, ASKED, OneProcess())
