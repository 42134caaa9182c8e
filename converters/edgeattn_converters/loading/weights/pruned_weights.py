"""The arrays of the wrappers that prune weights, see :mod:`..migrate.pruned_layers`.

``build`` of ``PruneLowMagnitude`` adds a mask and a threshold for each pruned weight, and then the
number of steps. Files with a group for each object have the pruned weights ahead of these once
more, because they are in an attribute of the wrapper.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn.printable import counted
from edgeattn_converters.loading.formats import hdf5
from edgeattn_converters.loading.own_code.own_classes import is_own_class

Array = np.ndarray[Any, Any]
# Paths and arrays of a file, in its order.
NamedArrays = Sequence[tuple[str, Array]]
# Names of the variables that wrappers add. Some versions of the package add the name of the weight,
# prune_low_magnitude_dense/dense/kernel:0_mask:0, and a graph of TensorFlow 1 numbers equal names.
WRAPPER_PREFIX = "prune_low_magnitude_"
_ADDED = re.compile(
    rf"(?:^|/)({WRAPPER_PREFIX}[^/]+)/(?:.*[/_])?(mask|threshold|pruning_step)(?:_\d+)?:0$"
)
# The pruned weights of a layer of Keras, see prune_registry.py of the package.
_WEIGHTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("Dense", "Conv1D", "Conv2D", "Conv3D", "LocallyConnected"), ("kernel",)),
    **dict.fromkeys(("Conv2DTranspose", "Conv3DTranspose"), ("kernel",)),
    **dict.fromkeys(("LocallyConnected1D", "LocallyConnected2D"), ("kernel",)),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), ("pointwise_kernel",)),
    **dict.fromkeys(("LSTMCell", "GRUCell", "SimpleRNNCell"), ("kernel", "recurrent_kernel")),
    "Embedding": ("embeddings",),
}
_OF_ATTENTION = ("_query_dense", "_key_dense", "_value_dense", "_output_dense")
_STRIP = (
    "Where the model was trained, load it within tfmot.sparsity.keras.prune_scope(), remove the "
    "wrappers and save it: model = tfmot.sparsity.keras.strip_pruning(model), then "
    "model.save('model.h5')"
)


def without_added(arrays: NamedArrays) -> list[tuple[str, Array]]:
    """Return the listed arrays of layers without those that wrappers have added."""
    return [(path, array) for path, array in arrays if not _ADDED.search(path)]


def listed_masks(arrays: NamedArrays) -> dict[str, list[Array]]:
    """Return the masks among the listed arrays of layers, by the names of the wrappers.

    The arrays of a wrapper without pruned weights have its name, too.
    """
    masks: dict[str, list[Array]] = {}
    for path, array in arrays:
        if match := _ADDED.search(path):
            of_wrapper = masks.setdefault(match[1], [])
            if match[2] == "mask":
                of_wrapper.append(array)
    return masks


def numbered_masks(group: Any) -> list[Array]:
    """Return the masks in the group of a wrapper: all but the last array are masks and thresholds.

    Args:
        group: arrays by number. The last ones are ``mask, threshold, mask, threshold, ..., step``.
    """
    arrays = [group[key] for key in sorted(group, key=int)]
    masks: list[Array] = []
    end = len(arrays) - 1
    while end >= 2 and arrays[end - 1].shape == () != arrays[end - 2].shape:
        masks.insert(0, arrays[end - 2])
        end -= 2
    if end not in (0, len(masks)):  # ahead of them, there are at most the pruned weights
        raise _unknown(group.name)
    return masks


def apply_masks(layer: Any, masks: Sequence[Array]) -> None:
    """Multiply the pruned weights of a layer by masks.

    Raises :class:`UnsupportedModelError` if they do not fit.
    """
    if not masks:
        return
    variables = pruned_weights(layer)
    if variables is None:
        raise UnsupportedModelError(
            f"The pruning wrapper of layer {layer.name!r} has {counted(len(masks), 'mask')}, and "
            f"its class {type(layer).__name__} does not show to which weights they belong.",
            hint="Define get_prunable_weights in the class, as it was when the model was saved.",
        )
    values = [
        np.asarray(convert(mask) if (convert := getattr(item, "from_stored", None)) else mask)
        for item, mask in zip(variables, map(hdf5.array, masks), strict=False)
    ]
    shapes = [tuple(item.shape) for item in variables]
    if len(masks) != len(shapes) or shapes != [value.shape for value in values]:
        raise UnsupportedModelError(
            f"The masks in the pruning wrapper of layer {layer.name!r} have the shapes "
            f"{[tuple(mask.shape) for mask in masks]}, its pruned weights {shapes}.",
            hint=_STRIP,
        )
    for variable, mask in zip(variables, values, strict=True):
        stored = np.asarray(variable)
        variable.assign(stored * mask.astype(stored.dtype))


def pruned_weights(layer: Any) -> list[Any] | None:
    """Return the variables that the wrapper of a layer prunes, None if they are not known.

    The layer is one of Keras 3 or tf_keras.
    """
    if callable(method := getattr(layer, "get_prunable_weights", None)):
        return list(method())
    names = [cls.__name__ for cls in type(layer).__mro__]
    if "MultiHeadAttention" in names:
        return [getattr(layer, name).kernel for name in _OF_ATTENTION]
    if "RNN" in names:
        cells = getattr(layer.cell, "cells", [layer.cell])
        found = [pruned_weights(cell) for cell in cells]
        return None if None in found else [item for items in found for item in items or ()]
    if is_own_class(type(layer)):
        return None
    known = next((_WEIGHTS[name] for name in names if name in _WEIGHTS), None)
    return None if known is None else [getattr(layer, name) for name in known]


def unassigned(names: Sequence[str]) -> UnsupportedModelError:
    """Return the error for the masks of wrappers whose layers in a nested model are not known."""
    return UnsupportedModelError(
        f"The file has masks of pruning wrappers for {', '.join(map(repr, names))}, and no layers "
        "of these names.",
        hint=_STRIP,
    )


def _unknown(name: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"The arrays of the pruning wrapper in {name!r} are not in a known order.", hint=_STRIP
    )
