"""SavedModel folders that contain a graph without Keras layers, or layers of unknown classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from long_parameters import only

from edgeattn.errors import UnsafeModelError, UnsupportedModelError, UsageError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference.arithmetic import rounded_function
from edgeattn_converters.reference.keras_outputs import keras_function, predict
from edgeattn_converters.reference.shifted_means import shifted_means
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 5, 3
X = np.random.default_rng(5).normal(size=(4, STEPS, FEATURES)).astype("float32")


def attention(steps: int | None) -> Any:
    inputs = keras.Input((steps, FEATURES), name="x")
    attended = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    return keras.Model(inputs, layers.Dense(2, name="y")(layers.GlobalMaxPooling1D()(attended)))


def test_exported_model_converts(tmp_path: Path) -> None:
    model = attention(STEPS)
    model.export(tmp_path / "exported", verbose=False)
    loaded = load_model(audit_file(tmp_path / "exported"))
    expected = np.asarray(model(X))
    np.testing.assert_allclose(loaded.model({"x": X})["output_0"], expected, atol=1e-5)
    assert loaded.model.count_params() == model.count_params()
    assert "does not list Keras layers" in loaded.notes[0]
    interface = interface_of(loaded.model)
    for name, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{name}"
        converter.convert(loaded.model, interface, recipe_for("float32"), path)
        outputs = open_runner(path, name, interface.inputs, interface.outputs).run({"x": X})
        np.testing.assert_allclose(outputs["output_0"], expected, atol=1e-5)


def test_class_and_version_of_a_subclassed_model(tmp_path: Path) -> None:
    """Keras 2 stores them and the layers in the folder, but not what its ``call`` does."""
    import tf_keras
    from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

    class Network(tf_keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = tf_keras.layers.Dense(2)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs) * 2

    model = Network()
    expected = model(X)
    model.save(tmp_path / "m", save_format="tf")
    require_class_and_version(tmp_path / "m", expected)
    metadata = SavedMetadata.FromString((tmp_path / "m" / "keras_metadata.pb").read_bytes())
    [root] = [node for node in metadata.nodes if node.node_path == "root"]
    # As TensorFlow 2.0 and 2.1, where get_config of such a model is not implemented.
    root.metadata = json.dumps(
        {key: value for key, value in json.loads(root.metadata).items() if key != "config"}
    )
    (tmp_path / "m" / "keras_metadata.pb").write_bytes(metadata.SerializeToString())
    require_class_and_version(tmp_path / "m", expected)


def require_class_and_version(folder: Path, expected: Any) -> None:
    import tf_keras

    file = audit_file(folder)
    assert file.keras_version == tf_keras.__version__
    loaded = load_model(file)
    assert loaded.notes[0].startswith("The folder lists the layers of a model of the class Network")
    np.testing.assert_allclose(loaded.model({"input_1": X})["output_1"], expected, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_exported_model_of_half_precision(policy: str, tmp_path: Path) -> None:
    """It is computed in float32, also in its loop, as the same model in float32."""

    def build(policy: str) -> Any:
        keras.utils.set_random_seed(1)
        x = keras.Input((STEPS, FEATURES), name="x", dtype="float32")
        cell = layers.LSTM(4, dtype=policy, recurrent_initializer="glorot_uniform")
        y = layers.Dense(2, name="y", dtype=policy)(cell(x))
        return keras.Model(x, ops.where(y > 0, y, y * 2))

    model = build(policy)
    model.export(tmp_path / "exported", verbose=False)
    single = build("float32")
    for variable, stored in zip(single.weights, model.weights, strict=True):
        variable.assign(np.asarray(stored, "float32"))
    loaded = load_model(audit_file(tmp_path / "exported"))
    assert any(f"trained in {policy.removeprefix('mixed_')} " in note for note in loaded.notes)
    assert loaded.model.count_params() == model.count_params()
    interface = interface_of(loaded.model)
    assert [spec.dtype for spec in interface.outputs] == ["float32"]
    for name, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{name}"
        converter.convert(loaded.model, interface, recipe_for("float32"), path)
        outputs = open_runner(path, name, interface.inputs, interface.outputs).run({"x": X})
        np.testing.assert_allclose(outputs["output_0"], single(X), rtol=1e-5, atol=1e-6)


def operations(x: Any) -> dict[str, Any]:
    """Operations that are converted by their attributes, and one with a state for TensorFlow."""
    real, imaginary = ops.fft((x, ops.zeros_like(x)))
    return {
        "comparison": ops.cast(x > 0.3, "float32"),
        "rounded": ops.cast(ops.cast(x * 4, "int32"), "float32"),
        "spectrum": real + imaginary,
        "product": ops.cumprod(x, axis=1),
        "matrices": ops.einsum("...ab,...cb->...ac", x, x),
        "position": ops.cast(ops.digitize(x, [-1.0, 0.0, 0.5]), "float32"),
        "positive": ops.where(ops.isfinite(ops.log(x)), x, 0.0),
        # Keras reads the sign bit, which ONNX cannot.
        "sign": ops.cast(ops.signbit(x), "float32"),
        "largest": ops.argmax(x, axis=2),
        "least": ops.argmin(x, axis=1),
        "checked": tf.debugging.check_numerics(x, "x") - 1.0,
    }


class Operations(layers.Layer):
    def call(self, x: Any) -> Any:
        return operations(x)


def test_operations_of_an_exported_graph(tmp_path: Path) -> None:
    inputs = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(inputs, Operations()(inputs))
    model.export(tmp_path / "exported", verbose=False)
    loaded = load_model(audit_file(tmp_path / "exported"))
    x = X.copy()
    x[0, 0] = [-0.0, 0.0, -0.0]
    expected, interface = model(x), interface_of(loaded.model)
    for name, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{name}"
        converter.convert(loaded.model, interface, recipe_for("float32"), path)
        outputs = open_runner(path, name, interface.inputs, interface.outputs).run({"x": x})
        for key, value in expected.items():
            np.testing.assert_allclose(outputs[key], value, rtol=1e-5, atol=1e-5, err_msg=key)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_exported_graph_of_a_quantized_model(mode: str, tmp_path: Path) -> None:
    """Its products of integers of 8 bits ended TensorFlow's converter."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((STEPS, FEATURES), name="x")
    hidden = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    hidden = layers.EinsumDense("abc,cd->abd", (STEPS, 4))(layers.Dense(5)(hidden))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(hidden)))
    model.quantize(mode)
    model.export(tmp_path / "exported", verbose=False)
    loaded = load_model(audit_file(tmp_path / "exported"))
    interface, path = interface_of(loaded.model), tmp_path / "m.tflite"
    tflite.convert(loaded.model, interface, recipe_for("float32"), path)
    runner = open_runner(path, "tflite", interface.inputs, interface.outputs)
    outputs = np.concatenate([runner.run({"x": x[None]})["output_0"] for x in X])
    np.testing.assert_allclose(outputs, model(X), rtol=1e-4, atol=1e-4)


