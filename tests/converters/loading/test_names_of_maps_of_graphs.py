"""The names of attention maps in graphs, of which only the scopes of the operations are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from edgeattn.errors import UsageError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.graphs.scopes import inner_scope, map_name, model_scope
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.signatures.signature import load_signature
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import Interface, interface_of

STEPS, FEATURES = 6, 4
X = np.random.default_rng(5).normal(0, 1, (1, STEPS, FEATURES)).astype("float32")


def names(interface: Interface) -> list[str]:
    return [spec.name for spec in interface.attention]


def maps_of_files(model: Any, interface: Interface, folder: Path) -> list[Mapping[str, Any]]:
    results = []
    for converter, format in ((tflite, "tflite"), (onnx, "onnx")):
        path = folder / f"m.{format}"
        file = converter.convert(model, interface, recipe_for("float32"), path)
        runner = open_runner(path, format, file.inputs, file.outputs)
        results.append(runner.run({spec.name: X for spec in interface.inputs}))
    return results


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def attend(x: Any) -> tuple[Any, Any]:
    """The result and weights of self-attention without weights of its own."""
    weights = tf.nn.softmax(tf.matmul(x, x, transpose_b=True))
    return tf.matmul(weights, x), weights


def scoped(x: Any) -> Any:
    with tf.name_scope("encoder"):
        for name in ("first", "second"):
            with tf.name_scope(name):
                x, _ = attend(x)
    x, _ = attend(x)
    with tf.name_scope("head"):
        return {"y": tf.nn.softmax(tf.reduce_mean(x, 1))}


def other(x: Any) -> Any:
    """Two softmaxes without a scope."""
    x, _ = attend(x)
    return {"z": tf.nn.softmax(tf.reduce_mean(x, 1))}


def looping(x: Any) -> Any:
    """Attention in the steps of a loop that returns its weights, and in one that does not."""
    results, maps = (tf.TensorArray(tf.float32, STEPS) for _ in range(2))

    def step(k: Any, results: Any, maps: Any) -> Any:
        with tf.name_scope("decoder/attention"):
            weights = tf.nn.softmax(tf.einsum("bd,bkd->bk", x[:, k], x))
            result = tf.einsum("bk,bkd->bd", weights, x)
        return k + 1, results.write(k, result), maps.write(k, weights)

    def repeat(k: Any, value: Any) -> Any:
        with tf.name_scope("hidden"):
            return k + 1, attend(value)[0]

    _, results, maps = tf.while_loop(lambda k, *_: k < STEPS, step, (0, results, maps))
    _, last = tf.while_loop(lambda k, _: k < 3, repeat, (0, x))
    stacked = [tf.transpose(item.stack(), [1, 0, 2]) for item in (results, maps)]
    return {"y": stacked[0] + last, "w": stacked[1]}


def saved(folder: Path, batch: int | None = None, **functions: Callable[[Any], Any]) -> Path:
    specs = [tf.TensorSpec((batch, STEPS, FEATURES), tf.float32, name="x")]
    signatures = {
        name: tf.function(function, input_signature=specs, autograph=False)
        for name, function in functions.items()
    }
    tf.saved_model.save(tf.Module(), folder, signatures=signatures)
    return folder


def test_names_are_scopes(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", a=scoped, b=other)
    model = load_model(audit_file(folder, signature="a")).model
    interface = interface_of(model)
    assert names(interface) == [
        *("attention/encoder/first", "attention/encoder/second", "attention/signature"),
    ]
    expected, x = {}, X
    for name in names(interface):
        expected[name] = softmax(x @ x.transpose(0, 2, 1))
        x = expected[name] @ x
    for actual in maps_of_files(model, interface, tmp_path):
        assert actual.keys() == {"y", *expected}
        for name, value in expected.items():
            np.testing.assert_allclose(actual[name], value, atol=1e-5)


def test_a_name_selects_one_softmax(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", a=scoped, b=other)
    model = load_model(audit_file(folder, signature="a")).model
    detected = names(interface_of(model))
    interface = interface_of(model, attention=["head"])
    assert names(interface) == [*detected, "attention/head"]
    for actual in maps_of_files(model, interface, tmp_path):
        np.testing.assert_allclose(actual["attention/head"], actual["y"], atol=1e-6)
    assert names(interface_of(model, attention=["signature"])) == detected
    with pytest.raises(UsageError, match=r"no layer with this name\. Did you mean head") as caught:
        interface_of(model, attention=["heads"])
    assert caught.value.hint == (
        "Choose a layer with a softmax: encoder/first, encoder/second, signature, head."
    )
    second = load_model(audit_file(folder, signature="b")).model
    assert names(interface_of(second)) == ["attention/signature"]
    both = interface_of(second, attention=["signature_1"])
    assert names(both) == ["attention/signature", "attention/signature_1"]


@pytest.mark.long
def test_names_of_maps_in_loops(tmp_path: Path) -> None:
    model, _ = load_signature(saved(tmp_path / "m", a=looping), None, allow_free_time=False)
    interface = interface_of(model)
    assert names(interface) == ["attention/decoder/attention"]
    assert [(item.layer, item.reason) for item in interface.doubtful] == [
        ("hidden", "it is computed inside a loop")
    ]
    for actual in maps_of_files(model, interface, tmp_path):
        expected = softmax(X @ X.transpose(0, 2, 1))
        np.testing.assert_allclose(actual["attention/decoder/attention"], expected, atol=1e-5)


def test_names_in_a_graph_of_several_samples(tmp_path: Path) -> None:
    def fixed(x: Any) -> Any:
        return scoped(tf.reshape(x, (2, STEPS, FEATURES)))

    model, _ = load_signature(saved(tmp_path / "m", 2, a=fixed), None, allow_free_time=False)
    assert names(interface_of(model)) == [
        *("attention/encoder/first", "attention/encoder/second", "attention/signature"),
    ]


def test_layers_of_tf_keras_name_the_maps(tmp_path: Path) -> None:
    import tf_keras

    class Gat(tf_keras.layers.Layer):  # type: ignore[misc,name-defined]
        """Attention over the neighbours, as GATConv of spektral."""

        def call(self, x: Any) -> Any:
            return attend(x)[0]

    class MinCut(tf_keras.layers.Layer):  # type: ignore[misc,name-defined]
        """A soft assignment of nodes to clusters, as MinCutPool of spektral."""

        def __init__(self) -> None:
            super().__init__()
            self.dense = tf_keras.layers.Dense(3)

        def call(self, x: Any) -> Any:
            return tf.matmul(tf.nn.softmax(self.dense(x)), x, transpose_a=True)

    inputs = tf_keras.Input((STEPS, FEATURES), name="x")
    flat = tf_keras.layers.Flatten()(MinCut()(Gat()(inputs)))
    result = tf_keras.layers.Dense(3, activation="softmax", name="answer")(flat)
    tf_keras.Model(inputs, result).save(tmp_path / "m", save_format="tf")
    model, _ = load_signature(tmp_path / "m", None, allow_free_time=False)
    interface = interface_of(model)
    assert names(interface) == ["attention/gat"]
    [doubtful] = interface.doubtful
    assert (doubtful.layer, doubtful.exportable) == ("min_cut", True)
    chosen = interface_of(model, attention=["min_cut"])
    assert {spec.name: spec.shape[1:] for spec in chosen.attention} == {
        "attention/gat": (STEPS, STEPS),
        "attention/min_cut": (STEPS, 3),
    }
    assert not chosen.doubtful


def test_layers_of_keras_3_name_the_maps(tmp_path: Path) -> None:
    class Block(layers.Layer):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.look = layers.MultiHeadAttention(2, 3, name="look")

        def call(self, x: Any) -> Any:
            return self.look(x, x)

    keras.utils.set_random_seed(3)
    inputs = keras.Input((STEPS, FEATURES), name="x")
    blocks = [Block(name=name) for name in ("lower", "upper")]
    outputs = blocks[1](blocks[0](inputs))
    original = keras.Model(inputs, layers.Dense(2, "softmax", name="answer")(outputs))
    original.export(tmp_path / "m", verbose=False)
    model, _ = load_signature(tmp_path / "m", None, allow_free_time=False)
    interface = interface_of(model)
    # TensorFlow may add numbers to the names of the layers.
    for name, layer in zip(names(interface), ("lower", "upper"), strict=True):
        outer, inner = name.removeprefix("attention/").split("/")
        assert outer.startswith(layer)
        assert inner.startswith("look")
    x, expected = X, []
    for block in blocks:
        x, scores = block.look(x, x, return_attention_scores=True)
        expected.append(np.asarray(scores))
    for actual in maps_of_files(model, interface, tmp_path):
        for name, value in zip(names(interface), expected, strict=True):
            np.testing.assert_allclose(actual[name], value, atol=1e-5)


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("model/gat/Softmax", "gat"),
        ("StatefulPartitionedCall/model/gat/Softmax", "gat"),
        ("PartitionedCall_1/model/encoder/layer_0/attention/Softmax", "encoder/layer_0/attention"),
        ("model/look/softmax_1/Softmax", "look"),
        ("model/softmax/Softmax", "softmax"),
        ("model/Softmax", "model"),
        ("model/decoder/while/attend/Softmax", "decoder/attend"),
        ("other/gat/Softmax", "other/gat"),
        ("Softmax", ""),
        ("StatefulPartitionedCall/Softmax_2", ""),
        ("model/a>b\\c/Softmax", "a_b_c"),
        (f"model/{'x' * 50}/{'y' * 50}/Softmax", "y" * 50),
        (f"model/{'x' * 90}/Softmax", "x" * 60),
    ],
)
def test_the_name_of_a_scope(operation: str, name: str) -> None:
    assert map_name(inner_scope(operation, ""), "model") == name


def test_operations_of_functions_are_in_the_scope_of_the_call() -> None:
    assert inner_scope("outer/while/attend/Softmax", "outer") == "outer/attend"
    assert inner_scope("attend/Softmax", "outer/inner") == "outer/inner/attend"
    assert inner_scope("Softmax", "outer") == "outer"


@pytest.mark.parametrize(("second", "scope"), [("model/b", "model"), ("b", "")])
def test_the_scope_of_all_operations_is_the_model(second: str, scope: str) -> None:
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [1], name="x")
        with tf.name_scope("model/a"):
            x = tf.exp(x)
        with tf.name_scope(f"{second}/"):
            x = tf.exp(x)
        tf.exp(x)
    assert model_scope(graph) == scope
