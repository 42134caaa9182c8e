"""Stored arrays of a layer in the layout of the current Keras."""

from collections.abc import Sequence

import numpy as np

from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.weights.assignment import Array

_GATES = {"LSTM": 4, "GRU": 3}
_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Convolution1D",
                 "Convolution2D")  # fmt: skip


def convert(
    item: Config, arrays: Sequence[Array], *, major: int, backend: str | None
) -> list[Array]:
    """Return the arrays of a layer, given in stored order, as Keras 3 orders and shapes them.

    ``item`` is the stored config of the layer; ``major`` and ``backend`` describe its Keras.
    """
    class_name = str(item.get("class_name"))
    config = item.get("config") or {}
    if class_name == "TimeDistributed":
        return convert(config["layer"], arrays, major=major, backend=backend)
    if class_name == "Bidirectional":
        half = len(arrays) // 2
        return [
            array
            for part in (arrays[:half], arrays[half:])
            for array in convert(config["layer"], part, major=major, backend=backend)
        ]
    cell = class_name.removeprefix("CuDNN")
    if cell in _GATES:
        if class_name.startswith("CuDNN") or _is_cudnn(arrays, _GATES[cell]):
            return _from_cudnn(arrays, _GATES[cell])
        if major == 1 and len(arrays) == 3 * _GATES[cell]:
            return _join_gates(arrays, cell)
    if class_name in _CONVOLUTIONS:
        return _convolution(class_name, config, list(arrays), major=major, backend=backend)
    return list(arrays)


def _is_cudnn(arrays: Sequence[Array], gates: int) -> bool:
    """Return whether the bias has two values per gate and unit, as in CuDNN layers."""
    if len(arrays) != 3 or arrays[2].ndim != 1:
        return False
    return bool(arrays[2].shape[0] == 2 * gates * arrays[1].shape[0])


def _from_cudnn(arrays: Sequence[Array], gates: int) -> list[Array]:
    """Reorder the kernel of every gate from columns to rows and transpose the recurrent kernel.

    The two biases of an LSTM are added in every gate, so their sum replaces them. A GRU needs both.
    """
    kernel, recurrent, bias = arrays
    kernel = np.hstack([part.T.reshape(part.shape, order="F") for part in np.hsplit(kernel, gates)])
    recurrent = np.hstack([part.T for part in np.hsplit(recurrent, gates)])
    halves = bias.reshape(2, -1)
    return [kernel, recurrent, halves.sum(axis=0) if gates == 4 else halves]


def _join_gates(arrays: Sequence[Array], cell: str) -> list[Array]:
    """Join the arrays that Keras 1 stores per gate: i, c, f, o (now i, f, c, o), or z, r, h."""
    order = (0, 2, 1, 3) if cell == "LSTM" else (0, 1, 2)
    return [
        np.concatenate([arrays[3 * gate + part] for gate in order], axis=-1) for part in range(3)
    ]


def _convolution(
    class_name: str, config: Config, arrays: list[Array], *, major: int, backend: str | None
) -> list[Array]:
    """Drop the extra axis of 1-D kernels of Keras 1, and flip the kernels of Theano."""
    kernel = arrays[0]
    if major == 1 and class_name in ("Convolution1D", "Conv1D") and kernel.ndim == 4:
        length = config.get("filter_length")
        if kernel.shape[:2] != (length, 1):
            kernel = kernel.transpose(2, 3, 1, 0)
        kernel = kernel[:, 0]
    if major == 1 and class_name == "Convolution2D" and config.get("dim_ordering") == "th":
        kernel = kernel.transpose(2, 3, 1, 0)
    if backend == "theano":
        spatial = tuple(range(kernel.ndim - 2))
        kernel = np.flip(kernel, axis=spatial)
    return [kernel, *arrays[1:]]