def test_exported_graph_of_a_model_in_float8(tmp_path: Path) -> None:
    """Inputs and weights are rounded to float8, which neither format has."""
    numbers = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype("float32")
    numbers = np.sort(numbers[np.isfinite(numbers)])
    # Ties, and what is just beside them.
    ties = (numbers[1:] + numbers[:-1]) / 2
    values = [numbers, ties, *(np.nextafter(ties, np.float32(end)) for end in (-9e3, 9e3))]
    x = np.concatenate(values)[:1000].reshape(-1, 1, 20)
    inputs = keras.Input((1, 20), name="x")
    model = keras.Model(inputs, layers.Dense(20, use_bias=False)(inputs))
    model.quantize("float8")
    model.layers[1].kernel_scale.assign(0.37)
    model.layers[1]._kernel.assign(np.eye(20) * 0.777)
    model.export(tmp_path / "exported", verbose=False)
    loaded = load_model(audit_file(tmp_path / "exported"))
    interface = interface_of(loaded.model)
    for name, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{name}"
        converter.convert(loaded.model, interface, recipe_for("float32"), path)
        runner = open_runner(path, name, interface.inputs, interface.outputs)
        outputs = np.concatenate([runner.run({"x": row[None]})["output_0"] for row in x])
        np.testing.assert_allclose(outputs, model(x), rtol=1e-6, err_msg=name)


class OneSample(tf.Module):
    """Self-attention and a recurrence that are written for a batch of one."""

    def __init__(self, steps: int | None = STEPS, count: int = 1) -> None:
        super().__init__()
        generator = np.random.default_rng(8)
        self.w = tf.Variable(generator.normal(size=(FEATURES, FEATURES)).astype("float32"))
        spec = tf.TensorSpec((count, steps, FEATURES), name="x")
        self.serve = tf.function(self.compute, input_signature=[spec], autograph=False)

    def compute(self, x: Any) -> Any:
        """Return what the weighted rows sum up to, and the last state."""
        rows = tf.reshape(x @ self.w, (-1, FEATURES))
        weights = tf.nn.softmax(tf.matmul(rows, rows, transpose_b=True))
        state = tf.zeros((1, FEATURES))
        for step in range(2):
            state = tf.tanh(state @ self.w + x[:, step])
        return {"mean": tf.reduce_mean(weights @ rows, 0, keepdims=True), "state": state}


def expected_of_one_sample() -> dict[str, np.ndarray]:
    """The outputs of :class:`OneSample` for X in NumPy."""
    w = OneSample().w.numpy()
    rows = X @ w
    scores = np.exp(rows @ rows.transpose(0, 2, 1))
    weights = scores / scores.sum(-1, keepdims=True)
    state = np.tanh(np.tanh(X[:, 0]) @ w + X[:, 1])
    return {"mean": (weights @ rows).mean(1), "state": state}


@pytest.mark.parametrize("steps", only([STEPS, None], STEPS))
def test_a_signature_of_one_sample(steps: int | None, tmp_path: Path) -> None:
    """The reference computes sample by sample; files have a batch of one in both formats."""
    file = audit_file(save(OneSample(steps), tmp_path / "m"))
    loaded = load_model(file, time_steps=None if steps else STEPS)
    interface, expected = interface_of(loaded.model), expected_of_one_sample()
    reference = keras_function(loaded.model, interface, attention=True)({"x": X})
    for name, value in expected.items():
        np.testing.assert_allclose(reference.outputs[name], value, atol=1e-5)
    for name, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{name}"
        result = converter.convert(loaded.model, interface, recipe_for("float32"), path)
        assert [spec.shape[0] for spec in (*result.inputs, *result.outputs)] == [1, 1, 1]
        runner = open_runner(path, name, result.inputs, result.outputs)
        outputs = [runner.run({"x": x[None]}) for x in X]
        for key, value in expected.items():
            actual = np.concatenate([output[key] for output in outputs])
            np.testing.assert_allclose(actual, value, rtol=1e-4, atol=1e-5, err_msg=key)


