"""Graphs with branches that assign to variables, and variables that decide which branch runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

X = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 4.0]], "float32")


class Scaled(tf.Module):
    """Multiplies with a scale of 2, which it sets to the mean of the first samples."""

    def __init__(self, *, initialized: bool = True, number: int = 1) -> None:
        super().__init__()
        self.scale = tf.Variable(2.0)
        self.initialized = tf.Variable(initialized)
        self.number = tf.Variable(number)
        self.calls = tf.Variable(0)

    def set_scale(self, x: Any) -> Any:
        """Set the scale, and return it."""
        self.scale.assign(tf.reduce_mean(x))
        self.initialized.assign(True)
        return self.scale.read_value()


def plain(module: Scaled, x: Any) -> Any:
    scale = tf.cond(
        module.initialized, lambda: module.scale.read_value(), lambda: module.set_scale(x)
    )
    return x * scale


def negated(module: Scaled, x: Any) -> Any:
    uninitialized = tf.logical_not(module.initialized) | (module.number < 0)
    tf.cond(uninitialized, lambda: module.set_scale(x), lambda: tf.constant(0.0))
    return x * module.scale


def in_functions(module: Scaled, x: Any) -> Any:
    return tf.function(lambda y: tf.function(lambda z: plain(module, z))(y) + 0.0)(x)


def as_an_argument(module: Scaled, x: Any) -> Any:
    """The value is read outside the function with the condition."""

    def scaled(y: Any, initialized: Any) -> Any:
        scale = tf.cond(initialized, lambda: tf.constant(2.0), lambda: module.set_scale(y))
        return y * scale

    return tf.function(scaled)(x, tf.identity(module.initialized.read_value()))


def in_conditions(module: Scaled, x: Any) -> Any:
    """A condition of which both branches run, with such a condition in each."""
    return tf.cond(tf.reduce_sum(x) > 4.0, lambda: plain(module, x), lambda: plain(module, x))


def by_number(module: Scaled, x: Any) -> Any:
    branches = [lambda: module.set_scale(x), lambda: tf.constant(2.0), lambda: module.set_scale(x)]
    return x * tf.switch_case(module.number.read_value(), branches)


def by_a_number_that_is_too_large(module: Scaled, x: Any) -> Any:
    """The last branch runs."""
    branches = [lambda: module.set_scale(x), lambda: tf.constant(2.0)]
    return x * tf.switch_case(module.number.read_value() + 4, branches)


def in_a_loop(module: Scaled, x: Any) -> Any:
    _, y = tf.while_loop(
        lambda step, _: step < 1,
        lambda step, y: (step + 1, plain(module, y)),
        [tf.constant(0), x],
        shape_invariants=[tf.TensorShape([]), x.shape],
    )
    return y


def nested(module: Scaled, x: Any) -> Any:
    """A branch that never runs has a condition that is not known."""

    def unknown() -> Any:
        return tf.cond(
            tf.reduce_sum(x) > 0.0, lambda: module.set_scale(x), lambda: tf.constant(7.0)
        )

    return x * tf.cond(module.initialized, lambda: module.scale.read_value(), unknown)


def saved(call: Callable[[Scaled, Any], Any], folder: Path, **values: Any) -> Path:
    module = Scaled(**values)

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    def serve(x: Any) -> Any:
        return {"y": call(module, x)}

    tf.saved_model.save(module, str(folder / "m"), signatures=serve)
    return folder / "m"


CALLS = [plain, negated, in_functions, as_an_argument, in_conditions, by_number,
         by_a_number_that_is_too_large, in_a_loop, nested]  # fmt: skip


@pytest.mark.parametrize("call", only(CALLS, plain, in_functions, in_a_loop))
def test_branches_that_never_run(call: Callable[[Scaled, Any], Any], tmp_path: Path) -> None:
    loaded = load_model(audit_file(saved(call, tmp_path)))
    np.testing.assert_allclose(loaded.model({"x": X})["y"], 2 * X, rtol=1e-6)
    np.testing.assert_allclose(loaded.model({"x": X + 1})["y"], 2 * X + 2, rtol=1e-6)
    interface = interface_of(loaded.model)
    for name, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{name}"
        converter.convert(loaded.model, interface, recipe_for("float32"), path)
        runner = open_runner(path, name, interface.inputs, interface.outputs)
        np.testing.assert_allclose(runner.run({"x": X[:1]})["y"], 2 * X[:1], rtol=1e-6)


def counting(module: Scaled, x: Any) -> Any:
    """The first call changes which branch runs in the second."""
    tf.cond(
        module.calls > 0, lambda: module.set_scale(x), lambda: tf.cast(module.number, tf.float32)
    )
    module.calls.assign_add(1)
    return x * module.scale


def changed_in_a_branch(module: Scaled, x: Any) -> Any:
    """So does a branch that runs for some samples."""

    def count() -> Any:
        return tf.cast(module.calls.assign_add(1), tf.float32)

    tf.cond(tf.reduce_sum(x) > 0.0, count, lambda: tf.constant(0.0))
    tf.cond(module.calls > 0, lambda: module.set_scale(x), lambda: tf.constant(0.0))
    return x * module.scale


def depends_on_samples(module: Scaled, x: Any) -> Any:
    known = module.initialized & (tf.reduce_sum(x) > 0.0)
    tf.cond(known, lambda: tf.constant(0.0), lambda: module.set_scale(x))
    return x * module.scale


def at_random(module: Scaled, x: Any) -> Any:
    tf.cond(tf.random.uniform(()) > 0.5, lambda: module.set_scale(x), lambda: tf.constant(0.0))
    return x * module.scale


def in_steps(module: Scaled, x: Any) -> Any:
    """A number that the loop changes decides."""

    def step(number: Any, y: Any) -> Any:
        scale = tf.cond(number > 1, lambda: module.set_scale(y), lambda: tf.constant(2.0))
        return number + 1, y * scale

    _, y = tf.while_loop(lambda number, _: number < 3, step, [module.number.read_value(), x])
    return y


REFUSED = [plain, counting, changed_in_a_branch, depends_on_samples, at_random, in_steps]


@pytest.mark.parametrize("call", only(REFUSED, plain, counting, changed_in_a_branch))
def test_branches_that_may_run(call: Callable[[Scaled, Any], Any], tmp_path: Path) -> None:
    path = saved(call, tmp_path, initialized=call is not plain)
    with pytest.raises(UnsupportedModelError, match="changes a variable in its signature"):
        load_model(audit_file(path))


def test_branches_of_training(tmp_path: Path) -> None:
    """The input ``training`` of a signature is False."""
    module = Scaled()

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 3), tf.float32, name="x"),
            tf.TensorSpec((), tf.bool, name="training"),
        ]
    )
    def serve(x: Any, training: Any) -> Any:
        scale = tf.cond(training, lambda: module.set_scale(x), lambda: module.scale.read_value())
        return {"y": x * scale}

    tf.saved_model.save(module, str(tmp_path / "m"), signatures=serve)
    loaded = load_model(audit_file(tmp_path / "m"))
    np.testing.assert_allclose(loaded.model({"x": X})["y"], 2 * X, rtol=1e-6)


HEAD = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

"""
# As the wrappers of TensorFlowTTS and TensorFlow Addons.
PROGRAM = """
class Normalized(layers.Wrapper):
    def build(self, input_shape=None):
        if not self.layer.built:
            self.layer.build(input_shape)
        self.v, self.layer.kernel = self.layer.kernel, None
        self.g = self.add_weight(name="g", shape=(int(self.v.shape[-1]),), initializer="ones")
        self.initialized = self.add_weight(name="initialized", dtype=tf.bool, trainable=False)
        self.initialized.assign(False)
        super().build()

    def set_kernel(self):
        axes = list(range(len(self.v.shape) - 1))
        self.layer.kernel = tf.nn.l2_normalize(self.v, axis=axes) * self.g

    def call(self, inputs):
        if not self.initialized:
            self.set_kernel()
            _, variance = tf.nn.moments(self.layer(inputs), [0, 1])
            self.g.assign(self.g / tf.sqrt(variance + 1e-10))
            self.initialized.assign(True)
        self.set_kernel()
        return self.layer(inputs)

    def compute_output_shape(self, input_shape):
        return tf.TensorShape(self.layer.compute_output_shape(input_shape).as_list())

class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.net = keras.Sequential([
            Normalized(layers.Conv1D(4, 3)), layers.LeakyReLU(), Normalized(layers.Dense(2))])

    def call(self, x):
        return self.net(x)

class Compiled(Net):
    # Its variables are created while it is traced.
    def call(self, x):
        return self.compiled(x)

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.float32)])
    def compiled(self, x):
        return self.net(x)

def plain():
    model = Net()
    model(tf.random.uniform((1, 7, 3)))
    return model

def compiled():
    model = Compiled()
    model(tf.random.uniform((1, 7, 3)))
    return model
"""


