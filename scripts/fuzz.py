"""Gives damaged and made-up files to every reader of foreign files, for a bounded time.

    python scripts/fuzz.py [--seconds 60] [--reader NAME ...] [--engine hypothesis|atheris] [--seed 0]

A reader is given a folder of valid files of which one has been cut, flipped, spliced or replaced by any bytes. It passes
where it returns data, or raises an error of metammf's that names the file; it fails with any other exception or warning,
where a process, shell or socket is asked for, where it dies, or where memory grows beyond what docs/robustness.md states.
Each reader runs in a process of its own under a limit of its address space. atheris, where it is installed, lets the
coverage of our code guide what is tried; hypothesis shrinks what it finds.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import types
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import polars as pl
from hypothesis import strategies as st
from scipy import sparse

from metammf.data.dataset import Catalog, Dataset
from metammf.data.exporting import export_dataset
from metammf.data.features import ItemFeatures
from metammf.data.folder import load_dataset, save_dataset
from metammf.data.ids import IdMap
from metammf.data.importers.registry import import_dataset
from metammf.data.interactions import Interactions
from metammf.data.readers import tables
from metammf.data.readers.arrays import read_npz
from metammf.data.readers.features import read_features
from metammf.data.readers.pickles import load_object_npy, load_pickle
from metammf.errors import ConfigError, MetaMMFError
from metammf.files import read_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MIB = 1 << 20
TIMES, PLUS = 128, 512 * MIB
"""A small file may take so many times its size, and so many bytes."""
_ADDRESS_SPACE = 8 << 30
_WATCHED = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
    "pickle.find_class",
)
_SPLICES = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0" * 8, b"999999999", b"1e999", b"nan", b'"',
            b"\n", b",", b"\t", b"[" * 40, b"{", b"-1", b"\\", b"\xc3", b"PAR1", b"PK\x03\x04", b"\x93NUMPY")  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A reader of foreign files.

    Args:
        write: Writes valid files into an empty folder.
        read: Reads them.
        names_file: Whether its errors name the file; those of settings name the key.
    """

    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    names_file: bool = True