def test_maps_of_a_signature_of_one_sample(tmp_path: Path) -> None:
    model = attention(STEPS)
    signature = [tf.TensorSpec((1, STEPS, FEATURES), name="x")]
    model.export(tmp_path / "m", verbose=False, input_signature=signature)
    loaded = load_model(audit_file(tmp_path / "m")).model
    interface = interface_of(loaded)
    assert [spec.shape for spec in interface.attention] == [(None, 2, STEPS, STEPS)]
    values = keras_function(loaded, interface, attention=True)({"x": X})
    _, weights = model.layers[1](X, X, return_attention_scores=True)
    np.testing.assert_allclose(values.maps[interface.attention[0].name], weights, atol=1e-6)
    np.testing.assert_allclose(values.outputs["output_0"], model(X), atol=1e-5)


class SeveralSamples(tf.Module):
    """Signatures for four samples; some combine them."""

    spec = tf.TensorSpec((4, STEPS, FEATURES), name="x")

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.random.default_rng(8).normal(size=(3, 3)).astype("float32"))

    @tf.function(input_signature=[spec], autograph=False)
    def joined(self, x: Any) -> Any:
        """Steps of all samples as rows, and a recurrence from states of four samples."""
        rows = tf.reshape(tf.reshape(x, (4 * STEPS, FEATURES)) @ self.w, (4, STEPS, FEATURES))
        state = tf.zeros((4, FEATURES))
        for step in range(2):
            state = tf.tanh(state @ self.w + rows[:, step])
        return {"y": state}

    @tf.function(input_signature=[spec], autograph=False)
    def stacked(self, x: Any) -> Any:
        """Each of the four samples alone."""
        rows = [tf.tanh(row @ self.w) for row in tf.unstack(x)]
        return {"y": tf.stack(rows)[:, 1]}

    @tf.function(input_signature=[spec], autograph=False)
    def mean(self, x: Any) -> Any:
        """The difference to the mean of the samples."""
        return {"y": x - tf.reduce_mean(x, 0, keepdims=True)}

    @tf.function(input_signature=[spec], autograph=False)
    def mean_of_roots(self, x: Any) -> Any:
        """NaN for negative numbers."""
        x = tf.reduce_sum(tf.sqrt(x), -1, keepdims=True)
        return {"y": x - tf.reduce_mean(x, 0, keepdims=True)}

    @tf.function(input_signature=[spec], autograph=False)
    def undefined(self, x: Any) -> Any:
        """NaN for all numbers."""
        return {"y": tf.sqrt(-1 - x * x)}

    @tf.function(input_signature=[spec], autograph=False)
    def flat(self, x: Any) -> Any:
        """One result for all samples."""
        return {"y": tf.reduce_sum(x, 0)}


def expected_of_several_samples(kind: str) -> np.ndarray:
    """The output of a signature of :class:`SeveralSamples` for X in NumPy."""
    rows = X @ SeveralSamples().w.numpy()
    if kind == "stacked":
        return np.tanh(rows[:, 1])
    return np.tanh(np.tanh(rows[:, 0]) @ SeveralSamples().w.numpy() + rows[:, 1])


@pytest.mark.parametrize("kind", only(["joined", "stacked"], "joined"))
def test_signatures_of_several_samples(kind: str, tmp_path: Path) -> None:
    """The reference computes four at a time, files one: the graph for one, or for its copies."""
    module = SeveralSamples()
    tf.saved_model.save(module, str(tmp_path / "m"), getattr(module, kind))
    loaded = load_model(audit_file(tmp_path / "m"))
    assert "computes 4 samples at a time, the files one" in loaded.notes[1]
    assert ("4 copies of a sample" in loaded.notes[1]) is (kind == "stacked")
    interface, expected = interface_of(loaded.model), expected_of_several_samples(kind)
    six = np.concatenate([X, X[:2]])
    reference = keras_function(loaded.model, interface, attention=True)({"x": six})
    np.testing.assert_allclose(reference.outputs["y"], [*expected, *expected[:2]], atol=1e-5)
    for name, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{name}"
        result = converter.convert(loaded.model, interface, recipe_for("float32"), path)
        runner = open_runner(path, name, result.inputs, result.outputs)
        outputs = np.concatenate([runner.run({"x": x[None]})["y"] for x in X])
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("mean", "other outputs beside others"),
        ("mean_of_roots", "other outputs beside others"),
        ("undefined", "depend on each other is unknown, .* output 'y' has values that are NaN"),
        ("flat", r"'y' of the shape \(5, 3\) for 4 samples"),
    ],
)
def test_signatures_that_combine_samples(kind: str, problem: str, tmp_path: Path) -> None:
    module = SeveralSamples()
    tf.saved_model.save(module, str(tmp_path / "m"), getattr(module, kind))
    with pytest.raises(UnsupportedModelError, match=problem):
        load_model(audit_file(tmp_path / "m"))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["attention", "recurrent"])
