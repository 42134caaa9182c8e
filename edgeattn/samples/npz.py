"""Reading and writing of ``.npz`` files, without pickle."""

import io
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.samples.arrays import NUMBERS_ONLY, reading
from edgeattn.tensors import Tensors


def read_npz(path: Path, content: bytes | None = None, *, max_bytes: int | None = None) -> Tensors:
    """All arrays of an ``.npz`` file. Raises :class:`SampleError` if it cannot be read.

    ``content`` are its bytes, if they have been read. Its members may have ``max_bytes`` together
    when they are decompressed.
    """
    with (
        reading(path, ".npz", NUMBERS_ONLY),
        path.open("rb") if content is None else io.BytesIO(content) as file,
    ):
        if max_bytes is not None and zipfile.is_zipfile(file):
            _check_size(path, file, max_bytes)
        file.seek(0)
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise SampleError(f"{path} is a single array, not an .npz.", hint="Rename it to .npy.")
        arrays = {name: loaded[name] for name in loaded.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise SampleError(
                f"{path} is a zip file whose member {name!r} is not an array.", hint=NUMBERS_ONLY
            )
    return arrays


def _check_size(path: Path, file: IO[bytes], max_bytes: int) -> None:
    with zipfile.ZipFile(file) as archive:
        # zipfile decompresses no more of a member than its declared size.
        size = sum(entry.file_size for entry in archive.infolist())
    if size > max_bytes:
        raise SampleError(f"{path} was refused: it decompresses to {size:,} bytes.")


def write_npz(file: IO[bytes], tensors: Tensors, *, compress: bool = False) -> None:
    """Like ``numpy.savez``, which does not accept arrays named ``file`` or ``allow_pickle``."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in tensors.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # no date: equal arrays give equal bytes
            entry.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
