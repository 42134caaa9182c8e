"""Cells of recurrent layers of Keras 2 get constants, which those of Keras 3 do not have."""

from __future__ import annotations

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

STEPS, FEATURES, MEMORY = 5, 4, 3
PROGRAM = """
import tensorflow as tf
import keras
from keras import layers

class Cell(layers.Layer):
    def __init__(self, units=2, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, shape):
        self.query = self.add_weight(shape=(self.units, 4), name="query")
        self.kernel = self.add_weight(shape=(self.units + 8, self.units), name="kernel")
        self.built = True

    def call(self, x, states, constants):
        [state], [memory] = states, constants
        weights = tf.nn.softmax(tf.einsum("bd,btd->bt", tf.matmul(state, self.query), memory))
        context = tf.einsum("bt,btd->bd", weights, memory)
        state = tf.tanh(tf.matmul(tf.concat([x, state, context], -1), self.kernel))
        return state, [state]

    def get_config(self):
        return {**super().get_config(), "units": self.units}

class Decoder(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rnn = layers.RNN(Cell(), return_sequences=True)

    def call(self, inputs):
        x, memory = inputs
        return self.rnn(x, constants=[memory])

class Whole(keras.Model):
    def __init__(self):
        super().__init__()
        self.rnn = layers.RNN(Cell(), return_sequences=True)

    def call(self, inputs):
        x, memory = inputs
        return self.rnn(x, constants=[memory])

def model(call):
    x, memory = keras.Input((5, 4)), keras.Input((3, 4))
    return keras.Model([x, memory], call(layers.Masking()(x), memory))

def alone():
    return model(lambda x, c: layers.RNN(Cell(), return_sequences=True)(x, constants=[c]))

def with_state():
    rnn = layers.RNN(Cell(), return_state=True, go_backwards=True)
    return model(lambda x, c: rnn(x, initial_state=[layers.Dense(2)(c[:, 0])], constants=[c]))

def shared():
    rnn = layers.RNN(Cell(), unroll=True)
    return model(lambda x, c: layers.add([rnn(x, constants=[c]), rnn(2 * x, constants=[c])]))

def in_class():
    return model(lambda x, c: Decoder()([x, c]))

def nested():
    a, b = keras.Input((5, 4)), keras.Input((3, 4))
    rnn = layers.RNN(Cell(), return_sequences=True)
    inner = keras.Model([a, b], rnn(a, constants=[b]))
    return model(lambda x, c: layers.GRU(2)(inner([x, c])))

def of_class():
    return Whole()

class CellWithStates(Cell):
    def call(self, x, states, constants=None):
        return super().call(x, states, constants)

def single():
    # Keras 2 makes a list of a tensor.
    return model(lambda x, c: layers.RNN(Cell())(x, constants=c))

def in_place():
    rnn = layers.RNN(Cell(), return_sequences=True)
    return model(lambda x, c: rnn(x, layers.Dense(2)(c[:, 0]), c))

def both_directions():
    rnn = layers.RNN(CellWithStates())
    return model(lambda x, c: layers.Bidirectional(rnn)(x, constants=[c]))

def both_with_states():
    rnn = layers.RNN(CellWithStates(), return_sequences=True)
    both = layers.Bidirectional(rnn, merge_mode="sum")
    states = [layers.Dense(2), layers.Dense(2)]
    return model(lambda x, c: both(x, [s(c[:, 0]) for s in states], c))

def both_of_several():
    rnn = layers.RNN([CellWithStates(4), CellWithStates(2)])
    return model(lambda x, c: layers.Bidirectional(rnn)(x, constants=[c]))

def several_cells():
    rnn = layers.RNN([CellWithStates(4), CellWithStates(2)])
    return model(lambda x, c: rnn(x, constants=[c]))
"""
# Before TensorFlow 2, a cell was built with the shapes of the constants, too.
BEFORE_TENSORFLOW_2 = PROGRAM.replace(
    "def build(self, shape):\n", "def build(self, shapes):\n        shape, memory_shape = shapes\n"
).replace("(self.units + 8,", "(self.units + shape[-1] + memory_shape[-1],")
MODELS = (
    *("alone", "with_state", "shared", "in_class", "nested"),
    *("single", "in_place", "both_directions", "both_with_states"),
)


