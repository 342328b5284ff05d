"""In the bare environment of test_wheel.sh: every public name loads without an extra; files hold what they should."""

import importlib.util
import json
import sys
from pathlib import Path

import polars as pl

import metammf

EXTRAS = ("altair", "vl_convert", "tensorboard", "pytest", "beartype")  # jinja2 comes with torch

for name in EXTRAS:
    assert importlib.util.find_spec(name) is None, f"{name} is no dependency, yet it is here"
assert "site-packages" in metammf.__file__, metammf.__file__
assert Path(metammf.__file__).with_name("py.typed").is_file()
for name in metammf.__all__:
    getattr(metammf, name)

for file in map(Path, sys.argv[1:]):
    if file.suffix == ".json":
        assert 0 <= json.loads(file.read_text())["metrics"]["recall@20"] <= 1
    else:
        table = pl.read_csv(file) if file.suffix == ".csv" else pl.read_parquet(file)
        assert table.height, file
