"""Keras layers in int8 arithmetic: replacements of their calls while a model is traced.

Products round their inputs, and with fixed ranges every layer rounds its output. A recurrent cell
also rounds what it computes in a step, as the operators of a file with written-out steps do.
"""

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any

from edgeattn_converters.keras_classes import derives_from, is_keras_class
from edgeattn_converters.lowering.call_replacement import (
    all_layers,
    replaced_calls,
    with_attributes,
)
from edgeattn_converters.lowering.rnn.recurrence import CELLS
from edgeattn_converters.quantization_aware.activations import (
    SIGMOID_RANGE,
    SOFTMAX_RANGE,
    TANH_RANGE,
    Activations,
)
from edgeattn_converters.quantization_aware.options import FineTuningOptions
from edgeattn_converters.tracing.attention_outputs import is_attention

# Layers that only look up, mark or move values.
_MOVING = ("Embedding", "Masking", "InputLayer", "Dropout", "SpatialDropout1D", "GaussianNoise")


@contextlib.contextmanager
def simulated(
    model: Any,
    activations: Activations,
    quantized: Collection[Any],
    options: FineTuningOptions = FineTuningOptions(),  # noqa: B008 - frozen
) -> Iterator[None]:
    """Within the context, calls of ``model`` round their activations.

    ``quantized`` are the layers whose weights are int8. The ``options`` say whether steps and
    softmaxes are rounded too.
    """
    ids = {id(layer) for layer in quantized}
    # Float steps scale the inputs of their products at run time.
    steps = activations if options.recurrence_precision == "int8" else Activations(static=False)

    def replacement(layer: Any) -> Callable[..., Any] | None:
        key = f"{layer.name}/{id(layer)}"
        if is_keras_class(layer, *CELLS):
            return _Cell(layer, key, steps).call if steps.static or id(layer) in ids else None
        if id(layer) in ids and not is_keras_class(layer, "Embedding"):
            return _rounding(layer, key, activations, product=True)
        is_leaf = not all_layers(layer) and not is_attention(layer)
        if not activations.static or not is_leaf or is_keras_class(layer, *_MOVING):
            return None
        return _rounding(layer, key, activations, product=False)

    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced_calls(model, replacement))
        for layer in all_layers(model):
            if derives_from(layer, "RNN") and hasattr(
                layer, "use_cudnn"
            ):  # the kernels of cuDNN call no cell
                stack.enter_context(with_attributes(layer, {"use_cudnn": False}))
        if options.attention_precision == "int8" and activations.static:
            stack.enter_context(_int8_softmax(activations))
        yield


def _rounding(
    layer: Any, key: str, activations: Activations, *, product: bool
) -> Callable[..., Any]:
    """The call of ``layer`` that rounds its output, and its input if it is a ``product``."""
    original = layer.call
    activation = getattr(layer, "activation", None)
    is_softmax = (
        is_keras_class(layer, "Softmax") or getattr(activation, "__name__", "") == "softmax"
    )

    # Keras inspects the signature of a call, for masks for example.
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        if product and args:
            args = (activations.product_input(f"{key}/input", args[0]), *args[1:])
        result = original(*args, **kwargs)
        if is_softmax or isinstance(result, list | tuple | dict):
            return result
        return activations.value(f"{key}/output", result)

    return call


@contextlib.contextmanager
def _int8_softmax(activations: Activations) -> Iterator[None]:
    """Keras' softmax with int8 scores and results."""
    from keras.src.backend.tensorflow import nn

    original = nn.softmax
    count = 0

    def softmax(x: Any, axis: int | None = -1) -> Any:
        nonlocal count
        count += 1
        scores = activations.scores(f"softmax/{count}", x)
        return activations.fixed(original(scores, axis=axis), SOFTMAX_RANGE)

    nn.softmax = softmax
    try:
        yield
    finally:
        nn.softmax = original


class _Cell:
    """A step of an LSTM, GRU or SimpleRNN cell of Keras, with rounded values."""

    def __init__(self, cell: Any, key: str, activations: Activations) -> None:
        self._cell, self._key, self._activations = cell, key, activations

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        """Return the output and the new states."""
        states = list(states) if isinstance(states, list | tuple) else [states]
        x = self._activations.product_input(f"{self._key}/x", inputs)
        new = getattr(self, f"_{CELLS[type(self._cell).__name__]}")(x, *states)
        return new[0], list(new)

    def _value(self, name: str, x: Any) -> Any:
        return self._activations.value(f"{self._key}/{name}", x)

    def _state(self, h: Any) -> Any:
        return self._activations.product_input(f"{self._key}/h", h)

    def _product(self, name: str, x: Any, kernel: Any, bias: Any = None) -> Any:
        import keras

        result = keras.ops.matmul(x, kernel)
        return self._value(name, result if bias is None else keras.ops.add(result, bias))

    def _function(self, name: str, function: Callable[[Any], Any], x: Any) -> Any:
        limits = {"sigmoid": SIGMOID_RANGE, "tanh": TANH_RANGE}.get(
            getattr(function, "__name__", "")
        )
        if limits is None:
            return self._value(name, function(x))
        return self._activations.fixed(function(x), limits)

    def _lstm(self, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        import keras

        cell, value = self._cell, self._value
        product = self._product("products", x, cell.kernel, cell.bias)
        inner = self._product("inner", self._state(h), cell.recurrent_kernel)
        i, f, candidate, o = keras.ops.split(value("gates", product + inner), 4, axis=1)
        i, f, o = (
            self._function(name, cell.recurrent_activation, gate)
            for name, gate in (("i", i), ("f", f), ("o", o))
        )
        candidate = self._function("candidate", cell.activation, candidate)
        c = value("c", value("old", f * c) + value("new", i * candidate))
        return value("output", o * self._function("active", cell.activation, c)), c

    def _gru(self, x: Any, h: Any) -> tuple[Any]:
        import keras

        cell, value = self._cell, self._value
        cut = 2 * cell.units
        input_bias, state_bias = cell.bias, None
        if cell.reset_after and cell.use_bias:
            both = keras.ops.convert_to_tensor(cell.bias)
            input_bias, state_bias = both[0], both[1]
        product = self._product("products", x, cell.kernel, input_bias)
        kernel = keras.ops.convert_to_tensor(cell.recurrent_kernel)
        parts = [kernel[:, :cut], kernel[:, cut:]]
        biases = [None, None] if state_bias is None else [state_bias[:cut], state_bias[cut:]]
        state = self._state(h)
        zr = value("gates", product[:, :cut] + self._product("zr", state, parts[0], biases[0]))
        z, r = (
            self._function(name, cell.recurrent_activation, gate)
            for name, gate in zip("zr", keras.ops.split(zr, 2, axis=1), strict=True)
        )
        if cell.reset_after:
            inner = value("reset", r * self._product("inner", state, parts[1], biases[1]))
        else:
            reset = self._activations.product_input(f"{self._key}/reset", r * h)
            inner = self._product("inner", reset, parts[1])
        total = value("total", product[:, cut:] + inner)
        candidate = self._function("candidate", cell.activation, total)
        # The operators of a file, see edgeattn_converters.lowering.rnn.steps.
        kept = value("kept", z * value("difference", h - candidate))
        return (value("output", candidate + kept),)

    def _simple_rnn(self, x: Any, h: Any) -> tuple[Any]:
        cell = self._cell
        product = self._product("products", x, cell.kernel, cell.bias)
        inner = self._product("inner", self._state(h), cell.recurrent_kernel)
        total = self._value("total", product + inner)
        return (self._value("output", self._function("active", cell.activation, total)),)
