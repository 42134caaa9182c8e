"""Files of samples: reading, and errors for samples that do not fit the model."""

import io
import pickle
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeattn.errors import SampleError
from edgeattn.samples import npz
from edgeattn.samples.files import Samples, check_ignored, open_samples, read_samples
from edgeattn.samples.npz import read_npz, write_npz
from edgeattn.tensors import TensorSpec

# A different prime for each axis.
X = TensorSpec("x_in", (None, 3, 2), "float32")
IDS = TensorSpec("ids", (None, 3), "int32")
LONG = TensorSpec("ids", (None, 3), "int64")
VECTOR = TensorSpec("x_in", (None, 2), "float32")
FLAG = TensorSpec("flag", (None, 2), "bool")
VALUES = np.arange(30, dtype=np.float64).reshape(5, 3, 2) / 4


def saved(tmp_path, name="x.npz", **arrays):
    np.savez(tmp_path / name, **arrays)
    return tmp_path / name


def as_npy(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    return tmp_path / "x.npy"


def as_csv(tmp_path, text):
    (tmp_path / "x.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / "x.csv"


# .npz


@pytest.mark.parametrize("name", ["x_in", "x"])
def test_npz(tmp_path, name):
    got = read_samples(saved(tmp_path, **{name: VALUES}), [X])
    assert list(got.inputs) == ["x_in"]
    assert got.inputs["x_in"].dtype == np.float32
    np.testing.assert_array_equal(got.inputs["x_in"], VALUES)
    assert got.targets is None
    assert len(got) == 5


def test_npz_with_targets_and_slices(tmp_path):
    got = read_samples(saved(tmp_path, x=VALUES, y=np.arange(5)), [X])
    part = got[1:3]
    assert isinstance(part, Samples)
    assert len(part) == 2
    assert part.targets.tolist() == [1, 2]
    np.testing.assert_array_equal(part.inputs["x_in"], VALUES[1:3])


def test_an_input_named_y_is_not_a_label(tmp_path):
    spec = TensorSpec("y", (None, 3, 2), "float32")
    assert read_samples(saved(tmp_path, y=VALUES), [spec]).targets is None


def test_npz_of_two_inputs(tmp_path):
    path = saved(tmp_path, ids=np.ones((5, 3), np.int64), x_in=VALUES)
    got = read_samples(path, [X, IDS])
    assert {name: array.dtype.name for name, array in got.inputs.items()} == {
        "x_in": "float32",
        "ids": "int32",
    }
    with pytest.raises(SampleError, match=r"no array for input 'x_in'; .*: 'ids', 'x'") as caught:
        read_samples(saved(tmp_path, ids=np.ones((5, 3), int), x=VALUES), [X, IDS])
    assert caught.value.hint == "Name the arrays 'x_in', 'ids'."


@pytest.mark.parametrize(
    "arrays", [{"ids": np.ones((4, 3), int)}, {"ids": np.ones((5, 3), int), "y": np.arange(4)}]
)
def test_different_numbers_of_samples(tmp_path, arrays):
    with pytest.raises(SampleError, match=r"different numbers of samples \(x_in: 5, "):
        read_samples(saved(tmp_path, x_in=VALUES, **arrays), [X, IDS])


def test_scalar_targets(tmp_path):
    with pytest.raises(SampleError, match="y: 0"):
        read_samples(saved(tmp_path, x=VALUES, y=3), [X])


def test_missing_arrays(tmp_path):
    with pytest.raises(SampleError, match="its arrays: 'z'") as caught:
        read_samples(saved(tmp_path, z=VALUES), [X])
    assert caught.value.hint == "Name the array 'x_in' or 'x'."
    with pytest.raises(SampleError, match="its arrays: none"):
        read_samples(saved(tmp_path), [X])


def pickled(tmp_path):
    (tmp_path / "x.npz").write_bytes(pickle.dumps(VALUES))


def object_array(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.array([[1, 2], [3]], dtype=object))


def object_npy(tmp_path):
    np.save(tmp_path / "x.npy", np.array([1, None], dtype=object))


def npy_named_npz(tmp_path):
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, VALUES)


def zip_of_text(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x", "1,2,3")


def text(tmp_path):
    (tmp_path / "x.npz").write_text("1,2,3\n")


def empty(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"")


def empty_npy(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"")


def text_npy(tmp_path):
    (tmp_path / "x.npy").write_text("1,2,3\n")


def truncated(tmp_path):
    path = saved(tmp_path, x=VALUES)
    path.write_bytes(path.read_bytes()[:-30])


def npz_named_npy(tmp_path):
    saved(tmp_path, x=VALUES).rename(tmp_path / "x.npy")


def huge(tmp_path):
    """Announces 8 TB and contains none of it."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())


def folder(tmp_path):
    (tmp_path / "x.npz").mkdir()


@pytest.mark.parametrize(
    "make",
    [
        pickled,
        object_array,
        object_npy,
        npy_named_npz,
        zip_of_text,
        text,
        text_npy,
        empty,
        empty_npy,
        truncated,
        npz_named_npy,
        huge,
        folder,
    ],
)
def test_malformed_files(tmp_path, make):
    make(tmp_path)
    (path,) = tmp_path.iterdir()
    with pytest.raises(SampleError) as caught:
        read_samples(path, [X])
    assert str(path) in caught.value.message
    assert "unsafely" not in caught.value.message


def test_pickles_are_never_loaded(tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    for name in ("x.npz", "x.npy"):
        (tmp_path / name).write_bytes(pickle.dumps(Payload()))
        with pytest.raises(SampleError):
            read_samples(tmp_path / name, [X])
    np.savez(tmp_path / "y.npz", x=np.array([Payload()], dtype=object))
    with pytest.raises(SampleError):
        read_samples(tmp_path / "y.npz", [X])
    assert not (tmp_path / "executed").exists()


def test_damaged_files_are_read_or_rejected(tmp_path):
    """Each of 400 random damages is harmless or a SampleError, never another error."""
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=VALUES, y=np.arange(5))
    content = path.read_bytes()
    generator = np.random.default_rng(3)
    rejected = 0
    for _ in range(400):
        damaged = bytearray(content)
        for position in generator.integers(0, len(content), size=generator.integers(1, 6)):
            damaged[position] = generator.integers(0, 256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read_npz(path)
            except SampleError:
                rejected += 1
    assert rejected > 200


class Zeros:
    """A member of a zip file that compresses a thousandfold, written without taking its memory."""

    def __init__(self, size, header=b"", compression=zipfile.ZIP_DEFLATED):
        self.size, self.header, self.compression = size, header, compression

    def write(self, path):
        block = bytes(2**20)
        with zipfile.ZipFile(path, "w") as archive:
            entry = zipfile.ZipInfo("x.npy")
            entry.compress_type = self.compression
            with archive.open(entry, "w") as member:
                member.write(self.header)
                for start in range(len(self.header), self.size, len(block)):
                    member.write(block[: self.size - start])


def header(shape, dtype="f4"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def peak_of_reading(path):
    """The bytes that Python and NumPy allocate at most while the file is read or refused."""
    tracemalloc.start()
    try:
        with pytest.raises(SampleError) as raised:
            read_npz(path)
        return raised.value.message, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_small_files_of_large_arrays_are_refused_before_they_are_allocated(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "FREE_BYTES", 2**22)
    path = tmp_path / "x.npz"
    Zeros(2**25, header((2**23 - 32,))).write(path)
    assert path.stat().st_size < 2**16
    message, peak = peak_of_reading(path)
    assert "declare arrays of 33,554,432 bytes" in message
    assert peak < 2**20


def test_arrays_that_are_larger_than_their_member_are_not_allocated(tmp_path):
    path = tmp_path / "x.npz"
    Zeros(2**12, header((2**29,))).write(path)
    message, peak = peak_of_reading(path)
    assert "bytes for the (536870912,) float32 array" in message
    assert peak < 2**20


def test_members_that_are_larger_than_they_declare_are_not_read(tmp_path):
    path = tmp_path / "x.npz"
    Zeros(2**25, header((2**10,))).write(path)
    content = path.read_bytes()
    true, false = struct.pack("<I", 2**25), struct.pack("<I", 2**12 + len(header((2**10,))))
    assert content.count(true) == 2  # in front of the member and in the directory
    path.write_bytes(content.replace(true, false))
    message, peak = peak_of_reading(path)
    assert "CRC" in message
    assert peak < 2**21


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compressions_are_refused(tmp_path, compression):
    path = tmp_path / "x.npz"
    Zeros(2**12, header((2**10 - 32,)), compression).write(path)
    assert "unknown compression" in peak_of_reading(path)[0]
    with pytest.raises(SampleError, match="unknown compression"):
        read_samples(path, [X])


@pytest.mark.parametrize("name", ["x.txt", "x", "x.h5"])
def test_other_file_types(tmp_path, name):
    (tmp_path / name).write_text("1")
    with pytest.raises(SampleError, match=r"\.npz, \.npy or \.csv"):
        read_samples(tmp_path / name, [X])


def test_a_missing_file(tmp_path):
    with pytest.raises(SampleError, match="No such file"):
        read_samples(tmp_path / "x.npz", [X])


@pytest.mark.parametrize("name", ["x.npy", "x.csv"])
def test_one_array_for_two_inputs(tmp_path, name):
    (tmp_path / name).write_text("1")
    with pytest.raises(SampleError, match=r"2 inputs \(x_in, ids\)"):
        read_samples(tmp_path / name, [X, IDS])


# Shapes, dtypes and values


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((5, 2, 3), None),
        ((5, 6), None),
        ((5,), None),
        ((), None),
        ((3, 2), "Add the sample axis: x[None]."),
        ((5, 1, 3, 2), None),
    ],
)
def test_wrong_shapes(tmp_path, shape, hint):
    with pytest.raises(SampleError, match=r"expected the shape \(samples, 3, 2\)") as caught:
        read_samples(as_npy(tmp_path, np.zeros(shape)), [X])
    assert caught.value.hint == hint


def test_free_axes_accept_any_length(tmp_path):
    spec = TensorSpec("x", (None, None, 2), "float32")
    samples = read_samples(as_npy(tmp_path, np.zeros((5, 11, 2))), [spec])
    assert samples.inputs["x"].shape == (5, 11, 2)
    with pytest.raises(SampleError, match=r"\(samples, any, 2\)"):
        read_samples(as_npy(tmp_path, np.zeros((5, 11, 3))), [spec])


def test_inputs_of_one_axis(tmp_path):
    spec = TensorSpec("x", (None,), "float32")
    samples = read_samples(as_npy(tmp_path, np.arange(5)), [spec])
    assert samples.inputs["x"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(SampleError, match=r"expected the shape \(samples\)"):
        read_samples(as_npy(tmp_path, np.zeros((5, 2))), [spec])
    assert read_samples(as_csv(tmp_path, "1\n2\n"), [spec]).inputs["x"].tolist() == [1, 2]


def test_no_samples(tmp_path):
    with pytest.raises(SampleError, match="has no samples"):
        read_samples(as_npy(tmp_path, np.zeros((0, 3, 2))), [X])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path, value):
    values = VALUES.copy()
    values[4, 2, 1] = values[4, 2, 0] = value
    with pytest.raises(
        SampleError, match=r"NaN or infinite, the first at \(4, 2, 0\) \(2 in all\)"
    ):
        read_samples(as_npy(tmp_path, values), [X])


@pytest.mark.parametrize(
    "array",
    [
        np.full((5, 3, 2), "1"),
        np.full((5, 3, 2), b"1"),
        np.zeros((5, 3, 2), complex),
        np.zeros((5, 3, 2), "M8[s]"),
        np.zeros((5, 3, 2), "V4"),
    ],
)
def test_arrays_that_are_not_numeric(tmp_path, array):
    with pytest.raises(SampleError, match="expected numbers"):
        read_samples(as_npy(tmp_path, array), [X])


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", ">f4", ">f8", "g", "i1", "u1", "i8", ">i4", "?"]
)
def test_float_inputs_accept_all_numeric_dtypes(tmp_path, dtype):
    array = np.asfortranarray(np.arange(30).reshape(5, 3, 2) % 2).astype(dtype)
    got = read_samples(as_npy(tmp_path, array), [X]).inputs["x_in"]
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, array.astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", 1e39),
        ("float16", 70000.0),
        ("float16", 100000),
        ("float32", np.longdouble(1e300)),
    ],
)
def test_overflow_of_float_inputs(tmp_path, dtype, value):
    spec = TensorSpec("x", (None, 1), dtype)
    with pytest.raises(SampleError, match="overflow"):
        read_samples(as_npy(tmp_path, np.array([[value]])), [spec])


def test_integer_inputs(tmp_path):
    ids = np.arange(15).reshape(5, 3)
    assert read_samples(as_npy(tmp_path, ids), [IDS]).inputs["ids"].dtype == np.int32
    with pytest.raises(SampleError, match="expected integers") as caught:
        read_samples(as_npy(tmp_path, ids.astype(float)), [IDS])
    assert caught.value.hint == "Convert them first: x.astype('int32')"
    with pytest.raises(SampleError, match="exceed the range of int32"):
        read_samples(as_npy(tmp_path, ids + 2**31 - 10), [IDS])
    with pytest.raises(SampleError, match="exceed the range of int64"):
        read_samples(as_npy(tmp_path, np.full((5, 3), 2**63, np.uint64)), [LONG])


def test_quantized_inputs_accept_real_numbers(tmp_path):
    spec = TensorSpec("x", (1, 3, 2), "int8", 0.5, -3)
    got = read_samples(as_npy(tmp_path, VALUES), [spec]).inputs["x"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, VALUES)


def test_boolean_inputs(tmp_path):
    array = np.array([[True, False]])
    assert read_samples(as_npy(tmp_path, array), [FLAG]).inputs["flag"].tolist() == [[True, False]]
    with pytest.raises(SampleError, match="expected booleans"):
        read_samples(as_npy(tmp_path, array.astype(int)), [FLAG])


# .csv


ROW = "0,0.25,0.5,0.75,1,1.25"
NEXT = "1.5,1.75,2,2.25,2.5,2.75"


@pytest.mark.parametrize(
    "content",
    [
        f"{ROW}\n{NEXT}\n",
        f"{ROW}\n{NEXT}",
        f"{ROW}\r\n{NEXT}\r\n",
        f"a,b,c,d,e,f\n{ROW}\n{NEXT}\n",
        f'"a","b c",c,d,e,f\n{ROW}\n{NEXT}\n',
        f"\n\na,b,c,d,e,f\n\n{ROW}\n\n{NEXT}\n\n",
        f"# a comment\n{ROW}\n{NEXT}\n",
        f"{ROW.replace(',', ' , ')}\n{NEXT}\n",
        f"\ufeff{ROW}\n{NEXT}\n",
        f"\ufeffa,b,c,d,e,f\r\n{ROW}\r\n{NEXT}\r\n",
    ],
)
def test_csv(tmp_path, content):
    got = read_samples(as_csv(tmp_path, content), [X]).inputs["x_in"]
    np.testing.assert_array_equal(got, VALUES[:2])


@pytest.mark.parametrize("header", ["", "a,b,c,d,e,f\n"])
def test_csv_of_one_row(tmp_path, header):
    got = read_samples(as_csv(tmp_path, header + ROW), [X]).inputs["x_in"]
    np.testing.assert_array_equal(got, VALUES[:1])


@pytest.mark.parametrize("content", ["", "\n\n", "a,b,c,d,e,f\n", "# comment\n", "\ufeff"])
def test_csv_without_samples(tmp_path, content):
    with pytest.raises(SampleError, match="has no samples"):
        read_samples(as_csv(tmp_path, content), [X])


@pytest.mark.parametrize(
    "content",
    [
        "1,2,3,4,5,6\n1,2,3\n",  # ragged
        "1,2,3,4,5,6\n1,2,3,4,5,6,7\n",
        "1,2,,4,5,6\n1,2,3,4,5,6\n",  # a missing cell does not make a row a header
        "1,2,3,4,5,six\n1,2,3,4,5,6\n",
        "1,2,3,4,5,6\n1,2,3,4,5,six\n",
        "a,b,c,d,e,f\na,b,c,d,e,f\n1,2,3,4,5,6\n",
        b"\xff\xfe1\x00,\x002\x00",
    ],
)
def test_malformed_csv(tmp_path, content):
    with pytest.raises(SampleError, match=r"cannot be read as \.csv"):
        read_samples(as_csv(tmp_path, content), [X])


@pytest.mark.parametrize("content", ["1,2,3\n4,5,6\n", "1,2,3,4,5,6,7\n"])
def test_csv_of_another_width(tmp_path, content):
    with pytest.raises(SampleError, match=r"input x_in .* requires 6"):
        read_samples(as_csv(tmp_path, content), [X])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
def test_csv_values_that_are_not_finite(tmp_path, value):
    with pytest.raises(SampleError, match="NaN or infinite"):
        read_samples(as_csv(tmp_path, f"1,2,3,4,5,{value}\n"), [X])
    for spec in (IDS, LONG):
        with pytest.raises(SampleError, match="NaN or infinite"):
            read_samples(as_csv(tmp_path, f"1,2,{value}\n"), [spec])


def test_csv_of_integers(tmp_path):
    got = read_samples(as_csv(tmp_path, "1,2,3\n4,5.0,6e0\n"), [IDS]).inputs["ids"]
    assert got.dtype == np.int32
    assert got.tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(SampleError, match="expected integers"):
        read_samples(as_csv(tmp_path, "1,2,3.5\n"), [IDS])
    with pytest.raises(SampleError, match="exceed the range of int32"):
        read_samples(as_csv(tmp_path, "1,2,3000000000\n"), [IDS])


def test_csv_of_huge_integers(tmp_path):
    assert read_samples(as_csv(tmp_path, f"0,0,{2**53}\n"), [LONG]).inputs["ids"][0, 2] == 2**53
    # 2**53 + 1 is not a float64 and 1e300 not an int64. Neither may be read as another number.
    for value in (2**53 + 2, 2**63, "1e300", f"-{2**60}"):
        with pytest.raises(SampleError, match="lose digits"):
            read_samples(as_csv(tmp_path, f"0,0,{value}\n"), [LONG])


def test_csv_of_booleans(tmp_path):
    samples = read_samples(as_csv(tmp_path, "0,1\n"), [FLAG])
    assert samples.inputs["flag"].tolist() == [[False, True]]
    with pytest.raises(SampleError, match="expected booleans"):
        read_samples(as_csv(tmp_path, "0,2\n"), [FLAG])


def test_csv_requires_fixed_axes(tmp_path):
    with pytest.raises(SampleError, match="free axis"):
        read_samples(as_csv(tmp_path, "1,2\n"), [TensorSpec("x", (None, None, 2), "float32")])


# Writing


def test_arrays_of_any_name(tmp_path):
    arrays = {
        name: np.arange(number).astype(dtype)
        for number, (name, dtype) in enumerate(
            [("file", "f4"), ("allow_pickle", "i2"), ("attention/x:0", "f2"), ("ü.npy", "?")]
        )
    }
    with (tmp_path / "a.npz").open("wb") as file:
        write_npz(file, {**arrays, "scalar": np.float32(7)})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as got:
        assert got["scalar"] == 7
    got = read_npz(tmp_path / "a.npz")
    assert set(got) == {*arrays, "scalar"}
    for name, array in arrays.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def test_objects_are_not_written():
    with pytest.raises(ValueError, match="Object arrays"):
        write_npz(io.BytesIO(), {"x": np.array([object()])})


# Batches


def compressed(tmp_path, array):
    np.savez_compressed(tmp_path / "c.npz", x=array, y=np.arange(len(array)))
    return tmp_path / "c.npz"


def stored(tmp_path, array):
    return saved(tmp_path, x=array, y=np.arange(len(array)))


def as_rows_of_csv(tmp_path, array):
    lines = [",".join(map(str, row.ravel())) for row in array]
    return as_csv(tmp_path, "# comment\na,b,c,d,e,f\n\n" + "\n".join(lines))


def columns(make):
    return lambda tmp_path, array: make(tmp_path, np.asfortranarray(array))


MAKERS = {
    "npy": as_npy,
    "npy by columns": columns(as_npy),
    "stored": stored,
    "compressed": compressed,
    "compressed by columns": columns(compressed),
    "csv": as_rows_of_csv,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_batches_are_the_rows_of_the_file(tmp_path, make):
    array = np.random.default_rng(2).integers(-9, 9, (29, 3, 2)) / 4
    file = open_samples(make(tmp_path, array), [X])
    assert len(file) == 29
    for size, start, stop in [(29, 0, None), (1, 0, None), (7, 0, None), (7, 5, 23), (50, 28, 99)]:
        batches = list(file.batches(size, start=start, stop=stop))
        assert all(len(batch) == size for batch in batches[:-1])
        rows = np.concatenate([batch.inputs["x_in"] for batch in batches])
        np.testing.assert_array_equal(rows, array[start:stop])
        if file.labels:
            labels = np.concatenate([batch.targets for batch in batches])
            assert labels.tolist() == list(range(29))[start:stop]
    assert list(file.batches(7, start=29)) == []


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_rows_that_are_skipped_are_not_read_if_the_member_is_stored(tmp_path, compression):
    """A worker that starts at the end of a large file does not read all of it.

    The first row is damaged, which the checksum of the member shows to whoever reads it.
    """
    x = np.arange(1, 12_001, dtype=np.float32).reshape(-1, 2)  # more than zipfile reads ahead
    path = tmp_path / "samples.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name in ("y", "x"):
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.extra, entry.compress_type = b"\xfe\xca\x03\x00abc", compression
            with archive.open(entry, "w") as member:
                np.lib.format.write_array(member, x if name == "x" else x[:, 0])
    content = path.read_bytes()
    file = open_samples(path, (TensorSpec("x", (None, 2), "float32"),))
    if compression == zipfile.ZIP_STORED:
        path.write_bytes(content.replace(x.tobytes(), b"\1" + x.tobytes()[1:]))
        with pytest.raises(SampleError, match="Bad CRC-32"):
            list(file.batches(6000))
    (batch,) = file.batches(6000, start=2)
    np.testing.assert_array_equal(batch.inputs["x"], x[2:])
    np.testing.assert_array_equal(batch.targets, x[2:, 0])
    np.testing.assert_array_equal(next(file.batches(3, start=2)).inputs["x"], x[2:5])


def test_labels_by_output_and_unused_arrays(tmp_path):
    path = saved(tmp_path, **{"x": VALUES, "y/a": np.arange(5), "label": np.arange(5)})
    file = open_samples(path, [X])
    assert (list(file.labels), file.unused) == (["y/a"], ("label",))
    (part,) = file.batches(5)
    assert part.targets is None
    assert part[np.array([False, True, False, False, True])].labels["y/a"].tolist() == [1, 4]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_invalid_value_is_reported_with_its_row_in_the_file(tmp_path, make):
    array = np.ones((29, 3, 2))
    array[17, 2, 1] = np.inf
    batches = open_samples(make(tmp_path, array), [X]).batches(10)
    assert len(next(batches)) == 10
    with pytest.raises(SampleError, match=r"first at \(17, 2, 1\)"):
        next(batches)


def test_damaged_values_are_detected_when_they_are_read(tmp_path):
    """The checksum of a member covers all of its rows."""
    path = stored(tmp_path, np.ones((29, 3, 2)))
    content = bytearray(path.read_bytes())
    content[content.index(np.ones(2).tobytes()) + 8] ^= 1
    path.write_bytes(content)
    with pytest.raises(SampleError, match=r"cannot be read as \.npz: Bad CRC"):
        list(open_samples(path, [X]).batches(10))


def test_truncated_files_are_detected_on_opening(tmp_path):
    path = as_npy(tmp_path, VALUES)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(SampleError, match="8 bytes of the"):
        open_samples(path, [X])


def test_lines_of_another_width(tmp_path):
    path = as_csv(tmp_path, "1,2,3,4,5,6\n" * 12 + "1,2,3\n" * 3)
    batches = open_samples(path, [X]).batches(12)
    assert len(next(batches)) == 12
    with pytest.raises(SampleError, match="rows 12 to 14 have 3 numbers instead of 6"):
        next(batches)


# Arrays without a use


def test_labels_under_the_names_of_outputs_and_ignored_arrays(tmp_path):
    x, labels = np.zeros((3, 2)), np.arange(3)
    path = saved(tmp_path, x=x, peak=labels, ids=labels, **{"y/stats": labels})
    file = open_samples(path, [VECTOR], outputs=("peak", "stats"), ignore=("ids",))
    assert (sorted(file.labels), file.unused) == (["peak", "y/stats"], ())
    file.check_arrays(("peak", "stats"))
    with pytest.raises(SampleError, match=r"'peak', 'y/stats'\. Labels can be of these outputs: a"):
        file.check_arrays(("a",))
    with pytest.raises(SampleError, match="nothing uses: 'ids'"):
        open_samples(path, [VECTOR], outputs=("peak", "stats")).check_arrays(("peak", "stats"))


def test_an_input_can_be_ignored_if_another_array_has_it(tmp_path):
    path = saved(tmp_path, x=np.ones((3, 2)), x_in=np.zeros((3, 2)))
    assert read_samples(path, [VECTOR]).inputs["x_in"].max() == 0
    assert read_samples(path, [VECTOR], ignore=("x_in",)).inputs["x_in"].min() == 1


def test_names_to_ignore_must_exist(tmp_path):
    one = saved(tmp_path, "one.npz", x=np.zeros(3), ids=np.zeros(3))
    two = saved(tmp_path, "two.npz", x=np.zeros(3))
    check_ignored(("ids",), one, None, two)
    check_ignored(())
    with pytest.raises(SampleError, match=r"--ignore names: no such array in one\.npz or two\.npz"):
        check_ignored(("ids", "names"), one, two)
    with pytest.raises(SampleError, match=r"no such array in x\.npy; the arrays: none with a name"):
        check_ignored(("ids",), as_npy(tmp_path, np.zeros(3)))
    with pytest.raises(SampleError, match="no effect without a file"):
        check_ignored(("ids",), None)
