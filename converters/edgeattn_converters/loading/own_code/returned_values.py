"""Outputs of subclassed models that are not tensors: numbers, arrays and None."""

from typing import Any

import numpy as np

from edgeattn_converters.loading import error_text
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError


def error(model: Any, inputs: Any, failure: BaseException, *, by_name: bool) -> Keras3ModelError:
    """Return the error about the first such output of ``model`` for symbolic ``inputs``.

    Keras computes numbers and arrays in ``predict``, for each batch once, but ``failure`` is its
    error for symbolic inputs.
    """
    import keras
    from keras.src.backend import compute_output_spec

    name = type(model).__name__
    args, kwargs = ((), inputs) if by_name else ((inputs,), {})
    try:
        result = compute_output_spec(model.call, *args, **kwargs)
        values = keras.tree.flatten_with_path(result)
    except Exception:
        values = []
    others = [item for item in values if not isinstance(item[1], keras.KerasTensor)]
    if not others:
        return Keras3ModelError(
            f"The model ({name}) returns values that are not tensors: {error_text.reason(failure)}",
            hint=f"Change call of {name} so that it returns tensors only",
        )
    path, value = others[0]
    output = "The output" if not path else f"Output {path[0] if len(path) == 1 else path!r}"
    return _described(name, output, value)


def _described(name: str, output: str, value: Any) -> Keras3ModelError:
    hint = f"Change call of {name} so that it does not return it"
    if not isinstance(value, bool | int | float | np.generic | np.ndarray):
        return Keras3ModelError(
            f"{output} of the model ({name}) is {value!r}, which is not a tensor.", hint=hint
        )
    shape = np.shape(value)
    axes = f"[tf.shape(x)[0], {', '.join(map(str, shape))}]" if shape else "tf.shape(x)[:1]"
    kind = f"an array of the shape {shape}" if shape else f"the number {value}"
    return Keras3ModelError(
        f"{output} of the model ({name}) has no batch axis: it is {kind} for "
        "any number of samples, and files return one result for each sample.",
        hint=f"{hint}, or returns it for each sample of the input x: "
        f"tf.broadcast_to(output, {axes})",
    )
