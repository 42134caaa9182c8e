"""A model file as operators and tensors, whatever its format: what explanations are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from edgeattn.tensors import Array, Tensors

# What only moves numbers about, with the rounding of what it is given.
MOVING = frozenset(
    {"RESHAPE", "TRANSPOSE", "SPLIT", "SPLIT_V", "UNPACK", "PACK", "SQUEEZE", "EXPAND_DIMS"}
    | {"DEQUANTIZE", "DequantizeLinear", "STRIDED_SLICE", "SLICE", "GATHER", "CONCATENATION"}
    | {"Reshape", "Transpose", "Split", "Squeeze", "Unsqueeze", "Slice", "Gather", "Concat"}
)
# Values of these kinds have the scale that TFLite's specification of int8 and int16 gives them.
FIXED_SCALES: Mapping[str, float] = {
    "SOFTMAX": 1 / 256,
    "LOGISTIC": 1 / 256,
    "TANH": 1 / 128,
    "L2_NORMALIZATION": 1 / 128,
}


@dataclass(frozen=True)
class Encoding:
    """How a tensor's numbers are kept: ``real = (integer - zero_point) * scale`` where it says so.

    ``channels`` is the axis along which a constant has a scale for each index. ``dynamic`` is what
    is given a scale anew for every sequence.
    """

    dtype: str
    scale: float | None = None
    zero_point: int = 0
    channels: int | None = None
    dynamic: bool = False

    @property
    def limits(self) -> tuple[float, float] | None:
        """The lowest and highest number that can be kept; None where nothing is cut off."""
        if self.scale is None:
            return None
        info = np.iinfo(self.dtype)
        return (info.min - self.zero_point) * self.scale, (info.max - self.zero_point) * self.scale

    def rounded(self, real: Array) -> Array:
        """``real`` as it comes back from being kept so."""
        if self.dynamic:
            return ideal(real, Encoding(self.dtype, 1.0))
        if self.scale is None:
            return real
        info = np.iinfo(self.dtype)
        integers = np.rint(np.asarray(real, np.float64) / self.scale) + self.zero_point
        kept = (np.clip(integers, info.min, info.max) - self.zero_point) * self.scale
        return np.asarray(kept, np.float32)


@dataclass(frozen=True)
class Constant:
    """A constant's real numbers, and how the file keeps them."""

    value: Array
    stored: Encoding


@dataclass(frozen=True)
class Operator:
    """One operator; ``""`` among its inputs is one that is left out.

    ``rounds`` marks one that only changes how numbers are kept, ``scales`` one that makes integers
    of the first thing it reads itself. ``settings`` tell it from others of its kind with the same
    inputs; ``attributes`` are what it is set to, and its like must be as well.
    """

    position: int
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rounds: bool = False
    scales: bool = False
    settings: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Operators in the order in which they run; every tensor has a name of its own.

    ``inputs`` and ``outputs`` are the graph's own ends: the model's name of each, and the tensor's.
    ``titles`` are what people know tensors by, where the file tells.
    ``bodies`` are the graphs of loops, by the loop's position.
    """

    operators: tuple[Operator, ...]
    constants: Mapping[str, Constant]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    stored: Mapping[str, Encoding] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    bodies: Mapping[int, Graph] = field(default_factory=dict)

    @functools.cached_property
    def makers(self) -> dict[str, Operator]:
        """For each tensor that is computed, the operator that does."""
        return {name: operator for operator in self.operators for name in operator.outputs}

    @functools.cached_property
    def at(self) -> dict[int, Operator]:
        """The operators by their positions."""
        return {operator.position: operator for operator in self.operators}

    def keeping(self, tensor: str) -> Encoding:
        return self.stored.get(tensor, Encoding("float32"))


class InstrumentedModel(Protocol):
    """A file whose inside can be seen and run: one of each format."""

    graph: Graph

    def values(self, row: Tensors) -> Tensors:
        """Every tensor, as real numbers, for one sequence of inputs (the batch axis is 1)."""
        ...

    def apart(
        self, tensors: Collection[str], constants: Mapping[str, Array]
    ) -> Callable[[Tensors], Tensors]:
        """The operators cut from each other at ``tensors``, with other ``constants`` where given.

        The function takes real numbers for ``tensors`` and gives what the operators make of them.
        """
        ...


def ideal(real: Array, stored: Encoding) -> Array:
    """``real``, a constant, kept as well as the dtype of ``stored`` can: symmetric, to its maximum.

    Per channel where ``stored`` is.
    """
    if stored.dtype == "float16":
        return np.asarray(real.astype(np.float16), np.float32)
    if stored.scale is None and stored.channels is None:
        return real
    top = 7.0 if stored.dtype == "int4" else float(np.iinfo(stored.dtype).max)
    axes = tuple(k for k in range(real.ndim) if k != stored.channels)
    whole = stored.channels is None
    most = np.abs(real).max() if whole else np.abs(real).max(axes, keepdims=True)
    scale = np.where(most > 0, most / top, 1.0)
    return np.asarray(np.rint(real / scale) * scale, np.float32)
