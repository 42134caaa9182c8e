"""Outputs of recurrent layers at masked steps in models of Keras before 2.2.5.

Expected values are those of ``K.rnn`` in keras/backend/tensorflow_backend.py of Keras 2.2.4,
written in NumPy, with the cells of tf_keras.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only
from tf_keras import layers

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import LoadedModel, load_model
from edgeattn_converters.quantization_aware.rebuilding import rebuilt
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.states import with_states
from edgeattn_converters.tracing.trace import interface_of

GENERATOR = np.random.default_rng(7)
# Masked at the beginning, in the middle, at the end, everywhere and nowhere.
IS_REAL = np.array([[0, 0, 1, 0, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
X = np.where(IS_REAL[..., None], GENERATOR.normal(size=(4, 5, 3)), 0).astype("float32")
STATES = [GENERATOR.normal(size=(4, 2)).astype("float32") for _ in range(4)]
NOTE = "outputs at masked steps are the first state"


def k_rnn(
    step: Any, x: Any, states: Sequence[Any], *, reverse: bool = False, mask: Any = IS_REAL
) -> tuple[Any, list[Any]]:
    """``K.rnn`` of Keras 2.2.4 without ``unroll``: outputs in the order of the loop, and states."""
    outputs = []
    for t in range(x.shape[1])[:: -1 if reverse else 1]:
        output, new = step(x[:, t], list(map(tf.convert_to_tensor, states)))
        is_real = mask[:, t, None]
        outputs.append(np.where(is_real, output, states[0]))
        states = [np.where(is_real, a, b) for a, b in zip(new, states, strict=True)]
    return np.stack(outputs, axis=1), list(states)


def check(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=1e-4, atol=1e-5)


def trained(model: Any) -> Any:
    model.set_weights([GENERATOR.normal(size=value.shape) for value in model.get_weights()])
    return model


def load(
    model: Any, folder: Path, version: str = "2.2.4", backend: str = "tensorflow", **options: Any
) -> LoadedModel:
    path = folder / "m.h5"
    model.save(path)
    with h5py.File(path, "a") as file:
        for group in (file, file["model_weights"]):
            group.attrs.update(keras_version=version, backend=backend)
    return load_model(audit_file(path), **options)


def model_of(layer: Any, count: int) -> Any:
    """A model of masked steps and a recurrent layer with ``count`` initial states."""
    inputs = [tf_keras.Input((5, 3)), *(tf_keras.Input((2,)) for _ in range(count))]
    masked = layers.Masking()(inputs[0])
    outputs = layer(masked, initial_state=inputs[1:]) if count else layer(masked)
    return trained(tf_keras.Model(inputs if count else inputs[0], outputs))


def has_note(loaded: LoadedModel, name: str = "r") -> bool:
    return any(note.startswith(f"{name}: {NOTE}") for note in loaded.notes)


GATES = {"recurrent_activation": "sigmoid"}
LAYERS: dict[str, Any] = {
    "LSTM": (layers.LSTM, GATES),
    "GRU": (layers.GRU, GATES),
    "SimpleRNN": (layers.SimpleRNN, {}),
    "RNN": (lambda _units, **named: layers.RNN(layers.LSTMCell(2, **GATES), **named), {}),
}


@pytest.mark.parametrize("reverse", only([False, True], False))
@pytest.mark.parametrize("name", only(LAYERS, "LSTM"))
def test_layers(name: str, reverse: bool, tmp_path: Path) -> None:
    create, arguments = LAYERS[name]
    results = {"return_sequences": True, "return_state": True, "go_backwards": reverse}
    layer = create(2, name="r", **results, **arguments)
    count = 2 if "LSTM" in name or name == "RNN" else 1
    model = model_of(layer, count)
    outputs, states = k_rnn(layer.cell, X, STATES[:count], reverse=reverse)
    loaded = load(model, tmp_path)
    actual = loaded.model([X, *STATES[:count]])
    for one, other in zip(actual, (outputs, *states), strict=True):
        check(one, other)
    check(loaded.model.predict([X, *STATES[:count]], verbose=0)[0], outputs)
    assert has_note(loaded)
    # Samples of the comparison are padded at the end.
    explained = any("only because it does not make the changes" in note for note in loaded.notes)
    assert explained == reverse


def test_values_worked_by_hand(tmp_path: Path) -> None:
    """A step of the layer adds its input to the state; the first step is masked."""
    layer = layers.SimpleRNN(1, "linear", use_bias=False, return_sequences=True, name="r")
    inputs = [tf_keras.Input((3, 1)), tf_keras.Input((1,))]
    model = tf_keras.Model(inputs, layer(layers.Masking()(inputs[0]), initial_state=inputs[1]))
    model.set_weights([np.ones((1, 1)), np.ones((1, 1))])
    loaded = load(model, tmp_path, "2.1.6")
    actual = loaded.model([np.float32([[[0], [3], [0]]]), np.float32([[5]])])
    np.testing.assert_array_equal(np.ravel(actual), [5, 8, 8])


@pytest.mark.parametrize("name", only(["LSTM", "GRU"], "GRU"))
def test_last_outputs(name: str, tmp_path: Path) -> None:
    create, arguments = LAYERS[name]
    layer = create(2, name="r", **arguments)
    count = 2 if name == "LSTM" else 1
    model = model_of(layer, count)
    outputs, _ = k_rnn(layer.cell, X, STATES[:count])
    check(load(model, tmp_path).model([X, *STATES[:count]]), outputs[:, -1])


@pytest.mark.long
@pytest.mark.parametrize("merge_mode", ["concat", "sum"])
def test_both_directions(merge_mode: str, tmp_path: Path) -> None:
    inner = layers.LSTM(2, return_sequences=True, **GATES)
    layer = layers.Bidirectional(inner, merge_mode=merge_mode, name="r")
    model = model_of(layer, 4)
    forward, _ = k_rnn(layer.forward_layer.cell, X, STATES[:2])
    backward, _ = k_rnn(layer.backward_layer.cell, X, STATES[2:], reverse=True)
    backward = backward[:, ::-1]
    merged = (
        np.concatenate([forward, backward], -1) if merge_mode == "concat" else forward + backward
    )
    loaded = load(model, tmp_path)
    check(loaded.model([X, *STATES]), merged)
    assert has_note(loaded)


@pytest.mark.parametrize(
    ("version", "backend", "repeats"),
    [
        pytest.param("2.0.8", "tensorflow", True, marks=pytest.mark.long),
        ("2.3.1", "tensorflow", True),
        pytest.param("2.2.4", "theano", True, marks=pytest.mark.long),
        pytest.param("2.1.6-tf", "tensorflow", True, marks=pytest.mark.long),
        pytest.param("2.2.4-tf", "tensorflow", False, marks=pytest.mark.long),
        pytest.param("2.4.0", "tensorflow", False, marks=pytest.mark.long),
    ],
)
def test_directions_repeat_outputs(
    version: str, backend: str, repeats: bool, tmp_path: Path
) -> None:
    """They do not start with states; tf_keras has zeros at all masked steps."""
    layer = layers.Bidirectional(layers.LSTM(2, return_sequences=True, **GATES), name="r")
    model = model_of(layer, 0)
    zeros = [np.zeros((4, 2), "float32")] * 2
    forward, _ = k_rnn(layer.forward_layer.cell, X, zeros)
    backward, _ = k_rnn(layer.backward_layer.cell, X, zeros, reverse=True)
    expected = np.concatenate([forward, backward[:, ::-1]], -1) if repeats else model(X)
    loaded = load(model, tmp_path, version, backend)
    check(loaded.model(X), expected)
    assert any("not zeros, as in Keras before 2.4" in note for note in loaded.notes) == repeats


@pytest.mark.parametrize("format", only(["tflite", "onnx"], "onnx"))
def test_last_outputs_of_both_directions_in_tensorflow_1_13(format: str, tmp_path: Path) -> None:
    """``K.rnn`` with ``zero_output_for_mask``, which the files of this version contain."""
    layer = layers.Bidirectional(layers.LSTM(2, **GATES), name="r")
    model = model_of(layer, 0)
    model.save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.attrs["keras_version"] = file["model_weights"].attrs["keras_version"] = "2.2.4-tf"
        config = json.loads(str(file.attrs["model_config"]))
        config["config"]["layers"][-1]["config"]["layer"]["config"]["zero_output_for_mask"] = True
        file.attrs["model_config"] = json.dumps(config)
    zeros = [np.zeros((4, 2), "float32")] * 2
    forward, _ = k_rnn(layer.forward_layer.cell, X, zeros)
    backward, _ = k_rnn(layer.backward_layer.cell, X, zeros, reverse=True)
    expected = np.concatenate(
        [
            np.where(IS_REAL[:, -1:], forward[:, -1], 0),
            np.where(IS_REAL[:, :1], backward[:, -1], 0),
        ],
        axis=1,
    )
    loaded = load_model(audit_file(tmp_path / "m.h5"))
    check(loaded.model(X), expected)
    assert any("as in TensorFlow 1.13, which saved the file" in note for note in loaded.notes)
    [name] = (x.name for x in loaded.model.inputs)
    convert = {"tflite": tflite, "onnx": onnx}[format].convert
    recipe, interface = recipe_for("float32"), interface_of(loaded.model)
    file = convert(loaded.model, interface, recipe, tmp_path / "a", samples={name: X[:1]})
    runner = open_runner(tmp_path / "a", format, file.inputs, file.outputs, as_deployed=True)
    for row in range(4):
        [actual] = runner.run({name: X[row : row + 1]}).values()
        check(actual, expected[row : row + 1])


@pytest.mark.long
def test_copies_repeat_outputs(tmp_path: Path) -> None:
    """Those for training with quantization; ``clone_model`` of Keras has zeros."""
    layer = layers.Bidirectional(layers.LSTM(2, return_sequences=True, **GATES), name="r")
    model = load(model_of(layer, 0), tmp_path).model
    copy = rebuilt(model, [np.asarray(value) for value in model.trainable_variables], [], (X,))
    check(copy(X), model(X))


@pytest.mark.long
def test_last_outputs_of_both_directions(tmp_path: Path) -> None:
    """They have never been zeros."""
    model = model_of(layers.Bidirectional(layers.LSTM(2, **GATES), name="r"), 0)
    loaded = load(model, tmp_path)
    check(loaded.model(X), model(X))
    assert loaded.notes == ()


@pytest.mark.parametrize(
    ("version", "backend", "unroll"),
    [
        pytest.param("2.2.5", "tensorflow", False, marks=pytest.mark.long),
        pytest.param("2.2.4-tf", "tensorflow", False, marks=pytest.mark.long),
        pytest.param("2.15.0", "tensorflow", False, marks=pytest.mark.long),
        pytest.param("2.2.4", "theano", False, marks=pytest.mark.long),
        ("2.2.4", "tensorflow", True),
    ],
)
def test_zeros_of_others(version: str, backend: str, unroll: bool, tmp_path: Path) -> None:
    layer = layers.LSTM(2, return_sequences=True, unroll=unroll, name="r", **GATES)
    model = model_of(layer, 2)
    loaded = load(model, tmp_path, version, backend)
    check(loaded.model([X, *STATES[:2]]), model([X, *STATES[:2]]))
    assert not has_note(loaded)


def test_layers_without_states(tmp_path: Path) -> None:
    model = model_of(layers.LSTM(2, return_sequences=True, name="r", **GATES), 0)
    loaded = load(model, tmp_path, "2.1.6-tf")
    check(loaded.model(X), model(X))
    assert loaded.notes == ()


def test_layers_without_mask(tmp_path: Path) -> None:
    inputs = [tf_keras.Input((5, 3)), tf_keras.Input((2,))]
    layer = layers.GRU(2, return_sequences=True, name="r", **GATES)
    model = trained(tf_keras.Model(inputs, layer(inputs[0], initial_state=inputs[1])))
    loaded = load(model, tmp_path)
    check(loaded.model([X, STATES[0]]), model([X, STATES[0]]))
    assert not has_note(loaded)


@pytest.mark.parametrize("version", only(["2.2.2", "2.2.4"], "2.2.4"))
def test_stacks_of_cells(version: str, tmp_path: Path) -> None:
    """The first state is that of the last cell before Keras 2.2.3, and then of the first cell."""
    cells = [layers.GRUCell(2, **GATES) for _ in range(2)]
    model = model_of(layers.RNN(cells, return_sequences=True, name="r"), 0)

    def step(x: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        x, first = cells[0](x, states[:1])
        x, second = cells[1](x, states[1:])
        return x, [*first, *second]

    zeros = [np.zeros((4, 2), "float32")] * 2
    expected = model(X) if version == "2.2.2" else k_rnn(step, X, zeros)[0]
    loaded = load(model, tmp_path, version)
    check(loaded.model(X), expected)
    assert has_note(loaded) == (version == "2.2.4")


@pytest.mark.parametrize("version", only(["2.2.2", "2.2.4"], "2.2.2"))
def test_states_of_stacks_of_cells(version: str, tmp_path: Path) -> None:
    """Initial and returned states are those of the last cell first before Keras 2.2.3."""
    cells = [layers.GRUCell(2, **GATES) for _ in range(2)]
    layer = layers.RNN(cells, return_sequences=True, return_state=True, name="r")
    inputs = [tf_keras.Input((5, 3)), *(tf_keras.Input((2,)) for _ in range(2))]
    model = trained(tf_keras.Model(inputs, layer(inputs[0], initial_state=inputs[1:])))
    order = slice(None, None, -1 if version == "2.2.2" else 1)
    outputs, *states = model([X, *STATES[:2][order]])
    loaded = load(model, tmp_path, version)
    for one, other in zip(loaded.model([X, *STATES[:2]]), (outputs, *states[order]), strict=True):
        check(one, other)


def test_stacks_of_cells_of_several_versions_of_tensorflow(tmp_path: Path) -> None:
    cells = [layers.GRUCell(2, **GATES) for _ in range(2)]
    layer = layers.RNN(cells, return_state=True, name="r")
    inputs = tf_keras.Input((5, 3))
    loaded = load(trained(tf_keras.Model(inputs, layer(inputs))), tmp_path, "2.1.6-tf")
    assert any("TensorFlow 1.9 or 1.10" in note for note in loaded.notes)


PROGRAM = """
import keras
from keras import backend as K
from keras.layers import GRU, LSTM, RNN, Bidirectional, Dense, Input, Layer, Masking


