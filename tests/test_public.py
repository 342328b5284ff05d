"""The public face: names, docstrings, layers, and that the examples of the README work as they are shown."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import metammf
from metammf import MetaMMFConfig, TrainingConfig, evaluate, fit, generate_world, load_dataset, save_dataset

SOURCE = Path(metammf.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
FIXED_NAMES = {"MetaMMFConfig", "Recommender", "TrainingConfig", "evaluate", "fit", "load_dataset"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_all_is_sorted_and_holds_the_names_that_others_call():
    assert metammf.__all__ == sorted(metammf.__all__)
    assert len(metammf.__all__) == len(set(metammf.__all__))
    assert set(metammf.__all__) >= FIXED_NAMES


@pytest.mark.parametrize("name", metammf.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(metammf, name)
    assert inspect.getdoc(value)
    for member, function in inspect.getmembers(value, inspect.isfunction):
        if inspect.isclass(value) and function.__module__.startswith("metammf") and not member.startswith("_"):
            assert inspect.getdoc(function), f"{name}.{member}"


def test_names_that_a_checker_sees_are_those_that_load():
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert sorted(seen) == metammf.__all__
    for name, module in seen.items():
        assert getattr(import_module(str(module)), name) is getattr(metammf, name)


def test_what_is_not_there_is_told():
    with pytest.raises(AttributeError, match="no attribute 'fti'"):
        metammf.fti  # noqa: B018 - looking is the test
    assert metammf.__version__
    assert set(dir(metammf)) >= set(metammf.__all__)


def test_importing_costs_nothing():
    code = "import sys, metammf; print(sorted({'torch', 'polars', 'numpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_inner_packages_are_empty():
    for path in SOURCE.rglob("__init__.py"):
        if path.parent == SOURCE:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in tree.body), path


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_module_and_public_definition_is_documented_and_typed(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if tree.body:
        assert ast.get_docstring(tree), "the module"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            untyped = [one.arg for one in arguments if one.annotation is None and one.arg not in ("self", "cls")]
            assert not untyped, f"{node.name}: {untyped}"
            assert node.returns is not None or node.name == "__init__", node.name
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


def test_ground_floor_loads_no_torch():
    names = [module_name(path) for path in MODULES if path.is_relative_to(SOURCE / "data")] + ["metammf.files"]
    code = f"import sys\nfor name in {names!r}: __import__(name)\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def public_face(folder: Path, user_id: object, training: TrainingConfig) -> tuple[object, object]:
    """The README's example, but for the settings of training."""
    split = load_dataset(folder).split()
    recommender = fit(MetaMMFConfig(backbone="lightgcn", cp_rank=16), split.development, training=training, seed=0)
    return evaluate(recommender, split, ks=(10, 20)), recommender.recommend(user_id, k=10)


def test_the_example_works_as_shown(tmp_path):
    save_dataset(generate_world(users=60, items=80, interactions=900, seed=0).dataset, tmp_path / "world")
    found, feed = public_face(tmp_path / "world", 7, TrainingConfig(epochs=1))
    assert "recall" in str(found)
    assert feed.height == 10


def test_the_example_works_on_the_real_thing(real_data, tmp_path):
    dataset = metammf.import_dataset(real_data / "tiktok")
    save_dataset(dataset, tmp_path / "tiktok")
    found, feed = public_face(tmp_path / "tiktok", 42, TrainingConfig(epochs=1, max_steps=2))
    assert found.num_users == 6130  # type: ignore[attr-defined]  # an Evaluation
    assert feed.height == 10  # type: ignore[attr-defined]  # a table
