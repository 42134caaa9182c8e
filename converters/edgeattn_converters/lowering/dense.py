"""Dense, Embedding and LayerNormalization as the one ONNX node that each of them is.

With a free batch, Keras' own computation becomes shape arithmetic around that node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeattn_converters.lowering.onnx_placeholders import NodeWriter, Placeholders
from edgeattn_converters.lowering.rnn.cells import as_float32, is_keras_class


def lower_dense(layer: Any) -> Callable[..., Any] | None:
    """``x @ kernel`` of any rank is one MatMul."""
    if not is_keras_class(layer, "Dense") or not _is_plain(layer):
        return None
    original = layer.call

    def call(inputs: Any, training: Any = None) -> Any:
        import tensorflow as tf

        if len(inputs.shape) < 3 or inputs.dtype != tf.float32:
            return original(inputs)
        result = tf.matmul(inputs, layer.kernel)
        if layer.use_bias:
            result = result + layer.bias
        return result if layer.activation is None else layer.activation(result)

    return call


def lower_embedding(layer: Any) -> Callable[..., Any] | None:
    """Gather, to which a negative index means what it means to Keras."""
    if not is_keras_class(layer, "Embedding") or not _is_plain(layer):
        return None

    def call(inputs: Any) -> Any:
        import tensorflow as tf

        return tf.gather(tf.convert_to_tensor(layer.embeddings), tf.cast(inputs, tf.int32))

    return call


def lower_single_feature_normalization(layer: Any) -> Callable[..., Any] | None:
    """LayerNormalization of one feature, whose answer is its shift.

    ``x`` less its mean is 0. Keras multiplies both by a thousand and more before it subtracts them,
    and what TFLite makes of that is rounding.
    """
    if not is_keras_class(layer, "LayerNormalization") or not _is_plain(layer):
        return None
    if not layer.built or getattr(layer, "rms_scaling", False):
        return None
    if any(weight.shape != (1,) for weight in layer.weights) or not layer.weights:
        return None

    def call(inputs: Any) -> Any:
        nothing = inputs - inputs
        return nothing + layer.beta if layer.center else nothing

    return call


def lower_layer_normalization(layer: Any) -> Callable[..., Any] | None:
    """LayerNormalization of the last axis in the fewest operators over all of the data.

    ``d = x - mean(x)`` first, and its own square's mean: five of them, where Keras has six.
    """
    if not is_keras_class(layer, "LayerNormalization") or not _is_plain(layer):
        return None
    if not layer.built or getattr(layer, "rms_scaling", False):
        return None
    original = layer.call

    def call(inputs: Any) -> Any:
        import tensorflow as tf

        if not _of_last_axis(layer, inputs) or inputs.dtype != tf.float32:
            return original(inputs)
        centred = inputs - tf.reduce_mean(inputs, axis=-1, keepdims=True)
        variance = tf.reduce_mean(centred * centred, axis=-1, keepdims=True)
        result = centred * tf.math.rsqrt(variance + layer.epsilon)
        if layer.scale:
            result = result * layer.gamma
        return result + layer.beta if layer.center else result

    return call


def _of_last_axis(layer: Any, inputs: Any) -> bool:
    axis = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    return axis in ([-1], [len(inputs.shape) - 1])


def onnx_layer_normalization(
    placeholders: Placeholders,
) -> Callable[[Any], Callable[..., Any] | None]:
    """LayerNormalization of the last axis, the standard's node since opset 17."""

    def lowering(layer: Any) -> Callable[..., Any] | None:
        if not is_keras_class(layer, "LayerNormalization") or not _is_plain(layer):
            return None
        if not layer.built or getattr(layer, "rms_scaling", False):
            return None
        original = layer.call
        # Read here: while a function is traced, a variable has no value.
        gamma = as_float32(layer.gamma) if layer.scale else None
        beta = as_float32(layer.beta) if layer.center else None

        def call(inputs: Any) -> Any:
            import tensorflow as tf

            if not _of_last_axis(layer, inputs) or inputs.dtype != tf.float32:
                return original(inputs)
            size = inputs.shape[-1]
            scale = np.ones(size, np.float32) if gamma is None else gamma
            shift = np.zeros(size, np.float32) if beta is None else beta

            def author(graph: NodeWriter, names: list[str]) -> list[str]:
                (x,) = names
                return [
                    graph.node(
                        "LayerNormalization",
                        x,
                        graph.const(scale),
                        graph.const(shift),
                        axis=-1,
                        epsilon=float(layer.epsilon),
                    )
                ]

            (result,) = placeholders.put(author, [inputs], [tuple(inputs.shape)])
            return result

        return call

    return lowering


def _is_plain(layer: Any) -> bool:
    """In float32, and neither quantized nor with an adapter beside its weights."""
    return (
        layer.compute_dtype == "float32"
        and not getattr(layer, "quantization_mode", None)
        and not getattr(layer, "lora_enabled", False)
    )
