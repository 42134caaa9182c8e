"""Arrays in files, read in blocks of rows, because a file may be larger than the memory.

Rows are read, not mapped, because mapped pages that were read count as memory of the process.
Members of an ``.npz`` are read sequentially through zipfile, which decompresses them and verifies
their checksums if all rows are read. If the first rows are skipped, those of a member without
compression are read from the file itself.
"""

import contextlib
import math
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from edgeattn.errors import SampleError, first_line
from edgeattn.printable import counted
from edgeattn.tensors import Array

NPY_MAGIC = b"\x93NUMPY"
# Bytes read at a time while rows are skipped.
SKIP_SIZE = 2**20
NUMBERS_ONLY = "Write it with numpy.savez(path, x=...), with arrays of numbers only."


class Reader(Protocol):
    """An array that is being read, in ascending order of rows."""

    def read(self, start: int, stop: int) -> Array:
        """Rows ``[start, stop)`` as a new array."""
        ...


class ArrayFile(Protocol):
    """An array in a file, described by its header."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def open(self) -> contextlib.AbstractContextManager[Reader]: ...


@contextlib.contextmanager
def reading(path: Path, kind: str, hint: str | None = None) -> Iterator[None]:
    """Convert the errors of reading a malformed file to :class:`SampleError`."""
    try:
        yield
    except SampleError:
        raise
    except Exception as error:  # zipfile, zlib, tokenize and numpy have their own exceptions
        reason = first_line(error)
        if "pickled" in reason or "Object arrays" in reason:  # also for unknown formats
            reason = "unknown format, or values that are not numbers"
        raise SampleError(f"{path} cannot be read as {kind}: {reason}", hint=hint) from error


@dataclass(frozen=True)
class NpyArray:
    """The array of a ``.npy`` file, or of a ``member`` of an ``.npz`` file."""

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool  # in Fortran order, with each row scattered over the file

    @contextlib.contextmanager
    def open(self) -> Iterator[Reader]:
        kind = ".npy" if self.member is None else ".npz"
        with reading(self.path, kind), contextlib.ExitStack() as stack:
            stream, _ = _stream(stack, self.path, self.member)
            read_header(stream)
            if not self.by_columns:
                yield _RowReader(stream, self, stack)
                return
            if self.member is not None:
                # Reading columns requires a seekable file.
                copy = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(stream, copy, SKIP_SIZE)
                copy.seek(0)
                stream = copy
            yield _ColumnReader(stream, self)


class _RowReader:
    def __init__(self, stream: IO[bytes], array: NpyArray, stack: contextlib.ExitStack) -> None:
        self._stream, self._array, self._stack, self._next = stream, array, stack, 0
        self._row_size = array.dtype.itemsize * math.prod(array.shape[1:])

    def read(self, start: int, stop: int) -> Array:
        skip = (start - self._next) * self._row_size
        if skip < 0:
            raise ValueError("rows must be read in ascending order")
        if skip:
            self._stream = _without_zipfile(self._stream, self._array, self._stack)
            # Decompresses what it skips if the member is compressed.
            self._stream.seek(skip, os.SEEK_CUR)
        self._next = stop
        content = read_exactly(self._stream, (stop - start) * self._row_size)
        shape = (stop - start, *self._array.shape[1:])
        return np.frombuffer(content, self._array.dtype).reshape(shape)


class _ColumnReader:
    def __init__(self, stream: IO[bytes], array: NpyArray) -> None:
        self._stream, self._array, self._start = stream, array, stream.tell()

    def read(self, start: int, stop: int) -> Array:
        count, *axes = self._array.shape
        size = self._array.dtype.itemsize
        columns = bytearray()
        for column in range(math.prod(axes)):
            self._stream.seek(self._start + (column * count + start) * size)
            columns += read_exactly(self._stream, (stop - start) * size)
        stored = np.frombuffer(columns, self._array.dtype)
        return np.ascontiguousarray(stored.reshape(*axes[::-1], stop - start).T)


def read_exactly(stream: IO[bytes], length: int) -> bytearray:
    """``length`` bytes; :class:`ValueError` if the stream ends earlier."""
    # In parts, because the file may be shorter than its header announces.
    content = bytearray()
    while len(content) < length:
        part = stream.read(min(length - len(content), 16 * SKIP_SIZE))
        if not part:
            raise ValueError("the file is truncated")
        content += part
    return content


def _stream(stack: contextlib.ExitStack, path: Path, member: str | None) -> tuple[IO[bytes], int]:
    """The stream of a ``.npy`` file or member, and its size in bytes."""
    if member is None:
        return stack.enter_context(path.open("rb")), path.stat().st_size
    archive = stack.enter_context(zipfile.ZipFile(path))
    return stack.enter_context(archive.open(member)), archive.getinfo(member).file_size


def _without_zipfile(stream: IO[bytes], array: NpyArray, stack: contextlib.ExitStack) -> IO[bytes]:
    """The file at the position of ``stream``, if that is a member without compression.

    Before Python 3.13, zipfile reads what it skips in such a member.
    """
    if array.member is None or not isinstance(stream, zipfile.ZipExtFile):
        return stream
    with zipfile.ZipFile(array.path) as archive:
        member = archive.getinfo(array.member)
    if member.compress_type != zipfile.ZIP_STORED:
        return stream
    file = stack.enter_context(array.path.open("rb"))
    # The local header has 30 bytes, which end with the lengths of the name and of the extra field.
    file.seek(member.header_offset + 26)
    lengths = struct.unpack("<2H", file.read(4))
    file.seek(sum(lengths) + stream.tell(), os.SEEK_CUR)
    return file


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape of an array, whether it is stored by columns, and its dtype."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the .npy format, used for arrays with named fields")
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran_order, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("Object arrays are not numbers")
    return shape, fortran_order and len(shape) > 1, dtype


def npy_array(path: Path, member: str | None = None) -> NpyArray:
    """Read the header of an array. Raises :class:`SampleError` if the file is malformed."""
    kind = ".npy" if member is None else ".npz"
    hint = None if member is None else NUMBERS_ONLY
    with reading(path, kind, hint), contextlib.ExitStack() as stack:
        stream, size = _stream(stack, path, member)
        shape, by_columns, dtype = read_header(stream)
        missing = math.prod(shape) * dtype.itemsize - (size - stream.tell())
        if missing > 0:
            raise ValueError(f"{missing} bytes of the {shape} {dtype} array are missing")
        return NpyArray(path, member, shape, dtype, by_columns)


def npz_members(path: Path) -> dict[str, str]:
    """The names of the arrays of an ``.npz`` file, with the names of their zip members."""
    with reading(path, ".npz", NUMBERS_ONLY):
        with path.open("rb") as file:
            if file.read(len(NPY_MAGIC)) == NPY_MAGIC:
                raise SampleError(
                    f"{path} is a single array, not an .npz.", hint="Rename it to .npy."
                )
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check_compression(members)
            return {item.filename.removesuffix(".npy"): item.filename for item in members}


def check_compression(members: Iterable[zipfile.ZipInfo]) -> None:
    """Raise :class:`ValueError` for compressions that NumPy does not write.

    zipfile decompresses them without a limit on the size of the output.
    """
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename!r} has an unknown compression")


@dataclass(frozen=True)
class CsvArray:
    """The numbers of a ``.csv`` file, one sample per line."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @contextlib.contextmanager
    def open(self) -> Iterator[Reader]:
        with reading(self.path, ".csv"), contextlib.closing(_lines(self.path)) as lines:
            yield _CsvReader(lines, self)