class Doubled(Layer):
    def call(self, x):
        return x + x


class Twice(Layer):
    '''A cell whose output is another tensor than its state.'''

    def __init__(self, **named):
        self.state_size = 3
        super().__init__(**named)

    def call(self, x, states):
        new = states[0] + x
        return 2 * new, [new]


class Sums(Layer):
    supports_masking = True

    def call(self, x, mask=None):
        initial = x[:, 0] + 1
        return K.rnn(lambda y, s: (2 * y, [s[0] + y]), x, [initial], mask=mask)[1]


def build(layer, *others):
    x, s = Input((5, 3)), Input((2,))
    dense = Dense(2, name="d")(s)
    y = layer(Masking()(x), initial_state=dense)
    for other in others:
        y = other(y)
    return keras.models.Model([x, s], y)


def gru():
    return build(GRU(2, return_sequences=True, name="r", recurrent_activation="sigmoid"))


def own():
    return build(GRU(2, return_sequences=True, name="r", recurrent_activation="sigmoid"), Doubled())


def both():
    x = Input((5, 3))
    y = Bidirectional(LSTM(2, name="r", recurrent_activation="sigmoid"), name="b")(Masking()(x))
    return keras.models.Model(x, y)


def of_cell(layer):
    x = Input((5, 3))
    return keras.models.Model(x, layer(Masking()(Dense(3, name="d", use_bias=False)(x))))


