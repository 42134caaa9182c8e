"""States as inputs, of artifacts that process a sequence in parts.

A state that a sample does not contain is zero, which starts a new sequence.
"""

from collections.abc import Sequence

import numpy as np

from edgeattn.tensors import Array, Tensors, TensorSpec


def sample_inputs(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The inputs that a sample must contain: all except states."""
    return tuple(spec for spec in specs if spec.state is None)


def with_initial_states(tensors: Tensors, specs: Sequence[TensorSpec]) -> Tensors:
    """``tensors`` with zeros for missing states, one row per sample."""
    missing = [spec for spec in specs if spec.state is not None and spec.name not in tensors]
    rows = [len(tensors[spec.name]) for spec in sample_inputs(specs) if spec.name in tensors]
    if not missing or not rows:
        return tensors
    return {**tensors, **{spec.name: _zeros(spec, rows[0]) for spec in missing}}


def _zeros(spec: TensorSpec, rows: int) -> Array:
    shape = (rows, *(axis or 1 for axis in spec.shape[1:]))
    return np.zeros(shape, "float32" if spec.quantized else spec.dtype)
