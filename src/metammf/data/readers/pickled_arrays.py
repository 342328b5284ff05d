"""What a pickle may build besides plain containers: NumPy arrays and SciPy's sparse matrices, from their parts alone.

A global of the file never resolves to the thing it names but to a `Token`; what a token may build is written here. So
neither NumPy nor SciPy runs on what the file says, and what an array claims to be is held against the bytes it brings.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_CODE = re.compile(r"([<>|=]?)(b1|[iu][1248]|f[248]|O8?|U\d{1,6}|S\d{1,6})")
_FORMS = ("coo", "csr", "csc")
_MAX_AXES = 32


_SHOWN = 60


def shown(value: Any) -> str:
    """Return what a message shows of a value: of a container its type alone, which may unfold to far more than the file."""
    if isinstance(value, tuple) and len(value) <= _MAX_AXES and all(type(part) is int for part in value):
        text = repr(value)
    elif isinstance(value, int | float | str | bytes | None):
        text = repr(value[:_SHOWN]) if isinstance(value, str | bytes) else repr(value)
    else:
        text = type(value).__name__
    return text[:_SHOWN]


class RefusedError(Exception):
    """The pickle asks for something that is not data, or its parts do not fit together."""


@dataclass(frozen=True)
class Token:
    """Stands for a global that was named."""

    kind: str


@dataclass(frozen=True)
class SparseMatrix:
    """The coordinates of a sparse matrix, as stored: duplicates and zeros included; nothing of its shape's size.

    Args:
        shape: Rows and columns.
        rows: Row of each entry, within the shape.
        columns: Column of each entry, likewise.
        values: Value of each entry.
    """

    shape: tuple[int, int]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[Any]


@dataclass
class DTypeParts:
    """A dtype that is being built."""

    code: str
    byteorder: str = "="

    def set_state(self, state: Any) -> None:
        """Take (version, byte order, subdtype, names, fields, ...); only plain dtypes are known here."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise RefusedError("a structured dtype")
        if not isinstance(state[1], str) or state[1] not in ("<", ">", "|", "="):
            raise RefusedError(f"byte order {shown(state[1])}")
        self.byteorder = state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype as NumPy knows it."""
        return np.dtype(object) if self.code[0] == "O" else np.dtype(self.byteorder + self.code)


@dataclass
class ArrayParts:
    """An array that is being built."""

    value: NDArray[Any] | None = None

    def set_state(self, state: Any) -> None:
        """Take (version, shape, dtype, fortran_order, bytes or list)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise RefusedError("an array without its five parts of state")
        self.value = _array(state[4], state[2], state[1], "F" if state[3] else "C")


@dataclass
class SparseParts:
    """A sparse matrix that is being built."""

    form: str
    state: dict[str, Any] = field(default_factory=dict)

    def set_state(self, state: Any) -> None:
        """Take the attributes of the matrix; their arrays may still be parts."""
        if not isinstance(state, dict):
            raise RefusedError("a sparse matrix without a state")
        self.state = state


def find_global(module: str, name: str) -> Token:
    """Return the token of an admitted global.

    Raises:
        RefusedError: it is not admitted.
    """
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    try:
        return Token(_GLOBALS[module, name])
    except KeyError:
        raise RefusedError(f"{module}.{name}") from None


def call(function: Any, args: Any) -> Any:
    """Build what a token stands for.

    Raises:
        RefusedError: it is no token, builds nothing, or the arguments do not fit.
    """
    if not isinstance(function, Token) or function.kind not in _BUILDERS or not isinstance(args, tuple):
        raise RefusedError(f"a call of {getattr(function, 'kind', type(function).__name__)}")
    return _BUILDERS[function.kind](*args)


def key(value: Any) -> Any:
    """Return a key that is hashed without recursion: tuples nested deeply can exhaust the interpreter's stack.

    Raises:
        RefusedError: it is neither a number nor text.
    """
    if type(value) not in (int, str, float, bool, bytes, type(None)):
        raise RefusedError(f"a key of type {type(value).__name__}")
    return value


def objects(values: list[Any], shape: tuple[int, ...], order: Any = "C") -> NDArray[Any]:
    """Return an array of objects, each value one element whatever it is."""
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        array[place] = value
    return array.reshape(shape, order=order)


def new_sparse(cls: Any, base: Any = Token("object"), state: Any = None) -> SparseParts:
    """Begin a sparse matrix: both ways of pickle to make a bare object.

    Raises:
        RefusedError: the class is another one.
    """
    if not isinstance(cls, Token) or cls.kind not in _FORMS or base != Token("object") or state:
        raise RefusedError("a new object")
    return SparseParts(cls.kind)


def _dtype(code: Any, _align: Any = False, _copy: Any = True) -> DTypeParts:
    found = _CODE.fullmatch(code) if isinstance(code, str) else None
    if found is None:
        raise RefusedError(f"dtype {shown(code)}")
    return DTypeParts(found[2], found[1] or "=")


