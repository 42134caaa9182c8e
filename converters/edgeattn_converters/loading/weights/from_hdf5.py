"""Weights of ``.h5`` files: one group per layer, with an ordered list of arrays.

Their layouts differ between Keras versions and are converted to those of Keras 3.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import (
    Config,
    is_model,
    layer_name,
    stored_layers,
)
from edgeattn_converters.loading.formats import hdf5
from edgeattn_converters.loading.weights.assignment import MISMATCH, Array, Assignment, find_layer

_NamedArrays = Sequence[tuple[str, Array]]
_GATES = {"LSTM": 4, "GRU": 3}
_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Convolution1D",
                 "Convolution2D")  # fmt: skip


def is_layered(file: Any) -> bool:
    """Return whether an HDF5 file lists its layers, as ``.h5`` files do."""
    names = {"layer_names", "layer_names0"} & set(file.attrs)
    return bool(names) or "model_weights" in file


def stored_shapes(
    file: Any, names: Mapping[str, str] = MappingProxyType({})
) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Return path and shape of the arrays of each layer by its name.

    ``names`` are the names of layers that differ from those in the file.
    """
    return {
        names.get(name, name): [
            (path, tuple(group[path].shape)) for path in hdf5.texts(group, "weight_names")
        ]
        for name, group in _groups(file)
    }


def _groups(file: Any) -> Iterator[tuple[str, Any]]:
    root = file.get("model_weights", file)
    for name in hdf5.texts(root, "layer_names"):
        if name in root:
            yield name, root[name]