def test_exported_models_for_several_samples(kind: str, tmp_path: Path) -> None:
    """Maps are those of one sample, and the loop of a recurrence starts from one state."""
    model = attention(STEPS)
    if kind == "recurrent":
        x = keras.Input((STEPS, FEATURES), name="x")
        states = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(x)
        model = keras.Model(x, layers.Dense(2)(layers.Flatten()(states)))
    signature = [tf.TensorSpec((4, STEPS, FEATURES), name="x")]
    model.export(tmp_path / "m", verbose=False, input_signature=signature)
    loaded = load_model(audit_file(tmp_path / "m"))
    assert not any("copies" in note for note in loaded.notes)
    interface = interface_of(loaded.model)
    values = keras_function(loaded.model, interface, attention=True)({"x": X})
    np.testing.assert_allclose(values.outputs["output_0"], model(X), atol=1e-5)
    if kind == "attention":
        _, weights = model.layers[1](X, X, return_attention_scores=True)
        np.testing.assert_allclose(values.maps[interface.attention[0].name], weights, atol=1e-6)


def test_an_output_without_an_axis_of_samples(tmp_path: Path) -> None:
    module = with_variable(tf.Module())
    module.serve = tf.function(
        lambda x: {"y": x[0]}, input_signature=[tf.TensorSpec((1, 4), name="x")]
    )
    with pytest.raises(
        UnsupportedModelError, match=r"output 'y' of the shape \(4,\) for 1 sam"
    ) as e:
        load_model(audit_file(save(module, tmp_path / "m")))
    assert "tf.expand_dims(y, 0)" in str(e.value.hint)


def test_free_time_axis_of_a_signature(tmp_path: Path) -> None:
    model = attention(None)
    model.export(tmp_path / "exported", verbose=False)
    file = audit_file(tmp_path / "exported")
    with pytest.raises(UsageError, match="time steps"):
        load_model(file)
    loaded = load_model(file, time_steps=STEPS)
    np.testing.assert_allclose(loaded.model({"x": X})["output_0"], model(X), atol=1e-5)


@pytest.mark.long
def test_shapes_behind_a_loop_of_any_length(tmp_path: Path) -> None:
    """Dense gathers sizes, a reshape computes one; TensorFlow infers neither from the graph."""
    x = keras.Input((None, FEATURES), name="x")
    states = layers.Bidirectional(layers.GRU(3, return_sequences=True))(x)
    outputs = {
        "dense": layers.Dense(2, activation="relu")(layers.Dense(4)(states)),
        "parts": layers.Reshape((-1, 3, 2))(states),
        "attended": layers.AdditiveAttention()([states, states]),
    }
    model = keras.Model(x, outputs)
    model.export(tmp_path / "exported", verbose=False)
    loaded = load_model(audit_file(tmp_path / "exported"), time_steps=STEPS)
    shapes = {spec.name: spec.shape[1:] for spec in interface_of(loaded.model).outputs}
    actual, expected = loaded.model({"x": X}), model(X)
    for name in outputs:
        assert shapes[name] == tuple(expected[name].shape[1:])
        np.testing.assert_allclose(actual[name], expected[name], atol=1e-5)


@pytest.mark.parametrize(
    "inner",
    [pytest.param(lambda x: x, id="steps"),
     pytest.param(layers.GRU(2), id="last", marks=pytest.mark.long)],
)  # fmt: skip
def test_a_length_that_depends_on_the_batch(inner: Callable[[Any], Any], tmp_path: Path) -> None:
    """Keras 3.15 exports TimeDistributed with a free time axis as a loop over the batch size."""
    x = keras.Input((None, FEATURES), name="x")
    model = keras.Model(x, inner(layers.TimeDistributed(layers.Dense(2))(x)))
    model.export(tmp_path / "exported", verbose=False)
    with pytest.raises(
        UnsupportedModelError, match=r"sample alone than .* TimeDistributed"
    ) as error:
        load_model(audit_file(tmp_path / "exported"), time_steps=STEPS)
    assert "Convert the .keras or .h5 file" in str(error.value.hint)


def test_time_distributed_with_a_number_of_steps(tmp_path: Path) -> None:
    x = keras.Input((STEPS, FEATURES), name="x")
    model = keras.Model(x, layers.TimeDistributed(layers.Dense(2))(x))
    model.export(tmp_path / "exported", verbose=False)
    loaded = load_model(audit_file(tmp_path / "exported"))
    np.testing.assert_allclose(loaded.model({"x": X})["output_0"], model(X), atol=1e-5)


class Product(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, None, 2), tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        """Return a product that needs sequences of three steps."""
        return {"y": tf.linalg.matmul(x, tf.ones((3, 4)), transpose_a=True)}


def test_a_graph_that_needs_another_length(tmp_path: Path) -> None:
    file = audit_file(save(with_variable(Product()), tmp_path / "m"))
    assert load_model(file, time_steps=3).model.outputs[0].shape == (None, 2, 4)
    with pytest.raises(UnsupportedModelError, match=r"shapes x \(None, 5, 2\): .*must be equal"):
        load_model(file, time_steps=5)


