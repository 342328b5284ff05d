"""Make a report again from the plain data in a folder, whatever it is of."""

from __future__ import annotations

import logging
from pathlib import Path

from metammf.errors import DataError
from metammf.experiments.comparison_results import ComparisonResults
from metammf.experiments.conditions_results import FORMAT, ConditionsResults
from metammf.experiments.study_results import StudyResults
from metammf.files import atomic_open, read_json
from metammf.report.comparison_page import write_comparison
from metammf.report.comparison_words import unfinished
from metammf.report.conditions_page import write_conditions
from metammf.report.page import render_page
from metammf.report.study_page import write_study

log = logging.getLogger(__name__)
COMPARISON, STUDY, DEMO = "comparison.json", "study.json", "results.json"


def write_again(folder: Path | str) -> Path:
    """Write the page, and what stands beside it, of a comparison, a study or a demo; return the page's path.

    Of a comparison that is not complete a warning says what is to come.

    Raises:
        DataError: the folder holds none of them, or what it holds is damaged.
        MissingExtraError: the extra ``report`` is not installed.
    """
    folder = Path(folder)
    if (folder / COMPARISON).is_file():
        results = ComparisonResults.read(folder / COMPARISON)
        if to_come := unfinished(results):
            log.warning("%s: %s", folder, to_come)
        return write_comparison(results, folder)
    if (folder / STUDY).is_file():
        found = read_json(folder / STUDY)
        if isinstance(found, dict) and found.get("format") == FORMAT:
            return write_conditions(ConditionsResults.read(folder / STUDY), folder)
        return write_study(StudyResults.read(folder / STUDY), folder)
    if (folder / DEMO).is_file():
        page = folder / "report.html"
        text = render_page(read_json(folder / DEMO))
        with atomic_open(page) as stream:
            stream.write(text)
        return page
    raise DataError(f"{folder}: expected one of {COMPARISON}, {STUDY} and {DEMO} in there, found none")