def assign(
    file: Any,
    model: Any,
    stored: Config,
    *,
    major: int,
    backend: str | None,
    names: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Assign the weights of an open file to the model built from its config.

    ``stored`` is the config before the migration; ``major`` and ``backend`` are those of the Keras
    that wrote the file; ``names`` are the names of layers that differ in the file. Raises
    :class:`UnsupportedModelError` if layers or shapes differ, or a layer has no weights.
    """
    assignment = Assignment(model)
    layers = {layer_name(item): (item, find_layer(model, item)) for item in stored_layers(stored)}
    for name, group in _groups(file):
        arrays = [(path, np.asarray(group[path])) for path in hdf5.texts(group, "weight_names")]
        if not arrays:
            continue
        name = names.get(name, name)
        item, layer = layers.get(name) or _find_nested(model, stored, name) or (None, None)
        if item is None or layer is None:
            raise UnsupportedModelError(
                f"The file contains weights for a layer {name!r} that its architecture lacks.",
                hint=MISMATCH,
            )
        for leaf, inner, part in _by_leaf(item, layer, arrays):
            values = _in_keras3_layout(
                _with_shapes(leaf, inner),
                [array for _, array in part],
                major=major,
                backend=backend,
            )
            assignment.assign_all(inner, _variables(inner), values)
    assignment.require_complete()


def _find_nested(model: Any, stored: Config, name: str) -> tuple[Config, Any] | None:
    """Return config and layer of a name in a nested model."""
    for item in stored_layers(stored):
        inner = find_layer(model, item) if is_model(item) else None
        if inner is None:
            continue
        for nested in stored_layers(item):
            layer = find_layer(inner, nested)
            if layer_name(nested) == name and layer is not None:
                return nested, layer
        deeper = _find_nested(inner, item, name)
        if deeper:
            return deeper
    return None


def _variables(layer: Any) -> list[Any]:
    """Return the variables in the order in which Keras stores them: trainable ones first."""
    return list(layer.trainable_weights) + list(layer.non_trainable_weights)


def _by_leaf(
    item: Config, layer: Any, arrays: _NamedArrays
) -> Iterator[tuple[Config, Any, _NamedArrays]]:
    """Yield config, layer and arrays of a layer, or of each layer of a nested model."""
    if not is_model(item):
        yield item, layer, arrays
        return
    leaves = list(_leaves(item, layer))
    parts = _split_by_name(leaves, arrays) or _split_by_order(leaves, arrays)
    for (leaf, inner), part in zip(leaves, parts, strict=True):
        yield leaf, inner, part


def _leaves(item: Config, model: Any) -> Iterator[tuple[Config, Any]]:
    """Yield the layers of a model that have weights, in stored order."""
    for nested in stored_layers(item):
        layer = find_layer(model, nested)
        if layer is None:
            continue
        if is_model(nested):
            yield from _leaves(nested, layer)
        elif layer.weights:
            yield nested, layer


def _split_by_name(
    leaves: Sequence[tuple[Config, Any]], arrays: _NamedArrays
) -> list[_NamedArrays] | None:
    """Return the arrays of each leaf by the layer name in their paths, None if ambiguous."""
    names = [layer_name(item) for item, _ in leaves]
    if len(set(names)) != len(names):
        return None
    parts: dict[str, list[tuple[str, Array]]] = {name: [] for name in names}
    for path, array in arrays:
        steps = path.split("/")
        owners = [
            name for name in names if name in steps or path.startswith((f"{name}_", f"{name}/"))
        ]
        if not owners:
            return None
        parts[max(owners, key=len)].append((path, array))
    return list(parts.values()) if all(parts.values()) else None


def _split_by_order(
    leaves: Sequence[tuple[Config, Any]], arrays: _NamedArrays
) -> list[_NamedArrays]:
    """Return the arrays of each leaf by position: first all trainable ones, then all others."""
    remaining = list(arrays)
    parts: list[list[tuple[str, Array]]] = [[] for _ in leaves]
    for kind in ("trainable_weights", "non_trainable_weights"):
        for part, (_, layer) in zip(parts, leaves, strict=True):
            count = len(getattr(layer, kind))
            part += remaining[:count]
            remaining = remaining[count:]
    if remaining:
        parts[-1] += remaining  # assign_all reports too many arrays
    return list(parts)


def _with_shapes(item: Config, layer: Any) -> Config:
    """Return the config of a layer with the shapes of its variables."""
    return {**item, "shapes": [tuple(variable.shape) for variable in _variables(layer)]}


def _in_keras3_layout(
    item: Config, arrays: Sequence[Array], *, major: int, backend: str | None
) -> list[Array]:
    """Return the arrays of a layer, given in stored order, as Keras 3 orders and shapes them.

    ``item`` is the stored config of the layer; ``major`` and ``backend`` describe its Keras.
    """
    class_name = str(item.get("class_name"))
    config = item.get("config") or {}
    if class_name == "TimeDistributed":
        return _in_keras3_layout(config["layer"], arrays, major=major, backend=backend)
    if class_name == "Bidirectional":
        half = len(arrays) // 2
        return [
            array
            for part in (arrays[:half], arrays[half:])
            for array in _in_keras3_layout(config["layer"], part, major=major, backend=backend)
        ]
    cell = class_name.removeprefix("CuDNN")
    if cell in _GATES:
        # The shapes decide: weights may be those of the other layer, in a file of their own.
        if _is_cudnn(arrays, _GATES[cell]):
            return _from_cudnn(arrays, _GATES[cell])
        if major == 1 and len(arrays) == 3 * _GATES[cell]:
            return _join_gates(arrays, cell)
    if class_name in _CONVOLUTIONS:
        return _convolution(item, list(arrays), major=major, backend=backend)
    if class_name == "ConvLSTM2D" and backend == "theano":
        return [*map(_flipped, arrays[:2]), *arrays[2:]]
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
    item: Config, arrays: list[Array], *, major: int, backend: str | None
) -> list[Array]:
    """Drop the extra axis of 1-D kernels of Keras 1, and flip the kernels of Theano."""
    class_name, config = str(item["class_name"]), item.get("config") or {}
    kernel = arrays[0]
    expected = next(iter(item.get("shapes", ())), None)
    if major == 1 and class_name in ("Convolution1D", "Conv1D") and kernel.ndim == 4:
        length = config.get("filter_length") or config["kernel_size"][0]
        if kernel.shape[:2] != (length, 1):
            kernel = kernel.transpose(2, 3, 1, 0)
        kernel = kernel[:, 0]
    # The second is what a current Keras stores, if the architecture is in a file of its own.
    theano_order = (
        config.get("dim_ordering") == "th" or config.get("data_format") == "channels_first"
    )
    if major == 1 and class_name in ("Convolution2D", "Conv2D") and theano_order:
        kernel = kernel.transpose(2, 3, 1, 0)
    elif major == 1 and kernel.ndim == 4 and expected not in (None, kernel.shape):
        # Saved with the channels first, for an architecture with the channels last.
        swapped = kernel.transpose(2, 3, 1, 0)
        kernel = swapped if swapped.shape == expected else kernel
    return [_flipped(kernel) if backend == "theano" else kernel, *arrays[1:]]


def _flipped(kernel: Array) -> Array:
    """Return a kernel of Theano, which convolves, for a correlation."""
    return np.flip(kernel, axis=tuple(range(kernel.ndim - 2)))