def with_variable(module: Any) -> Any:
    """A folder without weights is refused."""
    module.variable = tf.Variable(1.0)
    return module


class Affine(tf.Module):
    """Two variables of the same name, which only the object graph tells apart."""

    def __init__(self) -> None:
        super().__init__()
        self.a = tf.Variable([[1.0], [2.0], [3.0]], name="v")
        self.b = tf.Variable([[4.0], [5.0], [6.0]], name="v")

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        """Return two products."""
        return {"first": x @ self.a, "second": x @ self.b}


def save(module: Any, path: Path) -> Path:
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return path


def test_plain_tensorflow(tmp_path: Path) -> None:
    loaded = load_model(audit_file(save(Affine(), tmp_path / "m")))
    outputs = loaded.model({"x": np.eye(3, dtype="float32")})
    np.testing.assert_allclose(outputs["first"], [[1], [2], [3]])
    np.testing.assert_allclose(outputs["second"], [[4], [5], [6]])


class Attending(tf.Module):
    """Sums over the steps of attention, or of the input alone."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.random.default_rng(9).normal(size=(3, 2)).astype("float32"))
        self.spec = tf.TensorSpec((None, STEPS, FEATURES), name="x")

    def outputs(self, x: Any, *, attend: bool) -> Any:
        if attend:
            x = tf.nn.softmax(tf.matmul(x, x, transpose_b=True)) @ x
        return {"y": tf.reduce_sum(x @ self.w, 1)}


@pytest.mark.parametrize("attend", [True, False])
def test_changed_operations_of_a_graph(attend: bool, tmp_path: Path) -> None:
    """How far averages and rounding move the outputs of a graph is measured inside it."""
    module = Attending()
    module.serve = tf.function(
        partial(module.outputs, attend=attend), input_signature=[module.spec], autograph=False
    )
    model = load_model(audit_file(save(module, tmp_path / "m"))).model
    interface = interface_of(model)
    assert len(interface.attention) == attend
    expected = module.outputs(tf.constant(X), attend=attend)["y"].numpy()
    larger = shifted_means(model, interface, attention=True)({"x": X}, 0.5)["y"]
    np.testing.assert_allclose(larger, 1.5 * expected, atol=1e-5)
    moved = rounded_function(model, interface, attention=True)({"x": X}, 1)["y"] - expected
    assert 1e-8 < np.abs(moved).max() < 1e-4


@pytest.mark.parametrize(
    "normalization",
    only(
        [
            layers.LayerNormalization,
            partial(layers.GroupNormalization, 3),
            layers.BatchNormalization,
        ],
        layers.LayerNormalization,
    ),
)
def test_changed_operations_of_an_exported_block(
    normalization: Callable[[], Any], tmp_path: Path
) -> None:
    """Variables that only copies of operations read were missing."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((STEPS, FEATURES), name="x")
    hidden = normalization()(inputs)
    built = keras.Model(inputs, layers.MultiHeadAttention(2, 3)(hidden, hidden))
    built.export(tmp_path / "m", verbose=False)
    model = load_model(audit_file(tmp_path / "m")).model
    interface, expected = interface_of(model), built(X)
    for function, share in ((shifted_means, 0.0), (rounded_function, 1)):
        outputs = function(model, interface, attention=True)({"x": X}, share)
        np.testing.assert_allclose(outputs["output_0"], expected, atol=1e-5)


