"""Weights of single layers in a precision of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from weighty_models import Workshop

from edgeattn.errors import UsageError
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.layer_weights import (
    LayerWeights,
    layer_weights,
    owns,
    precisions,
)

# The layers that each has its large weights in, by hand.
LAYERS = {
    "lstm": ["steps", "look"],
    "text": ["words", "both_ways", "steps", "look"],
    "convolutional": ["first", "second", "steps"],
    "transformer": ["heads", "wide", "narrow", "answer"],
}


def _weights(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_what_converters_do_to_a_weight() -> None:
    kernel = _weights(1, 3, 23, 31)
    layer, other = LayerWeights("a", (kernel,)), LayerWeights("b", (_weights(2, 3, 23, 31),))
    transposed = kernel.transpose(2, 0, 1)[:, None]
    folded = transposed * _weights(3, 31)[:, None, None, None]  # of a normalisation behind it
    before = transposed * _weights(3, 23)  # of one before it
    scaled = kernel * np.float32(0.17)
    for made in (kernel, transposed, kernel[..., :17], scaled, folded, before):
        assert owns(layer, made)
        assert not owns(other, made)
    assert not owns(layer, np.zeros_like(kernel))


def test_a_name_that_is_no_layer() -> None:
    layers = (LayerWeights("lstm", (_weights(1, 40, 40),)),)
    with pytest.raises(UsageError, match=r"No layer 'lstn' .* there is lstm"):
        precisions([("lstn", "float32")], layers, "int8")
    with pytest.raises(UsageError, match="Layer 'lstm' has an unknown precision: 'int7'"):
        QuantizationOptions(precision=(("lstm", "int7"),))


def test_options_travel_as_json() -> None:
    options = QuantizationOptions(precision=(("b", "float32"), ("a", "int8")))
    assert (
        QuantizationOptions(**{**options.to_json(), "precision": [["b", "float32"], ["a", "int8"]]})
        == options
    )


def _counted(workshop: Workshop, format: str, scheme: str, **precision: str) -> Any:
    return workshop.make(format, scheme, precision=tuple(precision.items())).achieved["weights"]


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_one_layer_in_another_precision(workshop: Workshop, format: str) -> None:
    layers = layer_weights(workshop.model)
    assert [layer.name for layer in layers] == LAYERS[workshop.name]
    usual = _counted(workshop, format, "dynamic_int8")
    for layer, how in zip((layers[0], layers[-1]), ("float32", "float16"), strict=True):
        stored = _counted(workshop, format, "dynamic_int8", **{layer.name: how})
        # Recurrent weights are one constant; ONNX keeps scales beside what it makes int8.
        assert stored[how] - usual.get(how, 0) == pytest.approx(layer.size, abs=700)
        assert usual["int8"] - stored["int8"] > 0.9 * layer.size
    stored = _counted(workshop, format, "float16", **{layers[0].name: "int8_weights"})
    assert stored["int8"] == layers[0].size


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_every_layer_in_float32_is_float32(workshop: Workshop, format: str) -> None:
    every = tuple((name, "float32") for name in LAYERS[workshop.name])
    made = workshop.make(format, "dynamic_int8", precision=every)
    assert not made.achieved["weights"].get("int8")
    for name, want in workshop.make(format, "float32").actual.items():
        np.testing.assert_allclose(made.actual[name], want, atol=1e-6)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_layer_out_of_the_integers(tmp_path: Path, format: str) -> None:
    workshop = Workshop("transformer", tmp_path)
    plain = {"attention_precision": "int8"}
    before = workshop.make(format, "int8", **plain).achieved
    other = (("wide", "float32"), ("narrow", "float32"))
    made = workshop.make(format, "int8", **plain, precision=other)
    heavy = "FULLY_CONNECTED" if format == "tflite" else "MatMul"

    def integers(achieved: Any) -> int:
        return int(achieved["computes_in"]["int8"].get(heavy, 0))

    assert integers(made.achieved) == integers(before) - 2
