"""SavedModel folders whose graph is the model although the user passes a file of classes.

TensorFlow changes the outputs and loops of a graph that is called under a gradient tape.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.lowering.call_replacement import replaced_calls
from edgeattn_converters.lowering.plain_layers import lower_signature
from edgeattn_converters.reference.traced_values import traced_values
from edgeattn_converters.tracing.trace import interface_of, trace

STEPS, FEATURES = 5, 3
X = np.random.default_rng(5).normal(size=(4, STEPS, FEATURES)).astype("float32")
WORDS = np.array([[3, 1, 4, 1, 5], [2, 7, 0, 0, 0], [6, 0, 0, 0, 0]], "int32")
SPEC = tf.TensorSpec((None, STEPS, FEATURES), tf.float32, name="x")


class Module(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(6).normal(size=(3, 3)).astype("float32"))


class Dense(Module):
    @tf.function(input_signature=[SPEC])
    def serve(self, x: Any) -> Any:
        """The gradient needs what is computed between the products."""
        return {"y": tf.tanh(x @ self.kernel) @ self.kernel}


class Loop(Module):
    @tf.function(input_signature=[SPEC])
    def serve(self, x: Any) -> Any:
        """The gradient needs the state of every step."""

        def step(k: Any, state: Any) -> Any:
            return k + 1, tf.tanh(state @ self.kernel + tf.gather(x, k, axis=1))

        return {"y": tf.while_loop(lambda k, _: k < STEPS, step, (0, x[:, 0]))[1]}


class Condition(Module):
    @tf.function(input_signature=[SPEC])
    def serve(self, x: Any) -> Any:
        """The gradient needs what a branch computes."""
        positive = tf.reduce_sum(self.kernel) > 100.0
        y = tf.cond(positive, lambda: x, lambda: tf.tanh(x @ self.kernel) @ self.kernel)
        return {"y": y}


def dense(kernel: Any) -> Any:
    return np.tanh(X @ kernel) @ kernel


def loop(kernel: Any) -> Any:
    state = X[:, 0]
    for k in range(STEPS):
        state = np.tanh(state @ kernel + X[:, k])
    return state


@pytest.mark.parametrize(("module", "expected"), [(Dense, dense), (Loop, loop), (Condition, dense)])
def test_a_graph_with_a_file_of_classes(
    module: Callable[[], Any], expected: Callable[[Any], Any], tmp_path: Path
) -> None:
    saved = module()
    tf.saved_model.save(saved, str(tmp_path / "m"), signatures=saved.serve)
    (tmp_path / "own.py").write_text("class Own:\n    pass\n")
    loaded = load_model(audit_file(tmp_path / "m"), custom_objects=tmp_path / "own.py")
    require_unchanged(loaded)
    [actual] = values(loaded.model, {"x": X}).values()
    np.testing.assert_allclose(actual, expected(saved.kernel.numpy()), atol=1e-5)


def require_unchanged(loaded: Any) -> None:
    """The variables of a graph are in the folder, and its classes are not needed."""
    assert not any("does not contain the variable" in note for note in loaded.notes), loaded.notes
    assert loaded.notes[-1].startswith("own.py has no effect")


def values(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Outputs of the model as converters trace it."""
    interface = interface_of(model)
    traced = trace(
        model,
        interface,
        batch=None,
        attention=False,
        lowering=lambda: replaced_calls(model, lower_signature),
    )
    return traced_values(traced, inputs)


CLASSES = """
class Cell({keras}.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1] + self.units, self.units))

    def call(self, x, states):
        state = tf.tanh(tf.matmul(tf.concat([x, states[0]], -1), self.kernel))
        return state, [state]

    def get_config(self):
        return dict(super().get_config(), units=self.units)


class Pool({keras}.layers.Layer):
    supports_masking = True

    def build(self, shape):
        self.dense = {keras}.layers.Dense(1)

    def call(self, x, mask=None):
        scores = self.dense(x)[..., 0]
        if mask is not None:
            scores += (1.0 - tf.cast(mask, tf.float32)) * -1e9
        return tf.reduce_sum(tf.nn.softmax(scores)[..., None] * x, 1)

    def compute_mask(self, x, mask=None):
        return None


class Net({keras}.Model):
    def __init__(self):
        super().__init__()
        self.words = {keras}.layers.Embedding(9, 4, mask_zero=True)
        self.both = {keras}.layers.Bidirectional({keras}.layers.LSTM(3, return_sequences=True))
        self.pool = Pool()
        self.last = {keras}.layers.Dense(2)

    def call(self, x):
        states = self.both(self.words(x))
        return {{"y": self.last(self.pool(states, mask=x != 0)), "states": states}}
"""


@pytest.fixture
def classes(tmp_path: Path) -> dict[str, Any]:
    """Classes of tf_keras, which own.py contains, too."""
    import tf_keras

    text = CLASSES.format(keras="keras")
    (tmp_path / "own.py").write_text(f"import tensorflow as tf\nimport tf_keras as keras\n{text}")
    names: dict[str, Any] = {"keras": tf_keras, "tf": tf}
    exec(text, names)
    return names


def functional(classes: dict[str, Any]) -> Any:
    """The folder does not name the weights inside the layer Pool."""
    layers = classes["keras"].layers
    x = classes["keras"].Input((STEPS,), dtype="int32", name="x")
    embedded = layers.Embedding(9, 4, mask_zero=True)(x)
    recurrent = layers.RNN(classes["Cell"](3), return_sequences=True)
    states = layers.Bidirectional(recurrent, merge_mode="sum")(embedded)
    return classes["keras"].Model(x, layers.Dense(2, name="y")(classes["Pool"]()(states)))


def subclassed(classes: dict[str, Any]) -> Any:
    model = classes["Net"]()
    model(WORDS)
    return model


@pytest.mark.long
@pytest.mark.parametrize("build", [functional, subclassed])
def test_a_folder_of_keras_2_with_its_classes(
    build: Callable[[Any], Any], classes: dict[str, Any], tmp_path: Path
) -> None:
    model = build(classes)
    expected = model(WORDS)
    model.save(tmp_path / "m", save_format="tf")
    file = audit_file(tmp_path / "m")
    loaded = load_model(file, custom_objects=tmp_path / "own.py", time_steps=STEPS)
    require_unchanged(loaded)
    [spec] = interface_of(loaded.model).inputs
    actual = values(loaded.model, {spec.name: WORDS})
    expected = expected if isinstance(expected, dict) else {"y": expected}
    assert set(actual) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, atol=1e-5)


def test_an_error_about_a_graph_names_the_folder(tmp_path: Path) -> None:
    saved = Dense()
    tf.saved_model.save(saved, str(tmp_path / "m"), signatures=saved.serve)
    model = load_model(audit_file(tmp_path / "m")).model
    model.layers[-1].signature_function = None
    with pytest.raises(
        UnsupportedModelError, match="the graph of the SavedModel folder failed"
    ) as error:
        interface_of(model)
    assert "Convert the .keras or .h5 file" in (error.value.hint or "")
