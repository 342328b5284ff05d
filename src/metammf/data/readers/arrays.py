"""Reading `.npy` and `.npz` files of others without trusting them.

A header is read and held against the file's size before anything is allocated; object arrays are refused here and go
through the restricted unpickler of `metammf.data.readers.pickles`.
"""

from __future__ import annotations

import ast
import io
import math
import re
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from metammf.errors import FileFormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 65_536
_PLAIN_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|\?|U\d{1,6}|S\d{1,6})")

# Features compress two- to fivefold; deflate itself ends at 1032:1. What claims more than this is a bomb, not data.
_MAX_RATIO = 100
_FREE_BYTES = 64 << 20
_MAX_AXES = 32


@dataclass(frozen=True)
class NpyHeader:
    """What an `.npy` file says of itself.

    Args:
        dtype: None for an object array.
        fortran_order: Whether the first axis runs fastest.
        shape: As declared.
        offset: Where the data begin, in bytes.
    """

    dtype: np.dtype[Any] | None
    fortran_order: bool
    shape: tuple[int, ...]
    offset: int


def read_header(stream: IO[bytes], path: Path | str) -> NpyHeader:
    """Read the header at the stream's start.

    Raises:
        FileFormatError: it is not that of an `.npy` file, or its dtype is neither plain nor object.
    """
    start = stream.read(12)
    if len(start) < 10 or start[:6] != _MAGIC:
        raise FileFormatError(path, f"begins with {start[:6]!r}" if start else "is empty", "an .npy file")
    wide = start[6] >= 2
    length = int.from_bytes(start[8:12] if wide else start[8:10], "little")
    offset = (12 if wide else 10) + length
    text = start[12 if wide else 10 :] + stream.read(max(0, min(length, _MAX_HEADER) - (0 if wide else 2)))
    if start[6] not in (1, 2, 3) or length > _MAX_HEADER or len(text) < length:
        raise FileFormatError(path, f"header of .npy version {start[6]} with {length} bytes is cut short or damaged")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of spellings that no header has
            header = ast.literal_eval(text[:length].decode("utf-8" if start[6] == 3 else "latin-1").strip())
        descr, fortran_order, shape = header["descr"], header["fortran_order"], header["shape"]
        # literal_eval takes expressions of any depth: RecursionError and MemoryError are its way to say no.
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise FileFormatError(path, "the .npy header is damaged") from error
    lengths_fit = isinstance(shape, tuple) and all(type(axis) is int and 0 <= axis < 2**62 for axis in shape)
    # The product over axes that are not empty: NumPy refuses even an array of nothing where that is too large.
    if not lengths_fit or len(shape) > _MAX_AXES or math.prod(filter(None, shape)) >= 2**56:
        raise FileFormatError(path, f"the .npy header declares shape {str(shape)[:200]}", "a tuple of whole numbers")
    if type(fortran_order) is not bool:
        raise FileFormatError(path, "the .npy header declares an order that is none", "fortran_order: True or False")
    if descr in ("|O", "O"):
        return NpyHeader(None, fortran_order, shape, offset)
    if not isinstance(descr, str) or not _PLAIN_DTYPE.fullmatch(descr):
        raise FileFormatError(path, f"the .npy header declares dtype {str(descr)[:200]}", "plain numbers")
    return NpyHeader(np.dtype(descr), fortran_order, shape, offset)


def check_size(header: NpyHeader, size: int, path: Path | str) -> np.dtype[Any]:
    """Hold the declared shape against the bytes that are there, and return the dtype.

    Raises:
        FileFormatError: they differ, or the array is of objects.
    """
    if header.dtype is None:
        raise FileFormatError(path, "holds Python objects, which are not read", "an array of numbers")
    declared, found = math.prod(header.shape) * header.dtype.itemsize, size - header.offset
    if declared != found:
        what = "is cut short" if found < declared else "is longer than its header says"
        raise FileFormatError(
            path, f"{what}: {found} bytes of data for {header.dtype} of shape {header.shape}", f"{declared} bytes"
        )
    return header.dtype


def read_npy(path: Path | str) -> NDArray[Any]:
    """Memory-map an `.npy` file of plain numbers or strings, read-only.

    Raises:
        FileFormatError: the file is missing, is no `.npy` file, is cut short, lies about its shape or holds objects.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            header = read_header(stream, path)
            dtype = check_size(header, path.stat().st_size, path)
    except OSError as error:
        raise FileFormatError(path, f"cannot be read ({error.strerror or error})") from error
    order: Any = "F" if header.fortran_order else "C"
    if not math.prod(header.shape):
        return np.empty(header.shape, dtype, order)
    if not dtype.itemsize:
        raise FileFormatError(path, "holds strings of no length")
    return np.memmap(path, dtype, mode="r", offset=header.offset, shape=header.shape, order=order)


def read_npz(path: Path | str) -> dict[str, NDArray[Any]]:
    """Read all arrays of an `.npz` file into memory.

    Raises:
        FileFormatError: it is no `.npz` file, is damaged, holds objects, or claims to unpack to far more than it is.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total, allowed = sum(member.file_size for member in members), path.stat().st_size * _MAX_RATIO + _FREE_BYTES
            if total > allowed:
                raise FileFormatError(path, f"claims to unpack to {total} bytes", f"at most {allowed}")
            # NumPy writes these two; unpacking the others may take more memory than what comes out of it.
            if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
                raise FileFormatError(path, "is packed in another way than NumPy does", "stored or deflated arrays")
            arrays = {member.filename.removesuffix(".npy"): _read_member(archive, member, path) for member in members}
            if len(arrays) < len(members):
                raise FileFormatError(path, "holds two arrays of one name")
            return arrays
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OverflowError) as error:
        raise FileFormatError(path, f"is not a whole .npz file ({error})") from error
    except (OSError, ValueError) as error:
        raise FileFormatError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    where = f"{path}, array {member.filename!r}"
    with archive.open(member) as stream:
        data = stream.read(member.file_size + 1)
    header = read_header(io.BytesIO(data), where)
    dtype = check_size(header, len(data), where)
    flat = np.frombuffer(data, dtype, offset=header.offset, count=math.prod(header.shape))
    return flat.reshape(header.shape, order="F" if header.fortran_order else "C")