def _reconstruct(cls: Any, _shape: Any, _code: Any) -> ArrayParts:
    if cls != Token("ndarray"):
        raise RefusedError("an array of another class")
    return ArrayParts()  # its shape comes with its bytes


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> ArrayParts:
    return ArrayParts(_array(data, dtype, shape, "F" if order == "F" else "C"))


def _array(data: Any, parts: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(parts, DTypeParts):
        raise RefusedError("an array without a dtype")
    lengths_fit = isinstance(shape, tuple) and all(type(axis) is int and 0 <= axis < 2**62 for axis in shape)
    if not lengths_fit or len(shape) > _MAX_AXES:
        raise RefusedError(f"an array of shape {shown(shape)}")
    dtype, count = parts.dtype, math.prod(shape)
    if dtype.kind == "O":
        if not isinstance(data, list) or len(data) != count:
            raise RefusedError("an array of objects that are not there")
        return objects(data, shape, order)
    if isinstance(data, str) and len(data) != count * dtype.itemsize:
        raise RefusedError(f"an array of shape {shown(shape)} and dtype {dtype} from {len(data)} bytes")
    raw = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(raw, bytes | bytearray) or len(raw) != count * dtype.itemsize:
        size = len(raw) if isinstance(raw, bytes | bytearray) else 0
        raise RefusedError(f"an array of shape {shape} and dtype {dtype} from {size} bytes")
    return np.frombuffer(raw, dtype, count=count).reshape(shape, order=order)


def _scalar(dtype: Any, data: Any) -> Any:
    if isinstance(data, list):
        raise RefusedError("a scalar object")
    return _array(data, dtype, (), "C").item()


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError("a call of encode")
    return text.encode("latin-1")


def _set(values: Any = ()) -> set[Any]:
    if not isinstance(values, list | tuple):
        raise RefusedError("a set of something else than a list")
    return set(map(key, values))


def coordinates(form: str, state: dict[str, Any]) -> SparseMatrix:
    """Make a sparse matrix of its attributes.

    Raises:
        RefusedError: they do not fit together, or an index is out of range.
    """
    shape = state.get("_shape", state.get("shape"))
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(type(axis) is int and axis >= 0 for axis in shape):
        raise RefusedError(f"a sparse matrix of shape {shown(shape)}")
    values = _axis(state.get("data"), "data")
    if form == "coo":
        pair = state.get("coords", (state.get("row"), state.get("col")))
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise RefusedError("a sparse matrix whose 'coords' are not two arrays")
        rows, columns = pair
        axes = [_whole(rows, "row"), _whole(columns, "col")]
    else:
        axes = _uncompressed(form, shape, state)
    for name, axis, count in zip(("row", "column"), axes, shape, strict=True):
        if len(axis) != len(values):
            raise RefusedError(f"a sparse matrix of {len(values)} values at {len(axis)} {name}s")
        if len(axis) and (axis.min() < 0 or axis.max() >= count):
            bad = axis.min() if axis.min() < 0 else axis.max()
            raise RefusedError(f"{name} {bad} of a sparse matrix of shape {shape}")
    return SparseMatrix((shape[0], shape[1]), axes[0], axes[1], values)


def _uncompressed(form: str, shape: tuple[int, ...], state: dict[str, Any]) -> list[NDArray[np.int64]]:
    pointers, minor = _whole(state.get("indptr"), "indptr"), _whole(state.get("indices"), "indices")
    lengths = np.diff(pointers)
    if len(pointers) != shape[form == "csc"] + 1 or pointers[0] or (lengths < 0).any() or pointers[-1] != len(minor):
        raise RefusedError("a sparse matrix whose indptr does not fit its indices and shape")
    major = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    return [minor, major] if form == "csc" else [major, minor]


def _axis(value: Any, name: str) -> NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "biuf":
        raise RefusedError(f"a sparse matrix whose {name!r} is not an array of numbers")
    return value


def _whole(value: Any, name: str) -> NDArray[np.int64]:
    axis = _axis(value, name)
    if axis.dtype.kind not in "iu":
        raise RefusedError(f"a sparse matrix whose {name!r} is not of whole numbers")
    return axis.astype(np.int64)


_BUILDERS: dict[str, Callable[..., Any]] = {
    "dtype": _dtype,
    "reconstruct": _reconstruct,
    "frombuffer": _frombuffer,
    "scalar": _scalar,
    "encode": _encode,
    "reconstructor": new_sparse,
    "set": _set,
    "bytes": lambda: b"",
}

# Where NumPy 1 and 2 and SciPy before and after 1.8 keep the same things.
_GLOBALS: dict[tuple[str, str], str] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("copyreg", "_reconstructor"): "reconstructor",
    ("builtins", "object"): "object",
    ("builtins", "set"): "set",
    ("builtins", "bytes"): "bytes",
    **{
        (f"{core}.{module}", name): name.removeprefix("_")
        for core in ("numpy.core", "numpy._core")
        for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
    },
    **{
        (module, f"{form}_{kind}"): form
        for form in _FORMS
        for module in ("scipy.sparse", f"scipy.sparse.{form}", f"scipy.sparse._{form}")
        for kind in ("matrix", "array")
    },
}
