"""Programs and classes of Keras 2 that Keras 3 cannot run, as the graph of tf_keras."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tf_keras
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn.printable import Text
from edgeattn.process.protocol import error_from_json, error_to_json
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError, Keras3ProgramError
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.with_tf_keras import tf_keras_process
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

HEAD = """
import numpy as np
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import backend as K
from tensorflow.keras import layers

"""
# What no change of edgeattn provides in Keras 3, in the text of a program.
REMOVED = "    assert keras.layers.experimental.RandomFourierFeatures\n"
PROGRAMS = {
    "class_that_keras_3_lacks": """
def build():
    x = keras.Input((6,), name="x")
    y = layers.experimental.RandomFourierFeatures(8, scale=2.0)(x)
    return keras.Model(x, layers.Dense(3)(y))
""",
    "nodes_of_layers": """
def build():
    x = keras.Input((7, 4), name="x")
    dense = layers.Dense(5)
    y = dense(x)
    assert dense.inbound_nodes[0].input_tensors is x
    units = dense.get_output_shape_at(0)[-1] + x._keras_history.layer._batch_input_shape[1]
    return keras.Model(x, layers.LSTM(units)(y))
""",
    "private_weights": """
class Own(layers.Layer):
    def build(self, shape):
        kernel = tf.Variable(tf.random.normal((shape[-1], 4)), name="kernel")
        self._trainable_weights.append(kernel)
        super().build(shape)

    def call(self, x):
        return tf.matmul(x, self._trainable_weights[0])

def build():
    x = keras.Input((6,), name="x")
    return keras.Model(x, layers.Dense(3)(Own()(x)))
""",
    "private_modules": """
from tensorflow.python.keras.engine.base_layer import Layer
from tensorflow.python.keras.engine import node as node_module
from tensorflow.python.keras.utils.layer_utils import count_params

class Scaled(Layer):
    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=shape[-1:])
        super().build(shape)

    def call(self, x):
        return x * self.scale

def build():
    x = keras.Input((6,), name="x")
    scaled = Scaled()
    y = scaled(x)
    assert isinstance(scaled._inbound_nodes[0], node_module.Node) and count_params(scaled.weights)
    return keras.Model(x, layers.Dense(3)(y))
""",
    "methods_of_layers": """
class Tied(layers.Layer):
    def __init__(self, of, **kwargs):
        super().__init__(**kwargs)
        self.of = of

    def build(self, shape):
        self.scale = self.add_weight("scale", shape=[K.int_shape(self.of.kernel)[0]])
        self._set_dtype_policy("float32")
        super().build(shape)

    def call(self, x):
        return tf.matmul(x, self.of.kernel, transpose_b=True) * self.scale

def build():
    x = keras.Input((6,), name="x")
    dense = layers.Dense(4)
    return keras.Model(x, Tied(dense)(dense(x)))
""",
    "functions_of_the_backend": """
class Own(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], shape[-1]))
        super().build(shape)

    def call(self, x):
        def step(inputs, states):
            h = K.tanh(K.dot(states[0] + inputs, self.kernel))
            return h, [h]

        last, outputs, _ = K.rnn(step, x, [K.zeros_like(x[:, 0])])
        return K.in_train_phase(last, outputs[:, -1] + last)

def build():
    K.experimental.disable_tf_random_generator()
    x = keras.Input((7, 4), name="x")
    return keras.Model(x, layers.Dense(3)(Own()(x)))
""",
    "utilities": """
def build():
    x = keras.Input((7, 4), name="x")
    with keras.utils.CustomObjectScope({"twice": lambda t: 2.0 * t}):
        y = layers.Dense(5, activation="twice")(x)
    model = keras.Model(x, layers.GRU(3)(y))
    names = [node.outbound_layer.name for node in model._nodes_by_depth[0]]
    assert model.layers[0]._batch_input_shape[1] == 7 and names == [model.layers[-1].name]
    return model
""",
    "several_inputs_and_outputs": """
