"""Models of every kind with weights large enough to be quantized, their data and conversions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from edgeattn.layers import Attention
from edgeattn.runners import open_runner
from edgeattn.tensors import Tensors
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.formats.tflite_float import float_file
from edgeattn_converters.options import ConversionOptions, QuantizationOptions
from edgeattn_converters.quantization.layer_weights import layer_weights, recurrent_layers
from edgeattn_converters.quantization.quantized_model import ModelIO
from edgeattn_converters.quantization.tflite import LiteRTQuantizer
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import Interface, interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
SCHEMES = ("float32", "float16", "dynamic_int8", "int8", "int16x8")
VOCABULARY = 211
ROWS, CALIBRATION_ROWS = 23, 64


def lstm() -> Any:
    inputs = keras.Input((19, 5), name="sensor")
    states = layers.LSTM(37, return_sequences=True, name="steps")(inputs)
    vector = Attention(31, name="look")(states)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="answer")(vector))


def text() -> Any:
    """An embedding, a mask, both kinds of GRU and both directions."""
    inputs = keras.Input((11,), name="tokens", dtype="int32")
    states = layers.Embedding(VOCABULARY, 17, mask_zero=True, name="words")(inputs)
    both = layers.Bidirectional(layers.GRU(37, return_sequences=True), name="both_ways")
    states = layers.GRU(41, return_sequences=True, reset_after=False, name="steps")(both(states))
    vector = Attention(37, score="bahdanau", name="look")(states)
    return keras.Model(inputs, layers.Dense(2, name="answer")(vector))


def convolutional() -> Any:
    inputs = keras.Input((23, 7), name="signal")
    x = layers.Conv1D(41, 5, padding="same", activation="relu", name="first")(inputs)
    x = layers.MaxPooling1D(2)(layers.BatchNormalization()(x))
    x = layers.Conv1D(31, 3, padding="causal", dilation_rate=2, name="second")(x)
    x = layers.SimpleRNN(37, name="steps")(layers.Activation("tanh")(x))
    return keras.Model(inputs, layers.Dense(3, name="answer")(x))


def transformer() -> Any:
    inputs = keras.Input((13, 34), name="sequence")
    x = layers.MultiHeadAttention(2, 17, name="heads")(inputs, inputs)
    x = layers.LayerNormalization()(layers.Add()([inputs, x]))
    wide = layers.Dense(61, activation="gelu", name="wide")
    x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(34, name="narrow")(wide(x))]))
    x = layers.Attention(name="dot")([x, x])
    return keras.Model(inputs, layers.Dense(2, name="answer")(layers.Flatten()(x)))


MODELS: dict[str, Callable[[], Any]] = {
    build.__name__: build for build in (lstm, text, convolutional, transformer)
}


def filled(model: Any) -> Any:
    """Give the model seeded weights of the magnitude of trained ones."""
    generator = np.random.default_rng(11)
    for variable in model.variables:
        if "seed" in variable.path:
            continue
        shape = variable.shape
        scale = 1 / np.sqrt(shape[0]) if len(shape) > 1 else 0.1
        value = generator.normal(0, scale, shape)
        if "variance" in variable.path or "gamma" in variable.path:
            value = np.abs(value) + 0.7
        variable.assign(value.astype("float32"))
    return model


def data(interface: Interface, rows: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    values_by_name = {}
    for spec in interface.inputs:
        shape = (rows, *(axis or 1 for axis in spec.shape[1:]))
        if spec.name == "tokens":
            values = generator.integers(1, VOCABULARY, shape)
            values[1, 4:] = values[2, 9:] = 0
        else:
            values = generator.normal(0, 1, shape)
        values_by_name[spec.name] = values.astype(spec.dtype)
    return values_by_name


@dataclass(frozen=True)
class Conversion:
    """A converted file, its specs and summary, and its outputs for the model's data."""

    path: Path
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    maps: tuple[str, ...]
    achieved: dict[str, Any]
    actual: Tensors


class Conversions:
    """The converted files of a model, each created on first use."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.model = filled(MODELS[name]())
        self.interface = interface_of(self.model)
        self.inputs = data(self.interface, ROWS, seed=5)
        self.samples = data(self.interface, CALIBRATION_ROWS, seed=6)
        self._folder = folder
        self._conversions: dict[Any, Conversion] = {}

    def make(
        self, format: str, scheme: str, *, lowering: str = "auto", **options: Any
    ) -> Conversion:
        key = (format, scheme, lowering, *sorted(options.items()))
        if key not in self._conversions:
            path = self._folder / f"{len(self._conversions)}.{scheme}.{format}"
            inputs, outputs, maps, achieved = CONVERTERS[format].convert(
                self.model,
                self.interface,
                recipe_for(scheme),
                path,
                options=ConversionOptions(lowering=lowering),
                quantization=QuantizationOptions(**options),
                samples=self.samples,
            )
            runner = open_runner(
                path, format, inputs, outputs, as_deployed=True, runtime=options.get("runtime")
            )
            actual = runner.run(self.inputs)
            self._conversions[key] = Conversion(path, inputs, outputs, maps, achieved, actual)
        return self._conversions[key]


ConversionsOf = Callable[[str], Conversions]


def integer_file(
    model: Any, samples: Tensors, path: Path, scheme: str = "int8", **options: Any
) -> Any:
    """Convert to TFLite with these options of quantization, calibrated on ``samples``."""
    return tflite.convert(
        model,
        interface_of(model),
        recipe_for(scheme),
        path,
        quantization=QuantizationOptions(**options),
        samples=samples,
    )


def calibrated_quantizer(
    model: Any, interface: Any, samples: Tensors, lowering: str
) -> LiteRTQuantizer:
    """The int8 quantizer of a TFLite file, calibrated on all samples."""
    traced, content = float_file(model, interface, True, lowering, 1)
    io = ModelIO(
        traced.inputs,
        traced.outputs,
        traced.attention,
        recurrent=recurrent_layers(model),
        layers=layer_weights(model),
    )
    quantizer = LiteRTQuantizer(content, io, recipe_for("int8"), QuantizationOptions())
    quantizer.calibrate(samples)
    return quantizer


def tflite_of(
    function: Callable[..., Any], *shapes: tuple[int, ...], dtype: str = "float32"
) -> bytes:
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, dtype) for shape in shapes]
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())
