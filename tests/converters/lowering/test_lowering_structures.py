"""Nested recurrent layers, activations, and many consecutive sequences."""

import importlib

import numpy as np
import pytest
from recurrent_models import (
    FEATURES,
    KERAS,
    ROWS,
    SATURATION,
    UNITS,
    Builder,
    Converted,
    feed,
    randomise,
    sequences,
)

from edgeattn.runners import open_runner
from edgeattn_converters.formats import tflite
from edgeattn_converters.lowering.rnn.onnx_cell import onnx_activations
from edgeattn_converters.lowering.rnn.recurrence import Cell
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

BOTH = ("tflite", "onnx")
ACTIVATIONS = ("relu", "hard_sigmoid", "linear", "elu", "softsign", "gelu", "softmax", "softplus")


def _halved_sine(x):
    """A custom activation."""
    import tensorflow as tf

    return 0.5 * tf.sin(x)


def _softmax_of_units(x):
    import tensorflow as tf

    return tf.nn.softmax(x, axis=1)


def test_activations_over_two_axes_are_none_of_onnx():
    import keras

    zeros = np.zeros((3, 3), np.float32)
    sigmoid = keras.activations.sigmoid
    cell = Cell("gru", 1, zeros, zeros, zeros[0], _softmax_of_units, sigmoid)
    assert onnx_activations(cell) is None


@pytest.mark.long
@pytest.mark.parametrize("era", KERAS)
def test_any_activation(era, tmp_path):
    keras = importlib.import_module(era)
    builder = Builder(keras, 3, masked=False)
    layers = keras.layers
    for index, name in enumerate((*ACTIVATIONS, _halved_sine, _softmax_of_units)):
        label = name if isinstance(name, str) else name.__name__.strip("_")
        kind = (layers.LSTM, layers.SimpleRNN, layers.GRU)[index % 3]
        builder.add(f"{kind.__name__}_{label}", kind(UNITS, activation=name))
    for name in ("hard_sigmoid", "softsign", "softmax"):
        for kind in (layers.LSTM, layers.GRU):
            builder.add(f"{kind.__name__}_gates_{name}", kind(UNITS, recurrent_activation=name))
    builder.add("GRU_leaky", layers.GRU(UNITS, activation=keras.activations.get("leaky_relu")))
    converted = Converted(builder.build("activations"), tmp_path, BOTH)
    wrong = converted.errors(feed(converted, 3))
    assert not wrong, "\n".join(wrong)


@pytest.mark.long
@pytest.mark.parametrize("era", KERAS)
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_bidirectional(era, masked, tmp_path):
    keras = importlib.import_module(era)
    builder = Builder(keras, 3, masked=masked)
    layers = keras.layers
    # Merging is the same code for both Keras versions; the layers around it are not.
    for mode in ("concat", "sum", "mul", "ave", None) if era == "keras" else ("concat", None):
        for options in ({"return_sequences": True}, {}):
            name = f"{mode}_{'sequences' if options else 'last'}"
            builder.add(name, layers.Bidirectional(layers.LSTM(UNITS, **options), merge_mode=mode))
    all_of = {"return_sequences": True, "return_state": True}
    builder.add("gru_state", layers.Bidirectional(layers.GRU(UNITS, **all_of)))
    builder.add("rnn_state", layers.Bidirectional(layers.SimpleRNN(UNITS, return_state=True)))
    different = layers.Bidirectional(
        layers.LSTM(UNITS, return_sequences=True),
        backward_layer=layers.GRU(UNITS, return_sequences=True, go_backwards=True),
    )
    builder.add("different", different)
    if not masked:
        states = [*builder.states, *builder.states]
        wrapper = layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True))
        builder.add_outputs("initial", wrapper(builder.x, initial_state=states))
    converted = Converted(builder.build("bidirectional"), tmp_path, BOTH)
    wrong = converted.errors(feed(converted, 3))
    assert not wrong, "\n".join(wrong)


@pytest.mark.long
@pytest.mark.parametrize("era", KERAS)
def test_nested_layers(era, tmp_path):
    """Masking, a stack, a shared layer, TimeDistributed and a nested model."""
    keras = importlib.import_module(era)
    layers = keras.layers
    x = keras.Input((7, FEATURES), name="x")
    masked = layers.Masking(0.0)(x)
    stacked = layers.LSTM(UNITS, return_sequences=True)(masked)
    stacked = layers.Dropout(0.5)(layers.LSTM(UNITS, return_sequences=True, dropout=0.3)(stacked))
    shared = layers.GRU(UNITS, return_sequences=True, recurrent_dropout=0.2)
    twice = shared(layers.Dense(UNITS)(shared(layers.Dense(UNITS)(masked))))
    spread = layers.TimeDistributed(layers.Dense(2))(stacked)
    windows = layers.Reshape((7, FEATURES, 1))(x)
    inner = layers.TimeDistributed(layers.LSTM(UNITS))(windows)
    inside = keras.Input((7, FEATURES))
    nested = keras.Model(inside, layers.Bidirectional(layers.GRU(UNITS))(inside), name="nested")
    outputs = [layers.GRU(UNITS)(stacked), twice, spread, inner, nested(x), nested(2 * x)]
    model = randomise(keras.Model(x, outputs, name="within"))
    converted = Converted(model, tmp_path, BOTH)
    tensors = {"x": sequences(7)}
    for row, length in enumerate((7, 0, 1, 3)):
        tensors["x"][row, length:] = 0
    tensors["x"][4, :3] = 0
    tensors["x"][5, 2:5] = 0
    wrong = converted.errors(tensors)
    assert not wrong, "\n".join(wrong)


