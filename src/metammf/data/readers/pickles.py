"""Reading pickles of others: NumPy and SciPy arrays and plain containers, or nothing.

A pickle is a program for a small stack machine. The machine here knows the instructions that build data and no other:
none that imports, calls, or changes an object of the file's choosing. The standard library's reader, restricted by its
``find_class``, would still size its memo by a number in the file, so that a few bytes could claim all memory. Containers
that a pickle refers to again and again unfold to no more values than it has bytes.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metammf.data.readers import pickled_arrays as build
from metammf.data.readers.arrays import read_header, read_npy
from metammf.data.readers.pickled_arrays import ArrayParts, DTypeParts, RefusedError, SparseMatrix, SparseParts, Token
from metammf.errors import FileFormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["SparseMatrix", "load_object_npy", "load_pickle", "loads"]

_ADMITTED = "NumPy and SciPy arrays, dict, list, set, tuple, str and numbers"
_MAX_DEPTH = 16


def load_pickle(path: Path | str) -> Any:
    """Load a pickle of plain data.

    Returns:
        NumPy arrays, `SparseMatrix` for SciPy's COO, CSR and CSC forms, and dict, list, set, tuple, str, numbers.

    Raises:
        FileFormatError: the file is missing or damaged, or holds or asks for anything else.
    """
    return loads(_read(Path(path)), path)


def load_object_npy(path: Path | str) -> Any:
    """Load an `.npy` file whose array may be of objects: a dict of items per user, or lists of unequal lengths.

    Returns:
        An array; of objects, where the file is; the object itself, where the file holds a single one.

    Raises:
        FileFormatError: as `load_pickle`, and where the declared shape does not fit.
    """
    data = _read(Path(path))
    header = read_header(io.BytesIO(data), path)
    if header.dtype is not None:
        return read_npy(path)
    array = loads(data[header.offset :], path)
    if not isinstance(array, np.ndarray) or array.dtype.kind != "O" or array.shape != header.shape:
        raise FileFormatError(path, "what it holds differs from what its header says", f"shape {header.shape}")
    return array.item() if array.ndim == 0 else array


def loads(data: bytes, path: Path | str) -> Any:
    """Load a pickle from bytes; `path` is for messages. See `load_pickle`."""
    if not data:
        raise FileFormatError(path, "is empty", "a pickle")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that no pickle that was written so would have
            return _Finisher(len(data)).finish(_Machine().run(data), 0)[0]
    except RefusedError as error:
        raise FileFormatError(path, f"the pickle asks for {error}: refused", _ADMITTED) from error
    except (
        ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError, RecursionError,
    ) as error:  # fmt: skip
        # Damage shows in whatever the broken instruction ran into.
        raise FileFormatError(path, f"is not a whole pickle ({type(error).__name__}: {error})") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileFormatError(path, f"cannot be read ({error.strerror or error})") from error


class _Machine:
    """Runs one pickle. Methods are named after the instructions of `pickletools`, in lower case."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for instruction, argument, _ in pickletools.genops(data):
            name = instruction.name
            if name in _PUSHES:
                if type(argument) is int and not -(2**63) <= argument < 2**64:
                    raise RefusedError("a number of more than 64 bits")
                self.stack.append(argument)
            elif name == "STOP":
                return self.stack.pop()
            elif name in _HANDLERS:
                _HANDLERS[name](self, argument)
            elif name not in ("PROTO", "FRAME"):
                raise RefusedError(f"the instruction {name}")
        raise ValueError("no end")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise RefusedError(f"a change to {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def drop_mark(self, _: Any) -> None:
        self.pop_mark()

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    def tuple_of(self, count: int) -> None:
        items = self.stack[len(self.stack) - count :]
        if len(items) < count:
            raise IndexError("the stack is empty")
        self.stack[len(self.stack) - count :] = [tuple(items)]

    def append(self, _: Any) -> None:
        value = self.stack.pop()
        self.top(list).append(value)

    def appends(self, _: Any) -> None:
        items = self.pop_mark()
        self.top(list).extend(items)

    def setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.top(dict)[build.key(key)] = value

    def setitems(self, _: Any) -> None:
        items = self.pop_mark()
        self.top(dict).update(_pairs(items))

    def additems(self, _: Any) -> None:
        items = self.pop_mark()
        self.top(set).update(map(build.key, items))

    def global_(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(build.find_global(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(build.find_global(module, name))

    def reduce(self, _: Any) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self.stack.append(build.call(function, args))

    def newobj(self, _: Any) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        if args != ():
            raise RefusedError("a new object")
        self.stack.append(build.new_sparse(cls))

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, DTypeParts | ArrayParts | SparseParts):
            raise RefusedError(f"a change to {type(target).__name__}")
        target.set_state(state)


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(map(build.key, items[::2]), items[1::2], strict=True))


# Instructions that push what genops reads as their argument.
_PUSHES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip

_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "DICT": lambda machine, _: machine.push(_pairs(machine.pop_mark())),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.drop_mark,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "ADDITEMS": _Machine.additems,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.newobj,
    "BUILD": _Machine.build,
}


class _Finisher:
    """Turns parts into arrays, containers through and through; what is shared stays shared.

    Args:
        limit: How many values the whole may unfold to, each container counted as often as it is referred to. Without
            shared containers no pickle reaches the number of its bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.done: dict[int, tuple[Any, int]] = {}

    def finish(self, value: Any, depth: int) -> tuple[Any, int]:
        """Return the finished value, and how many values it unfolds to."""
        if isinstance(value, Token | DTypeParts):
            raise RefusedError("a bare class")
        if isinstance(value, int | str | float | bytes | bytearray | None):
            return value, 1
        if isinstance(value, set):
            return value, 1 + len(value)
        if depth > _MAX_DEPTH:
            raise RefusedError(f"containers nested deeper than {_MAX_DEPTH}")
        if id(value) not in self.done:
            self.done[id(value)] = self._container(value, depth + 1)
        return self.done[id(value)]

    def _container(self, value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, list | tuple):
            parts, count = self._all(value, depth)
            return type(value)(parts), count
        if isinstance(value, dict):
            parts, count = self._all(value.values(), depth)
            return dict(zip(value, parts, strict=True)), count
        if isinstance(value, SparseParts):
            state, count = self.finish(value.state, depth)
            return build.coordinates(value.form, state), count
        if value.value is None:
            raise RefusedError("an array without its bytes")
        if value.value.dtype.kind == "O":
            parts, count = self._all(value.value.flat, depth)
            return build.objects(parts, value.value.shape), count
        return value.value, 1 + value.value.size

    def _all(self, values: Iterable[Any], depth: int) -> tuple[list[Any], int]:
        parts, total = [], 1
        for value in values:
            part, count = self.finish(value, depth)
            parts.append(part)
            total += count
            if total > self.limit:
                raise RefusedError("more values than it has bytes, by referring to the same ones again and again")
        return parts, total
