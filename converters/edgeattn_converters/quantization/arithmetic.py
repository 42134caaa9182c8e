"""Integers and scales for real numbers."""

import numpy as np

from edgeattn.file_structure.contents import LARGE
from edgeattn.tensors import Array

# Smaller weights stay float. TensorFlow's quantizer has the same limit.
MIN_ELEMENTS = LARGE
FLOAT16_MAX = float(np.finfo(np.float16).max)
INTEGER_RANGES = {"int8": (-128, 127), "int16": (-32768, 32767)}


def quantize_symmetric(
    value: Array, axis: int | None, largest_integer: int = 127
) -> tuple[Array, Array]:
    """Integers and scales with ``value ~ integers * scale``.

    Returns int8 of the shape of ``value``, and the scales as float32: one per index of ``axis``, or
    a single one if ``axis`` is None.
    """
    axes = tuple(k for k in range(value.ndim) if k != axis) if axis is not None else None
    largest = np.abs(value).max(axis=axes, keepdims=True)
    scale = np.where(largest == 0, 1.0, largest / largest_integer).astype(np.float32)
    integers = np.clip(np.rint(value / scale), -largest_integer, largest_integer)
    return integers.astype(np.int8), scale.reshape(-1)


def affine_parameters(low: float, high: float, dtype: str) -> tuple[float, int]:
    """Scale and zero point with ``real = scale * (integer - zero_point)`` for a range.

    The range is extended to include zero. int16 is symmetric, as TFLite's kernels require.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    smallest, largest = INTEGER_RANGES[dtype]
    if dtype == "int16":
        return float(np.float32((max(-low, high) or 1.0) / largest)), 0
    scale = float(np.float32((high - low) / (largest - smallest) or 1.0))
    return scale, int(np.clip(round(smallest - low / scale), smallest, largest))