class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.lstm = layers.LSTM(5, return_sequences=True)
        self.scores, self.first, self.second = layers.Dense(1), layers.Dense(3), layers.Dense(2)

    def call(self, inputs, training=None):
        x, m = inputs
        steps = self.lstm(x)
        weights = tf.nn.softmax(self.scores(steps), 1) * tf.expand_dims(m, -1)
        pooled = tf.reduce_sum(weights * steps, 1)
        return {"z": self.first(pooled), "a": self.second(pooled)}

def build():
    net = Net()
    x, m = keras.Input((7, 4), name="x"), keras.Input((7,), name="m")
    outputs = net([x, m])
    assert not net._is_graph_network
    return keras.Model([x, m], outputs)
""",
}
SHORT = ("class_that_keras_3_lacks",)


def written(text: str, folder: Path, suffix: str = ".h5", name: str = "build") -> tuple[Any, Path]:
    """Return the model of a program in tf_keras, and the file of its weights beside the program."""
    tf_keras.backend.clear_session()  # names as in a new process
    generator = np.random.default_rng(3)
    model = run_in_tf_keras(HEAD + text.replace("tensorflow.python.keras", "tf_keras.src"))[name]()
    model.set_weights([generator.normal(0, 0.5, value.shape) for value in model.get_weights()])
    path = folder / f"m{suffix}"
    model.save_weights(path)
    (folder / "own.py").write_text(HEAD + text)
    return model, path


def require_converted(loaded: Any, model: Any, folder: Path) -> None:
    """Compare the files with ``predict`` of tf_keras for one sample after the other."""
    interface = interface_of(loaded.model)
    assert {item.name for item in interface.inputs} == set(model.input_names)
    generator = np.random.default_rng(4)
    samples = [
        {item.name: generator.normal(size=(1, *item.shape[1:])) for item in interface.inputs}
        for _ in range(8)
    ]
    for converter, suffix in ((tflite, "tflite"), (onnx, "onnx")):
        path = folder / f"m.{suffix}"
        file = converter.convert(loaded.model, interface, recipe_for("float32"), path)
        runner = open_runner(path, suffix, file.inputs, file.outputs, as_deployed=True)
        for sample in samples:
            given = {name: array.astype("float32") for name, array in sample.items()}
            expected = model.predict([given[name] for name in model.input_names], verbose=0)
            if not isinstance(expected, dict):
                expected = dict(zip(model.output_names, [expected], strict=True))
            actual = runner.run(given)
            assert actual.keys() - {item.name for item in interface.attention} == expected.keys()
            for name, value in expected.items():
                limit = 1e-4 * max(1e-3, np.abs(value).max())
                np.testing.assert_allclose(actual[name], value, atol=limit, rtol=0)


@pytest.mark.compared
@pytest.mark.parametrize("name", only(list(PROGRAMS), *SHORT))
def test_programs_that_do_not_run_in_keras_3(name: str, tmp_path: Path) -> None:
    model, path = written(PROGRAMS[name], tmp_path)
    loaded = load_model(audit_file(path), architecture=f"{tmp_path / 'own.py'}:build")
    assert loaded.is_graph
    assert loaded.notes[0].startswith("The program does not run in Keras 3: ")
    assert "The model is the graph that tf_keras" in loaded.notes[0]
    require_converted(loaded, model, tmp_path)


FREE = """
def build():
    x = keras.Input((None, 4), name="x")
REMOVED
    return keras.Model(x, layers.Dense(3)(layers.LSTM(5)(x)))
