"""Models whose own outputs are random, or differ from those in inference mode.

Layers may be called with ``training=True``, as in Monte Carlo dropout. ``predict`` of Keras 3
overrides this argument, and so does a conversion; calling the model and ``predict`` of Keras 2 do
not. Layers and functions of the user may draw random numbers in any mode: such models are refused.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.keras_classes import derives_from, is_keras_class
from edgeattn_converters.loading.output_differences import unknown_outputs
from edgeattn_converters.loading.own_code.own_classes import is_own_class
from edgeattn_converters.loading.own_code.own_functions import calls_function_of_user
from edgeattn_converters.loading.own_code.untracked_weights import (
    require_tracked,
    untracked_weights,
)

_RATES = ("rate", "stddev", "dropout", "recurrent_dropout", "_dropout")
SEED = 20170706
# Limits of numbers, in the order in which they are tried while outputs are NaN.
LIMITS = ((0.1, 0.9), (-3.0, 3.0), (1.0, 100.0))
FREE_AXIS = 8  # length of a free axis
ROWS, CALLS = 16, 4  # samples, and how often they are run
_COMPARED = (
    "The artifacts compute, and are compared with, the model in inference mode, as predict of "
    "Keras 3."
)


def training_notes(model: Any) -> tuple[str, ...]:
    """Return a note on each layer that computes something else in training mode."""
    return tuple(
        f"{layer.name}: {_by_default(layer) if _trains_by_default(layer) else _by_argument(layer)}."
        f" {_COMPARED}"
        for layer in _in_training_mode(model)
    )


def is_in_training_mode(model: Any) -> bool:
    """Return whether an argument of a call, which no version of Keras 2 overrides, says so."""
    return not all(map(_trains_by_default, _in_training_mode(model)))


def _in_training_mode(model: Any) -> Iterator[Any]:
    """Yield the layers whose calls are in training mode and compute something else then."""
    for layer in model._flatten_layers(include_self=False):
        trains = any(
            node.arguments.kwargs.get("training") is True
            for node in getattr(layer, "_inbound_nodes", ())
        )
        if trains and (_is_any_random(layer) or _normalizes(layer)):
            yield layer


def _by_default(layer: Any) -> str:
    if _is_any_random(layer):
        return (
            "random unless it is called with training=False, so the outputs of Keras' model(x) are "
            "random"
        )
    return (
        "its outputs depend on the other samples of a batch unless it is called with "
        "training=False, and so do those of Keras' model(x)"
    )


def _by_argument(layer: Any) -> str:
    where = "(Keras' model(x), and predict of Keras 2)"
    if _is_any_random(layer):
        return f"called with training=True, so the model's own outputs are random {where}"
    return (
        "called with training=True, so the model's own outputs depend on the other samples of a "
        f"batch {where}"
    )


def _is_any_random(layer: Any) -> bool:
    return any(map(_is_random, layer._flatten_layers()))


def _normalizes(layer: Any) -> bool:
    return any(derives_from(item, "BatchNormalization") for item in layer._flatten_layers())


def _trains_by_default(layer: Any) -> bool:
    """Whether calls without ``training`` are in training mode, as those of Keras' Random layers."""
    argument = inspect.signature(layer.call).parameters.get("training")
    return argument is not None and argument.default is True


def check_repeatable(model: Any, *, tolerance: float = 0.0) -> None:
    """Raise :class:`UnsupportedModelError` if code of the user makes the outputs random.

    Outputs that change by at most ``tolerance`` of the largest one are not.
    """
    own = layers_with_user_code(model)
    if own and getattr(model, "inputs", None) and _is_random_in_inference(model, tolerance):
        raise UnsupportedModelError(
            "Keras computes different outputs for the same input each time, because a layer draws "
            f"random numbers at inference (your own layers: {', '.join(own)}). No artifact can "
            "reproduce them.",
            hint="Let this layer return what it computes without random numbers, such as the mean.",
        )


def layers_with_user_code(model: Any) -> list[str]:
    """Return the names of the layers that run code of the user."""
    return [
        layer.name
        for layer in model._flatten_layers(include_self=False)
        if is_own_class(type(layer))
        or is_keras_class(layer, "Lambda")
        or calls_function_of_user(layer)
    ]


def call_of(model: Any, limits: tuple[float, float] = LIMITS[0]) -> Callable[[], list[Any]]:
    """Return a function that computes the outputs for some samples, the same ones each time.

    Their numbers are between ``limits``.
    """
    import keras

    generator = np.random.default_rng(SEED)
    inputs = [_sample(tensor, generator, limits) for tensor in model.inputs]

    def call() -> list[Any]:
        outputs: list[Any] = keras.tree.flatten(model(_as_argument(model, inputs), training=False))
        return outputs

    return call


def are_numbers(outputs: list[Any]) -> bool:
    """Whether each value of each output is a number for some sample.

    What is NaN for all does not show whether two calls differ.
    """
    return not unknown_outputs([[np.asarray(output, "float64") for output in outputs]])


def _is_random_in_inference(model: Any, tolerance: float) -> bool:
    """Whether a model computes other outputs each time, False if it cannot be run.

    Raises :class:`UnsupportedModelError` if it computes with weights that no file contains.
    """
    for limits in LIMITS:
        call = call_of(model, limits)
        try:
            # Random choices between few values, such as a flip, may repeat by chance.
            first, *others = (call() for _ in range(CALLS))
            untracked = untracked_weights(model, call)
            is_last = are_numbers(first)
        except Exception:  # the conversion reports why the model cannot be run
            return False
        require_tracked(model, untracked)
        if any(
            not _are_equal(np.asarray(a), np.asarray(b), tolerance)
            for other in others
            for a, b in zip(first, other, strict=True)
        ):
            return True
        if is_last:
            return False
    return False


def _are_equal(first: Any, second: Any, tolerance: float) -> bool:
    if not tolerance or first.dtype.kind != "f":
        return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    largest = float(np.abs(first).max(initial=0.0, where=np.isfinite(first)))
    return np.allclose(first, second, rtol=0.0, atol=tolerance * largest, equal_nan=True)


def _sample(tensor: Any, generator: np.random.Generator, limits: tuple[float, float]) -> Any:
    shape = [tensor.shape[0] or ROWS, *(size or FREE_AXIS for size in tensor.shape[1:])]
    if "float" not in str(tensor.dtype):
        return np.full(shape, 0 if limits == LIMITS[0] else 1, str(tensor.dtype))
    return generator.uniform(*limits, shape).astype(str(tensor.dtype))


def _as_argument(model: Any, inputs: list[Any]) -> Any:
    import keras

    struct = getattr(model, "_inputs_struct", None)
    if struct is not None:
        return keras.tree.pack_sequence_as(struct, inputs)
    return inputs[0] if len(inputs) == 1 else inputs


def _is_random(layer: Any) -> bool:
    """Return whether a layer draws random numbers in training mode."""
    import keras

    if is_own_class(type(layer)) and "training" not in inspect.signature(layer.call).parameters:
        return False  # a rate of something else
    values = [getattr(layer, name, None) for name in _RATES]
    if any(isinstance(value, int | float) and value > 0 for value in values):
        return True
    cell = hasattr(layer, "recurrent_dropout") or hasattr(layer, "cell")
    generators = any(isinstance(v, keras.random.SeedGenerator) for v in vars(layer).values())
    return generators and not cell and not hasattr(layer, "rate")
