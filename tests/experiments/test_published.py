"""Published figures are read by their columns, and ship for the split that they were measured on alone."""

from __future__ import annotations

import pytest

from metammf.data.folder import load_dataset
from metammf.data.importers.registry import import_dataset
from metammf.errors import FileFormatError
from metammf.experiments.comparison_results import PublishedFigure
from metammf.experiments.published import is_elsewhere, published_for, read_published

HEAD = "model,metric,value,picked_on,source\n"


def test_figures_are_read(tmp_path):
    path = tmp_path / "figures.csv"
    path.write_text(f'{HEAD}BM3,recall@20,.0957,test,"DiffMM (2024), Table 1"\n')
    assert read_published(path) == (PublishedFigure("BM3", "recall@20", 0.0957, "DiffMM (2024), Table 1", "test"),)


def test_files_of_spreadsheets_are_read_and_a_row_that_comes_twice_counts_once(tmp_path):
    path = tmp_path / "figures.csv"
    text = HEAD + 2 * "BM3,recall@20,.1,test,it\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_published(path) == (PublishedFigure("BM3", "recall@20", 0.1, "it", "test"),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model,metric,value\n", "lacks the columns picked_on, source"),
        (HEAD + "BM3,recall@20,high,test,it\n", "row 2, column 'value' is 'high'"),
        (HEAD + "BM3,recall@20,0.1,test,it\nBM3,recall@20,9.57,test,it\n", "row 3, column 'value' is '9.57'"),
        (HEAD + "BM3,recall,0.1,test,it\n", "row 2 names no model, or no metric"),
        (HEAD + "BM3,Recall@20,0.1,test,it\n", "row 2 names no model, or no metric"),
        (HEAD + "\n\nBM3,recall@20,nan,test,it\n", "row 4, column 'value' is 'nan'"),
        (HEAD + "BM3,recall@20,0.1,test,it\nBM3,recall@20,0.2,test,it\n", "row 3 holds another recall@20 of BM3"),
        (HEAD + f"BM3,recall@20,0.1,test,{'x' * 200_000}\n", "cannot be read .field larger"),
        ("", "lacks the columns"),
    ],
)
def test_what_is_no_figure_is_refused_by_its_row(tmp_path, text, told):
    path = tmp_path / "figures.csv"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=told):
        read_published(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileFormatError, match=r"figures\.csv: cannot be read"):
        read_published(tmp_path / "figures.csv")


def test_figures_of_another_split_are_not_laid_beside(folder):
    assert published_for("hkuds-tiktok", load_dataset(folder).split()) == ()
    assert published_for("mmrec", load_dataset(folder).split()) == ()
    assert is_elsewhere("hkuds-tiktok", load_dataset(folder).split())
    assert not is_elsewhere("mmrec", load_dataset(folder).split())


def test_the_figures_of_tiktok_ship(real_data):
    figures = published_for("hkuds-tiktok", import_dataset(real_data / "tiktok").split())
    best = max((one for one in figures if one.picked_on == "validation"), key=lambda one: one.value)
    assert (best.model, best.metric, best.value) == ("MMHCL", "recall@20", 0.1139)
    assert all(one.source and one.picked_on for one in figures)