def cell():
    return of_cell(RNN(Twice(), return_sequences=True, name="r"))


def function():
    return of_cell(Sums())
"""


def load_program(function: str, model: Any, folder: Path, version: str = "2.2.4") -> LoadedModel:
    model.save_weights(folder / "w.h5")
    with h5py.File(folder / "w.h5", "a") as file:
        file.attrs.update(keras_version=version, backend="tensorflow")
    (folder / "own.py").write_text(PROGRAM)
    return load_model(audit_file(folder / "w.h5"), architecture=f"{folder / 'own.py'}:{function}")


@pytest.mark.parametrize("function", only(["gru", "own"], "own"))
def test_programs(function: str, tmp_path: Path) -> None:
    inputs = [tf_keras.Input((5, 3)), tf_keras.Input((2,))]
    dense = layers.Dense(2, name="d")(inputs[1])
    layer = layers.GRU(2, return_sequences=True, name="r", reset_after=False, **GATES)
    y = layer(layers.Masking()(inputs[0]), initial_state=dense)
    model = trained(tf_keras.Model(inputs, y))
    kernel, bias = model.get_layer("d").get_weights()
    expected, _ = k_rnn(layer.cell, X, [STATES[0] @ kernel + bias])
    loaded = load_program(function, model, tmp_path)
    check(loaded.model([X, STATES[0]]), expected * (2 if function == "own" else 1))
    assert has_note(loaded)


@pytest.mark.compared(quick=False)
@pytest.mark.parametrize("function", only(["cell", "function"], "function"))
def test_code(function: str, tmp_path: Path) -> None:
    """Outputs are the first state at all masked steps; tf_keras does not refute that."""
    x = tf_keras.Input((5, 3))
    model = trained(tf_keras.Model(x, layers.Dense(3, name="d", use_bias=False)(x)))
    values = np.asarray(model(X))

    def cell(x: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        new = states[0] + x
        return 2 * (new if function == "cell" else x), [new]

    initial = np.zeros((4, 3)) if function == "cell" else values[:, 0] + 1
    actual = load_program(function, model, tmp_path).model(X)
    check(actual, k_rnn(cell, values, [initial])[0])
    later = load_program(function, model, tmp_path, "2.2.5").model(X)
    assert np.abs(actual - later).max() > 0.1


@pytest.mark.parametrize(("version", "is_named"), [("2.2.4-tf", True), ("2.3.0-tf", False)])
def test_weights_of_several_versions_of_tensorflow(
    version: str, is_named: bool, tmp_path: Path
) -> None:
    """TensorFlow 1.13, whose last outputs may be zeros, has the version of those up to 2.1."""
    x = tf_keras.Input((5, 3))
    layer = layers.Bidirectional(layers.LSTM(2, name="r", **GATES), name="b")
    model = trained(tf_keras.Model(x, layer(layers.Masking()(x))))
    loaded = load_program("both", model, tmp_path, version)
    check(loaded.model(X), model(X))
    assert any("b: the last output" in note and "1.13" in note for note in loaded.notes) == is_named


@pytest.mark.parametrize("format", only(["tflite", "onnx"], "tflite"))
@pytest.mark.parametrize("name", only(["LSTM", "backwards", "last", "both"], "LSTM"))
def test_artifacts(name: str, format: str, tmp_path: Path) -> None:
    arguments = {"return_sequences": name != "last", "go_backwards": name == "backwards"}
    layer = layers.LSTM(2, name="r", **arguments, **GATES)
    count = 2
    if name == "both":
        layer, count = layers.Bidirectional(layer, name="r"), 4
    loaded = load(model_of(layer, count), tmp_path).model
    values = dict(zip((x.name for x in loaded.inputs), (X, *STATES[:count]), strict=True))
    convert = {"tflite": tflite, "onnx": onnx}[format].convert
    samples = {key: value[:1] for key, value in values.items()}
    recipe, interface = recipe_for("float32"), interface_of(loaded)
    file = convert(loaded, interface, recipe, tmp_path / "a", samples=samples)
    runner = open_runner(tmp_path / "a", format, file.inputs, file.outputs, as_deployed=True)
    expected = np.asarray(loaded([X, *STATES[:count]]))
    for row in range(4):
        [actual] = runner.run({key: value[row : row + 1] for key, value in values.items()}).values()
        check(actual, expected[row : row + 1])


def test_states_as_inputs(tmp_path: Path) -> None:
    """A ``stateful`` layer starts with the states that the batch before left."""
    layer = layers.LSTM(2, return_sequences=True, stateful=True, name="r", **GATES)
    x = tf_keras.Input(batch_shape=(4, 5, 3))
    model = trained(tf_keras.Model(x, layer(layers.Masking()(x))))
    loaded = load(model, tmp_path)
    exported, pairs = with_states(loaded.model, loaded.stateful)
    values = dict(zip((x.name for x in exported.inputs), (X, *STATES[:2]), strict=True))
    outputs = exported([values[x.name] for x in exported.inputs])
    [expected, states] = k_rnn(layer.cell, X, STATES[:2])
    [actual] = [value for name, value in outputs.items() if name not in pairs.values()]
    check(actual, expected)
    check(outputs["r_final_h"], states[0])