""".replace("REMOVED", REMOVED)


@pytest.mark.long
def test_a_free_number_of_steps(tmp_path: Path) -> None:
    model, path = written(FREE, tmp_path)
    architecture = f"{tmp_path / 'own.py'}:build"
    with pytest.raises(UsageError, match="needs a fixed number of time steps"):
        load_model(audit_file(path), architecture=architecture)
    free = load_model(audit_file(path), architecture=architecture, allow_free_time=True)
    assert free.model.inputs[0].shape == (None, None, 4)
    loaded = load_model(audit_file(path), architecture=architecture, time_steps=6)
    assert loaded.model.inputs[0].shape == (None, 6, 4)
    require_converted(loaded, model, tmp_path)


def test_the_folder_of_the_graph_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model computes after that, too."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    _, path = written(PROGRAMS["private_weights"], tmp_path)
    loaded = load_model(audit_file(path), architecture=f"{tmp_path / 'own.py'}:build")
    assert not list(temporary.iterdir())
    assert np.isfinite(loaded.model.predict({"x": np.ones((2, 6))}, verbose=0)["dense"]).all()


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Why tf_keras saved no graph, for each call of its process."""
    found: list[str | None] = []
    call = tf_keras_process.call

    def recorded(*arguments: Any) -> Any:
        result, arrays = call(*arguments)
        found.append(result["failure"])
        return result, arrays

    monkeypatch.setattr(tf_keras_process, "call", recorded)
    return found


REFUSED = {
    "at_random": (
        "computes something else than predict, or at random",
        """
def build():
    x = keras.Input((6,), name="x")
REMOVED
    return keras.Model(x, layers.Dense(3)(layers.Lambda(lambda t: t * tf.random.uniform((6,)))(x)))
""",
    ),
    "in_training_mode": (
        "computes something else than predict, or at random",
        """
def build():
    x = keras.Input((6,), name="x")
REMOVED
    return keras.Model(x, layers.Dense(3)(layers.Dropout(0.5)(x, training=True)))
""",
    ),
    "of_a_batch": (
        "depend on the others of its batch",
        """
def build():
    x = keras.Input((6,), name="x")
REMOVED
    return keras.Model(x, layers.Dense(3)(x - tf.reduce_mean(x, 0, keepdims=True)))
""",
    ),
    "random_constants": (
        "something else each time it runs",
        """
def build():
    x = keras.Input((6,), name="x")
REMOVED
    return keras.Model(x, layers.Dense(3)(x * np.random.default_rng().normal(size=(1, 6))))
""",
    ),
    "global_random_constants": (
        "something else each time it runs",
        """
SCALES = np.random.default_rng().normal(size=(1, 6))

def build():
    x = keras.Input((6,), name="x")
REMOVED
    return keras.Model(x, layers.Dense(3)(x * SCALES))
""",
    ),
    "variable_that_is_no_weight": (
        "depend on 'Variable:0', which the file does not",
        """
SCALE = tf.Variable(3.0)

def build():
    x = keras.Input((6,), name="x")
REMOVED
    return keras.Model(x, layers.Dense(3)(layers.Lambda(lambda t: t * SCALE)(x)))
""",
    ),
    "layer_of_a_function": (
        "which the file does not contain",
        """
def build():
    x = keras.Input((6,), name="x")
REMOVED
    normalization = layers.BatchNormalization()
    normalization.build((None, 6))
    return keras.Model(x, layers.Dense(3)(layers.Lambda(lambda t: normalization(t))(x)))
""",
    ),
    "code_that_is_no_computation": (
        "",
        """
def build():
    x = keras.Input((6,), name="x")
REMOVED
    y = layers.Lambda(lambda t: tf.numpy_function(np.tanh, [t], "float32"))(x)
    return keras.Model(x, layers.Dense(3)(tf.ensure_shape(y, (None, 6))))
""",
    ),
    "counted_calls": (
        "",
        """
class Counting(layers.Layer):
    def build(self, shape):
        self.calls = self.add_weight("calls", (), trainable=False)
        super().build(shape)

    def call(self, x):
        self.calls.assign_add(1.0)
        return 2.0 * x

def build():
    x = keras.Input((6,), name="x")
REMOVED
    return keras.Model(x, layers.Dense(3)(Counting()(x)))
""",
    ),
}
# Those of graphs that are refused when they are loaded.
REASONS_OF_GRAPHS = {
    "code_that_is_no_computation": "its graph contains the operation 'PyFunc'",
    "counted_calls": "it changes a variable in its signature",
}


