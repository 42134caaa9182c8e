"""Fingerprints of samples, to recognize those used for calibration or in the reference."""

import hashlib
from collections.abc import Iterable

import numpy as np

from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Tensors, TensorSpec

_DIGITS = 16  # hexadecimal ones, of 64 bits


def row_hashes(inputs: Tensors, specs: tuple[TensorSpec, ...]) -> Array:
    """The first 64 bits of the SHA-256 of the inputs of each sample without states, as uint64."""
    arrays = [inputs[spec.name] for spec in sample_inputs(specs)]
    count = len(arrays[0])
    parts = [
        np.ascontiguousarray(array).reshape(count, -1).view(np.uint8)
        for array in arrays
        if array.size
    ]
    rows = np.concatenate(parts, axis=1) if parts else np.zeros((count, 0), np.uint8)
    content, width = memoryview(rows.tobytes()), rows.shape[1]
    digests = (
        [
            hashlib.sha256(content[start : start + width]).digest()
            for start in range(0, count * width, width)
        ]
        if width
        else [hashlib.sha256().digest()] * count
    )
    words = np.frombuffer(b"".join(digests), ">u8").reshape(count, -1)
    return words[:, 0].astype(np.uint64)


def row_fingerprints(inputs: Tensors, specs: tuple[TensorSpec, ...]) -> list[str]:
    """:func:`row_hashes` as 16 hexadecimal digits."""
    return [f"{value:016x}" for value in row_hashes(inputs, specs).tolist()]


def hashes_of(fingerprints: Iterable[str]) -> Array:
    """Fingerprints as uint64, without texts that are none."""
    digits = set("0123456789abcdef")
    valid = {text for text in fingerprints if len(text) == _DIGITS and set(text) <= digits}
    return np.array(sorted(int(text, 16) for text in valid), np.uint64)
