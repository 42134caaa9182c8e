"""The arrays of one layer in an ``.h5`` file, in the order and shapes of Keras 3.

Their layouts depend on the Keras version and on the backend. Those of Keras 1 and Theano are the
ones that ``preprocess_weights_for_loading`` of Keras 2.3 converts, if not stated otherwise.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config, layer_name
from edgeattn_converters.loading.migrate import theano
from edgeattn_converters.loading.migrate.keras1 import keras2_class
from edgeattn_converters.loading.weights.assignment import Array

CHANNELS_FIRST, CHANNELS_LAST = "channels_first", "channels_last"
_GATES = {"LSTM": 4, "GRU": 3}
_CONVOLUTIONS = frozenset(
    {"Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Conv3DTranspose", "SeparableConv2D"}
)


def in_keras3_layout(
    item: Config, arrays: Sequence[Array], *, major: int, backend: str | None
) -> list[Array]:
    """Return the arrays of a layer, given in stored order, as Keras 3 orders and shapes them.

    ``item`` is the stored config of the layer, with the shapes of its variables as ``shapes`` and
    the result of :func:`kernel_order` as ``kernel_order``; ``major`` and ``backend`` describe the
    Keras that wrote the arrays.
    """
    class_name = keras2_class(str(item.get("class_name")))
    config = item.get("config") or {}
    if class_name == "TimeDistributed":
        return in_keras3_layout(_wrapped(item), arrays, major=major, backend=backend)
    if class_name == "Bidirectional":
        forward = config["layer"]
        backward = config.get("backward_layer") or forward
        count = len(arrays) // 2
        if len(arrays) % 2:
            count = 3 if (forward.get("config") or {}).get("use_bias", True) else 2
        return [
            array
            for part, layer in ((arrays[:count], forward), (arrays[count:], backward))
            for array in in_keras3_layout(layer, part, major=major, backend=backend)
        ]
    cell = class_name.removeprefix("CuDNN")
    if cell in _GATES:
        # The shapes decide: weights may be those of the other layer, in a file of their own.
        if _is_cudnn(arrays, _GATES[cell]):
            return _from_cudnn(arrays, _GATES[cell])
        if major == 1 and len(arrays) == 3 * _GATES[cell]:
            return _join_gates(arrays, cell)
    arrays = list(arrays)
    if major == 1 and class_name in _CONVOLUTIONS:
        arrays = _convolution_of_keras1(class_name, item, arrays)
    if class_name == "ConvLSTM2D" and major == 1 and len(arrays) == 12:
        if has_channels_first(config):
            arrays = [_with_filters_last(value) if value.ndim == 4 else value for value in arrays]
        arrays = _join_gates(arrays, "LSTM")
    if backend == "theano" and class_name in theano.REVERSED:
        kernels = 2 if class_name == "ConvLSTM2D" else 1
        arrays = [*map(_reversed, arrays[:kernels]), *arrays[kernels:]]
    return arrays


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


def has_channels_first(config: Config) -> bool:
    """Return whether the channels come first, by the argument of Keras 1 or a later one.

    A current Keras stores the later one, if the architecture is in a file of its own.
    """
    return bool(config.get("dim_ordering") == "th" or config.get("data_format") == "channels_first")


def _convolution_of_keras1(class_name: str, item: Config, arrays: list[Array]) -> list[Array]:
    """Return the arrays with kernels of (positions, channels, filters), as Keras 2 stores them.

    With the channels first, the kernels have (filters, channels, positions). Those of 1-D
    convolutions have an additional axis, those of transposed ones swap channels and filters.
    """
    config = item.get("config") or {}
    kernel = arrays[0]
    if class_name == "Conv1D":
        if kernel.ndim == 4:
            length = config.get("filter_length") or np.ravel(config["kernel_size"])[0]
            kernel = kernel if kernel.shape[:2] == (length, 1) else _with_filters_last(kernel)
            kernel = kernel[:, 0]
        return [kernel, *arrays[1:]]
    swap = class_name == "Conv2DTranspose"
    stored_first = _stores_channels_first(item, kernel.shape)
    if stored_first is None:
        stored_first = item.get("kernel_order") == CHANNELS_FIRST
    count = 2 if class_name == "SeparableConv2D" else 1
    kernels = [_with_filters_last(value) if stored_first else value for value in arrays[:count]]
    return [*(value.swapaxes(-1, -2) if swap else value for value in kernels), *arrays[count:]]


def kernel_order(layers: Iterable[tuple[Config, Sequence[Any]]]) -> str | None:
    """Return the order of the axes of the kernels in a file of Keras 1, None if nothing needs it.

    The architecture may be written for another order. ``layers`` are the configs of layers, with
    the shapes of their variables as ``shapes``, and their arrays. Raises
    :class:`UnsupportedModelError` if a kernel has the same shape in both orders, and the other
    kernels do not have one order.
    """
    unknown: list[str] = []
    orders = set()
    for item, arrays in layers:
        while item.get("class_name") == "TimeDistributed":
            item = _wrapped(item)
        class_name = keras2_class(str(item.get("class_name")))
        if class_name in _CONVOLUTIONS - {"Conv1D"}:
            first = _stores_channels_first(item, tuple(arrays[0].shape))
            if first is None:
                unknown.append(layer_name(item))
            else:
                orders.add(CHANNELS_FIRST if first else CHANNELS_LAST)
    if unknown and len(orders) != 1:
        raise UnsupportedModelError(
            f"The kernel of layer {unknown[0]!r} has the same shape with the channels first and "
            "with the channels last, and the file of Keras 1 does not contain which it has.",
            hint="Pass the architecture as JSON that Keras 1 wrote with model.to_json().",
        )
    return orders.pop() if unknown else None


def kernels_with_channels_first(
    layers: Iterable[tuple[Config, Sequence[Any]]],
) -> list[Config]:
    """Return the configs of the convolutions whose kernels in a file of Keras 1 show that the
    channels of their inputs came first; see :func:`kernel_order`."""
    found = []
    for item, arrays in layers:
        while item.get("class_name") == "TimeDistributed":
            item = _wrapped(item)
        of_images = keras2_class(str(item.get("class_name"))) in _CONVOLUTIONS - {"Conv1D"}
        if of_images and _stores_channels_first(item, tuple(arrays[0].shape)):
            found.append(item)
    return found


def _wrapped(item: Config) -> Config:
    """The config of the layer that a TimeDistributed wraps, with what was added to that of both."""
    added = {key: item[key] for key in ("shapes", "kernel_order") if key in item}
    return {**item["config"]["layer"], **added}


def _stores_channels_first(item: Config, shape: tuple[int, ...]) -> bool | None:
    """Whether a kernel of Keras 1 has the channels first; None if its shape is that of both."""
    config = item.get("config") or {}
    expected = next(iter(item.get("shapes", ())), None)
    if "dim_ordering" in config or has_channels_first(config) or expected is None:
        return has_channels_first(config)
    last, first = list(shape), [*shape[2:], shape[1], shape[0]]
    if keras2_class(str(item.get("class_name"))) == "Conv2DTranspose":
        last[-2:], first[-2:] = last[:-3:-1], first[:-3:-1]
    if last == first == list(expected):
        return None
    return first == list(expected)


def _with_filters_last(kernel: Array) -> Array:
    """(filters, channels, positions) -> (positions, channels, filters)."""
    return kernel.transpose(*range(2, kernel.ndim), 1, 0)


def _reversed(kernel: Array) -> Array:
    """Return a kernel that is convolved as one for a correlation: its positions are reversed."""
    return np.flip(kernel, axis=tuple(range(kernel.ndim - 2)))
