"""Values that pass through a front end: numbers as arrays, text as strings."""

from typing import Any

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.tensors import Array

_DTYPES = {name: np.dtype(name) for name in ("float32", "float64", "int64")}
# The most values of one sample: a description must not fill the memory.
MAX_VALUES = 2**24


def check_size(name: str, value: int | None, least: int = 1) -> None:
    """Raise :class:`ValueError` unless ``value`` is None or from ``least`` to MAX_VALUES."""
    if value is not None and not least <= value <= MAX_VALUES:
        raise ValueError(f"{name} is {value}, but must be from {least} to {MAX_VALUES:,}")


def as_array(value: Any) -> Array:
    """``value`` as an array; :class:`SampleError` for lists of several lengths."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise SampleError("The values have no rectangular shape.") from error


def as_numbers(value: Any, dtype: str = "float32") -> Array:
    """``value`` as an array of ``dtype``; :class:`SampleError` if it is not numbers."""
    array = as_array(value)
    if array.dtype.kind not in "buif":
        raise SampleError(f"{_excerpt(value)} is not a number.")
    if array.dtype == _DTYPES[dtype]:
        return array
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def as_rows(value: Any) -> Array:
    """``value`` as float32 with at least one axis and one value in each."""
    array = as_numbers(value)
    if not array.ndim or not array.size:
        raise SampleError(f"Values of shape {array.shape} are not a signal.")
    return array


def as_integers(value: Any) -> Array:
    """``value`` as int64; :class:`SampleError` if it has other numbers than integers."""
    array = as_numbers(value, "float64" if np.asarray(value).dtype.kind == "f" else "int64")
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            integers = array.astype("int64")
        if not np.array_equal(integers, array):
            raise SampleError(f"{_excerpt(value)} is not an integer.")
        return integers
    return array


def as_strings(value: Any) -> Array:
    """``value``, a string or a list of strings, as an array of objects of type str."""
    array = as_array(value)
    if array.dtype.kind not in "USO":
        raise SampleError(f"{_excerpt(value)} is not text.")
    strings = np.empty(array.shape, object)
    for index, item in np.ndenumerate(array):
        if isinstance(item, bytes):
            try:
                item = item.decode()
            except UnicodeDecodeError as error:
                raise SampleError(f"{_excerpt(item)} is not UTF-8 text.") from error
        if not isinstance(item, str):
            raise SampleError(f"{_excerpt(item)} is not text.")
        strings[index] = str(item)  # NumPy's strings are a subclass
    return strings


def encoded(text: str) -> bytes:
    """The UTF-8 bytes of ``text``; :class:`SampleError` if it has half a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise SampleError(f"{_excerpt(text)} is not valid Unicode text.") from error


def _excerpt(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