class ChannelsFirst(Affine):
    @tf.function(input_signature=[tf.TensorSpec((None, 3, 4, 4), tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        """Return a convolution."""
        kernel = tf.reshape(self.a, (1, 1, 3, 1))
        return {"y": tf.nn.conv2d(x, kernel, 1, "SAME", data_format="NCHW")}


def test_a_graph_with_the_channels_first(tmp_path: Path) -> None:
    """No samples help: TensorFlow computes such a convolution on no CPU."""
    model = load_model(audit_file(save(ChannelsFirst(), tmp_path / "m"))).model
    with pytest.raises(UnsupportedModelError, match="NHWC") as error:
        predict(model, interface_of(model), {"x": np.ones((2, 3, 4, 4), "float32")})
    assert "Convert the .keras or .h5 file" in str(error.value.hint)
    assert "--samples" not in str(error.value.hint)


@pytest.mark.long
@pytest.mark.parametrize("name", only(["sig.nal", "the-signal", "signal_1"], "signal_1"))
def test_names_of_inputs_that_are_no_arguments_in_python(name: str, tmp_path: Path) -> None:
    import tf_keras

    x = tf_keras.Input((None, FEATURES), name=name)
    cell = tf_keras.layers.SimpleRNN(2, return_sequences=True, name="y")
    model = tf_keras.Model(x, cell(x))

    @tf.function(input_signature=[tf.TensorSpec((None, None, FEATURES), tf.float32, name=name)])
    def serve(values: Any) -> Any:
        return {"y": model(values)}

    tf.saved_model.save(model, str(tmp_path / "m"), signatures=serve)
    model.save(tmp_path / "layers", save_format="tf")
    for folder in ("m", "layers"):
        if folder == "layers":
            (tmp_path / folder / "keras_metadata.pb").unlink()
        loaded = load_model(audit_file(tmp_path / folder), time_steps=STEPS)
        [tensor] = loaded.model.inputs
        outputs = loaded.model({tensor.name: X})["y"]
        np.testing.assert_allclose(outputs, model(X), rtol=1e-4, atol=1e-5)
    interface = interface_of(loaded.model)
    file = onnx.convert(loaded.model, interface, recipe_for("float32"), tmp_path / "m.onnx")
    outputs = open_runner(tmp_path / "m.onnx", "onnx", file.inputs, file.outputs).run(
        {interface.inputs[0].name: X}
    )
    np.testing.assert_allclose(outputs["y"], model(X), rtol=1e-4, atol=1e-5)


def test_a_folder_without_signatures(tmp_path: Path) -> None:
    module = Affine()
    module.other = tf.function(lambda x: x, input_signature=[tf.TensorSpec((None, 3))])
    tf.saved_model.save(module, str(tmp_path / "m"))
    with pytest.raises(UnsupportedModelError, match="has no signature") as caught:
        load_model(audit_file(tmp_path / "m"))
    module.f = module.serve
    _saved_as_proposed(module, str(caught.value.hint), tmp_path)


def test_a_module_of_the_guide_of_tensorflow(tmp_path: Path) -> None:
    """Its function has no input signature."""

    class Guide(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(np.arange(6.0, dtype="float32").reshape(3, 2))

        @tf.function
        def __call__(self, x: Any) -> Any:
            return tf.nn.relu(tf.matmul(x, self.w) - 1.0)

    module = Guide()
    module(tf.ones((1, 3)))
    tf.saved_model.save(module, str(tmp_path / "m"))
    with pytest.raises(UnsupportedModelError, match="has no signature") as caught:
        load_model(audit_file(tmp_path / "m"))
    module.f = module.__call__
    _saved_as_proposed(module, str(caught.value.hint), tmp_path)


def _saved_as_proposed(module: Any, hint: str, folder: Path) -> None:
    proposed = hint[hint.index("tf.saved_model") : hint.index(", with the shape")]
    eval(proposed, {"tf": tf, "module": module, "folder": str(folder / "again")})
    loaded = load_model(audit_file(folder / "again"))
    x = np.float32([[1.0, -2.0, 0.5], [3.0, 0.0, 1.0]])
    results = loaded.model({loaded.model.inputs[0].name: x})
    outputs = [results[name] for name in sorted(results)]  # as TensorFlow flattens them
    expected = tf.nest.flatten(module.f(tf.constant(x)))
    assert len(outputs) == len(expected)
    for output, value in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output, value, rtol=1e-5)


def recurrent(steps: int | None) -> Any:
    x = keras.Input((steps, FEATURES), name="x")
    sequences = layers.LSTM(4, return_sequences=True)(layers.Masking()(x))
    both = layers.Bidirectional(layers.GRU(3))(x)
    return keras.Model(x, {"a": layers.SimpleRNN(2)(sequences), "b": both, "c": sequences})


class Loops(tf.Module):
    """Loops of plain TensorFlow: one over steps, one that scans, one that maps."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.eye(FEATURES, dtype="float32") * 0.5)

    @tf.function(input_signature=[tf.TensorSpec((None, STEPS, FEATURES), tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        """Return what three loops compute."""
        state, states = tf.zeros_like(x[:, 0]), tf.TensorArray(tf.float32, STEPS)
        for step in tf.range(STEPS):
            state = tf.tanh(x[:, step] @ self.w + state)
            states = states.write(step, state)
        by_step = tf.transpose(x, (1, 0, 2))
        sums = tf.scan(lambda total, now: total * 0.5 + now, by_step, tf.zeros_like(x[:, 0]))
        squares = tf.map_fn(lambda row: row * row, by_step)
        results = {"a": states.stack(), "b": sums, "c": squares}
        return {name: tf.transpose(value, (1, 0, 2)) for name, value in results.items()}


def loops(path: Path) -> dict[str, Any]:
    module = Loops()
    save(module, path)
    return dict(module.serve(tf.constant(X[:1])))


def exported(steps: int | None) -> Callable[[Path], dict[str, Any]]:
    def write(path: Path) -> dict[str, Any]:
        model = recurrent(steps)
        model.export(path, verbose=False)
        return dict(model(X[:1]))

    return write


def keras_2(path: Path) -> dict[str, Any]:
    """A subclassed model; Keras 2 stores functions for GPUs with it."""
    import tf_keras

    class Network(tf_keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = tf_keras.layers.LSTM(4, return_sequences=True)
            self.gru = tf_keras.layers.GRU(3)

        def call(self, inputs: Any) -> Any:
            return self.gru(self.lstm(inputs))

    model = Network()
    expected = model(X[:1])
    model.save(path, save_format="tf")
    return {"output_1": expected}


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(exported(STEPS), id="export", marks=pytest.mark.long),
        pytest.param(exported(None), id="export of any length", marks=pytest.mark.long),
        pytest.param(loops, id="TensorFlow"),
        pytest.param(keras_2, id="Keras 2", marks=pytest.mark.long),
    ],
)
def test_loops_of_a_graph(write: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    expected = write(tmp_path / "m")
    loaded = load_model(audit_file(tmp_path / "m"), time_steps=STEPS)
    interface = interface_of(loaded.model)
    [name] = [spec.name for spec in interface.inputs]
    for format, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{format}"
        file = converter.convert(loaded.model, interface, recipe_for("float32"), path)
        outputs = open_runner(path, format, file.inputs, file.outputs).run({name: X[:1]})
        for key, value in expected.items():
            np.testing.assert_allclose(outputs[key], np.asarray(value), atol=1e-5, err_msg=format)


class Writing(tf.Module):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.variable = str(path), tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        """Return the input, and write a file."""
        tf.io.write_file(self.path, "text")
        return {"y": x * self.variable}


class Reading(Writing):
    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        """Return the input, and the size of a file."""
        size = tf.strings.length(tf.io.read_file(self.path))
        return {"y": x * tf.cast(size, tf.float32)}


class Python(Writing):
    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        """Return what Python computes."""
        return {"y": tf.numpy_function(np.sin, [x], tf.float32)}


@pytest.mark.parametrize("module", [Writing, Reading, Python])
def test_operations_that_do_more_than_compute(module: Any, tmp_path: Path) -> None:
    path = save(module(tmp_path / "written"), tmp_path / "m")
    with pytest.raises(UnsafeModelError, match="may do more than compute"):
        load_model(audit_file(path))
    assert not (tmp_path / "written").exists()


class Counting(Affine):
    """Changes a variable in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def count(self, x: Any) -> Any:
        """Return the input plus the number of calls."""
        self.calls.assign_add(1.0)
        return {"y": x + self.calls}

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def count_inside(self, x: Any) -> Any:
        """Return the same, in another function."""
        return self.count(x)


class Sampling(layers.Layer):  # type: ignore[misc]
    """As in a variational autoencoder; Keras stores the state of its random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seed = keras.random.SeedGenerator(1)

    def call(self, x: Any) -> Any:
        """Return the input plus noise."""
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)


class Drawing(Affine):
    """Draws random numbers, which changes the state of their generator."""

    def __init__(self) -> None:
        super().__init__()
        self.random = tf.random.Generator.from_seed(1)

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def draw(self, x: Any) -> Any:
        """Return the input plus a random number."""
        return {"y": x + self.random.normal((1,))}


CHANGING = ("count", "count_inside", "draw", "sampling")


@pytest.mark.parametrize("kind", only(CHANGING, "count_inside", "draw"))
def test_signatures_that_change_variables(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    if kind == "sampling":
        x = keras.Input((3,), name="x")
        keras.Model(x, Sampling()(x)).export(path, verbose=False)
    else:
        module = Drawing() if kind == "draw" else Counting()
        tf.saved_model.save(module, str(path), signatures=getattr(module, kind))
    with pytest.raises(UnsupportedModelError, match="changes a variable in its signature 'serv"):
        load_model(audit_file(path))


class Serving(tf.Module):
    """The signatures of servers: one for arrays, one for the contents of files."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(tf.ones((3, 2)))

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def arrays(self, x: Any) -> Any:
        """Return a product."""
        return {"y": x @ self.w}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="content")])
    def raw(self, content: Any) -> Any:
        """Return the product of decoded numbers."""
        return {"y": tf.reshape(tf.io.decode_raw(content, tf.float32), (-1, 3)) @ self.w}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="content")])
    def images(self, content: Any) -> Any:
        """Return what images contain."""
        decoded = tf.map_fn(
            lambda one: tf.image.decode_png(one, 3)[:1, :1], content, fn_output_signature=tf.uint8
        )
        return {"y": tf.cast(tf.reshape(decoded, (-1, 3)), tf.float32) @ self.w}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="content")])
    def examples(self, content: Any) -> Any:
        """Return the product of the numbers in examples."""
        feature = {"x": tf.io.FixedLenFeature((3,), tf.float32)}
        return {"y": tf.io.parse_example(content, feature)["x"] @ self.w}


