"""Specs of the inputs and outputs of a Keras model, with every axis fixed but that of the batch."""

from dataclasses import replace
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn.tensors import Specs, TensorSpec
from edgeattn_converters.graphs.data_sources import operations_behind
from edgeattn_converters.keras_classes import is_signature
from edgeattn_converters.loading.fixed_time_axis import (
    TimeSteps,
    free_axes_error,
    length_of,
    with_sizes,
)
from edgeattn_converters.loading.loaded_model import calls_signature
from edgeattn_converters.lowering.composed_operations import fixed_bins
from edgeattn_converters.tracing.attention_outputs import unique
from edgeattn_converters.tracing.keras_call import dtype_of, layer_name


def input_specs(model: Any, time_steps: TimeSteps | None) -> Specs:
    """The specs of the inputs; raises :class:`UsageError` if ``time_steps`` leaves an axis free."""
    tensors = getattr(model, "inputs", None)
    if not tensors:
        raise UnsupportedModelError(
            f"The model ({type(model).__name__}) does not define its inputs.",
            hint="Build it with the functional API: keras.Model(inputs, model(inputs)).",
        )
    names = unique([layer_name(tensor) for tensor in tensors])
    specs = [
        TensorSpec(name, tuple(tensor.shape), dtype_of(tensor))
        for name, tensor in zip(names, tensors, strict=True)
    ]
    if error := free_axes_error({spec.name: spec.shape for spec in specs}, time_steps):
        raise error
    sizes = [with_sizes(spec.shape, length_of(time_steps, spec.name)) for spec in specs]
    # A fixed batch size in the file is that of training, not of inference.
    return tuple(
        replace(spec, shape=(None, *axes[1:])) for spec, axes in zip(specs, sizes, strict=True)
    )


def output_spec(model: Any, name: str, shape: Any, tensor: Any) -> TensorSpec:
    """The spec of the output ``tensor``, whose batch axis is free in ``shape``.

    Raises :class:`UnsupportedModelError` if another axis is free, or for complex numbers.
    """
    dtype = tensor.dtype.name
    if dtype.startswith("complex"):
        raise UnsupportedModelError(
            f"Output {name!r} has complex numbers, which neither TFLite nor ONNX files return.",
            hint="Rebuild the model with its real and imaginary parts, or the absolute values, as "
            "outputs, and load its weights; they fit.",
        )
    if has_known_axes(shape):
        return TensorSpec(name, tuple(shape.as_list()), dtype)
    problem = f"The number of axes of output {name!r}"
    if shape.rank is not None:
        problem = f"The shape of output {TensorSpec(name, tuple(shape.as_list()), dtype)}"
    hint = (
        "Rebuild the model with a layer that fixes it, such as Reshape or a slice of fixed length, "
        "and load its weights; they fit."
    )
    if calls_signature(model):
        hint = (
            "Convert the .keras or .h5 file of the model instead: exported graphs may have lost "
            "the shape."
        )
    elif any(item.type == "DenseBincount" for item in operations_behind(tensor)):
        hint = fixed_bins(model)
    raise UnsupportedModelError(f"{problem} depends on the input's values.", hint=hint)


def has_known_axes(shape: Any) -> bool:
    """Whether no axis but the first is free."""
    return shape.rank is not None and None not in shape.as_list()[1:]


def only_batch(model: Any) -> int | None:
    """The number of samples that a model computes, if it is fixed.

    The graph of a SavedModel may have one, and layers that reshape to the batch size of the input,
    ``tf.reshape(x, [1, -1])``, of which edgeattn has removed the size.
    """
    layers = getattr(model, "layers", ())
    of_graph = (layer.batch for layer in layers if is_signature(layer))
    tensors = getattr(model, "outputs", None) or ()
    of_one = any(len(tensor.shape) and tensor.shape[0] == 1 for tensor in tensors)
    return next(of_graph, 1 if of_one else None)


def with_free_batch(shape: Any, fixed: Any, batch: int) -> Any:
    """``shape`` with the axes that TensorFlow infers for ``batch`` samples, ``fixed``.

    If the first axis is another number, as that of windows joined with the samples, any other axis
    may be that of the samples.
    """
    if fixed.rank is None or not fixed.rank or fixed[0] is None:
        return shape
    others = [None if fixed[0] != batch and axis == batch else axis for axis in fixed[1:]]
    return shape.merge_with([None, *others])
