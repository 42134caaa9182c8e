"""What Keras computes: outputs of ``model.predict``, and attention maps of the traced model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.errors import EdgeattnError, UnsupportedModelError
from edgeattn.metrics.limits import LIMITS
from edgeattn.tensors import Array, Tensors
from edgeattn_converters.tracing.keras_call import pack
from edgeattn_converters.tracing.trace import Interface, trace


@dataclass(frozen=True)
class KerasOutputs:
    """``outputs`` by name, ``maps`` by ``attention/LAYER``, the sample axis first.

    ``with_maps`` are the outputs of the model that returns the maps too; empty without maps.
    """

    outputs: dict[str, Array]
    maps: dict[str, Array]
    with_maps: dict[str, Array]

    @property
    def all(self) -> dict[str, Array]:
        """Outputs and maps."""
        return {**self.outputs, **self.maps}


def predict(model: Any, interface: Interface, inputs: Tensors) -> dict[str, Array]:
    """The outputs of ``model.predict`` by name.

    Raises :class:`UnsupportedModelError` if Keras cannot compute them, because an index that the
    model computes is outside its table for example.
    """
    import tensorflow as tf

    ordered = tuple(inputs[spec.name] for spec in interface.inputs)
    try:
        predicted = model.predict(pack(model, ordered), verbose=0, batch_size=32)
    except tf.errors.OpError as error:
        lines = [line.strip() for line in str(error.message).splitlines() if "{{node" not in line]
        reason = next((line for line in reversed(lines) if line), type(error).__name__)
        raise UnsupportedModelError(
            f"Keras itself cannot compute the model on its samples: {reason}",
            hint="Pass real samples, with values as in training: --samples FILE",
        ) from error
    names = [spec.name for spec in interface.outputs]
    # Matched by name, unless a name had to be changed.
    by_name = isinstance(predicted, dict) and set(names) == set(predicted)
    flat = [predicted[name] for name in names] if by_name else tf.nest.flatten(predicted)
    return {name: np.asarray(value) for name, value in zip(names, flat, strict=True)}


def keras_function(
    model: Any, interface: Interface, *, attention: bool
) -> Callable[[Tensors], KerasOutputs]:
    """A function from inputs to what Keras computes from them."""
    import tensorflow as tf

    # Not frozen, because dropout layers keep the state of their random numbers in variables.
    traced = trace(model, interface, batch=None, attention=attention, freeze=False)

    def run(inputs: Tensors) -> KerasOutputs:
        outputs = predict(model, interface, inputs)
        if not traced.attention:
            return KerasOutputs(outputs, {}, {})
        results = traced.function(*[tf.constant(inputs[spec.name]) for spec in interface.inputs])
        names = [spec.name for spec in traced.outputs]
        values = {name: value.numpy() for name, value in zip(names, results, strict=True)}
        maps = {name: values.pop(name) for name in traced.attention}
        return KerasOutputs(outputs, maps, values)

    return run


def check_unchanged(values: KerasOutputs, rows: Array) -> None:
    """Raises :class:`EdgeattnError` if returning maps changes the outputs for any of ``rows``.

    Keras computes weights that it returns in another order of operations, which changes outputs by
    rounding. Up to half of what a float16 file may change them, that is no reason to stop: files
    are compared with the outputs of ``model.predict``, within the limits of their schemes.
    """
    share = 10 ** (-LIMITS["float16"].snr_db / 20) / 2
    for name, with_maps in values.with_maps.items():
        expected = values.outputs[name][rows].astype(np.float64)
        moved = np.abs(with_maps[rows] - expected).reshape(len(expected), -1)
        size = np.linalg.norm(expected.reshape(moved.shape), axis=1)
        if not (np.linalg.norm(moved, axis=1) <= 1e-5 + share * size).all():
            raise EdgeattnError(
                f"Exporting attention maps changes output {name!r} in Keras.",
                hint="Convert with --no-attention, and please report this model.",
            )
