"""Fingerprints of samples, to recognize those used for calibration or in the reference."""

import hashlib

import numpy as np

from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Tensors, TensorSpec


def row_fingerprints(inputs: Tensors, specs: tuple[TensorSpec, ...]) -> list[str]:
    """A hash of each sample: 16 hexadecimal digits of the SHA-256 of its inputs without states."""
    specs = sample_inputs(specs)
    return [
        hashlib.sha256(
            b"".join(np.ascontiguousarray(inputs[spec.name][row]).tobytes() for spec in specs)
        ).hexdigest()[:16]
        for row in range(len(inputs[specs[0].name]))
    ]