@pytest.mark.parametrize("other", ["raw", "images", "examples"])
def test_signatures_for_contents_of_files(other: str, tmp_path: Path) -> None:
    """They are not run, and that for arrays is converted."""
    module = Serving()
    function = getattr(module, other)
    signatures = {"serving_default": module.arrays, "serving_bytes": function}
    tf.saved_model.save(module, str(tmp_path / "two"), signatures=signatures)
    outputs = load_model(audit_file(tmp_path / "two")).model({"x": np.eye(3, dtype="float32")})
    np.testing.assert_allclose(outputs["y"], np.ones((3, 2)))
    tf.saved_model.save(module, str(tmp_path / "one"), signatures=function)
    with pytest.raises(UnsupportedModelError, match="an input 'content' of strings") as error:
        load_model(audit_file(tmp_path / "one"))
    assert "takes the numbers" in str(error.value.hint)


def test_function_that_is_named_like_the_saver(tmp_path: Path) -> None:
    """Functions that save checkpoints write files; a signature must not be one of them."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = save(Writing(tmp_path / "written"), tmp_path / "m")
    message = SavedModel()
    message.ParseFromString((path / "saved_model.pb").read_bytes())
    names = {item.signature.name for item in message.meta_graphs[0].graph_def.library.function}
    content = (path / "saved_model.pb").read_bytes()
    for index, name in enumerate(sorted(names)):
        disguised = f"__inference__traced_save_{index}"
        width = len(name) - len(disguised)
        if width >= 0:
            content = content.replace(name.encode(), f"{disguised}{'0' * width}".encode())
    (path / "saved_model.pb").write_bytes(content)
    with pytest.raises((UnsafeModelError, UnsupportedModelError)):
        load_model(audit_file(path))
    assert not (tmp_path / "written").exists()


CLASSES = """
class Inner(layers.Layer):
    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = layers.Dense(units)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Outer(layers.Layer):
    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = Inner(units)
        self.blocks = [Inner(units), layers.LayerNormalization()]
        self.named = {"last": layers.Dense(units)}

    def call(self, inputs):
        x = self.inner(inputs)
        for block in self.blocks:
            x = block(x)
        return self.named["last"](x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}
