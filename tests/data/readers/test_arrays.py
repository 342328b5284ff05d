from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metammf.data.readers.arrays import read_npy, read_npz
from metammf.errors import FileFormatError

fuzz = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
arrays = hnp.arrays(
    st.sampled_from(["<f4", ">f8", "<f2", "<i8", "|u1", "|b1", "<U3"]), hnp.array_shapes(min_dims=0, min_side=0)
)


def header_of(text, version=1):
    body = text.encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(body).to_bytes(2 if version == 1 else 4, "little") + body


def npy_bytes(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@fuzz
@given(arrays)
def test_what_numpy_wrote_comes_back(tmp_path, array):
    path = tmp_path / "a.npy"
    np.save(path, array)
    read = read_npy(path)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_fortran_order_and_versions(tmp_path):
    array = np.arange(12.0).reshape(3, 4)
    np.save(tmp_path / "f.npy", np.asfortranarray(array))
    np.testing.assert_array_equal(read_npy(tmp_path / "f.npy"), array)
    for version in ((1, 0), (2, 0), (3, 0)):
        with (tmp_path / "v.npy").open("wb") as stream:
            np.lib.format.write_array(stream, array, version=version)
        np.testing.assert_array_equal(read_npy(tmp_path / "v.npy"), array)


def test_it_is_mapped_and_read_only(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    array = read_npy(tmp_path / "a.npy")
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 not an array", "begins with"),
        (header_of(HEADER) + bytes(20), "is cut short: 20 bytes of data for float32 of shape .2, 3.; expected 24"),
        (header_of(HEADER) + bytes(28), "is longer than its header says"),
        (header_of(HEADER.replace("(2, 3)", "(10**12, 3)")), "header is damaged"),
        (header_of(HEADER.replace("(2, 3)", "(1000000000000, 3)")) + bytes(24), "is cut short"),
        (header_of(HEADER.replace("(2, 3)", "(-2, -3)")) + bytes(24), "declares shape"),
        (header_of(HEADER.replace("(2, 3)", "(2.0, 3)")) + bytes(24), "declares shape"),
        (header_of(HEADER.replace("(2, 3)", "6")) + bytes(24), "declares shape"),
        (header_of(HEADER.replace("<f4", "|O")) + bytes(24), "holds Python objects"),
        (header_of(HEADER.replace("'<f4'", "[('a', '<f4')]")) + bytes(24), "declares dtype"),
        (header_of(HEADER.replace("<f4", "<x4")) + bytes(24), "declares dtype"),
        (header_of("{'descr': '<f4'}"), "header is damaged"),
        (header_of("(" * 5000), "header is damaged"),
        (header_of("__import__('os').system('true')"), "header is damaged"),
        (header_of(HEADER)[:30], "is cut short or damaged"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(20), "is cut short or damaged"),
        (b"\x93NUMPY\x09\x00" + header_of(HEADER)[8:], "version 9"),
    ],
)
def test_bad_files_are_refused(tmp_path, content, message):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_npy(path)
    assert str(caught.value).startswith(str(path))


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "none.npy", tmp_path):
        with pytest.raises(FileFormatError, match="cannot be read"):
            read_npy(path)
        with pytest.raises(FileFormatError, match="cannot be read"):
            read_npz(path)


@fuzz
@given(st.data())
def test_damage_gives_our_error_or_an_array_of_what_is_there(tmp_path, data):
    content = bytearray(npy_bytes(np.arange(12, dtype=np.float32).reshape(3, 4)))
    _damage(content, data)
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    try:
        array = read_npy(path)
    except FileFormatError:
        return
    assert array.nbytes <= len(content)


def _damage(content, data):
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]


def test_npz_comes_back(tmp_path):
    named = {"movieId": np.arange(4), "visual": np.ones((4, 2), dtype=np.float32, order="F"), "name": np.array(["a"])}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **named)
        read = read_npz(tmp_path / "a.npz")
        assert set(read) == set(named)
        for name, array in named.items():
            np.testing.assert_array_equal(read[name], array)


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as stream:
        for _ in range(200):
            stream.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(FileFormatError, match="claims to unpack to 209715200 bytes"):
        read_npz(path)


def test_npz_of_objects_or_of_one_name_twice_is_refused(tmp_path):
    np.savez(tmp_path / "o.npz", a=np.array([{}], dtype=object))
    with pytest.raises(FileFormatError, match=r"array 'a\.npy': holds Python objects"):
        read_npz(tmp_path / "o.npz")
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("a.npy", npy_bytes(np.zeros(1)))
        archive.writestr("a", npy_bytes(np.zeros(1)))
    with pytest.raises(FileFormatError, match="two arrays of one name"):
        read_npz(tmp_path / "t.npz")
    (tmp_path / "x.npz").write_bytes(b"no zip at all")
    with pytest.raises(FileFormatError, match=r"not a whole \.npz file"):
        read_npz(tmp_path / "x.npz")


@fuzz
@given(st.data())
def test_a_damaged_npz_gives_our_error_or_the_arrays(tmp_path, data):
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.arange(30), b=np.zeros((2, 3), dtype=np.float32))
    content = bytearray(stream.getvalue())
    _damage(content, data)
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    try:
        arrays = read_npz(path)
    except FileFormatError:
        return
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
