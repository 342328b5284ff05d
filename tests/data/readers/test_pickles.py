from __future__ import annotations

import builtins
import collections
import functools
import io
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from metammf.data.readers.pickles import SparseMatrix, load_object_npy, load_pickle, loads
from metammf.errors import FileFormatError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
fuzz = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
)
keys = st.one_of(st.integers(-(2**63), 2**64 - 1), st.text(max_size=5))
plain = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(keys, max_size=4),
    ),
    max_leaves=12,
)


class Call:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


class Plain:
    """An object of a class of no interest."""


def dense(matrix):
    array = np.zeros(matrix.shape)
    np.add.at(array, (matrix.rows, matrix.columns), matrix.values)
    return array


@fuzz
@given(plain, st.sampled_from(PROTOCOLS))
def test_plain_values_come_back(value, protocol):
    assert loads(pickle.dumps(value, protocol), "x") == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", ["coo", "csr", "csc"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
def test_sparse_matrices_come_back(protocol, form, kind):
    original = sparse.random(7, 9, 0.3, random_state=0, format="coo")
    value = getattr(sparse, f"{form}_{kind}")(original)
    read = loads(pickle.dumps(value, protocol), "x")
    assert isinstance(read, SparseMatrix)
    np.testing.assert_array_equal(dense(read), original.toarray())


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("module", [b"scipy.sparse.coo", b"scipy.sparse._coo", b"scipy.sparse"])
def test_old_and_new_module_paths(core, module):
    data = pickle.dumps(sparse.coo_matrix(np.eye(3)), 2)
    data = data.replace(b"numpy._core.", core + b".").replace(b"numpy.core.", core + b".")
    data = data.replace(b"cscipy.sparse._coo\n", b"c" + module + b"\n")
    np.testing.assert_array_equal(dense(loads(data, "x")), np.eye(3))


def test_old_coo_keeps_row_and_col_apart():
    state = {
        "_shape": (2, 3),
        "row": np.array([0, 1], dtype=np.int32),
        "col": np.array([2, 0], dtype=np.int32),
        "data": np.ones(2),
        "maxprint": 50,
        "has_canonical_format": False,
    }
    data = pickle.dumps(state, 2)
    # The class, a bare object of it, the state, and BUILD.
    wrapped = b"\x80\x02cscipy.sparse.coo\ncoo_matrix\n)\x81" + data[2:-1] + b"b."
    read = loads(wrapped, "x")
    assert (read.shape, read.rows.tolist(), read.columns.tolist()) == ((2, 3), [0, 1], [2, 0])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(["a", "bcd"]),
        np.array([True, False]),
        np.arange(3, dtype=">f4"),
        np.zeros((0, 4), dtype=np.float16),
        np.array(5.0),
    ],
)
def test_arrays_come_back(protocol, array):
    read = loads(pickle.dumps(array, protocol), "x")
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_within_containers_and_numpy_scalars(protocol):
    value = {1: [np.arange(3)], "b": {np.int64(4), np.int64(5)}, "c": np.float32(2.5)}
    read = loads(pickle.dumps(value, protocol), "x")
    np.testing.assert_array_equal(read[1][0], np.arange(3))
    assert (read["b"], read["c"]) == ({4, 5}, 2.5)