"""


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A folder of tf_keras with nested layers of unknown classes, their file, and its outputs."""
    import tf_keras

    folder = tmp_path_factory.mktemp("nested")
    names: dict[str, Any] = {"layers": tf_keras.layers}
    exec(CLASSES, names)
    (folder / "classes.py").write_text(f"from keras import layers\n{CLASSES}")
    inputs = tf_keras.Input((STEPS, FEATURES), name="x")
    hidden = names["Outer"](4)(tf_keras.layers.Dense(3)(inputs))
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2, name="y")(hidden))
    model.save(folder / "m", save_format="tf")
    return folder / "m", folder / "classes.py", np.asarray(model(X))


def test_nested_classes_of_a_folder(nested: tuple[Path, Path, Any]) -> None:
    """The paths of the variables differ between Keras versions; the graph is used instead."""
    path, classes, expected = nested
    loaded = load_model(audit_file(path), custom_objects=classes)
    np.testing.assert_allclose(loaded.model({"x": X})["y"], expected, atol=1e-5)
    assert "signature 'serving_default'" in loaded.notes[0]


SCALE = """
class Scale(layers.Layer):
    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, input_shape):
        self.weight = self.add_weight(name="weight", shape=(input_shape[-1],))

    def call(self, inputs):
        return inputs * self.weight * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}
"""


def test_own_classes_of_a_folder_load_with_their_code(tmp_path: Path) -> None:
    import tf_keras

    names: dict[str, Any] = {"layers": tf_keras.layers}
    exec(SCALE, names)
    (tmp_path / "own.py").write_text(f"from keras import layers\n{SCALE}")
    inputs = tf_keras.Input((STEPS, FEATURES), name="x")
    outputs = tf_keras.layers.Dense(2)(names["Scale"](3.0, name="own")(inputs))
    model = tf_keras.Model(inputs, outputs)
    model.save(tmp_path / "m", save_format="tf")
    loaded = load_model(audit_file(tmp_path / "m"), custom_objects=tmp_path / "own.py")
    assert type(loaded.model.get_layer("own")).__name__ == "Scale"
    np.testing.assert_allclose(loaded.model(X), model(X), atol=1e-5)


def test_unknown_classes_of_a_folder(nested: tuple[Path, Path, Any]) -> None:
    loaded = load_model(audit_file(nested[0]))
    np.testing.assert_allclose(loaded.model({"x": X})["y"], nested[2], atol=1e-5)
    assert "needs the class 'Outer'" in loaded.notes[0]


@pytest.mark.parametrize("is_random", only([False, True], False))
def test_random_layers_and_a_class_of_a_folder(is_random: bool, tmp_path: Path) -> None:
    """Functions for training draw random numbers; only a signature that does so is refused."""
    import tf_keras

    names: dict[str, Any] = {"layers": tf_keras.layers}
    exec(SCALE, names)
    inputs = tf_keras.Input((4, 4, 1), name="x")
    images = tf_keras.layers.RandomFlip()(inputs, training=is_random or None)
    outputs = tf_keras.layers.Flatten(name="y")(names["Scale"](3.0, name="own")(images))
    model = tf_keras.Model(inputs, outputs)
    model.set_weights([np.array([0.5])])
    model.save(tmp_path / "m", save_format="tf")
    if is_random:
        with pytest.raises(UnsupportedModelError, match="'own' needs the class 'Scale'") as error:
            load_model(audit_file(tmp_path / "m"))
        assert "the graph in the folder" in error.value.message
        assert "changes a variable in its signature" in error.value.message
        return
    loaded = load_model(audit_file(tmp_path / "m"))
    assert "needs the class 'Scale'" in loaded.notes[0]
    x = np.random.default_rng(5).normal(size=(3, 4, 4, 1)).astype("float32")
    np.testing.assert_allclose(loaded.model({"x": x})["y"], 1.5 * x.reshape(3, 16), rtol=1e-6)


def test_subclassed_model_of_keras_2(tmp_path: Path) -> None:
    import tf_keras

    class Network(tf_keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = tf_keras.layers.Dense(2)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

    model = Network()
    expected = np.asarray(model(X))
    model.save(tmp_path / "m", save_format="tf")
    loaded = load_model(audit_file(tmp_path / "m"))
    [name] = [tensor.name for tensor in loaded.model.inputs]
    [actual] = loaded.model({name: X}).values()
    np.testing.assert_allclose(actual, expected, atol=1e-5)