@pytest.mark.parametrize("name", only(list(REFUSED), "counted_calls", "variable_that_is_no_weight"))
def test_the_error_of_keras_3_remains(
    name: str, tmp_path: Path, failures: list[str | None]
) -> None:
    """The graph of tf_keras is not known to compute what the trained model did."""
    reason, program = REFUSED[name]
    _, path = written(program.replace("REMOVED", REMOVED), tmp_path)
    with pytest.raises(UsageError) as caught:
        load_model(audit_file(path), architecture=f"{tmp_path / 'own.py'}:build")
    assert caught.value.message.startswith("--architecture: build() failed with AttributeError: ")
    assert str(caught.value.hint).startswith("Change build() so that it runs in Keras 3")
    [failure] = failures
    assert reason in str(failure)
    assert bool(reason) == bool(failure)
    # The command prints it as a line of its own.
    assert isinstance(caught.value.message, Text)
    *_, line = caught.value.message.splitlines()
    assert line.startswith("The graph of tf_keras was not used: ")
    assert (reason or REASONS_OF_GRAPHS[name]) in line


LATE = """
class Late(layers.Layer):
    def call(self, x):
        return x[:, 300]

def build():
    x, z = keras.Input((None, 4), name="x"), keras.Input((None, 4), name="z")
REMOVED
    return keras.Model([x, z], layers.Dense(3)(Late()(x) + Late()(z)))
""".replace("REMOVED", REMOVED)


@pytest.mark.parametrize("names", only([("x", "z"), ("sequence_x", "z"), ()], ("sequence_x", "z")))
def test_samples_of_other_names_are_named_if_all_others_fail(
    names: tuple[str, ...], tmp_path: Path, failures: list[str | None]
) -> None:
    """The generated samples have fewer steps than the program reads."""
    _, path = written(LATE, tmp_path)
    samples = tmp_path / "samples.npz"
    np.savez(samples, **{name: np.ones((4, 310, 4), "float32") for name in names})
    arguments = {"architecture": f"{tmp_path / 'own.py'}:build", "allow_free_time": True}
    if names == ("x", "z"):
        load_model(audit_file(path), samples=samples, **arguments)
        assert failures == [None]
        return
    with pytest.raises(UsageError, match="The graph of tf_keras was not used: it"):
        load_model(audit_file(path), samples=samples if names else None, **arguments)
    [failure] = failures
    of_names = "its inputs are 'x' and 'z', the arrays of the samples 'sequence_x' and 'z'; "
    start = of_names if names else ""
    assert str(failure).startswith(
        f"{start}it fails for all samples: InvalidArgumentError: slice index 300 "
    )


WRAPPED = """
class Twice(layers.Wrapper):
    def call(self, x):
        return 2.0 * self.layer(x) + scale()

def build():
    x = keras.Input((6,), name="x")
    return keras.Model(x, Twice(layers.Dense(3))(x))
"""


@pytest.mark.parametrize("is_same", [True, False])
def test_lines_outside_the_function_that_fail(is_same: bool, tmp_path: Path) -> None:
    """The hint names their function. A reason that is the same in tf_keras is given once."""
    path = tmp_path / "m.h5"
    dense = tf_keras.layers.Dense(3)
    tf_keras.Sequential([tf_keras.Input((6,)), dense]).save_weights(path)
    (tmp_path / "own.py").write_text(f"{HEAD}from scales import scale\n{WRAPPED}")
    failing = "tf.no_such_function()"
    if not is_same:
        failing = f"keras.layers.experimental.RandomFourierFeatures and {failing}"
    (tmp_path / "scales.py").write_text(f"{HEAD}\ndef scale():\n    return {failing}\n")
    with pytest.raises(UsageError) as caught:
        load_model(audit_file(path), architecture=f"{tmp_path / 'own.py'}:build")
    assert str(caught.value.hint).startswith("Change scale in scales.py so that it runs in Keras 3")
    first, *others = caught.value.message.splitlines()
    assert "(scales.py, line " in first
    assert ["no_such_function" in line for line in others] == ([] if is_same else [True])


FROZEN = """
def build():
    x = keras.Input((6,), name="x")
REMOVED
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6), layers.Dense(6)])
    return keras.Model(x, layers.Dense(3)(inner(x)))
""".replace("REMOVED", REMOVED)


