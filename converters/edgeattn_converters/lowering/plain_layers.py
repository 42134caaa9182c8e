"""Lowerings of Dense, Embedding and LayerNormalization.

They are one ONNX node each; with a free batch, Keras' own computation would add shape arithmetic
around it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeattn_converters.graphs.static_shapes import replay
from edgeattn_converters.keras_classes import is_keras_class, is_signature
from edgeattn_converters.lowering.call_replacement import Lowering
from edgeattn_converters.lowering.placeholders import NodeWriter, Placeholders
from edgeattn_converters.lowering.rnn.recurrence import as_float32


def lower_dense(layer: Any) -> Callable[..., Any] | None:
    """Dense over inputs of any rank as one MatMul."""
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
    """Embedding as one Gather, in which a negative index means the same as in Keras."""
    if not is_keras_class(layer, "Embedding") or not _is_plain(layer):
        return None

    def call(inputs: Any) -> Any:
        import tensorflow as tf

        return tf.gather(tf.convert_to_tensor(layer.embeddings), tf.cast(inputs, tf.int32))

    return call


def lower_single_feature_normalization(layer: Any) -> Callable[..., Any] | None:
    """LayerNormalization of a single feature, whose output is its shift.

    ``x - mean(x)`` is 0. Keras first multiplies both terms by a thousand or more, and TFLite then
    returns the rounding error of their difference.
    """
    if not _is_layer_normalization(layer):
        return None
    if not layer.weights or any(weight.shape != (1,) for weight in layer.weights):
        return None

    def call(inputs: Any) -> Any:
        zero = inputs - inputs
        return zero + layer.beta if layer.center else zero

    return call


def lower_layer_normalization(layer: Any) -> Callable[..., Any] | None:
    """LayerNormalization over the last axis with five operators over all of the data; Keras has
    six.

    ``d * rsqrt(mean(d²) + epsilon)`` with ``d = x - mean(x)``.
    """
    if not _is_layer_normalization(layer):
        return None
    original = layer.call

    def call(inputs: Any) -> Any:
        import tensorflow as tf

        if not _is_over_last_axis(layer, inputs):
            return original(inputs)
        centred = inputs - tf.reduce_mean(inputs, axis=-1, keepdims=True)
        variance = tf.reduce_mean(centred * centred, axis=-1, keepdims=True)
        result = centred * tf.math.rsqrt(variance + layer.epsilon)
        if layer.scale:
            result = result * layer.gamma
        return result + layer.beta if layer.center else result

    return call


def onnx_layer_normalization(placeholders: Placeholders) -> Lowering:
    """A lowering of LayerNormalization over the last axis to ONNX's node, which opset 17 added."""

    def lowering(layer: Any) -> Callable[..., Any] | None:
        if not _is_layer_normalization(layer):
            return None
        original = layer.call
        # A variable has no value while a function is traced: read it before.
        gamma = as_float32(layer.gamma) if layer.scale else None
        beta = as_float32(layer.beta) if layer.center else None

        def call(inputs: Any) -> Any:
            if not _is_over_last_axis(layer, inputs):
                return original(inputs)
            size = inputs.shape[-1]
            scale = np.ones(size, np.float32) if gamma is None else gamma
            shift = np.zeros(size, np.float32) if beta is None else beta

            def author(graph: NodeWriter, names: list[str]) -> list[str]:
                operands = (names[0], graph.const(scale), graph.const(shift))
                epsilon = float(layer.epsilon)
                return [graph.node("LayerNormalization", *operands, axis=-1, epsilon=epsilon)]

            (result,) = placeholders.put(author, [inputs], [tuple(inputs.shape)])
            return result

        return call

    return lowering


def _is_layer_normalization(layer: Any) -> bool:
    return (
        is_keras_class(layer, "LayerNormalization")
        and _is_plain(layer)
        and bool(layer.built)
        and not getattr(layer, "rms_scaling", False)
    )


def _is_over_last_axis(layer: Any, inputs: Any) -> bool:
    """Whether the layer normalizes float32 inputs over their last axis."""
    axis = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    return axis in ([-1], [len(inputs.shape) - 1]) and inputs.dtype == "float32"


def _is_plain(layer: Any) -> bool:
    """Whether the layer computes in float32, without quantized weights or a LoRA adapter."""
    return (
        layer.compute_dtype == "float32"
        and not getattr(layer, "quantization_mode", None)
        and not getattr(layer, "lora_enabled", False)
    )


def lower_signature(layer: Any) -> Callable[..., Any] | None:
    """A lowering of the layer that calls the signature of a SavedModel, whose loops get the shapes
    of the model: see :mod:`edgeattn_converters.loading.signatures.signature`."""
    function = layer.signature_function if is_signature(layer) else None
    return None if function is None else lambda inputs: replay(function, inputs)
