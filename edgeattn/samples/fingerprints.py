"""Samples known by their hashes: those that were calibrated on, and those of the reference."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Tensors, TensorSpec

if TYPE_CHECKING:
    pass


def row_fingerprints(inputs: Tensors, specs: tuple[TensorSpec, ...]) -> list[str]:
    """A short hash of each sample: the bytes of its inputs, one after the other, without states."""
    specs = sample_inputs(specs)
    count = len(inputs[specs[0].name])
    return [
        hashlib.sha256(
            b"".join(np.ascontiguousarray(inputs[spec.name][row]).tobytes() for spec in specs)
        ).hexdigest()[:16]
        for row in range(count)
    ]