def test_layers_that_were_frozen_have_weights_in_another_place(
    tmp_path: Path, failures: list[str | None]
) -> None:
    """All weights fit, but those of the two inner layers are exchanged."""
    model, path = written(FROZEN, tmp_path)
    model.layers[1].layers[0].trainable = False
    model.save_weights(path)
    with pytest.raises(UsageError, match="failed with AttributeError"):
        load_model(audit_file(path), architecture=f"{tmp_path / 'own.py'}:build")
    assert failures == ["the names of the weights contradict their order"]


INTERFACES = """
class Block(keras.Sequential):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add(layers.Conv1D(4, 3, padding="same"))
        self.add(layers.BatchNormalization())

class Net(keras.Model):
    def __init__(self):
        super().__init__()
REMOVED
        self.first, self.last, self.blocks = Block(), layers.Dense(2), [Block(), Block()]

    def call(self, x, training=None):
        x = self.first(x, training=training)
        for block in self.blocks:
            x += block(x, training=training)
        return self.last(x)

class Pair(keras.Model):
    def __init__(self):
        super().__init__()
REMOVED
        self.first, self.last = layers.Dense(3), layers.Dense(2)

    def call(self, left, right):
        return self.last(tf.nn.tanh(self.first(left)) * self.first(right))

def called():
    net = Net()
    net(tf.zeros((2, 7, 4)))
    return net

def stateful():
    x = keras.Input(batch_shape=(2, 7, 4), name="x")
REMOVED
    return keras.Model(x, layers.Dense(2)(layers.GRU(5, stateful=True)(x)))

def half():
    keras.mixed_precision.set_global_policy("mixed_float16")
    x = keras.Input((7, 4), name="x")
REMOVED
    y = layers.Activation("softmax", dtype="float32")(layers.Dense(2)(layers.LSTM(5)(x)))
    keras.mixed_precision.set_global_policy("float32")
    return keras.Model(x, y)

def masked():
    words = keras.Input((7,), name="words", dtype="int32")
REMOVED
    y = layers.Bidirectional(layers.GRU(5, return_sequences=True))(
        layers.Embedding(9, 4, mask_zero=True)(words))
    return keras.Model(words, layers.Dense(2)(layers.LSTM(3)(y)))
"""


