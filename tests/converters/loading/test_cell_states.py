"""Cells of Keras 2 with states that are matrices, whose sizes are a ``TensorShape``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

PROGRAM = """
import tensorflow as tf
import keras
from keras import layers

class Matrix(layers.Layer):
    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = self.output_size = units
        self.state_size = [units, tf.TensorShape([units, 2])]

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, x, states):
        vector, matrix = states
        vector = 0.5 * vector + tf.matmul(x, self.kernel)
        matrix = 0.5 * matrix + vector[:, :, None]
        return vector + tf.reduce_sum(matrix, -1), [vector, matrix]

    def get_config(self):
        return {**super().get_config(), "units": self.units}

class Alone(Matrix):
    def __init__(self, units=3, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = [tf.TensorShape([units, 2])]
        self.output_size = tf.TensorShape([units])

    def call(self, x, states):
        state = 0.5 * states[0] + tf.matmul(x, self.kernel)[:, :, None]
        return tf.reduce_sum(state, -1), [state]

class Single(Alone):
    def __init__(self, units=3, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = tf.TensorShape([units, 2])

class Vector(Single):
    def __init__(self, units=3, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size = tf.TensorShape([units])

    def call(self, x, states):
        state = 0.5 * states[0] + tf.matmul(x, self.kernel)
        return state, [state]

class WithOwnStates(Matrix):
    def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
        return [tf.ones([batch_size, self.units]), tf.ones([batch_size, self.units, 2])]

class Typed(Alone):
    def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
        return [tf.fill([batch_size, self.units, 2], tf.cast(0.5, dtype))]

class OfKeras(layers.GRUCell):
    def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
        return super().get_initial_state(inputs, batch_size, dtype) + tf.ones([1], dtype)

class ByName(layers.GRUCell):
    def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
        states = super().get_initial_state(inputs=inputs, batch_size=batch_size, dtype=dtype)
        return states + 0.5

class Recurrent(layers.RNN):
    def get_initial_state(self, inputs):
        states = super().get_initial_state(inputs)
        return [state + tf.reduce_mean(inputs, (1, 2))[:, None] for state in states]

def model(layer):
    x = keras.Input((5, 4))
    return keras.Model(x, layer(layers.Masking()(x)))

def last():
    return model(layers.RNN(Matrix()))

def steps():
    return model(layers.RNN(Alone(), return_sequences=True))

def states():
    return model(layers.RNN(Matrix(), return_state=True))

def state():
    return model(layers.RNN(Alone(), return_state=True, go_backwards=True))

def own():
    return model(layers.RNN(WithOwnStates(), return_state=True))

def single():
    return model(layers.RNN(Single(), return_state=True))

def vector():
    x = keras.Input((5, 4))
    y = layers.Masking()(x[:])
    return keras.Model(x, [layers.RNN(Vector(), return_sequences=True)(y)[...], y[:, 1]])

def typed():
    return model(layers.RNN(Typed(), return_state=True))

def of_keras():
    return model(layers.RNN(OfKeras(3), return_sequences=True))

def by_name():
    return model(layers.RNN([ByName(3), Typed()]))

def recurrent():
    return model(Recurrent(layers.LSTMCell(3), return_state=True))

def stacked():
    return model(layers.RNN([Matrix(2), Matrix(3)]))

def both():
    return model(layers.Bidirectional(layers.RNN(Matrix(), return_sequences=True)))

"""
MODELS = (
    *("last", "steps", "states", "state", "own", "single", "vector", "stacked", "both"),
    *("typed", "of_keras", "by_name", "recurrent"),
)


def _saved(name: str, path: Path, *, weights: bool = False) -> tuple[Any, list[Any]]:
    """Save a model of tf_keras with random weights; return inputs with padding, and outputs."""
    program: dict[str, Any] = {"__name__": "program"}
    exec(PROGRAM.replace("import keras\nfrom keras", "import tf_keras as keras\nfrom tf_keras"),
         program)  # fmt: skip
    generator = np.random.default_rng(5)
    x = generator.normal(size=(7, 5, 4)).astype("float32")
    x[0, 3:] = 0
    model = program[name]()
    model.set_weights([generator.normal(0, 0.7, size=w.shape) for w in model.get_weights()])
    (model.save_weights if weights else model.save)(path)
    (path.parent / "program.py").write_text(PROGRAM)
    return x, _arrays(model(x))


def _arrays(outputs: Any) -> list[Any]:
    return [np.asarray(o) for o in (outputs if isinstance(outputs, list | tuple) else [outputs])]


@pytest.mark.parametrize("name", only(MODELS, "steps"))
@pytest.mark.parametrize("stored", only(("model", "weights"), "model"))
def test_states_are_matrices(name: str, stored: str, tmp_path: Path) -> None:
    x, expected = _saved(name, tmp_path / "m.h5", weights=stored == "weights")
    path = tmp_path / "program.py"
    arguments: dict[str, Any] = {"custom_objects": path}
    if stored == "weights":
        arguments = {"architecture": f"{path}:{name}"}
    loaded = load_model(audit_file(tmp_path / "m.h5"), **arguments)
    actual = _arrays(loaded.model(x))
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("name", ["states", "both", "recurrent"])
@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_artifacts_have_such_states(format: str, name: str, tmp_path: Path) -> None:
    x, expected = _saved(name, tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"), custom_objects=tmp_path / "program.py").model
    converter = {"tflite": tflite, "onnx": onnx}[format]
    file = converter.convert(loaded, interface_of(loaded), recipe_for("float32"), tmp_path / "m")
    runner = open_runner(tmp_path / "m", format, file.inputs, file.outputs)
    for row in range(len(x)):
        outputs = runner.run({file.inputs[0].name: x[row : row + 1]})
        for spec, value in zip(file.outputs, expected, strict=False):
            np.testing.assert_allclose(outputs[spec.name][0], value[row], atol=1e-5)
