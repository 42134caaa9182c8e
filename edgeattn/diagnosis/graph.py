"""Model files as graphs of operators and tensors, independent of the file format."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgeattn.tensors import Array, Tensors

# Operators that move data and add no rounding of their own.
DATA_MOVEMENT = frozenset(
    {"RESHAPE", "TRANSPOSE", "SPLIT", "SPLIT_V", "UNPACK", "PACK", "SQUEEZE", "EXPAND_DIMS"}
    | {"DEQUANTIZE", "DequantizeLinear", "STRIDED_SLICE", "SLICE", "GATHER", "CONCATENATION"}
    | {"Reshape", "Transpose", "Split", "Squeeze", "Unsqueeze", "Slice", "Gather", "Concat"}
)
# Output scales that TFLite's quantization specification prescribes for int8.
FIXED_SCALES: Mapping[str, float] = {
    "SOFTMAX": 1 / 256,
    "LOGISTIC": 1 / 256,
    "TANH": 1 / 128,
    "L2_NORMALIZATION": 1 / 128,
}


@dataclass(frozen=True)
class Encoding:
    """How the values of a tensor are stored.

    With a ``scale``, integers are stored: ``value = (integer - zero_point) * scale``.
    ``channel_axis`` is the axis of a constant with one scale per index. ``dynamic`` marks a tensor
    whose scale is computed anew for every input.
    """

    dtype: str
    scale: float | None = None
    zero_point: int = 0
    channel_axis: int | None = None
    dynamic: bool = False

    @property
    def limits(self) -> tuple[float, float] | None:
        """The lowest and the highest value that integers can represent, ``None`` for floats."""
        if self.scale is None:
            return None
        info = np.iinfo(self.dtype)
        return (info.min - self.zero_point) * self.scale, (info.max - self.zero_point) * self.scale

    def encode(self, values: Array, dtype: str | None = None) -> Array:
        """Return ``values`` as stored; without a scale, as ``dtype``."""
        if self.scale is None:
            return np.asarray(values, dtype=dtype, order="C")  # scalars stay scalars
        return self._integers(values, self.scale).astype(self.dtype)

    def decode(self, stored: Array) -> Array:
        """Return the values that ``stored`` represents, float16 as float32."""
        if self.scale is None:
            return np.asarray(stored, np.float32 if stored.dtype == np.float16 else None)
        return np.asarray((stored.astype(np.float64) - self.zero_point) * self.scale, np.float32)

    def round(self, values: Array) -> Array:
        """Return ``values`` after they were encoded and decoded."""
        if self.dynamic:
            return round_constant(values, Encoding(self.dtype, 1.0))
        return values if self.scale is None else self.decode(self._integers(values, self.scale))

    def _integers(self, values: Array, scale: float) -> Array:
        info = np.iinfo(self.dtype)
        integers = np.rint(np.asarray(values, np.float64) / scale) + self.zero_point
        return np.asarray(np.clip(integers, info.min, info.max))


@dataclass(frozen=True)
class Constant:
    """The decoded values of a constant, and how the file stores them."""

    values: Array
    encoding: Encoding


@dataclass(frozen=True)
class Operator:
    """One operator of a graph.

    An omitted optional input is ``""``. ``recodes`` says whether the operator only changes the
    encoding of its input, ``quantizes_input`` whether it quantizes its first input itself, with a
    dynamic scale. ``variant`` are attributes that distinguish operators of one kind with the same
    inputs, ``attributes`` those that must equal the counterpart's.
    """

    position: int
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    recodes: bool = False
    quantizes_input: bool = False
    variant: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Operators in order of execution.

    ``inputs`` and ``outputs`` map the names of the model's inputs and outputs to tensors,
    ``encodings`` tensors that are not float32 to how they are stored, ``names`` tensors to readable
    names, and ``bodies`` the positions of loop operators to the graphs of their bodies.
    """

    operators: tuple[Operator, ...]
    constants: Mapping[str, Constant]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    encodings: Mapping[str, Encoding] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    bodies: Mapping[int, Graph] = field(default_factory=dict)

    @functools.cached_property
    def producers(self) -> dict[str, Operator]:
        """The operator that computes each tensor."""
        return {name: operator for operator in self.operators for name in operator.outputs}

    @functools.cached_property
    def by_position(self) -> dict[int, Operator]:
        return {operator.position: operator for operator in self.operators}

    @functools.cached_property
    def consumed(self) -> set[str]:
        """The tensors that operators read."""
        return {name for operator in self.operators for name in operator.inputs}

    def encoding(self, tensor: str) -> Encoding:
        return self.encodings.get(tensor, Encoding("float32"))


class InstrumentedModel(abc.ABC):
    """A model file whose inner tensors can be read and replaced."""

    graph: Graph

    def tensor_values(self, inputs: Tensors) -> Tensors:
        """Return the decoded values of all tensors for ``inputs`` with a batch axis of 1."""
        feeds = {
            tensor: self._encode(tensor, inputs[name]) for name, tensor in self.graph.inputs.items()
        }
        return self._decode({**feeds, **self._run(feeds)})

    def isolate(
        self, boundaries: Collection[str], constants: Mapping[str, Array]
    ) -> Callable[[Tensors], Tensors]:
        """Cut the graph at the tensors ``boundaries`` and replace ``constants``.

        The returned function takes values for all boundaries. It returns, for each boundary, the
        values that the operators before it compute from the boundaries before them.
        """
        run = self._cut(boundaries, constants)
        return lambda values: self._decode(
            run({tensor: self._encode(tensor, values[tensor]) for tensor in boundaries})
        )

    def _encode(self, tensor: str, values: Array) -> Array:
        return self.graph.encoding(tensor).encode(values, self._dtype(tensor))

    def _decode(self, stored: Tensors) -> Tensors:
        return {name: self.graph.encoding(name).decode(array) for name, array in stored.items()}

    @abc.abstractmethod
    def _dtype(self, tensor: str) -> str | None:
        """Return the dtype that the runtime expects, ``None`` for that of the given values."""

    @abc.abstractmethod
    def _run(self, feeds: Tensors) -> Tensors:
        """Return the encoded tensors computed from the encoded inputs."""

    @abc.abstractmethod
    def _cut(
        self, boundaries: Collection[str], constants: Mapping[str, Array]
    ) -> Callable[[Tensors], Tensors]:
        """As :meth:`isolate`, with encoded tensors."""


def round_constant(values: Array, encoding: Encoding) -> Array:
    """``values`` with the smallest rounding that the dtype of ``encoding`` allows.

    Integers are symmetric, scaled to the largest absolute value, per channel if ``encoding`` is.
    """
    if encoding.dtype == "float16":
        return np.asarray(values.astype(np.float16), np.float32)
    axis = encoding.channel_axis
    if encoding.scale is None and axis is None:
        return values
    max_integer = 7.0 if encoding.dtype == "int4" else float(np.iinfo(encoding.dtype).max)
    other_axes = tuple(k for k in range(values.ndim) if k != axis)
    largest = np.abs(values).max(None if axis is None else other_axes, keepdims=True)
    scale = np.where(largest > 0, largest / max_integer, 1.0)
    return np.asarray(np.rint(values / scale) * scale, np.float32)
