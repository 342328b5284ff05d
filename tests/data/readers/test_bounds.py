"""Files that claim far more than they are: our error or the right data, in memory that docs/robustness.md states.

All files are read one after the other in one process of its own, under a limit of its address space, which measures the peak
of each. As a script this module is that process.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metammf.data.importers.registry import import_dataset
from metammf.data.readers import tables
from metammf.data.readers.arrays import read_npz
from metammf.data.readers.features import read_features
from metammf.data.readers.pickles import load_object_npy, load_pickle
from metammf.errors import DataError
from metammf.files import read_json

MIB = 1 << 20
ADDRESS_SPACE = 6 << 30

# What docs/robustness.md states: so many times the file, and so many MiB.
STATED = {
    ".npy": (8, 96),
    ".npz": (256, 192),
    ".pkl": (512, 64),
    ".csv": (64, 128),
    ".parquet": (1024, 256),
    ".json": (64, 64),
}


def npy(shape, dtype="<f4", data=b""):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def zipped(content, method=zipfile.ZIP_DEFLATED, name="a.npy"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def laughs(levels=30, width=9):
    text = b"N"
    for level in range(levels):
        text = b"(" + text + b"q%c" % level + b"h%c" % level * width + b"l"
    return text + b"."


def shared_rows(rows=20_000, width=20_000):
    """One wide list that every user has: a square of values from a line of bytes."""
    return b"}(Nq\x00" + b"0" + b"(" + b"K\x01" * width + b"lq\x01" + b"0" + b"".join(
        b"M" + struct.pack("<H", row) + b"h\x01" for row in range(rows)
    ) + b"u."  # fmt: skip


def table(**columns):
    stream = io.BytesIO()
    pl.DataFrame(columns).write_parquet(stream, compression="zstd", row_group_size=10**9)
    return stream.getvalue()


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = [value]
    return table(user_id=[value])


def footer_edited(content, old, new):
    assert old in content
    assert len(old) == len(new)
    return content.replace(old, new)


def zigzag(number):
    number, parts = number << 1, []
    while True:
        parts.append(number & 0x7F | (0x80 if number > 0x7F else 0))
        number >>= 7
        if not number:
            return bytes(parts)


FILES = {
    # Headers that lie
    "huge.npy": lambda: npy("(1000000000000, 1000)"),
    "objects.npy": lambda: npy("(9,)", "|O", pickle.dumps([None])),
    "empty-and-wide.npy": lambda: npy("(0, 4000000000)"),
    "many-axes.npy": lambda: npy("(1,)"[:-1] + "1," * 5000 + ")", data=bytes(4)),
    "long-header.npy": lambda: b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + bytes(4000),
    "doubles.npy": lambda: npy("(100000, 100)", "<f8", bytes(80_000_000)),
    "bytes.npy": lambda: npy("(10000, 1000)", "|u1", bytes(10_000_000)),
    # Bombs
    "bomb.npz": lambda: zipped(npy("(200000000,)", "|u1", bytes(200_000_000))),
    "border.npz": lambda: zipped(npy("(67000000,)", "|u1", bytes(67_000_000))),
    "lzma.npz": lambda: zipped(npy("(4,)", "|u1", bytes(4)), zipfile.ZIP_LZMA),
    "huge.npz": lambda: zipped(npy("(1000000000000, 1000)")),
    # Programs
    "laughs.pkl": laughs,
    "shared.pkl": shared_rows,
    "sets.pkl": lambda: b"\x80\x04(" + b"\x8f" * 300_000 + b"l.",
    "lists.pkl": lambda: b"\x80\x04(" + b"]" * 300_000 + b"l.",
    "text.pkl": lambda: b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"abc.",
    "bytes.pkl": lambda: b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"abc.",
    "long.pkl": lambda: b"\x80\x02\x8b" + (2**31 - 1).to_bytes(4, "little") + b"\x01.",
    "memo.pkl": lambda: b"\x80\x02Nr\xff\xff\xff\x7f.",
    "frame.pkl": lambda: b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b"N.",
    "digits.pkl": lambda: b"I" + b"9" * 1_000_000 + b"\n.",
    "deep.pkl": lambda: b"(" * 200_000 + b"l" * 200_000 + b".",
    # Tables of text
    "endless.csv": lambda: b"a" * 20_000_000,
    "columns.csv": lambda: b",".join(b"c%d" % number for number in range(1_000_000)) + b"\n",
    "quote.csv": lambda: b'user_id,item_id\n"' + b"1,2\n" * 3_000_000,
    "quoted-header.csv": lambda: b'"a\nb",' + b",".join(b"c%d" % number for number in range(100_000)) + b"\n",
    "gzip.csv": lambda: gzip.compress(b"user_id,item_id\n" + b"1,2\n" * 20_000_000),
    "short.csv": lambda: b"user_id,item_id\n" + b"1,2\n" * 1_000_000,
    "long.csv": lambda: b"user_id,item_id\n" + b"1" * 20_000_000 + b",2\n",
    # Parquet
    "rows.parquet": lambda: table(user_id=np.zeros(100_000_000, np.int8)),
    "border.parquet": lambda: table(user_id=np.zeros(1_000_000, np.int64)),
    "strings.parquet": lambda: table(user_id=pl.repeat("x" * 2_000, 200_000, eager=True)),
    "zstd.parquet": lambda: table(user_id=["x" * 100_000_000, "y"]),
    "nested.parquet": lambda: nested(60),
    "wide.parquet": lambda: table(**{f"c{number}": [0] for number in range(5000)}),
    "lying.parquet": lambda: footer_edited(
        table(user_id=[1, 2] * 600_000), zigzag(1_200_000), zigzag(2_000_000)
    ),
    "lists.parquet": lambda: b"PAR1" + b"\x19" * 50_000 + struct.pack("<I", 50_000) + b"PAR1",
    # JSON
    "deep.json": lambda: b"[" * 100_000,
    "lists.json": lambda: b"[" + b"[]," * 300_000 + b"[]]",
    "digits.json": lambda: b"9" * 1_000_000,
    # Folders of others
    "users.mmrec": lambda: b"userID\titemID\tx_label\n1\t1\t0\n2147483646\t2\t2\n",
    "shape.tiktok": lambda: None,
    "width.movielens": lambda: None,
}  # fmt: skip

READ = {
    ".npy": lambda path: load_object_npy(path) if path.stem == "objects" else read_features(path),
    ".npz": read_npz,
    ".pkl": load_pickle,
    ".csv": lambda path: tables.read_table(path, ("user_id",)),
    ".parquet": lambda path: tables.read_table(path, ("user_id",)),
    ".json": read_json,
}

# What of these is honest, if odd: it is read.
HONEST = {
    "empty-and-wide.npy", "doubles.npy", "bytes.npy", "border.npz", "memo.pkl", "frame.pkl", "sets.pkl", "lists.pkl",
    "short.csv", "long.csv", "border.parquet", "strings.parquet", "lists.json",
}  # fmt: skip


def write(name, folder):
    """Write one hostile file or folder; return what the reader is given."""
    kind = Path(name).suffix
    path = folder / name
    if kind not in (".mmrec", ".tiktok", ".movielens"):
        path.write_bytes(FILES[name]())
        return path
    path.mkdir()
    if kind == ".mmrec":
        (path / "a.inter").write_bytes(FILES[name]())
    elif kind == ".tiktok":
        state = {"_shape": (10**9, 10**9), "row": np.array([1]), "col": np.array([1]), "data": np.ones(1)}
        for part in ("trn", "val", "tst"):
            module = b"\x80\x02cscipy.sparse\ncoo_matrix\n)\x81"
            (path / f"{part}Mat.pkl").write_bytes(module + pickle.dumps(state, 2)[2:-1] + b"b.")
    else:
        (path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,5,1\n2,1,5,2\n")
        (path / "movies.csv").write_text("movieId,title,genres\n1,Film,Drama\n")
        np.savez(path / "features.npz", movieId=np.empty(0, np.int64), visual=np.empty((0, 10**9), np.float32))
    return path


def measure(folder):
    """Read every file; print its outcome and by how much the process's peak rose."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    (folder / "warm.csv").write_text("user_id,item_id\n1,2\n")
    tables.read_table(folder / "warm.csv")  # starts the table library's threads
    for name in sorted(path.name for path in folder.iterdir() if path.name in FILES):
        path = folder / name
        read = READ.get(path.suffix) or (lambda where: import_dataset(where, where.suffix[1:]))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = resident("VmRSS")
        try:
            read(path)
            outcome = "read"
        except DataError as error:
            outcome = f"refused: {error}"
        except BaseException as error:  # whatever else it is, the test is to see it
            outcome = f"{type(error).__name__}: {error}"[:300]
        sys.stdout.write(json.dumps([name, outcome, resident("VmHWM") - before]) + "\n")
        sys.stdout.flush()


def resident(name):
    """Return a figure of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    sizes = {}
    for name in FILES:
        path = write(name, folder)
        sizes[name] = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
    done = subprocess.run([sys.executable, __file__, str(folder)], capture_output=True, text=True, check=False)
    found = {name: (outcome, peak, sizes[name]) for name, outcome, peak in map(json.loads, done.stdout.splitlines())}
    return found, f"status {done.returncode}: {done.stderr[-2000:]}"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", FILES)
def test_memory_stays_within_what_is_stated(measured, name):
    found, ended = measured
    assert name in found, ended
    outcome, peak, size = found[name]
    assert outcome.startswith("read" if name in HONEST else "refused: "), outcome
    if name not in HONEST:
        assert name in outcome
        assert len(outcome) < 1500
    times, plus = STATED.get(Path(name).suffix, (128, 512))
    assert peak <= times * size + plus * MIB, f"{peak / MIB:.0f} MiB for a file of {size / MIB:.2f} MiB"


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