def _dataset() -> Dataset:
    rng = np.random.default_rng(0)
    cells = rng.permutation(11 * 8).astype(np.int32)[:50]
    log = Interactions(cells // 8, cells % 8, 12, 9, rng.integers(10**9, 2 * 10**9, 50), rng.choice([1.0, 5.0], 50))
    lacking = np.ones(9, dtype=np.bool_)
    lacking[[2, 8]] = False
    matrices: dict[str, NDArray[Any]] = {
        "visual": rng.standard_normal((9, 4)).astype(np.float32),
        "textual": rng.standard_normal((9, 3)).astype(np.float16),
    }
    catalog = Catalog(
        IdMap([f"u{number}" for number in range(12)], kind="user"),
        IdMap(np.arange(9) + 5),
        ItemFeatures(matrices, {"textual": lacking}),
        pl.DataFrame({"title": [f"Clip, {number}" for number in range(9)]}),
    )
    return Dataset("small", log, catalog, np.repeat(np.array([0, 1, 2], dtype=np.int8), [35, 7, 8]), {"licence": "CC0"})


def _write_metammf(folder: Path) -> None:
    split = _dataset().split()
    for name, part in (("train", split.train), ("val_full", split.validation)):
        np.save(folder / f"{name}.npy", np.stack([part.users, part.items + 12], axis=1))
    rows = np.empty(12, dtype=object)
    rows[:] = [[user] for user in range(12)]
    for user, item in zip(split.test.users.tolist(), split.test.items.tolist(), strict=True):
        rows[user].append(item + 12)
    np.save(folder / "test_full.npy", rows)
    np.save(folder / "v_feat.npy", _dataset().features.matrices["visual"])


def _write_movielens(folder: Path) -> None:
    log = _dataset().interactions
    rows = zip(log.users.tolist(), log.items.tolist(), range(len(log)), strict=True)
    lines = ["userId,movieId,rating,timestamp", *(f"{user},{item},5.0,{when}" for user, item, when in rows)]
    (folder / "ratings.csv").write_text("\n".join(lines))
    movies = ["movieId,title,genres", *(f'{item},"Film, The ({1990 + item})",Drama|Comedy' for item in range(9))]
    (folder / "movies.csv").write_text("\n".join(movies))
    visual = _dataset().features.matrices["visual"]
    np.savez_compressed(folder / "features.npz", movieId=np.arange(9), visual=visual)


def _write_tiktok(folder: Path) -> None:
    split = _dataset().split()
    forms = (sparse.coo_matrix, sparse.csr_matrix, sparse.csc_matrix)
    for name, part, form in zip(("trn", "val", "tst"), (split.train, split.validation, split.test), forms, strict=True):
        (folder / f"{name}Mat.pkl").write_bytes(pickle.dumps(form(part.matrix), 4))
    np.save(folder / "image_feat.npy", _dataset().features.matrices["visual"].astype(np.float64))


def _write_log(folder: Path) -> None:
    lines = ["user_id,item_id,timestamp,rating", *(f"u{row % 7},{row},{row * 1000},4.5" for row in range(30))]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")


def _write_parquet(folder: Path) -> None:
    ids = [f"u{row % 7}" for row in range(60)]
    pl.DataFrame({"user_id": ids, "item_id": range(60), "tags": [["a", "b"]] * 60}).write_parquet(
        folder / "log.parquet"
    )


def _write_pickle(folder: Path) -> None:
    values = {1: {2, 3}, "a": [1.5, (None, True)], 4: np.arange(4), 5: sparse.csr_matrix(np.eye(3))}
    (folder / "a.pkl").write_bytes(pickle.dumps(values, 2))


def _write_settings(folder: Path) -> None:
    text = (
        '[model]\nname = "mf"\nembedding_dim = 8\n\n[training]\nepochs = 3\nlearning_rate = 1e-3\n[split]\nseed = 1\n'
    )
    (folder / "recipe.toml").write_text(text)


def _read_settings(folder: Path) -> Any:
    from metammf.experiments.config import merge

    text = (folder / "recipe.toml").read_text(encoding="utf-8", errors="replace")
    if ":" in text:  # a model from elsewhere, whose import is what the user asks for
        return None
    return merge(str(folder / "recipe.toml"))


@cache
def _run() -> Path:
    """Train a small model once; its run folder lies beside its data, for as long as the process lives."""
    from metammf.experiments.config import merge
    from metammf.experiments.run import train_run

    folder = Path(tempfile.mkdtemp(prefix="metammf-fuzz-"))
    save_dataset(_dataset(), folder / "data")
    settings = {"model.embedding_dim": 4, "training.epochs": 2, "training.patience": None}
    return train_run(merge("mf", settings), folder / "data", folder / "run").path


def _write_run(*names: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in names:
            shutil.copy(_run() / name, folder)

    return write


def _read_checkpoint(folder: Path) -> Any:
    from metammf.training.checkpoint import load_checkpoint

    fingerprint = json.loads((_run() / "run.json").read_text())["fingerprint"]
    return load_checkpoint(folder / "checkpoint.safetensors", fingerprint)


def _read_recommender(folder: Path) -> Any:
    from metammf.recommender import Recommender

    return Recommender.load(folder).recommend("u1", k=3)


def _read_run(folder: Path) -> Any:
    from metammf.experiments.run import Run

    return Run.load(folder)


def _read_table(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        table = tables.read_table(folder / name, ("user_id", "item_id"))
        return tables.ids(table["user_id"], folder / name), tables.ids(table["item_id"], folder / name)

    return read


def _export(form: str) -> Callable[[Path], Any]:
    return lambda folder: export_dataset(_dataset(), folder, form)


READERS: dict[str, Reader] = {
    "npy": Reader(lambda f: np.save(f / "a.npy", np.ones((9, 4))), lambda f: read_features(f / "a.npy")),
    "npz": Reader(
        lambda f: np.savez_compressed(f / "a.npz", a=np.arange(30), b=np.ones((2, 3))), lambda f: read_npz(f / "a.npz")
    ),
    "object-npy": Reader(lambda f: np.save(f / "a.npy", {0: {5, 6}, 1: [7]}), lambda f: load_object_npy(f / "a.npy")),  # type: ignore[arg-type]  # an array of objects is made of it
    "pickle": Reader(_write_pickle, lambda f: load_pickle(f / "a.pkl")),
    "csv": Reader(_write_log, _read_table("log.csv")),
    "parquet": Reader(_write_parquet, _read_table("log.parquet")),
    "json": Reader(
        lambda f: (f / "a.json").write_text('{"a": [1, 2.5, null, "x"]}'), lambda f: read_json(f / "a.json")
    ),
    "ours": Reader(lambda f: save_dataset(_dataset(), f), load_dataset),
    "mmrec": Reader(_export("mmrec"), lambda f: import_dataset(f, "mmrec")),
    "recbole": Reader(_export("recbole"), lambda f: import_dataset(f, "recbole")),
    "metammf": Reader(_write_metammf, lambda f: import_dataset(f, "metammf")),
    "movielens": Reader(_write_movielens, lambda f: import_dataset(f, "movielens", tags_before=None)),
    "tiktok": Reader(_write_tiktok, lambda f: import_dataset(f, "tiktok")),
    "log": Reader(_write_log, lambda f: import_dataset(f / "log.csv", k_core=1, min_rating=2.0)),
    "settings": Reader(_write_settings, _read_settings, names_file=False),
    "run": Reader(_write_run("run.json"), _read_run),
    "checkpoint": Reader(_write_run("checkpoint.safetensors"), _read_checkpoint),
    "recommender": Reader(lambda f: shutil.copytree(_run() / "recommender", f, dirs_exist_ok=True), _read_recommender),
}


class Watch:
    """Notes when something is asked for that no reader needs."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.on = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, _arguments: Any) -> None:
        if self.on and event in _WATCHED:
            self.asked.append(event)


_watch = Watch()


def try_one(reader: Reader, folder: Path) -> bool:
    """Read a folder; return whether it gave data.

    Raises:
        AssertionError: something was asked for, memory grew too far, or an error does not name the file.
        Exception: whatever else than an error of metammf's the reader raised, a warning included.
    """
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _watch.asked, _watch.on = [], True
    error: MetaMMFError | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reader.read(folder)
    except MetaMMFError as raised:
        error = raised
    finally:
        _watch.on = False
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert not _watch.asked, f"asked for {_watch.asked}"
    assert grown <= TIMES * size + PLUS, f"memory grew by {grown} bytes for files of {size}"
    if error is not None and reader.names_file:
        assert isinstance(error, ConfigError) or str(folder) in str(error), f"names no file: {error}"
    return error is None


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut, flip, splice, repeat or replace."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(found)))
        kind = draw(st.sampled_from(["flip", "flip", "set", "splice", "overwrite", "drop", "repeat", "cut", "any"]))
        if kind == "flip" and place < len(found):
            found[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and place < len(found):
            found[place] = draw(st.sampled_from([*b"\0\x01\t\n ,\"'-.09:[]{}ex", 0x7F, 0x80, 0xFF]))
        elif kind == "splice":
            found[place:place] = draw(st.one_of(st.sampled_from(_SPLICES), st.binary(max_size=9)))
        elif kind == "overwrite":
            new = draw(st.one_of(st.sampled_from(_SPLICES), st.binary(max_size=9)))
            found[place : place + len(new)] = new
        elif kind == "drop":
            del found[place : place + draw(st.integers(1, 64))]
        elif kind == "repeat":
            found[place:place] = found[place : place + draw(st.integers(1, 64))] * draw(st.integers(1, 9))
        elif kind == "cut":
            del found[place:]
        elif kind == "any" and draw(st.integers(0, 9)) == 0:
            found = bytearray(draw(st.binary(max_size=200)))
    return bytes(found)


def contents(reader: Reader, folder: Path) -> dict[Path, bytes]:
    """Write a reader's valid files; return the bytes of each, by its path within the folder."""
    folder.mkdir(parents=True)
    reader.write(folder)
    assert try_one(reader, folder), "valid files are refused"
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fuzz(reader: Reader, folder: Path, *, seconds: float, cases: int, seed: int = 0) -> tuple[int, int]:
    """Try damaged files until time or cases are up; return how many were tried, and how many of them gave data.

    Raises:
        Exception: what the smallest failing case that was found raised; its files stay in the folder.
    """
    whole = contents(reader, folder)
    counts = [0, 0]
    end = time.monotonic() + seconds

    @hypothesis.settings(
        max_examples=min(cases, 500),
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )
    @hypothesis.given(st.data())
    def one(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(whole)))
        content = data.draw(damaged(whole[path]))
        if time.monotonic() > end:
            return
        (folder / path).write_bytes(content)
        counts[0] += 1
        counts[1] += try_one(reader, folder)
        (folder / path).write_bytes(whole[path])  # stays damaged where that failed

    while counts[0] < cases and time.monotonic() < end:
        for path, content in whole.items():
            (folder / path).write_bytes(content)
        hypothesis.seed(seed * 1_000_003 + counts[0])(one)()
    return counts[0], counts[1]


def fuzz_with_atheris(reader: Reader, folder: Path, *, seconds: float, seed: int = 0) -> None:
    """Let coverage guide what is tried; the process ends with it."""
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    whole = contents(reader, folder)
    names = sorted(whole)
    corpus = folder.parent / "corpus"
    corpus.mkdir()
    for place, name in enumerate(names):
        (corpus / str(place)).write_bytes(bytes([place]) + whole[name])

    def one(data: bytes) -> None:
        name = names[data[0] % len(names)] if data else names[0]
        (folder / name).write_bytes(data[1:])
        try_one(reader, folder)
        (folder / name).write_bytes(whole[name])

    for function in _our_functions():
        atheris.instrument_func(function)
    options = [
        f"-max_total_time={int(seconds)}",
        f"-seed={seed + 1}",
        "-rss_limit_mb=0",
        "-max_len=20000",
        "-verbosity=1",
    ]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder.parent}/", str(corpus)], one)
    atheris.Fuzz()


def _our_functions() -> list[types.FunctionType]:
    """Return the functions and methods of the modules of metammf that are imported: other libraries' would take minutes."""
    ours = [module for name, module in sys.modules.items() if name.startswith("metammf.")]
    found = [
        value
        for module in ours
        for value in vars(module).values()
        if getattr(value, "__module__", "") == module.__name__
    ]
    classes = [value for value in found if isinstance(value, type)]
    found += [value for kind in classes for value in vars(kind).values()]
    return [value for value in found if isinstance(value, types.FunctionType)]


def _child(name: str, options: argparse.Namespace) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    folder = Path(options.folder) / name / "files"
    if options.engine == "atheris":
        fuzz_with_atheris(READERS[name], folder, seconds=options.seconds, seed=options.seed)
        return 0
    start = time.monotonic()
    cases, read = fuzz(READERS[name], folder, seconds=options.seconds, cases=10**9, seed=options.seed)
    print(f"{name:<14}{cases:>9}{read:>9}{cases - read:>9}{time.monotonic() - start:>8.0f} s", flush=True)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Fuzz each reader in a process of its own; return 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="for each reader")
    parser.add_argument("--reader", choices=READERS, nargs="+", default=list(READERS))
    parser.add_argument("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.folder:
        return _child(options.reader[0], options)
    print(f"{'reader':<14}{'cases':>9}{'data':>9}{'refused':>9}{'time':>10}", flush=True)
    failed = []
    folder = Path(tempfile.mkdtemp(prefix="metammf-fuzz-"))
    for name in options.reader:
        words = [__file__, "--folder", str(folder), "--reader", name, "--engine", options.engine]
        words += ["--seconds", str(options.seconds), "--seed", str(options.seed)]
        done = subprocess.run([sys.executable, *words], stderr=subprocess.PIPE, text=True, check=False)
        told = io.StringIO(done.stderr).readlines()
        if options.engine == "atheris":
            print(name, *[line.strip() for line in told if line.startswith("Done ")], flush=True)
        if done.returncode:
            failed.append(name)
            print(
                f"{name} FAILED (status {done.returncode}); its files: {folder / name}\n{''.join(told[-40:])}",
                flush=True,
            )
        else:
            shutil.rmtree(folder / name)
    if not failed:
        shutil.rmtree(folder)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