# The operator that identifies a lowering.
OPERATORS = {"chunked": "WHILE", "fused": "UNIDIRECTIONAL_SEQUENCE_LSTM"}


@pytest.mark.parametrize(
    "lowering",
    [
        pytest.param("auto", marks=pytest.mark.long),
        pytest.param("unrolled", marks=pytest.mark.long),
        "chunked",
        pytest.param("fused", marks=pytest.mark.long),
    ],
)
def test_fifty_consecutive_sequences_without_reset(lowering, tmp_path):
    import keras

    time = 50
    x = keras.Input((time, FEATURES), name="x")
    steps = keras.layers.LSTM(13, return_sequences=True)(x)
    model = keras.Model(
        x, [steps, keras.layers.Bidirectional(keras.layers.GRU(7))(steps)], name=f"row_{lowering}"
    )
    formats = BOTH if lowering == "auto" else ("tflite",)
    converted = Converted(randomise(model), tmp_path, formats, lowering=lowering)
    if lowering in OPERATORS:
        assert converted.achieved["tflite"]["operators"][OPERATORS[lowering]]
    few = sequences(time)
    assert len(few) == ROWS
    rows = np.concatenate([few, SATURATION * few, few[::-1], -few, few])[:50]
    rows = np.concatenate([rows, rows[:1]])
    wrong = converted.errors({"x": rows})
    assert not wrong, "\n".join(wrong)
    for runner in converted.runners.values():
        for value in runner.run({"x": rows}).values():
            np.testing.assert_array_equal(value[0], value[-1])


def test_batch_of_more_than_one(tmp_path):
    import keras

    x = keras.Input((19, FEATURES), name="x")
    masked = keras.layers.Masking(0.0)(x)
    steps = keras.layers.LSTM(UNITS, return_sequences=True)(masked)
    model = keras.Model(x, [steps, keras.layers.GRU(UNITS)(steps)], name="batch")
    converted = Converted(randomise(model), tmp_path, ("tflite",), lowering="chunked", batch=3)
    assert converted.runners["tflite"].inputs[0].shape == (3, 19, FEATURES)
    values = sequences(19)
    values[2, 11:] = 0
    values[3, :5] = 0
    wrong = converted.errors({"x": values})
    assert not wrong, "\n".join(wrong)


@pytest.mark.long
def test_long_sequences_give_small_files(tmp_path):
    import keras

    operators = {}
    for steps in (250, 2000):
        x = keras.Input((steps, 2), name="x")
        layer = keras.layers.LSTM(31, return_sequences=True)
        model = randomise(keras.Model(x, layer(x), name=f"long_{steps}"))
        converted = Converted(model, tmp_path, ("tflite",))
        operators[steps] = sum(converted.achieved["tflite"]["operators"].values())
        wrong = converted.errors({"x": np.random.default_rng(3).random((2, steps, 2), np.float32)})
        assert not wrong, "\n".join(wrong)
    weights = sum(w.nbytes for w in model.get_weights())
    # What is not weights does not grow with the sequence, and neither does the conversion time.
    assert converted.paths["tflite"].stat().st_size < weights + 40_000
    assert operators[2000] < 2 * operators[250]


@pytest.mark.long
@pytest.mark.parametrize("era", KERAS)
@pytest.mark.parametrize("format", BOTH)
def test_cells_and_convolutions(era, format, tmp_path):
    """An RNN of a cell is lowered; stacked cells and convolutions are left to the converters."""
    keras = importlib.import_module(era)
    layers = keras.layers
    x = keras.Input((6, 8), name="x")
    masked = layers.Masking(0.0)(x)
    image = layers.Reshape((6, 4, 2))(x)
    stacked = layers.StackedRNNCells([layers.LSTMCell(4), layers.GRUCell(5)])
    outputs = [
        layers.RNN(layers.LSTMCell(4), return_sequences=True)(masked),
        layers.RNN(layers.SimpleRNNCell(3))(x),
        layers.RNN(stacked, return_sequences=True)(x),
        layers.RNN(layers.GRUCell(5, reset_after=False), go_backwards=True)(masked),
        layers.ConvLSTM1D(3, 3, return_sequences=True, padding="same")(image),
        layers.ConvLSTM2D(2, 2)(layers.Reshape((6, 2, 2, 2))(x)),
    ]
    model = randomise(keras.Model(x, outputs, name="cells"))
    converted = Converted(model, tmp_path, (format,))
    values = np.random.default_rng(2).standard_normal((ROWS, 6, 8)).astype(np.float32)
    values[2, 4:] = 0
    values[3, :2] = 0
    wrong = converted.errors({"x": values})
    assert not wrong, "\n".join(wrong)


def test_recurrent_layers_that_no_call_uses(tmp_path):
    """They have no weights. A class may keep them for training or for other models."""
    import keras

    class Unused(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.used = keras.layers.GRU(3)
            self.others = [
                keras.layers.LSTM(3, stateful=True),
                keras.layers.RNN(keras.layers.SimpleRNNCell(3)),
                keras.layers.Bidirectional(keras.layers.GRU(3)),
            ]

        def call(self, x):
            return self.used(x)

    inputs = keras.Input((4, 2), name="x")
    model = keras.Model(inputs, keras.layers.Dense(2, name="y")(Unused()(inputs)))
    path = tmp_path / "m.tflite"
    file = tflite.convert(model, interface_of(model), recipe_for("float32"), path)
    x = np.random.default_rng(6).normal(size=(3, 4, 2)).astype("float32")
    actual = open_runner(path, "tflite", file.inputs, file.outputs).run({"x": x})["y"]
    np.testing.assert_allclose(actual, model(x), rtol=1e-4, atol=1e-5)
