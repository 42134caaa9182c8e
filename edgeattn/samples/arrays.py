"""Arrays in files, some rows at a time: a file may be larger than the machine's memory.

Rows are read, not mapped: pages that were mapped and read would count as memory of this process.
Members of an ``.npz`` are read from their beginning on, stored and compressed ones alike, through
zipfile, which checks their sums; rows that are not wanted are read and forgotten.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import zipfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from edgeattn.errors import SampleError, first_line
from edgeattn.tensors import Array

NPY_MAGIC = b"\x93NUMPY"
# Rows that are not wanted are passed over so many bytes at a time.
SKIPPED = 2**20
ARRAYS_ONLY = "Write it with numpy.savez(path, x=...), arrays of numbers only."


class Reader(Protocol):
    """An array that is being read; asked for rows in rising order."""

    def read(self, start: int, stop: int) -> Array:
        """Rows ``[start, stop)``, in memory of their own."""
        ...


class Rows(Protocol):
    """An array in a file: what its header says, and a reader for what follows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def open(self) -> contextlib.AbstractContextManager[Reader]: ...


@contextlib.contextmanager
def reading(path: Path, kind: str, hint: str | None = None) -> Iterator[None]:
    """Whatever reading a file somebody else wrote ends in, as a :class:`SampleError`."""
    try:
        yield
    except SampleError:
        raise
    except Exception as error:  # zipfile, zlib, tokenize and numpy each have their own
        reason = first_line(error)
        if "pickled" in reason or "Object arrays" in reason:  # numpy's answer to what it knows not
            reason = "it is neither that nor holds numbers only"
        raise SampleError(f"{path} cannot be read as {kind}: {reason}", hint=hint) from error


@dataclass(frozen=True)
class NpyRows:
    """The array of a ``.npy``, or of the ``member`` of an ``.npz``; ``shape`` as it is stored."""

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    columns: bool  # Fortran's order: a row is scattered over the file

    @contextlib.contextmanager
    def open(self) -> Iterator[Reader]:
        kind = ".npy" if self.member is None else ".npz"
        with reading(self.path, kind), contextlib.ExitStack() as stack:
            stream, _ = _stream(stack, self.path, self.member)
            _header(stream)
            if not self.columns:
                yield _InOrder(stream, self)
                return
            if self.member is not None:
                # Columns need a file that can be sought in.
                spool = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(stream, spool, SKIPPED)
                spool.seek(0)
                stream = spool
            yield _ByColumns(stream, self)


class _InOrder:
    def __init__(self, stream: IO[bytes], rows: NpyRows) -> None:
        self._stream, self._rows, self._next = stream, rows, 0
        self._width = rows.dtype.itemsize * math.prod(rows.shape[1:])

    def read(self, start: int, stop: int) -> Array:
        ahead = (start - self._next) * self._width
        if ahead < 0:
            raise ValueError("rows were asked for that have been read already")
        while ahead > 0:
            ahead -= len(_exactly(self._stream, min(ahead, SKIPPED)))
        self._next = stop
        content = _exactly(self._stream, (stop - start) * self._width)
        shape = (stop - start, *self._rows.shape[1:])
        return np.frombuffer(content, self._rows.dtype).reshape(shape)


class _ByColumns:
    def __init__(self, stream: IO[bytes], rows: NpyRows) -> None:
        self._stream, self._rows, self._start = stream, rows, stream.tell()

    def read(self, start: int, stop: int) -> Array:
        count, *axes = self._rows.shape
        size = self._rows.dtype.itemsize
        columns = bytearray()
        for column in range(math.prod(axes)):
            self._stream.seek(self._start + (column * count + start) * size)
            columns += _exactly(self._stream, (stop - start) * size)
        stored = np.frombuffer(columns, self._rows.dtype)
        return np.ascontiguousarray(stored.reshape(*axes[::-1], stop - start).T)


