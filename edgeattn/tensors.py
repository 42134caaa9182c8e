"""Names, shapes, dtypes and quantization of inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]

# Dtypes of inputs and outputs.
DTYPES = (
    *("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
)


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a model.

    ``shape`` starts with the batch axis; ``None`` is an axis of any length. ``scale`` and
    ``zero_point`` describe per-tensor quantization as TFLite defines it,
    ``real = (integer - zero_point) * scale``, and are ``None`` for tensors that are not quantized.
    ``state`` marks an input as a state and names the output with its value for the next part of
    the sequence; a sequence starts with zeros. ``stored_name`` is the name in the file, if that is
    another one, as in files that other converters wrote.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None
    state: str | None = None
    stored_name: str | None = None

    @property
    def in_file(self) -> str:
        """The name in the file."""
        return self.name if self.stored_name is None else self.stored_name

    def __str__(self) -> str:
        axes = ", ".join("?" if axis is None else str(axis) for axis in self.shape)
        return f"{self.name} ({axes}) {self.dtype}"

    @property
    def quantized(self) -> bool:
        return self.scale is not None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "scale": self.scale,
            "zero_point": self.zero_point,
            **({} if self.state is None else {"state": self.state}),
            **({} if self.stored_name is None else {"stored_name": self.stored_name}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        """Inverse of :meth:`to_json`. Raises :class:`ValueError` if a value is invalid."""
        spec = cls(
            name=data["name"],
            shape=tuple(data["shape"]),
            dtype=data["dtype"],
            scale=None if data.get("scale") is None else float(data["scale"]),
            zero_point=data.get("zero_point"),
            state=data.get("state"),
            stored_name=data.get("stored_name"),
        )
        for text in (spec.name, spec.dtype, spec.state or "", spec.stored_name or ""):
            if type(text) is not str:
                raise ValueError(f"{text!r} is not the name of a tensor, dtype or state")
        for number in (*spec.shape, spec.zero_point):
            if number is not None and type(number) is not int:
                raise ValueError(f"tensor {spec.name!r} has {number!r} instead of an integer")
        if spec.dtype not in DTYPES:
            raise ValueError(f"tensor {spec.name!r} has the unknown dtype {spec.dtype!r}")
        if not spec.shape or any(axis is not None and axis < 1 for axis in spec.shape):
            raise ValueError(f"tensor {spec.name!r} has the shape {spec.shape}")
        if spec.scale is not None:
            if not (math.isfinite(spec.scale) and spec.scale > 0):
                raise ValueError(f"tensor {spec.name!r} has the scale {spec.scale}")
            if "int" not in spec.dtype:
                raise ValueError(f"tensor {spec.name!r} has a scale but the dtype {spec.dtype}")
        return spec


Specs = tuple[TensorSpec, ...]


def quantize(array: Array, spec: TensorSpec) -> Array:
    """Quantize real numbers of any shape: rounded half to even, and saturated."""
    if spec.scale is None:
        return np.asarray(array, dtype=spec.dtype)
    limits = np.iinfo(spec.dtype)
    integers: Array = np.rint(np.asarray(array, np.float64) / spec.scale) + (spec.zero_point or 0)
    saturated: Array = np.clip(integers, limits.min, limits.max)
    return saturated.astype(spec.dtype)


def dequantize(array: Array, spec: TensorSpec) -> Array:
    """Convert quantized integers of any shape to float32 real numbers."""
    if spec.scale is None:
        return np.asarray(array)
    real: Array = (array.astype(np.float64) - (spec.zero_point or 0)) * spec.scale
    return real.astype(np.float32)
