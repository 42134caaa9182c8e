"""Plausible inputs of a model without samples, from what its first layers reveal.

The first layer of an input may normalize it, and so knows its mean and deviation, or its range. If
not, the rows take turns: normally distributed values, values from 0 to 1, one-hot vectors, and
sparse values.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, TensorSpec
from edgeattn_converters.keras_classes import derives_from, is_keras_class, looks_up_padding
from edgeattn_converters.lowering.call_replacement import all_layers
from edgeattn_converters.tracing.trace import Interface

ROWS = 16
# The share of values that are not zero in sparse rows.
DENSITY = 0.1
# For inputs of deviation 1, the outputs of a trained first layer have deviations in this range.
# Beyond it, the layer has learned from inputs of another magnitude.
USUAL_DEVIATIONS = (0.02, 50.0)
# Below it, the kernel is 0 but for rounding: no layer learns from inputs of such a magnitude.
LEAST_DEVIATION = 1e-9
# Training takes the weights of units without an effect below this share of those of the others.
NO_EFFECT = 1e-3
# Layers and operations that pass values on as they are.
_TRANSPARENT = {
    *("Masking", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "Identity"),
    *("Reshape", "Flatten", "Permute", "Transpose", "ExpandDims", "Squeeze", "Cast"),
}

_Kind = Callable[[np.random.Generator, tuple[int, ...]], Array]


@dataclass(frozen=True)
class ValueRange:
    """Values ``low + scale * v``: ``v`` has a deviation of about 1, or is in [0, 1] if ``bounded``.

    Both are numbers, or arrays that broadcast to ``(samples, ...)``.
    """

    low: Array | float = 0.0
    scale: Array | float = 1.0
    bounded: bool = False


def plausible_inputs(
    model: Any, interface: Interface, generator: np.random.Generator
) -> dict[str, Array]:
    """:data:`ROWS` rows of inputs by name, half of them padded if the model masks; states are zero.

    Inputs of an embedding are tokens of its vocabulary, those that select a branch take each, and
    other integers are classes or bits.
    """
    vocabulary, padding = interface.vocabulary, padding_values(model, interface)
    layers, branches = first_layers(model, interface), dict(interface.branches)
    inputs = {}
    for spec in interface.inputs:
        shape = (ROWS, *(axis or 1 for axis in spec.shape[1:]))
        values: Array
        if spec.state is not None:
            values = np.zeros(shape)
        elif (limits := vocabulary.get(spec.name)) is not None:
            skipped = (limits.counts > 1) & (spec.name in padding)  # the first may be padding
            stop = np.where(limits.known, limits.stop, 1)
            values = generator.integers(limits.first + skipped, stop, size=shape)
            if not limits.known.all():
                others = _values(spec, shape, layers[spec.name], generator)
                values = np.where(limits.known, values, others)
        elif spec.name in branches:
            positions = np.arange(ROWS).reshape(-1, *[1] * (len(shape) - 1))
            first = generator.integers(0, branches[spec.name], size=shape[1:])
            values = (positions + first) % branches[spec.name]
        else:
            values = _values(spec, shape, layers[spec.name], generator)
        values = np.asarray(values, spec.dtype)
        if spec.name in padding and len(shape) > 1:
            # Lengths from one step to all, padded at the end.
            for row, length in enumerate(np.linspace(1, shape[1], ROWS // 2).astype(int)):
                values[row, length:] = padding[spec.name]
        inputs[spec.name] = values
    return inputs


def padding_values(model: Any, interface: Interface) -> dict[str, float]:
    """The value of masked steps by input; the first mask of a model holds for all inputs.

    Embeddings mask their first row, which is another token than 0 if the model shifts them.
    """
    values: dict[str, float] = {}
    first = {name: np.unique(item.first[item.known]) for name, item in interface.vocabulary.items()}
    first_rows = {name: float(tokens[0]) for name, tokens in first.items() if len(tokens) == 1}
    for layer in all_layers(model):
        if derives_from(layer, "Masking"):
            value, others = float(layer.mask_value), {}
        elif looks_up_padding(layer):
            value, others = 0.0, first_rows
        else:
            continue
        for spec in sample_inputs(interface.inputs):
            values.setdefault(spec.name, others.get(spec.name, value))
    return values


def first_layers(model: Any, interface: Interface) -> dict[str, list[Any]]:
    """The layers that use each input, past those that only pass it on, such as Masking."""
    return {
        spec.name: list(_users(tensor, integers=np.dtype(spec.dtype).kind in "iu"))
        for spec, tensor in zip(interface.inputs, model.inputs, strict=True)
    }


def _users(tensor: Any, *, integers: bool = False) -> Iterator[Any]:
    """Layers and operations that take a symbolic tensor, also inside nested models.

    A division of ``integers`` by a number is the Rescaling layer that computes the same.
    """
    import keras

    history = getattr(tensor, "_keras_history", None)
    for node in getattr(getattr(history, "operation", None), "_outbound_nodes", ()):
        arguments = list(node.arguments.keras_tensors)
        positions = [k for k, argument in enumerate(arguments) if argument is tensor]
        user = node.operation
        model = getattr(user, "model", user)
        inner = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
        if positions and is_keras_class(user, *_TRANSPARENT):
            yield from _users(node.outputs[0], integers=integers)
        elif integers and positions == [0] and (factor := _factor(node)):
            yield keras.layers.Rescaling(factor, _offset(node.outputs[0]))
        elif positions and isinstance(inner, list) and positions[0] < len(inner):
            # A model with states as inputs contains the original model, with the same inputs.
            if inner[positions[0]] is not tensor:
                yield from _users(inner[positions[0]], integers=integers)
        elif positions:
            yield user


def _factor(node: Any) -> float | None:
    """The number by which an operation multiplies a tensor, or divides it."""
    number = _second_number(node)
    if not number:
        return None
    if is_keras_class(node.operation, "Divide", "TrueDivide"):
        return 1 / number
    return number if is_keras_class(node.operation, "Multiply") else None


def _offset(tensor: Any) -> float:
    """-1 if that is added to a tensor, as to scale images to [-1, 1]; otherwise 0."""
    nodes = tensor._keras_history.operation._outbound_nodes
    added = {"Add": -1.0, "Subtract": 1.0}
    is_shifted = [
        any(
            is_keras_class(node.operation, name) and _second_number(node) == number
            for name, number in added.items()
        )
        for node in nodes
    ]
    return -1.0 if is_shifted and all(is_shifted) else 0.0


def _second_number(node: Any) -> float | None:
    """The second argument of an operation, if it is a number."""
    arguments = node.arguments.args
    is_number = len(arguments) == 2 and isinstance(arguments[1], int | float)
    return float(arguments[1]) if is_number else None


def _values(
    spec: TensorSpec, shape: tuple[int, ...], layers: list[Any], generator: np.random.Generator
) -> Array:
    integer = np.dtype(spec.dtype).kind != "f"
    classes = [n for layer in layers if (n := _classes(layer))]
    ranges = [_range_of(layer, len(shape)) for layer in layers]
    known = next((item for item in ranges if item), None)
    # Something else may look integers up or encode them, and so take few of the range.
    if integer and not (ranges and all(ranges)):
        return generator.integers(0, min(classes, default=2), size=shape)
    known = known or ValueRange()
    rows = [KINDS[row % len(KINDS)](generator, shape[1:]) for row in range(shape[0])]
    values = np.stack(rows)
    if known.bounded:
        values = np.clip(np.abs(values), 0.0, 1.0)
    try:
        values = np.broadcast_to(known.low + known.scale * values, shape)
    except ValueError:  # the layer sees the input in another shape
        values = np.mean(known.low) + np.mean(known.scale) * values
    return np.rint(values) if integer else values


def _classes(layer: Any) -> int | None:
    """The number of classes of a layer that encodes integers as one-hot vectors."""
    # An attribute of the user's layers with such a name may be anything.
    numbers = [getattr(layer, name, None) for name in ("num_tokens", "num_classes")]
    return next((int(n) for n in numbers if isinstance(n, int | np.integer) and n > 0), None)


def _range_of(layer: Any, rank: int) -> ValueRange | None:
    """The values that a layer was trained on, as far as its configuration or weights show it."""
    if _has(layer, "Normalization", "mean", "variance") and not layer.invert:
        return ValueRange(np.asarray(layer.mean), np.sqrt(np.asarray(layer.variance)))
    if _has(layer, "BatchNormalization", "moving_mean", "moving_variance"):
        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        if not mean.any() and (variance == 1).all():
            return None  # never updated
        shape = [1] * rank
        if isinstance(layer.axis, int):
            shape[layer.axis] = -1
        else:  # of several axes, along which the weights have those of the inputs
            shape = list(mean.shape)
        return ValueRange(mean.reshape(shape), np.sqrt(variance).reshape(shape))
    is_scaled = derives_from(layer, "Rescaling")
    if is_scaled and np.min(layer.scale) > 0 and np.max(layer.scale) < 1:
        # Images are scaled to [0, 1] or to [-1, 1].
        scale, offset = np.asarray(layer.scale), np.asarray(layer.offset)
        low = np.where(offset == 0, 0.0, -(1 + offset) / scale)
        return ValueRange(low, np.where(offset == 0, 1.0, 2.0) / scale, bounded=True)
    return _scale_of_kernel(layer)


def _has(layer: Any, name: str, *attributes: str) -> bool:
    """Whether a layer is of this class of Keras, and has the arrays."""
    return derives_from(layer, name) and all(
        getattr(layer, attribute, None) is not None for attribute in attributes
    )


def _scale_of_kernel(layer: Any) -> ValueRange | None:
    """Values that give the outputs of the first layer a deviation of 1, if it is far from that."""
    import keras

    layer = getattr(layer, "forward_layer", layer)
    kernel: Any = getattr(getattr(layer, "cell", layer), "kernel", None)
    if not (isinstance(kernel, keras.Variable) or keras.ops.is_tensor(kernel)):
        return None
    if len(kernel.shape) < 2:
        return None
    values = np.asarray(kernel, np.float64)
    deviations = np.sqrt((values**2).sum(axis=tuple(range(values.ndim - 1))))
    if not LEAST_DEVIATION <= deviations.max() < np.inf:
        return None
    deviation = float(np.median(deviations[deviations >= NO_EFFECT * deviations.max()]))
    low, high = USUAL_DEVIATIONS
    if low <= deviation <= high:
        return None
    return ValueRange(scale=1 / deviation)


def _normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return generator.standard_normal(shape)


def _unit(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return generator.random(shape)


def _one_hot(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """One-hot vectors along the last axis; zeros and ones if it has a single feature."""
    if not shape or shape[-1] == 1:
        return generator.integers(0, 2, size=shape)
    places = generator.integers(0, shape[-1], size=shape[:-1])
    values = np.zeros(shape)
    np.put_along_axis(values, places[..., None], 1.0, axis=-1)
    return values


def _sparse(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return generator.standard_normal(shape) * (generator.random(shape) < DENSITY)


KINDS: tuple[_Kind, ...] = (_normal, _unit, _one_hot, _sparse)