def _exactly(stream: IO[bytes], length: int) -> bytearray:
    # Filled as it comes: what a header announces need not be there.
    content = bytearray()
    while len(content) < length:
        part = stream.read(min(length - len(content), 16 * SKIPPED))
        if not part:
            raise ValueError("the file ends in the middle of its numbers")
        content += part
    return content


def _stream(stack: contextlib.ExitStack, path: Path, member: str | None) -> tuple[IO[bytes], int]:
    """What holds an array, at its beginning, and how many bytes there are of it."""
    if member is None:
        return stack.enter_context(path.open("rb")), path.stat().st_size
    archive = stack.enter_context(zipfile.ZipFile(path))
    return stack.enter_context(archive.open(member)), archive.getinfo(member).file_size


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of .npy files, whose arrays have named fields")
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, columns, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("Object arrays are no numbers")
    return shape, columns and len(shape) > 1, dtype


def npy_rows(path: Path, member: str | None = None) -> NpyRows:
    """What the header says of an array; :class:`SampleError` where there is less than it says."""
    kind = ".npy" if member is None else ".npz"
    hint = None if member is None else ARRAYS_ONLY
    with reading(path, kind, hint), contextlib.ExitStack() as stack:
        stream, size = _stream(stack, path, member)
        shape, columns, dtype = _header(stream)
        missing = math.prod(shape) * dtype.itemsize - (size - stream.tell())
        if missing > 0:
            raise ValueError(
                f"it is {missing} bytes short of the {shape} {dtype} that it announces"
            )
        return NpyRows(path, member, shape, dtype, columns)


def npz_members(path: Path) -> dict[str, str]:
    """The arrays of an ``.npz``: the name of each, and that of its member in the archive."""
    with reading(path, ".npz", ARRAYS_ONLY):
        with path.open("rb") as file:
            if file.read(len(NPY_MAGIC)) == NPY_MAGIC:
                raise SampleError(f"{path} is a single array, not an .npz: name it .npy.")
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): name for name in archive.namelist()}


@dataclass(frozen=True)
class CsvRows:
    """The numbers of a ``.csv``: a sample a line, whose numbers are in row-major order."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @contextlib.contextmanager
    def open(self) -> Iterator[Reader]:
        with reading(self.path, ".csv"), contextlib.closing(_lines(self.path)) as lines:
            yield _Table(lines, self)


class _Table:
    def __init__(self, lines: Iterator[str], rows: CsvRows) -> None:
        self._lines, self._rows, self._next = lines, rows, 0

    def read(self, start: int, stop: int) -> Array:
        """``(rows, numbers of a row)``: cut into axes by whoever knows them."""
        for _ in islice(self._lines, start - self._next):
            pass
        self._next = stop
        table = np.loadtxt(islice(self._lines, stop - start), delimiter=",", ndmin=2)
        width = self._rows.shape[1]
        if table.shape != (stop - start, width):
            raise ValueError(
                f"rows {start} to {stop - 1} hold {table.shape[1]} numbers each, and others {width}"
            )
        return table


def csv_rows(path: Path) -> CsvRows:
    """How many rows of how many numbers a ``.csv`` has, by its first row."""
    with reading(path, ".csv"), contextlib.closing(_lines(path)) as lines:
        first = next(lines, None)
        if first is None:
            raise SampleError(f"{path} holds no samples.")
        width = np.loadtxt([first], delimiter=",", ndmin=2).shape[1]
        return CsvRows(path, (1 + sum(1 for _ in lines), width), np.dtype("float64"))


def _lines(path: Path) -> Generator[str, None, None]:
    """Lines that hold something, without comments and without a header."""
    # A spreadsheet puts a byte order mark in front: it is no part of the first number.
    with path.open(encoding="utf-8-sig") as file:
        seen = False
        for line in file:
            content = line.partition("#")[0].rstrip("\r\n")
            if not content.strip():
                continue
            if seen or not _is_header(content):
                yield content
            seen = True


def _is_header(line: str) -> bool:
    """Whether no cell is a number: a row with some numbers is a row, if a broken one."""
    return not any(_is_number(cell) for cell in line.split(","))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
