"""Errors for operations that a format lacks name the layers that need them."""

from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from edgeattn.errors import ConversionError
from edgeattn_converters import ModelSource, nothing_converted
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}


class Digamma(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return tf.math.digamma(x)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


class Cell(keras.layers.Layer):
    state_size = 4

    def call(self, x: Any, states: Any) -> Any:
        return tf.math.digamma(x) + states[0], states


def nested() -> Any:
    """A model with operations in layers, in a nested model, and in the loop of a layer."""
    x = keras.Input((3, 4))
    y = Digamma(name="first")(x)
    y = keras.layers.TimeDistributed(Digamma(), name="steps")(y)
    y = keras.layers.Lambda(lambda x: tf.math.ndtri(x), name="other")(y)
    y = keras.Sequential([keras.Input((3, 4)), Digamma(name="inner")], name="nested_model")(y)
    y = keras.layers.RNN(Cell(name="cell"), return_sequences=True, name="recurrent")(y)
    return keras.Model(x, keras.layers.Dense(2)(y))


@pytest.mark.parametrize(
    ("format", "scheme"),
    # The quantizer of onnxruntime opens the file first, and its error has no layers.
    [
        ("tflite", "float32"),
        pytest.param("onnx", "float32", marks=pytest.mark.long),
        ("onnx", "dynamic_int8"),
    ],
)
def test_errors_name_layers(format: str, scheme: str, tmp_path: Path) -> None:
    model = nested()
    with pytest.raises(ConversionError, match="has no operator for") as caught:
        CONVERTERS[format].convert(
            model, interface_of(model), recipe_for(scheme), tmp_path / "model"
        )
    layers = "'first', 'steps', 'inner', 'cell'"
    assert f"for Digamma (layers {layers}), Ndtri (layer 'other')." in str(caught.value)
    assert caught.value.hint == "Express Digamma and Ndtri with other operations."


def decoded(labels: int = 4) -> tuple[Any, Any, Any]:
    x, lengths = keras.Input((9, 3)), keras.Input((), dtype="int32")
    scores = keras.layers.Dense(labels, name="scores")(x)
    text, total = keras.ops.ctc_decode(scores, lengths, strategy="beam_search")
    return [x, lengths], text[0], total


@pytest.mark.parametrize("format", CONVERTERS)
def test_an_operation_at_the_end_is_named(format: str, tmp_path: Path) -> None:
    inputs, text, total = decoded()
    model = keras.Model(inputs, [text, total])
    with pytest.raises(ConversionError) as caught:
        CONVERTERS[format].convert(
            model, interface_of(model), recipe_for("float32"), tmp_path / "model"
        )
    name = next(item.name for item in model.operations if item.name.startswith("ctc_decode"))
    kind = f"CTCBeamSearchDecoder (operation {name!r})"
    assert f"has no operator for {kind}." in caught.value.message
    assert caught.value.hint == (
        f"Convert the model that ends before the operation {name!r}, and compute the rest from "
        "its outputs. Or express CTCBeamSearchDecoder with other operations."
    )


def of_layers_behind() -> Any:
    inputs, text, total = decoded()
    return keras.Model(inputs, [text, keras.layers.Dense(2)(total)])


def without_layers_before() -> Any:
    x = keras.Input((3, 4))
    return keras.Model(x, Digamma(name="first")(x))


@pytest.mark.parametrize("model_of", [of_layers_behind, without_layers_before])
def test_an_operation_that_is_not_the_end_of_other_layers(model_of: Any, tmp_path: Path) -> None:
    model = model_of()
    with pytest.raises(ConversionError) as caught:
        tflite.convert(model, interface_of(model), recipe_for("float32"), tmp_path / "model")
    assert str(caught.value.hint).startswith("Express ")


def test_the_last_layers(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((3, 4)), keras.layers.Dense(2), Digamma(name="last"), keras.layers.ReLU()]
    )
    with pytest.raises(ConversionError) as caught:
        tflite.convert(model, interface_of(model), recipe_for("float32"), tmp_path / "model")
    assert str(caught.value.hint).startswith("Convert the model that ends before the layer 'last',")


REASONS = {"onnx float32": "ONNX has no operator for Svd (layer 'svd')."}


@pytest.mark.parametrize(
    ("reasons", "options", "hint"),
    [
        (REASONS, {}, "Show whether it converts to tflite: edgeattn inspect m.keras"),
        (REASONS, {"time_steps": 5}, "List the contents of the model: edgeattn inspect m.keras"),
        (
            {**REASONS, "tflite int8, chunked": "TFLite has no operator for Svd (layer 'svd')."},
            {"custom_objects": "my layers.py"},
            "List the contents of the model: edgeattn inspect m.keras "
            "--custom-objects 'my layers.py'",
        ),
    ],
)
def test_hint_is_a_command_that_loads_the_model(
    reasons: dict[str, str], options: dict[str, Any], hint: str
) -> None:
    """inspect attempts the other format too, if all axes are fixed."""
    error = nothing_converted(ModelSource("m.keras", **options), reasons)
    assert error.message == (
        "m.keras could not be converted to any format:\n"
        + "\n".join(f"  {label}: {reason}" for label, reason in reasons.items())
    )
    assert error.hint == hint
