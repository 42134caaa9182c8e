"""Calls of a Keras model with a flat list of inputs, and the names and shapes of its outputs."""

from collections.abc import Iterator, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.build import root_cause
from edgeattn_converters.loading.loaded_model import calls_signature
from edgeattn_converters.tracing.attention_outputs import unique


class NotComputedError(UnsupportedModelError):
    """A model that Keras itself cannot compute for some shape of its inputs."""


def call(model: Any, tensors: tuple[Any, ...]) -> Any:
    """The outputs; :class:`NotComputedError` if Keras itself cannot compute them."""
    import tensorflow as tf

    try:
        return model(pack(model, tensors), training=False)
    except (
        ValueError,
        TypeError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        NotImplementedError,
        tf.errors.OpError,
    ) as error:
        raise _failure(model, root_cause(error)) from error


def _failure(model: Any, cause: str) -> UnsupportedModelError:
    if calls_signature(model):
        # TensorFlow has traced it when it was loaded, so this is no error of the model.
        return UnsupportedModelError(
            f"Tracing the graph of the SavedModel folder failed: {cause}",
            hint="Convert the .keras or .h5 file of the model. If there is none, load the model in "
            "the Keras that saved it and save one: model.save('model.keras')",
        )
    return NotComputedError(
        f"Keras cannot compute the model: {cause}",
        hint="Check that the model runs in the current Keras: model.predict(samples)",
    )


def declared_shapes(model: Any, result: Any) -> list[tuple[int | None, ...]]:
    """The shapes of the outputs as Keras infers them; TensorFlow knows less for a median."""
    symbolic = list(getattr(model, "outputs", None) or [])
    values = list(result) if isinstance(result, list | tuple) else [result]
    if isinstance(result, dict):
        values = list(result.values())
        # Keras sorts the keys.
        by_name = dict(zip(sorted(result), symbolic, strict=False))
        symbolic = [by_name[name] for name in result if name in by_name]
    if len(symbolic) != len(values):
        return []
    shapes = []
    for tensor, value in zip(symbolic, values, strict=True):
        known = getattr(value, "shape", None)
        if known is not None and known.rank is None:
            known = [None] * len(tensor.shape)
        if known is None or len(known) != len(tensor.shape) or not len(known):
            return []
        # An axis that the model was built with may have got a fixed length since then.
        shapes.append(
            tuple(size or declared for size, declared in zip(known, tensor.shape, strict=True))
        )
    return shapes


def dtype_of(tensor: Any) -> str:
    dtype = tensor.dtype
    return dtype if isinstance(dtype, str) else str(dtype.name)


def layer_name(tensor: Any) -> str:
    """The name of the layer that produces a symbolic tensor."""
    history = getattr(tensor, "_keras_history", None)
    layer = getattr(history, "operation", None) or getattr(history, "layer", None)
    return str(getattr(layer, "name", None) or tensor.name.split(":")[0])


def pack(model: Any, tensors: tuple[Any, ...]) -> Any:
    """The flat inputs in the structure that the model takes."""
    struct = getattr(model, "_inputs_struct", None)  # Keras 3 functional
    if struct is not None:
        import keras

        return keras.tree.pack_sequence_as(struct, list(tensors))
    nested = getattr(model, "_nested_inputs", None)  # tf_keras functional
    if nested is not None:
        import tensorflow as tf

        return tf.nest.pack_sequence_as(nested, list(tensors))
    return tensors[0] if len(tensors) == 1 else list(tensors)


def named_outputs(model: Any, outputs: Any, taken: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """``(name, tensor)`` of each output, with names that are unique and not ``taken``."""
    if isinstance(outputs, dict) and not any(
        isinstance(v, dict | list | tuple) for v in outputs.values()
    ):
        flat = [(str(name), value) for name, value in outputs.items()]
    else:
        import tensorflow as tf

        values = tf.nest.flatten(outputs)
        symbolic = list(getattr(model, "outputs", None) or [])
        known = [f"output_{index}" for index in range(len(values))]
        if len(symbolic) == len(values):
            known = [layer_name(tensor) for tensor in symbolic]
        flat = list(zip(known, values, strict=True))
    # An output that is an input needs a name of its own in the file.
    names = unique([name for name, _ in flat], taken)
    yield from zip(names, [value for _, value in flat], strict=True)


def values_by_name(
    model: Any, outputs: Any, names: Sequence[str], taken: Sequence[str]
) -> dict[str, Any]:
    """What ``model`` returned, as ``names`` from :func:`named_outputs` of a traced call.

    The keys of a dictionary that are ``taken`` have other names there, in the order of the keys.
    """
    import tensorflow as tf

    values = dict(named_outputs(model, outputs, taken))
    if set(values) == set(names):
        return {name: values[name] for name in names}
    return dict(zip(names, tf.nest.flatten(outputs), strict=True))
