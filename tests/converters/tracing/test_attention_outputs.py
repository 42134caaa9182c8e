"""Attention maps of layers and of softmaxes that are detected in the graph, in both formats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from long_parameters import only

import attentive
import models
from attentive import DETECTED, KERAS, OTHERS, T
from edgeattn.errors import ConversionError, UsageError
from edgeattn.runners import open_runner
from edgeattn.tensors import Array
from edgeattn_converters import convert
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.formats.unchanged_outputs import compare_without_maps
from edgeattn_converters.options import ConversionOptions
from edgeattn_converters.quantization.quantized_model import ModelIO
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.attention_outputs import unique
from edgeattn_converters.tracing.trace import Interface, interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
ROWS = 7


@pytest.fixture(autouse=True)
def restart_numbering() -> None:
    """Keras numbers unnamed operations across models."""
    keras.backend.clear_session()


def samples() -> dict[str, Array]:
    return {"sensor": np.random.default_rng(3).normal(0, 2, (ROWS, T, 3)).astype("float32")}


def map_shapes(interface: Interface) -> dict[str, tuple[Any, ...]]:
    return {spec.name: spec.shape[1:] for spec in interface.attention}


def softmax(scores: Array, axis: int = -1) -> Array:
    exponentials = np.exp(scores - scores.max(axis, keepdims=True))
    return exponentials / exponentials.sum(axis, keepdims=True)


def expected_weights(kind: str, model: Any, x: Array) -> Array:
    """The weights, from the Keras layer that computes them or by hand from the states."""
    by_name = {operation.name: operation for operation in model.operations}
    states = keras.Model(model.inputs, by_name["memory"].output).predict(x, verbose=0)
    if kind == "own_heads":
        split = np.stack([states, -states, 2 * states], 1)  # (rows, heads, steps, features)
        return softmax(split @ split.transpose(0, 1, 3, 2))
    if kind in ("own_pooling", "own_exponential"):
        kernel = np.asarray(by_name["own"].kernel).reshape(-1)
        return softmax(np.tanh(states @ kernel))
    operation = next(
        by_name[n] for n in ("vec", "weights", "attention_weight", "softmax") if n in by_name
    )
    weights = keras.Model(model.inputs, operation.output).predict(x, verbose=0)
    return weights.mean(1) if kind == "averaged" else weights


@pytest.mark.parametrize("kind", only(DETECTED, "scored"))
def test_detected_maps_in_both_formats(kind: str, tmp_path: Path) -> None:
    build, expected = DETECTED[kind]
    model = models.filled(build())
    interface = interface_of(model)
    assert map_shapes(interface) == expected
    assert interface.doubtful == ()
    x = samples()
    (name,) = expected
    weights = expected_weights(kind, model, x["sensor"]).reshape(ROWS, *expected[name])
    for format, converter in CONVERTERS.items():
        path = tmp_path / f"model.{format}"
        inputs, outputs, attention, _ = converter.convert(
            model, interface, recipe_for("float32"), path
        )
        assert attention == (name,)
        actual = open_runner(path, format, inputs, outputs, as_deployed=True).run(x)
        np.testing.assert_allclose(actual[name], weights, atol=1e-5, err_msg=format)
        np.testing.assert_allclose(
            actual["answer"], model.predict(x["sensor"], verbose=0), atol=1e-5, err_msg=format
        )


@pytest.mark.parametrize("kind", only(KERAS, "heads"))
def test_keras_attention_layers(kind: str) -> None:
    build, shape = KERAS[kind]
    model = models.filled(build())
    interface = interface_of(model)
    assert map_shapes(interface) == {"attention/look": shape}


@pytest.mark.parametrize("kind", only(OTHERS, "classifier"))
def test_other_softmaxes_are_not_exported(kind: str) -> None:
    build, doubtful = OTHERS[kind]
    interface = interface_of(models.filled(build()))
    assert interface.attention == ()
    assert tuple(item.layer for item in interface.doubtful) == doubtful
    assert all(item.reason for item in interface.doubtful)


def test_doubtful_layers_are_exported_if_named() -> None:
    model = models.filled(attentive.experts())
    assert map_shapes(interface_of(model, attention=("gate",))) == {"attention/gate": (3,)}
    # Even a classifier's softmax, if it is named.
    assert map_shapes(interface_of(model, attention=("answer",))) == {"attention/answer": (2,)}


def test_unknown_names_list_the_layers_with_a_softmax() -> None:
    model = models.filled(attentive.scored())
    with pytest.raises(UsageError, match="Did you mean weights") as unknown:
        interface_of(model, attention=("weigths",))
    assert "weights" in str(unknown.value.hint)
    with pytest.raises(UsageError, match="no map to export"):
        interface_of(model, attention=("memory",))
    with pytest.raises(UsageError, match="no map to export"):
        interface_of(models.filled(attentive.custom(attentive.Folded)), attention=("own",))


def test_the_softmax_of_a_cell_is_an_activation() -> None:
    inputs = keras.Input((5, 3), name="x")
    states = keras.layers.SimpleRNN(4, activation="softmax", unroll=True)(inputs)
    images = keras.Input((3, 6, 4, 2), name="images")
    convolved = keras.layers.ConvLSTM2D(3, 3, activation="softmax")(images)
    interface = interface_of(keras.Model([inputs, images], [states, convolved]))
    assert interface.attention == ()
    assert interface.doubtful == ()


def test_a_map_that_changes_other_outputs_is_rejected(tmp_path: Path) -> None:
    """The file without its map is of another model."""
    model, other = models.filled(attentive.scored()), models.filled(attentive.scored(), scale=0.4)
    interface = interface_of(model)
    path = tmp_path / "model.onnx"
    inputs, outputs, maps, _ = onnx.convert(model, interface, recipe_for("float32"), path)
    model_io = ModelIO(inputs, outputs, maps)

    def convert_without(source: Any) -> Any:
        return lambda target: onnx.convert(
            source,
            interface_of(source),
            recipe_for("float32"),
            target,
            options=ConversionOptions(attention=False),
        )

    for converter in (convert_without(model), None):
        assert compare_without_maps(path, "onnx", "float32", model_io, samples(), converter) < 1e-5
    with pytest.raises(ConversionError, match="Exporting attention maps changes output"):
        compare_without_maps(path, "onnx", "float32", model_io, samples(), convert_without(other))


def test_a_map_that_makes_zeros_nan_is_rejected(tmp_path: Path) -> None:
    """NaN counted as zero in the comparison of both files."""
    model = models.filled(attentive.scored())
    y = model.outputs[0] - 0.5
    path = tmp_path / "model.onnx"
    results = {"roots": keras.ops.square(keras.ops.sqrt(y)), "limited": keras.ops.relu(y)}
    named = {name: keras.layers.Identity(name="y")(x) for name, x in results.items()}
    roots, limited = (keras.Model(model.inputs, named[name]) for name in ("roots", "limited"))
    inputs, outputs, maps, _ = onnx.convert(roots, interface_of(roots), recipe_for("float32"), path)

    def without(source: Any) -> Any:
        options = ConversionOptions(attention=False)
        arguments = (source, interface_of(source), recipe_for("float32"))
        return lambda target: onnx.convert(*arguments, target, options=options)

    arguments = (path, "onnx", "float32", ModelIO(inputs, outputs, maps), samples())
    assert compare_without_maps(*arguments, without(roots)) < 1e-5
    with pytest.raises(ConversionError, match="makes values of output 'y' NaN"):
        compare_without_maps(*arguments, without(limited))


@pytest.mark.long
def test_convert_exports_a_named_layer(tmp_path: Path) -> None:
    """Its map is in the reference and in the artifacts; if it is not named, only in the notes."""
    model = models.filled(attentive.experts())
    path = tmp_path / "experts.keras"
    model.save(path)
    options = ConversionOptions(formats=("onnx",), schemes=("float32",))
    conversion = convert(path, options=replace(options, attention_layers=("gate",)))
    assert conversion.exit_code == 0
    reference = conversion.bundle.reference()
    operation = next(item for item in model.operations if item.name == "gate")
    gate = keras.Model(model.inputs, operation.output).predict(reference["input/sensor"], verbose=0)
    np.testing.assert_allclose(reference["attention/gate"], gate, atol=1e-6)
    for artifact in conversion.bundle.manifest.artifacts:
        assert artifact.attention == ("attention/gate",)
        assert artifact.achieved["difference_by_maps"] <= 1e-5
    for attention in (True, False):
        plain = convert(
            path,
            tmp_path / "plain.edge",
            options=replace(options, attention=attention),
            force=True,
        )
        assert [item.attention for item in plain.bundle.manifest.artifacts] == [()]
        assert not [name for name in plain.bundle.reference() if name.startswith("attention/")]
        notes = " ".join(plain.bundle.manifest.model["notes"])
        assert ("pass --attention gate" in notes) == attention
    with pytest.raises(UsageError, match="contradict"):
        convert(path, options=ConversionOptions(attention=False, attention_layers=("gate",)))


@pytest.mark.parametrize("looked_up", only([True, False], False))
def test_the_last_axis_of_words_is_a_sequence(looked_up: bool) -> None:
    """Five stacked results may be modalities, unless an input has five words in a sentence."""
    x = keras.Input((2, 5), name="x")
    vectors = layers.Embedding(9, 3)(x) if looked_up else layers.Dense(3)(ops.expand_dims(x, -1))
    states = ops.stack([layers.Dense(3)(vectors[:, 0, step]) for step in range(5)], axis=1)
    weights = layers.Softmax(axis=1, name="weights")(layers.Dense(1)(states))
    interface = interface_of(keras.Model(x, ops.sum(weights * states, axis=1)))
    maps = [spec.name for spec in interface.attention]
    assert maps == (["attention/weights"] if looked_up else [])
    assert len(interface.doubtful) == (not looked_up)


PARTS = {
    "pooled": lambda x: layers.MaxPooling1D(2)(x),
    "strides": lambda x: layers.Conv1D(4, 3, strides=2)(x),
    "joined": lambda x: ops.concatenate([layers.MaxPooling1D(3)(y) for y in (x, -x)], -1),
    "expanded": lambda x: ops.concatenate([y := ops.expand_dims(layers.MaxPooling1D(2)(x), 1), y],
                                          axis=-1)[:, 0],
}  # fmt: skip


@pytest.mark.parametrize("kind", only(PARTS, "pooled", "joined"))
@pytest.mark.parametrize("bidirectional", [True, False])
def test_steps_of_joined_features_are_a_sequence(kind: str, bidirectional: bool) -> None:
    """Convolutional layers change the number of steps; both directions join their features."""
    x = keras.Input((36, 2), name="x")
    states: Any = PARTS[kind](layers.Conv1D(8, 3, padding="same")(x))
    lstm = layers.LSTM(6, return_sequences=True)
    states = (layers.Bidirectional(lstm) if bidirectional else lstm)(states)
    weights = layers.Softmax(axis=1, name="weights")(layers.Dense(1)(states))
    interface = interface_of(keras.Model(x, ops.sum(weights * states, axis=1)))
    assert [spec.name for spec in interface.attention] == ["attention/weights"]
    assert interface.doubtful == ()


@pytest.mark.parametrize("axis", [1, -2])
def test_results_stacked_along_the_weighted_axis_may_be_no_sequence(axis: int) -> None:
    """Also if their features are joined afterwards."""
    x = keras.Input((36, 2), name="x")
    pooled = layers.GlobalAveragePooling1D()(x)
    states = ops.stack([layers.Dense(3)(pooled) for _ in range(5)], axis=axis)
    states = ops.concatenate([states, -states], axis=-1)
    weights = layers.Softmax(axis=1, name="weights")(layers.Dense(1)(states))
    interface = interface_of(keras.Model(x, ops.sum(weights * states, axis=1)))
    assert interface.attention == ()
    assert [item.layer for item in interface.doubtful] == ["weights"]


def test_numbered_names_are_those_of_no_other_layer() -> None:
    """A layer inside TimeDistributed has a map for every step, beside one of the next layer."""
    assert unique(["att", "att", "att", "att_1"]) == ["att", "att_2", "att_3", "att_1"]
    assert unique(["x", "x_1"], taken=["x"]) == ["x_2", "x_1"]