class _CsvReader:
    def __init__(self, lines: Iterator[str], array: CsvArray) -> None:
        self._lines, self._array, self._next = lines, array, 0

    def read(self, start: int, stop: int) -> Array:
        """Rows ``[start, stop)``, ``(rows, numbers per row)``."""
        for _ in islice(self._lines, start - self._next):
            pass
        self._next = stop
        table = np.loadtxt(islice(self._lines, stop - start), delimiter=",", ndmin=2)
        width = self._array.shape[1]
        if table.shape != (stop - start, width):
            raise ValueError(
                f"rows {start} to {stop - 1} have {counted(table.shape[1], 'number')} instead of "
                f"{width}"
            )
        return table


def csv_array(path: Path) -> CsvArray:
    """Count the rows of a ``.csv`` file, and the numbers in the first row."""
    with reading(path, ".csv"), contextlib.closing(_lines(path)) as lines:
        first = next(lines, None)
        if first is None:
            raise SampleError(f"{path} has no samples.")
        width = np.loadtxt([first], delimiter=",", ndmin=2).shape[1]
        return CsvArray(path, (1 + sum(1 for _ in lines), width), np.dtype("float64"))


def _lines(path: Path) -> Generator[str, None, None]:
    """Lines without comments, empty lines and the header."""
    # utf-8-sig: spreadsheets write a byte order mark.
    with path.open(encoding="utf-8-sig") as file:
        is_first = True
        for line in file:
            content = line.partition("#")[0].rstrip("\r\n")
            if not content.strip():
                continue
            if not is_first or not _is_header(content):
                yield content
            is_first = False


def _is_header(line: str) -> bool:
    """Whether no cell is a number."""
    return not any(_is_number(cell) for cell in line.split(","))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