@pytest.mark.parametrize("suffix", only([".h5", ".weights.h5"], ".weights.h5"))
@pytest.mark.parametrize(
    "name", only(["Net", "Pair", "called", "stateful", "half", "masked"], "Net")
)
def test_models_with_other_interfaces(name: str, suffix: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    x, y = generator.normal(size=(2, 8, 7, 4)).astype("float32")
    words = generator.integers(0, 9, (8, 7)).astype("int32")
    given = {"Pair": {"left": x, "right": y}, "masked": {"words": words}}.get(name, {"x": x})
    text = INTERFACES.replace("REMOVED\n        ", f"    {REMOVED}        ")
    text = text.replace("REMOVED\n    ", f"{REMOVED}    ")
    tf_keras.backend.clear_session()
    names = run_in_tf_keras(HEAD + text)
    model = names[name]()
    arguments = list(given.values())
    if name in ("Net", "Pair"):
        model(*(array[:1] for array in arguments))
    model.set_weights([generator.uniform(0.1, 0.9, w.shape) for w in model.get_weights()])
    path, samples = tmp_path / f"m{suffix}", tmp_path / "samples.npz"
    model.save_weights(path)
    (tmp_path / "own.py").write_text(HEAD + text)
    np.savez(samples, **given)
    loaded = load_model(
        audit_file(path),
        architecture=f"{tmp_path / 'own.py'}:{name}",
        samples=None if name == "called" else samples,
    )
    assert loaded.is_graph
    of_version = [note for note in loaded.notes if "does not contain its Keras version" in note]
    assert bool(of_version) == (suffix == ".weights.h5")
    expected = []
    for start in range(0, 8, 2):
        model.reset_states()
        expected.append(model(*(array[start : start + 2] for array in arguments)).numpy())
    given = {"inputs": x} if name == "called" else given
    [actual] = loaded.model.predict(given, verbose=0).values()
    atol = 5e-3 if name == "half" else 1e-5  # tf_keras computes in half precision
    np.testing.assert_allclose(actual, np.concatenate(expected), atol=atol)
    assert any("was stateful" in note for note in loaded.notes) == (name == "stateful")


CLASSES = """
assert layers.experimental.RandomFourierFeatures

def softplus(x):
    return 3.0 * x

class Tied(layers.Layer):
    def __init__(self, units, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.units, self.activation = units, keras.activations.get(activation)

    def build(self, shape):
        self.kernel = self.add_weight("kernel", shape=(shape[-1], self.units))
        super().build(shape)

    def call(self, x):
        return self.activation(tf.matmul(tf.matmul(x, self.kernel), self.kernel, transpose_b=True))

    def get_config(self):
        name = keras.activations.serialize(self.activation)
        return dict(super().get_config(), units=self.units, activation=name)
"""


@pytest.mark.parametrize("activation", only(["tanh", "softplus", "chosen"], "softplus"))
@pytest.mark.parametrize("suffix", only([".h5", ".keras"], ".keras"))
def test_classes_of_whole_files(
    suffix: str, activation: str, tmp_path: Path, failures: list[str | None]
) -> None:
    """A function of the file may be the activation, or that of Keras with its name."""
    own = run_in_tf_keras(HEAD + CLASSES)
    x = tf_keras.Input((6,), name="x")
    y = own["Tied"](4, activation="softplus" if activation == "chosen" else activation)(x)
    model = tf_keras.Model(x, tf_keras.layers.Dense(2, name="y")(y + 1.0))
    path = tmp_path / f"m{suffix}"
    model.save(path)
    choice = 'custom_objects = {"softplus": "softplus"}\n' if activation == "chosen" else ""
    (tmp_path / "own.py").write_text(HEAD + CLASSES + choice)
    if activation == "softplus":
        with pytest.raises(UsageError, match="failed with AttributeError"):
            load_model(audit_file(path), custom_objects=tmp_path / "own.py")
        assert failures == ["the activation softplus may be that of Keras"]
        return
    loaded = load_model(audit_file(path), custom_objects=tmp_path / "own.py")
    assert loaded.is_graph
    assert loaded.notes[0].startswith("The model does not run in Keras 3: ")
    given = np.random.default_rng(6).normal(size=(8, 6)).astype("float32")
    actual = loaded.model.predict({"x": given}, verbose=0)["y"]
    np.testing.assert_allclose(actual, model.predict(given, verbose=0), atol=1e-5)


PLAIN = """
def build():
    x = keras.Input((6,), name="x")
REMOVED
    return keras.Model(x, layers.Dense(3)(layers.Dense(6)(x)))
""".replace("REMOVED", REMOVED)


@pytest.mark.parametrize("version", only(["1.2.2", "2.2.4", "2.2.4-tf", "2.3.1", "3.0.0"], "2.3.1"))
def test_versions_with_other_defaults(version: str, tmp_path: Path) -> None:
    _, path = written(PLAIN, tmp_path)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = version
    with pytest.raises(UsageError, match="failed with AttributeError"):
        load_model(audit_file(path), architecture=f"{tmp_path / 'own.py'}:build")


@pytest.mark.long
@pytest.mark.parametrize("version", ["2.3.0-tf", "2.4.0", "2.15.0"])
def test_versions_with_the_same_defaults(version: str, tmp_path: Path) -> None:
    model, path = written(PLAIN, tmp_path)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = version
    loaded = load_model(audit_file(path), architecture=f"{tmp_path / 'own.py'}:build")
    require_converted(loaded, model, tmp_path)


def test_errors_have_their_public_class_in_other_processes() -> None:
    for error, kind in (
        (Keras3ProgramError("a", hint="b"), UsageError),
        (Keras3ModelError("a", hint="b"), UnsupportedModelError),
    ):
        received = error_from_json(error_to_json(error))
        assert type(received) is kind
        assert (received.message, received.hint) == ("a", "b")
