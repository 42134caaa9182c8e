"""Single layers with a precision of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from long_parameters import only
from quantized_models import MODELS, Conversions, ConversionsOf

from edgeattn.errors import UsageError
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.layer_weights import LayerWeights, layer_weights, owns
from edgeattn_converters.quantization.weight_precision import layer_precision

# The layers with large weights of each model.
LAYERS = {
    "lstm": ["steps", "look"],
    "text": ["words", "both_ways", "steps", "look"],
    "convolutional": ["first", "second", "steps"],
    "transformer": ["heads", "wide", "narrow", "answer"],
}


def _weights(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_converted_weights_are_recognized() -> None:
    kernel = _weights(1, 3, 23, 31)
    layer, other = LayerWeights("a", (kernel,)), LayerWeights("b", (_weights(2, 3, 23, 31),))
    transposed = kernel.transpose(2, 0, 1)[:, None]
    folded = (
        transposed * _weights(3, 31)[:, None, None, None]
    )  # scaled by a normalisation after the layer
    before = transposed * _weights(3, 23)  # scaled by one before it
    scaled = kernel * np.float32(0.17)
    for value in (kernel, transposed, kernel[..., :17], scaled, folded, before):
        assert owns(layer, value)
        assert not owns(other, value)
    assert not owns(layer, np.zeros_like(kernel))


def test_unknown_layer_or_precision_is_rejected() -> None:
    layers = (LayerWeights("lstm", (_weights(1, 40, 40),)),)
    with pytest.raises(UsageError, match="The model has no layer 'lstn'"):
        layer_precision([("lstn", "float32")], layers, "int8")
    with pytest.raises(UsageError, match="Layer 'lstm' has an unknown precision: 'int7'"):
        QuantizationOptions(precision=(("lstm", "int7"),))


def test_options_survive_json() -> None:
    options = QuantizationOptions(precision=(("b", "float32"), ("a", "int8")))
    assert (
        QuantizationOptions(**{**options.to_json(), "precision": [["b", "float32"], ["a", "int8"]]})
        == options
    )


def _weights_by_dtype(conversions: Conversions, format: str, scheme: str, **precision: str) -> Any:
    return conversions.make(format, scheme, precision=tuple(precision.items())).achieved["weights"]


@pytest.mark.parametrize("conversions", only(sorted(MODELS), "lstm"), indirect=True)
@pytest.mark.parametrize("format", only(["tflite", "onnx"], "onnx"))
def test_one_layer_with_another_precision(conversions: Conversions, format: str) -> None:
    layers = layer_weights(conversions.model)
    assert [layer.name for layer in layers] == LAYERS[conversions.name]
    usual = _weights_by_dtype(conversions, format, "dynamic_int8")
    for layer, how in zip((layers[0], layers[-1]), ("float32", "float16"), strict=True):
        stored = _weights_by_dtype(conversions, format, "dynamic_int8", **{layer.name: how})
        # Recurrent weights are one constant; ONNX stores scales beside int8 weights.
        assert stored[how] - usual.get(how, 0) == pytest.approx(layer.size, abs=700)
        assert usual["int8"] - stored["int8"] > 0.9 * layer.size
    stored = _weights_by_dtype(conversions, format, "float16", **{layers[0].name: "int8_weights"})
    assert stored["int8"] == layers[0].size


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_all_layers_in_float32_match_float32(conversions: Conversions, format: str) -> None:
    every = tuple((name, "float32") for name in LAYERS[conversions.name])
    converted = conversions.make(format, "dynamic_int8", precision=every)
    assert not converted.achieved["weights"].get("int8")
    for name, want in conversions.make(format, "float32").actual.items():
        np.testing.assert_allclose(converted.actual[name], want, atol=1e-6)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_float32_layer_in_an_int8_file(conversions_of: ConversionsOf, format: str) -> None:
    conversions = conversions_of("transformer")
    plain = {"attention_precision": "int8"}
    before = conversions.make(format, "int8", **plain).achieved
    other = (("wide", "float32"), ("narrow", "float32"))
    converted = conversions.make(format, "int8", **plain, precision=other)
    heavy = "FULLY_CONNECTED" if format == "tflite" else "MatMul"

    def integers(achieved: Any) -> int:
        return int(achieved["computes_in"]["int8"].get(heavy, 0))

    assert integers(converted.achieved) == integers(before) - 2
