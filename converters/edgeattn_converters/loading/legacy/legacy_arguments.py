"""Arguments of layers of Keras 1 and 2 in the calls of a program, as those of Keras 3.

Only what leaves the values of the layer unchanged is dropped; Keras rejects the rest.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Any

from edgeattn_converters.loading.legacy.legacy_program import Program
from edgeattn_converters.loading.migrate import keras1
from edgeattn_converters.loading.own_code.masks_of_classes import traced

Arguments = dict[str, Any]

# They chose between implementations of the same values, or values that the file replaces.
_WITHOUT_EFFECT = ("implementation", "fused", "batch_size", "weights", "input_dtype", "dynamic")
# Arguments with the only value that Keras 3 has.
_FIXED = {"time_major": False, "renorm": False, "causal": False, "virtual_batch_size": None}
_SHAPES = frozenset({"input_shape", "batch_input_shape", "batch_shape"})
# Layers whose input_dim is the number of tokens.
_OF_TOKENS = frozenset({"Embedding", "ReversibleEmbedding"})
# Layers whose input_dim is the size of the last of three axes.
_OF_SEQUENCES = frozenset(
    {"LSTM", "GRU", "SimpleRNN", "RNN", "Conv1D", "LocallyConnected1D", "TimeDistributedDense"}
)
_KERNEL_AXES = {"Conv2D": 2, "SeparableConv2D": 2, "Conv2DTranspose": 2, "LocallyConnected2D": 2,
                "Conv3D": 3}  # fmt: skip


def current(
    class_name: str,
    values: Sequence[Any],
    named: Mapping[str, Any],
    program: Program,
    given: Container[str] = (),
) -> tuple[tuple[Any, ...], Arguments]:
    """Return the arguments of a constructor in place and by name.

    ``given`` are the names of all of them, for which there is no default.
    """
    found = with_input_shape(class_name, named)
    if class_name == "Layer":
        return tuple(values), _kept(found)
    if class_name == "Lambda":
        return _of_lambda(values, found)
    if class_name == "InputLayer":
        return _of_input(values, found)
    if class_name in keras1.PADDED:
        values = [keras1.padding_of_sides(class_name, value) for value in values]
        if "padding" in found:
            found["padding"] = keras1.padding_of_sides(class_name, found["padding"])
    if found.get("dim_ordering") == "default":
        del found["dim_ordering"]
    if keras1.has_arguments(class_name, found):
        program.is_keras_1 = True
        found = dict(keras1.migrate(class_name, found)[1])
    if class_name.startswith("AveragePooling") and not values:
        found = {"pool_size": 2, **found}  # the default of Keras 2
    values = with_kernel(class_name, values, found, program)
    defaults = program.defaults(class_name)
    found = {**{key: value for key, value in defaults.items() if key not in given}, **found}
    if class_name in _OF_TOKENS:
        return tuple(values), found
    return tuple(values), {key: value for key, value in found.items() if key != "weights"}


def _of_input(values: Sequence[Any], named: Arguments) -> tuple[tuple[Any, ...], Arguments]:
    """The arguments of an Input, whose shape may be the size of its only axis."""

    def shape(value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    shapes: Arguments = {key: shape(named[key]) for key in ("shape", "input_shape") if key in named}
    return (*map(shape, values[:1]), *values[1:]), {**named, **shapes}


def _of_lambda(values: Sequence[Any], named: Arguments) -> tuple[tuple[Any, ...], Arguments]:
    """The arguments of a Lambda layer, whose mask may be computed by functions of TensorFlow.

    Its output shape may be a list, or the size of its only axis.
    """
    found = named | dict(zip(("function", "output_shape", "mask"), values, strict=False))
    if callable(mask := found.get("mask")):
        found["mask"] = traced(mask)
    if isinstance(shape := found.get("output_shape"), list | int):
        found["output_shape"] = (shape,) if isinstance(shape, int) else tuple(shape)
    return (), found


def _kept(named: Arguments) -> Arguments:
    """Arguments of every layer of Keras 2 as those of Keras 3."""
    return {
        key: value
        for key, value in named.items()
        if key not in _WITHOUT_EFFECT and (key not in _FIXED or value != _FIXED[key])
    }


def with_input_shape(class_name: str, named: Mapping[str, Any]) -> Arguments:
    """Arguments with the shape of the input as ``input_shape``."""
    found = dict(named)
    if found.get("batch_input_shape") is not None:
        found["input_shape"] = tuple(found.pop("batch_input_shape")[1:])
    if class_name == "Embedding":
        # In Keras 2, it had an input shape as the first layer of a model.
        length = found.pop("input_length", None)
        shape = tuple(length) if isinstance(length, list | tuple) else (length,)
        return found if found.keys() & _SHAPES else {**found, "input_shape": shape}
    if class_name in _OF_TOKENS:
        return found
    features, length = found.get("input_dim"), found.get("input_length")
    if features is None or (class_name == "Layer" and length is None):
        return found
    del found["input_dim"]
    found.pop("input_length", None)
    of_sequence = length is not None or class_name in _OF_SEQUENCES
    return {**found, "input_shape": (length, features) if of_sequence else (features,)}


def with_kernel(
    class_name: str, values: Sequence[Any], named: Arguments, program: Program
) -> Sequence[Any]:
    """Arguments in place whose second is the size of the kernel: ``32, 3, 3`` -> ``32, (3, 3)``."""
    axes = _KERNEL_AXES.get(class_name, 0)
    kernel = values[1 : 1 + axes]
    in_place = axes and len(kernel) == axes and all(isinstance(size, int) for size in kernel)
    if not in_place or not (program.is_keras_1 or program.has_kernels_in_place()):
        return values
    program.is_keras_1 = True
    return (values[0], tuple(kernel), *values[1 + axes :])
