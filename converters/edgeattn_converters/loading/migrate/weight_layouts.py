"""A layer's stored arrays as the layer of today wants them. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeattn_converters.loading.migrate.context import Config

Array = np.ndarray[Any, Any]
_GATES = {"LSTM": 4, "GRU": 3}
_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Convolution1D",
                 "Convolution2D")  # fmt: skip


def convert(item: Config, arrays: Sequence[Array], *, era: int, backend: str | None) -> list[Array]:
    """One layer's arrays. Requires the layer as stored, and its arrays in their stored order."""
    class_name = str(item.get("class_name"))
    config = item.get("config") or {}
    if class_name == "TimeDistributed":
        return convert(config["layer"], arrays, era=era, backend=backend)
    if class_name == "Bidirectional":
        half = len(arrays) // 2
        return [
            array
            for part in (arrays[:half], arrays[half:])
            for array in convert(config["layer"], part, era=era, backend=backend)
        ]
    kind = class_name.removeprefix("CuDNN")
    if kind in _GATES:
        if class_name.startswith("CuDNN") or _is_cudnn(arrays, _GATES[kind]):
            return _from_cudnn(arrays, _GATES[kind])
        if era == 1 and len(arrays) == 3 * _GATES[kind]:
            return _join_gates(arrays, kind)
    if class_name in _CONVOLUTIONS:
        return _convolution(class_name, config, list(arrays), era=era, backend=backend)
    return list(arrays)


def _is_cudnn(arrays: Sequence[Array], gates: int) -> bool:
    """NVIDIA's layers keep two biases for every gate, one after the other."""
    if len(arrays) != 3 or arrays[2].ndim != 1:
        return False
    return bool(arrays[2].shape[0] == 2 * gates * arrays[1].shape[0])


def _from_cudnn(arrays: Sequence[Array], gates: int) -> list[Array]:
    """The kernel of every gate was stored column by column, the recurrent one transposed.

    An LSTM's two biases only ever act as their sum; a GRU's do not, and stay two.
    """
    kernel, recurrent, bias = arrays
    kernel = np.hstack([part.T.reshape(part.shape, order="F") for part in np.hsplit(kernel, gates)])
    recurrent = np.hstack([part.T for part in np.hsplit(recurrent, gates)])
    halves = bias.reshape(2, -1)
    return [kernel, recurrent, halves.sum(axis=0) if gates == 4 else halves]


def _join_gates(arrays: Sequence[Array], kind: str) -> list[Array]:
    """Keras 1 kept every gate apart: an LSTM's i, c, f, o (now i, f, c, o), a GRU's z, r, h."""
    order = (0, 2, 1, 3) if kind == "LSTM" else (0, 1, 2)
    return [
        np.concatenate([arrays[3 * gate + part] for gate in order], axis=-1) for part in range(3)
    ]


def _convolution(
    class_name: str, config: Config, arrays: list[Array], *, era: int, backend: str | None
) -> list[Array]:
    """A 1-D kernel of Keras 1 has a row of one; Theano's kernels are mirrored."""
    kernel = arrays[0]
    if era == 1 and class_name in ("Convolution1D", "Conv1D") and kernel.ndim == 4:
        length = config.get("filter_length")
        if kernel.shape[:2] != (length, 1):
            kernel = kernel.transpose(2, 3, 1, 0)
        kernel = kernel[:, 0]
    if era == 1 and class_name == "Convolution2D" and config.get("dim_ordering") == "th":
        kernel = kernel.transpose(2, 3, 1, 0)
    if backend == "theano":
        spatial = tuple(range(kernel.ndim - 2))
        kernel = np.flip(kernel, axis=spatial)
    return [kernel, *arrays[1:]]