def imported_in_tf_keras(text: str, folder: Path) -> Any:
    """A module with the text, whose functions AutoGraph can read."""
    path = folder / "own_of_tf_keras.py"
    path.write_text(
        text.replace("from tensorflow import keras", "import tf_keras as keras").replace(
            "from tensorflow.keras", "from tf_keras"
        )
    )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
@pytest.mark.compared(quick=False)
@pytest.mark.parametrize("suffix", only([".h5", ".weights.h5"], ".h5"))
@pytest.mark.parametrize("name", only(["plain", "compiled"], "plain"))
def test_weights_that_their_first_samples_initialize(
    name: str, suffix: str, tmp_path: Path
) -> None:
    tf_keras.backend.clear_session()
    model = getattr(imported_in_tf_keras(HEAD + PROGRAM, tmp_path), name)()
    generator = np.random.default_rng(3)
    for weight in model.weights:
        if weight.dtype.is_floating:
            weight.assign(generator.normal(0, 0.5, weight.shape))
    path, x = tmp_path / f"m{suffix}", generator.normal(size=(8, 7, 3)).astype("float32")
    model.save_weights(path)
    (tmp_path / "own.py").write_text(HEAD + PROGRAM)
    np.savez(tmp_path / "s.npz", x=x)
    loaded = load_model(
        audit_file(path),
        architecture=f"{tmp_path / 'own.py'}:{name}",
        samples=tmp_path / "s.npz",
        time_steps=7,
    )
    assert loaded.is_graph
    expected = np.concatenate([model(x[k : k + 1]).numpy() for k in range(8)])
    interface = interface_of(loaded.model)
    [given], [output] = interface.inputs, [item.name for item in interface.outputs]
    for kind, converter in (("tflite", tflite), ("onnx", onnx)):
        file = tmp_path / f"m.{kind}"
        converter.convert(loaded.model, interface, recipe_for("float32"), file)
        runner = open_runner(file, kind, interface.inputs, interface.outputs)
        actual = [runner.run({given.name: x[k : k + 1]})[output] for k in range(8)]
        np.testing.assert_allclose(np.concatenate(actual), expected, atol=1e-5)