def _saved(name: str, path: Path, *, weights: bool = False) -> tuple[list[Any], list[Any]]:
    """Save a model of tf_keras with random weights; return inputs, with padding, and outputs."""
    program: dict[str, Any] = {"__name__": "program"}
    exec(PROGRAM.replace("import keras\nfrom keras", "import tf_keras as keras\nfrom tf_keras"),
         program)  # fmt: skip
    generator = np.random.default_rng(5)
    x, memory = (generator.normal(size=(7, n, FEATURES)).astype("float32") for n in (STEPS, MEMORY))
    x[0, 3:] = 0
    model = program[name]()
    model([x, memory])
    model.set_weights([generator.normal(0, 0.7, size=w.shape) for w in model.get_weights()])
    (model.save_weights if weights else model.save)(path)
    (path.parent / "program.py").write_text(PROGRAM)
    return [x, memory], _arrays(model([x, memory]))


def _arrays(outputs: Any) -> list[Any]:
    return [np.asarray(o) for o in (outputs if isinstance(outputs, list | tuple) else [outputs])]


@pytest.mark.parametrize("name", only(MODELS, "in_class"))
@pytest.mark.parametrize("ending", only(("h5", "keras"), "h5"))
def test_cells_get_constants(name: str, ending: str, tmp_path: Path) -> None:
    inputs, expected = _saved(name, tmp_path / f"m.{ending}")
    loaded = load_model(
        audit_file(tmp_path / f"m.{ending}"), custom_objects=tmp_path / "program.py"
    )
    actual = _arrays(loaded.model(inputs))
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", only(("of_class", "alone", "in_class"), "of_class"))
@pytest.mark.parametrize("of_build", only(("shape", "shapes"), "shapes"))
def test_cells_of_programs_get_constants(name: str, of_build: str, tmp_path: Path) -> None:
    """Neither does the program run in Keras 3, nor does the file contain its version."""
    source = BEFORE_TENSORFLOW_2 if of_build == "shapes" else PROGRAM
    _require_constants_in_program(name, tmp_path / "m.weights.h5", source)


@pytest.mark.parametrize("name", only(MODELS, "single"))
def test_cells_of_programs_for_keras_2_get_constants(name: str, tmp_path: Path) -> None:
    """The file contains the version. Third in place are the constants, in Keras 3 the mask."""
    _require_constants_in_program(name, tmp_path / "m.h5", PROGRAM)


def _require_constants_in_program(name: str, path: Path, source: str) -> None:
    inputs, expected = _saved(name, path, weights=True)
    program, samples = path.with_name("program.py"), path.with_name("samples.npz")
    program.write_text(source)
    np.savez(samples, x=inputs[0], memory=inputs[1])
    loaded = load_model(audit_file(path), architecture=f"{program}:{name}", samples=samples)
    # A graph, too: a tensor has no truth value there.
    for outputs in (loaded.model(inputs), loaded.model.predict(inputs, verbose=0)):
        for a, b in zip(_arrays(outputs), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", only(["both_of_several", "several_cells"], "several_cells"))
def test_other_layers_with_constants_are_the_graph_of_tf_keras(name: str, tmp_path: Path) -> None:
    inputs, expected = _saved(name, tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"), custom_objects=tmp_path / "program.py")
    assert "is called with constants" in loaded.notes[0]
    names = sorted((tensor.name for tensor in loaded.model.inputs), key=lambda n: int(n[6:]))
    outputs = loaded.model.predict(dict(zip(names, inputs, strict=True)), verbose=0)
    for a, b in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("name", ["alone", "in_class"])
@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_artifacts_have_constants(format: str, name: str, tmp_path: Path) -> None:
    inputs, [expected] = _saved(name, tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"), custom_objects=tmp_path / "program.py").model
    interface = interface_of(loaded)
    converter = {"tflite": tflite, "onnx": onnx}[format]
    file = converter.convert(loaded, interface, recipe_for("float32"), tmp_path / "m")
    runner = open_runner(tmp_path / "m", format, file.inputs, file.outputs, as_deployed=True)
    actual = runner.run({i.name: x for i, x in zip(loaded.inputs, inputs, strict=True)})
    np.testing.assert_allclose(actual[interface.outputs[0].name], expected, atol=1e-5)
