"""Reading and writing of ``.npz`` files, without pickle."""

import io
import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.samples.arrays import (
    NPY_MAGIC,
    NUMBERS_ONLY,
    check_compression,
    read_exactly,
    read_header,
    reading,
)
from edgeattn.tensors import Array, Tensors

# Arrays may take FREE_BYTES however well they are compressed, and beyond that MAX_RATIO times the
# size of their file: a small file must not fill the memory.
FREE_BYTES = 256 * 2**20
MAX_RATIO = 50


def read_npz(path: Path, content: bytes | None = None) -> Tensors:
    """All arrays of an ``.npz`` file. Raises :class:`SampleError` if it cannot be read.

    ``content`` are its bytes, if they have been read. Nothing is allocated for arrays that are
    larger than the file declares, or that exceed :data:`FREE_BYTES` and :data:`MAX_RATIO`.
    """
    with (
        reading(path, ".npz", NUMBERS_ONLY),
        path.open("rb") if content is None else io.BytesIO(content) as file,
    ):
        if file.read(len(NPY_MAGIC)) == NPY_MAGIC:
            raise SampleError(f"{path} is a single array, not an .npz.", hint="Rename it to .npy.")
        size = file.seek(0, io.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            check_compression(members)
            declared = sum(member.file_size for member in members)
            if declared > max(FREE_BYTES, size * MAX_RATIO):
                raise SampleError(
                    f"{path} was refused: {size:,} bytes declare arrays of {declared:,} bytes.",
                    hint="Write it with numpy.savez, without compression.",
                )
            return {
                member.filename.removesuffix(".npy"): _read_array(path, archive, member)
                for member in members
            }


def _read_array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    # The stream ends after the declared size, whatever is compressed in it.
    with archive.open(member) as stream:
        if stream.read(len(NPY_MAGIC)) != NPY_MAGIC:
            name = member.filename
            raise SampleError(
                f"{path} is a zip file whose member {name!r} is not an array.", hint=NUMBERS_ONLY
            )
        stream.seek(0)
        shape, by_columns, dtype = read_header(stream)
        size = math.prod(shape) * dtype.itemsize
        stored = member.file_size - stream.tell()
        if size != stored:
            raise ValueError(f"{stored} bytes for the {shape} {dtype} array {member.filename!r}")
        values: Array = np.frombuffer(read_exactly(stream, size), dtype)
        return values.reshape(shape, order="F" if by_columns else "C")


def write_npz(file: IO[bytes], tensors: Tensors, *, compress: bool = False) -> None:
    """Like ``numpy.savez``, which does not accept arrays named ``file`` or ``allow_pickle``."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in tensors.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # no date: equal arrays give equal bytes
            entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