HOSTILE = [
    Call(os.system, "echo pwned > pwned"),
    Call(builtins.eval, "open('pwned', 'w')"),
    Call(builtins.exec, "open('pwned', 'w')"),
    Call(builtins.getattr, "a", "upper"),
    Call(builtins.__import__, "os"),
    Call(functools.partial, print),
    Call(np.load, "pwned.npy", None, True),
    Call(np.save, "pwned", np.zeros(1)),
    Call(np.memmap, "pwned", "u1", "w+", 0, (10,)),
    Call(np.ndarray, (3,)),
    Call(np.frombuffer, b"abc"),
    Call(pickle.loads, b"N."),
    Call(sparse.load_npz, "pwned.npz"),
    collections.OrderedDict(a=1),
    collections.defaultdict(list),
    collections.Counter("ab"),
    frozenset([1]),
    complex(1, 2),
    bytearray(b"a"),
    slice(1),
    range(3),
    Plain(),
    os.system,
    dict,
    np.ndarray,
    np.dtype([("a", "f4")]),
    np.zeros(2, dtype=[("a", "f4")]),
    np.ma.masked_array([1], [True]),
    np.random.default_rng(0),
    sparse.lil_matrix(np.eye(2)),
    sparse.dok_matrix(np.eye(2)),
    np.datetime64("2020-01-01"),
]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: getattr(value, "function", value).__class__.__name__)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: value,
        lambda value: [1, {"a": (value,)}],
        lambda value: {1: value},
        lambda value: np.array([value, None], dtype=object),
    ],
    ids=["top", "nested", "value", "object array"],
)
def test_what_is_not_data_is_refused_and_nothing_runs(tmp_path, monkeypatch, value, wrap, protocol):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(wrap(value), protocol))
    with pytest.raises(FileFormatError, match=r"a\.pkl: the pickle asks for .*refused; expected NumPy and SciPy"):
        load_pickle(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pkl"]


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'touch pwned'\ntR.",  # the classic
        b"(S'touch pwned'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch pwned'\no.",  # OBJ
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ of another class
        b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93)}\x92.",  # NEWOBJ_EX
        b"\x80\x02\x82\x01.",  # EXT1
        b"Pabc\n.",  # PERSID
        b"NQ.",  # BINPERSID
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"]}S'append'\nK\x01sb.",  # BUILD on a list
        b"cnumpy\ndtype\n}S'x'\nK\x01sb.",  # BUILD on a global
        b"ccopyreg\n_reconstructor\n(cnumpy\nndarray\ncbuiltins\nobject\nNtR.",
        b"cnumpy\ndtype\n(S'f4,f4'\nI0\nI1\ntR.",
        b"cnumpy\ndtype\n.",  # a bare class
        b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR(lcos\nsystem\natR.",
    ],
)
def test_hand_made_programs_are_refused(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileFormatError, match=r"refused|not a whole pickle"):
        loads(data, "x")
    assert not list(tmp_path.iterdir())


def sparse_state(form="coo", **changes):
    if form == "coo":
        state = {"_shape": (3, 4), "row": np.array([0, 2]), "col": np.array([1, 3]), "data": np.ones(2)}
    else:
        pointers = np.array([0, 1, 1, 2] if form == "csr" else [0, 0, 1, 1, 2])
        state = {"_shape": (3, 4), "indptr": pointers, "indices": np.array([1, 2]), "data": np.ones(2)}
    module = f"\x80\x02cscipy.sparse.{form}\n{form}_matrix\n)\x81".encode("latin-1")
    return module + pickle.dumps(state | changes, 2)[2:-1] + b"b."


@pytest.mark.parametrize("form", ["coo", "csr", "csc"])
def test_the_states_below_are_right_as_they_stand(form):
    assert loads(sparse_state(form), "x").shape == (3, 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (sparse_state(row=np.array([0, 3])), r"row 3 of a sparse matrix of shape \(3, 4\)"),
        (sparse_state(col=np.array([-1, 3])), "column -1 of"),
        (sparse_state(row=np.array([0.0, 1.0])), "'row' is not of whole numbers"),
        (sparse_state(row=np.array([0])), "2 values at 1 rows"),
        (sparse_state(row=None), "'row' is not an array"),
        (sparse_state(data=np.array(["a", "b"])), "'data' is not an array of numbers"),
        (sparse_state(data=np.ones((2, 1))), "'data' is not an array of numbers"),
        (sparse_state(_shape=(3,)), "shape"),
        (sparse_state(_shape=(-3, 4)), "shape"),
        (sparse_state(_shape=(3, "x")), "shape"),
        (sparse_state("csr", indptr=np.array([0, 1, 2])), "indptr does not fit"),
        (sparse_state("csr", indptr=np.array([0, 2, 1, 2])), "indptr does not fit"),
        (sparse_state("csr", indptr=np.array([1, 1, 1, 2])), "indptr does not fit"),
        (sparse_state("csr", indptr=np.array([0, 1, 1, 9])), "indptr does not fit"),
        (sparse_state("csr", indices=np.array([1, 4])), "column 4 of"),
        (sparse_state("csc", indices=np.array([1, 3])), "row 3 of"),
    ],
)
def test_sparse_matrices_whose_parts_do_not_fit_are_refused(data, message):
    with pytest.raises(FileFormatError, match=message):
        loads(data, "x")


