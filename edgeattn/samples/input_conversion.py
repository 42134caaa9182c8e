"""Arrays checked against, and converted to, the inputs of a model."""

from typing import Any

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.samples.finite import invalid_input, is_invalid
from edgeattn.tensors import Array, TensorSpec

# float64 represents all integers up to this one.
MAX_EXACT = 2**53


def fit(array: Array, spec: TensorSpec, first: int = 0, *, allow_non_finite: bool = False) -> Array:
    """``array`` in the dtype of ``spec``. ``first`` is the file's index of its first sample.

    Raises :class:`SampleError` if the shape, the dtype or a value does not fit; NaN and infinity
    fit only with ``allow_non_finite``.
    """
    check_shape(array.shape, spec)
    # Quantized inputs take real numbers.
    dtype = np.dtype("float32" if spec.quantized else spec.dtype)
    kind = array.dtype.kind
    if kind not in "buif":
        raise SampleError(f"Input {spec}: expected numbers, found {array.dtype}.")
    if is_invalid(array, spec, allow_non_finite=allow_non_finite):
        if allow_non_finite:
            raise invalid_input(spec, allow_non_finite=True)
        raise _not_finite(array, spec, first)
    if dtype.kind in "iu":
        if kind == "f":
            raise SampleError(
                f"Input {spec}: expected integers, found {array.dtype}.",
                hint=f"Convert them first: x.astype({dtype.name!r})",
            )
        limits = np.iinfo(dtype)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise SampleError(
                f"Input {spec}: values from {array.min()} to {array.max()} exceed the range of "
                f"{dtype.name}."
            )
    elif dtype.kind == "b" and kind != "b":
        raise SampleError(f"Input {spec}: expected booleans, found {array.dtype}.")
    if array.dtype == dtype:
        return np.array(array, order="C")
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    if dtype.kind == "f" and not allow_non_finite and not np.isfinite(result).all():
        raise SampleError(
            f"Input {spec}: values from {array.min():g} to {array.max():g} overflow {dtype}."
        )
    return np.ascontiguousarray(result)


def _not_finite(array: Array, spec: TensorSpec, first: int) -> SampleError:
    invalid = ~np.isfinite(array)
    row, *indices = (int(index) for index in np.argwhere(invalid)[0])
    return SampleError(
        f"Input {spec.name} has values that are NaN or infinite, the first at "
        f"{(first + row, *indices)} ({int(invalid.sum())} in all).",
        hint="Remove or repair these samples.",
    )


def check_shape(shape: tuple[int, ...], spec: TensorSpec) -> None:
    """Raise :class:`SampleError` if samples of ``shape`` do not fit ``spec``."""
    expected = spec.shape[1:]
    if _matches(shape[1:], expected) and shape:
        return
    axes = ", ".join(["samples", *("any" if axis is None else str(axis) for axis in expected)])
    hint = "Add the sample axis: x[None]." if _matches(shape, expected) else None
    if not expected and len(shape) > 1:
        hint = (
            "The only axis of the input is that of the samples, so that a sample is a number. If a "
            "sample is a sequence, save the model with an axis of samples before that of its steps."
        )
    raise SampleError(f"Input {spec.name}: expected the shape ({axes}), found {shape}.", hint=hint)


def _matches(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        axis in (None, length) for axis, length in zip(expected, shape, strict=True)
    )


def infer_dtype(table: Array, dtype: np.dtype[Any], spec: TensorSpec) -> Array:
    """Numbers of a ``.csv`` as integers or booleans, if the input takes those and they are exact.

    Raises :class:`SampleError` for integers that float64 does not represent exactly.
    """
    if spec.quantized or dtype.kind not in "biu" or not np.isfinite(table).all():
        return table
    if dtype.kind == "b":
        return table.astype(bool) if np.isin(table, (0.0, 1.0)).all() else table
    if (table != np.rint(table)).any():
        return table
    if np.abs(table).max() > MAX_EXACT:
        raise SampleError(
            f"Input {spec}: integers beyond 2**53 lose digits in a .csv.",
            hint="Use an .npz or .npy file of integers.",
        )
    return table.astype(np.int64)
