"""Steps on numbers: normalization, rescaling, bins, category vectors, and padding."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from edgeattn.errors import SampleError
from edgeattn.frontend.values import MAX_VALUES, as_integers, as_numbers, check_size
from edgeattn.printable import counted
from edgeattn.tensors import Array

# The smallest deviation that Keras divides by: keras.backend.epsilon().
EPSILON = 1e-7
Encoding = Literal["int", "one_hot", "multi_hot", "count"]
End = Literal["pre", "post"]


def encode(indices: Array, mode: str, depth: int) -> Array:
    """Encode the indices of one sample as Keras' categorical layers do.

    ``int`` returns them, ``one_hot`` gives a vector for each, in place of a last axis of 1, and
    ``multi_hot`` and ``count`` one vector for all. Indices of ``depth`` or more have no effect.
    """
    if mode == "int":
        return indices
    if indices.ndim > 1 and mode != "one_hot":
        raise SampleError(f"The mode {mode} takes a list of values, not the shape {indices.shape}.")
    if depth > MAX_VALUES or (mode == "one_hot" and indices.size * depth > MAX_VALUES):
        raise SampleError(f"Vectors of {depth} values for {indices.size} values are too large.")
    if mode == "one_hot":
        rows = indices[..., 0] if indices.shape[-1:] == (1,) else indices
        vectors: Array = (rows[..., None] == np.arange(depth)).astype("float32")
        return vectors
    known = indices.reshape(-1)[indices.reshape(-1) < depth]
    counts = np.bincount(known, minlength=depth).astype("float32")
    return np.minimum(counts, 1) if mode == "multi_hot" else counts


@dataclass(frozen=True)
class Normalization:
    """``(x - mean) / max(sqrt(variance), 1e-7)``, or its inverse.

    ``mean`` and ``variance`` have a value for each position of the axes ``axis``, in the order of
    memory, or a single value. Axes count from the batch axis, 0, as in Keras; none means all.
    """

    mean: tuple[float, ...]
    variance: tuple[float, ...]
    axis: tuple[int, ...] = (-1,)
    invert: bool = False

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.variance) or not self.mean:
            raise ValueError(
                f"mean has {counted(len(self.mean), 'value')} and variance {len(self.variance)}"
            )
        if any(value < 0 for value in self.variance):
            raise ValueError("variance has a negative value")
        if 0 in self.axis:
            raise ValueError("axis 0 is the batch axis, which cannot be normalized")

    @cached_property
    def _mean(self) -> Array:
        return np.asarray(self.mean, "float32")

    @cached_property
    def _deviation(self) -> Array:
        root: Array = np.sqrt(np.asarray(self.variance, "float32"))
        return np.maximum(root, np.float32(EPSILON))

    def apply(self, value: Any) -> Array:
        x = as_numbers(value)
        mean, deviation = self._mean, self._deviation
        if len(self.mean) > 1:
            axes = {axis - 1 if axis > 0 else axis + x.ndim for axis in self.axis}
            if not axes <= set(range(x.ndim)):
                raise SampleError(f"The axes {self.axis} do not fit values of shape {x.shape}.")
            shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
            if np.prod(shape) != mean.size:
                raise SampleError(
                    f"Received values of shape {x.shape} to normalize with "
                    f"{counted(mean.size, 'mean')}."
                )
            mean, deviation = mean.reshape(shape), deviation.reshape(shape)
        return x * deviation + mean if self.invert else (x - mean) / deviation


@dataclass(frozen=True)
class Rescaling:
    """``x * scale + offset``; each has one value, or one for each position of the last axis."""

    scale: tuple[float, ...]
    offset: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if not self.scale or not self.offset:
            raise ValueError("scale and offset need a value")

    @cached_property
    def _factors(self) -> tuple[Array, Array]:
        return np.asarray(self.scale, "float32"), np.asarray(self.offset, "float32")

    def apply(self, value: Any) -> Array:
        x = as_numbers(value)
        for factor in self._factors:
            if factor.size > 1 and x.shape[-1:] != factor.shape:
                raise SampleError(
                    f"Received values of shape {x.shape} to rescale with {factor.size} factors."
                )
        scale, offset = self._factors
        return x * scale + offset


@dataclass(frozen=True)
class Discretization:
    """The number of boundaries that are less than or equal to each value, encoded."""

    bin_boundaries: tuple[float, ...]
    output_mode: Encoding = "int"

    def __post_init__(self) -> None:
        if list(self.bin_boundaries) != sorted(self.bin_boundaries):
            raise ValueError("bin_boundaries are not in ascending order")

    def apply(self, value: Any) -> Array:
        x = as_numbers(value)
        boundaries = np.asarray(self.bin_boundaries, "float32")
        indices = np.asarray(np.searchsorted(boundaries, x, side="right"), "int64")
        return encode(indices, self.output_mode, len(self.bin_boundaries) + 1)


@dataclass(frozen=True)
class CategoryEncoding:
    """Integers from 0 to ``num_tokens - 1`` as vectors."""

    num_tokens: int
    output_mode: Literal["one_hot", "multi_hot", "count"] = "multi_hot"

    def __post_init__(self) -> None:
        check_size("num_tokens", self.num_tokens)

    def apply(self, value: Any) -> Array:
        indices = as_integers(value)
        wrong = indices[(indices < 0) | (indices >= self.num_tokens)]
        if wrong.size:
            raise SampleError(f"{wrong[0]} is not a category from 0 to {self.num_tokens - 1}.")
        return encode(indices, self.output_mode, self.num_tokens)


@dataclass(frozen=True)
class PadSequences:
    """The first axis filled with ``value`` or cut to ``maxlen``, as ``keras.utils.pad_sequences``.

    ``truncating = "error"`` refuses longer sequences instead. The values keep their data type.
    """

    maxlen: int
    padding: End = "pre"
    truncating: Literal["pre", "post", "error"] = "pre"
    value: float = 0.0

    def __post_init__(self) -> None:
        check_size("maxlen", self.maxlen)

    def apply(self, value: Any) -> Array:
        x = np.asarray(value)
        if not x.ndim:
            raise SampleError("A single value cannot be padded.")
        if len(x) > self.maxlen:
            if self.truncating == "error":
                raise SampleError(f"{len(x)} steps are more than the {self.maxlen} of the model.")
            return x[-self.maxlen :] if self.truncating == "pre" else x[: self.maxlen]
        padded: Array = np.full((self.maxlen, *x.shape[1:]), self.value, x.dtype)
        start = self.maxlen - len(x) if self.padding == "pre" else 0
        padded[start : start + len(x)] = x
        return padded


@dataclass(frozen=True)
class Transpose:
    """The last two axes exchanged."""

    def apply(self, value: Any) -> Array:
        x = np.asarray(value)
        if x.ndim < 2:
            raise SampleError(f"Values of shape {x.shape} have no two axes to exchange.")
        return x.swapaxes(-1, -2)


@dataclass(frozen=True)
class ExpandDims:
    """A new last axis of length 1, such as the channel of an image."""

    def apply(self, value: Any) -> Array:
        return np.asarray(value)[..., None]


@dataclass(frozen=True)
class Clip:
    """Values below ``minimum`` become it, and those above ``maximum`` become that."""

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} exceeds maximum {self.maximum}")

    def apply(self, value: Any) -> Array:
        return np.clip(as_numbers(value), np.float32(self.minimum), np.float32(self.maximum))