def test_lies_do_not_claim_memory():
    array = pickle.dumps(np.zeros(4), 2)
    lies = [
        sparse_state(_shape=(10**9, 10**9)),  # honest, but huge: nothing of its size is made
        sparse_state("csr", _shape=(10**9, 4)),
        array.replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85"),
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x00abc.",  # BINBYTES8
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # LONG_BINPUT: a memo of 2^31 places
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\x00\x00N.",  # FRAME
        b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",  # LONG4
    ]
    tracemalloc.start()
    for data in lies:
        try:
            loads(data, "x")
        except FileFormatError:
            continue
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_nesting_and_sharing_stay_bounded():
    value = []
    for _ in range(200):
        value = [value]
    with pytest.raises(FileFormatError, match="nested deeper"):
        loads(pickle.dumps(value), "x")
    cycle = []
    cycle.append(cycle)
    with pytest.raises(FileFormatError, match="nested deeper"):
        loads(pickle.dumps(cycle), "x")
    shared = ["ha"] * 3
    assert loads(pickle.dumps([shared, shared]), "x") == [shared, shared]
    laughs = ["ha"]
    for _ in range(10):
        laughs = [laughs] * 10  # 10^10 leaves, eleven lists
    array = np.empty(2, dtype=object)
    array[0] = laughs
    for value in (laughs, {1: laughs}, array):
        with pytest.raises(FileFormatError, match="more values than it has bytes"):
            loads(pickle.dumps(value), "x")
    wide = list(range(1000))
    with pytest.raises(FileFormatError, match="more values than it has bytes"):
        loads(pickle.dumps(dict.fromkeys(range(1000), wide)), "x")
    # A key of tuples deep enough would exhaust the stack of the hash.
    deep = b"\x80\x02}N" + b"\x85" * 100_000 + b"K\x01s."
    with pytest.raises(FileFormatError, match="a key of type tuple"):
        loads(deep, "x")


@pytest.mark.parametrize(
    "number", [2**64, -(2**70), 1 << 40_000], ids=["65 bits", "negative", "more digits than Python prints"]
)
def test_numbers_that_no_array_holds_are_refused(number):
    for value in (number, {number: 1}, [number], np.array([number], dtype=object)):
        with pytest.raises(FileFormatError, match="a number of more than 64 bits"):
            loads(pickle.dumps(value), "x")
    assert loads(pickle.dumps([2**64 - 1, -(2**63)]), "x") == [2**64 - 1, -(2**63)]


def test_a_message_does_not_unfold_what_it_shows():
    laughs = b"N"  # 10^30 leaves
    for level in range(30):
        laughs = b"(" + laughs + b"q%c" % level + b"h%c" % level * 9 + b"l"
    states = [
        b"cnumpy\ndtype\n(" + laughs + b"I0\nI1\ntR.",
        b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\n" + laughs + b"NNNtb.",
        b"cscipy.sparse\ncoo_matrix\n)\x81}S'_shape'\n" + laughs + b"sb.",
    ]
    for data in states:
        with pytest.raises(FileFormatError, match="the pickle asks for") as caught:
            loads(data, "x")
        assert len(str(caught.value)) < 300


@fuzz
@given(st.data())
def test_damage_gives_our_error_or_plain_data(data):
    values = [
        sparse_state("coo"),
        sparse_state("csr"),
        pickle.dumps({1: {2, 3}, "a": [1.5, (None, True)], 4: np.arange(4)}, data.draw(st.sampled_from(PROTOCOLS))),
    ]
    content = bytearray(data.draw(st.sampled_from(values)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    try:
        value = loads(bytes(content), "x")
    except FileFormatError:
        return
    assert isinstance(value, SparseMatrix | np.ndarray | dict | list | set | tuple | str | int | float | bytes | None)


@fuzz
@given(st.binary(max_size=60))
def test_any_bytes_give_our_error_or_plain_data(content):
    try:
        loads(content, "x")
    except FileFormatError:
        return


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_pickle(tmp_path / "none.pkl")
    (tmp_path / "e.pkl").touch()
    with pytest.raises(FileFormatError, match="is empty; expected a pickle"):
        load_pickle(tmp_path / "e.pkl")


def test_object_npy(tmp_path):
    rows = np.empty(2, dtype=object)
    rows[:] = [[0, 5, 6], [1, 7]]
    np.save(tmp_path / "rows.npy", rows)
    assert load_object_npy(tmp_path / "rows.npy").tolist() == [[0, 5, 6], [1, 7]]
    np.save(tmp_path / "dict.npy", {0: {5, 6}, 1: [7]})
    assert load_object_npy(tmp_path / "dict.npy") == {0: {5, 6}, 1: [7]}
    np.save(tmp_path / "plain.npy", np.arange(4).reshape(2, 2))
    np.testing.assert_array_equal(load_object_npy(tmp_path / "plain.npy"), [[0, 1], [2, 3]])
    np.save(tmp_path / "bad.npy", np.array([Call(os.system, "touch pwned")], dtype=object))
    with pytest.raises(FileFormatError, match="refused"):
        load_object_npy(tmp_path / "bad.npy")


def test_an_object_npy_that_lies_is_refused(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.array([None, None], dtype=object))
    (tmp_path / "a.npy").write_bytes(stream.getvalue().replace(b"'shape': (2,)", b"'shape': (9,)"))
    with pytest.raises(FileFormatError, match="differs from what its header says"):
        load_object_npy(tmp_path / "a.npy")
