"""The fused LSTM operator: it clears its state, does not clip, and leaves other layers alone."""

import numpy as np
import pytest
from recurrent_models import FEATURES, Converted, randomise, sequences

from edgeattn.errors import UnsupportedModelError

OPERATOR = "UNIDIRECTIONAL_SEQUENCE_LSTM"


@pytest.mark.long
@pytest.mark.parametrize("era", ["keras", "tf_keras"])
def test_sequences_are_independent(era, tmp_path):
    keras = pytest.importorskip(era)
    layers = keras.layers
    x = keras.Input((37, FEATURES), name="x")
    steps = layers.LSTM(13, return_sequences=True)(x)
    both = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(steps)
    saturated = layers.LSTM(7, return_sequences=True, name="saturated")(x)
    # Not fusible: a loop, whose subgraphs are renumbered, and a layer that returns its state.
    gru = layers.GRU(3)(both)
    state = layers.LSTM(3, return_state=True)(both)[2]
    model = keras.Model(x, [steps, both, saturated, gru, state], name="fused")
    converted = Converted(randomise(model), tmp_path, ("tflite",), lowering="fused")
    operators = converted.achieved["tflite"]["operators"]
    assert operators[OPERATOR] == 4
    assert converted.achieved["tflite"]["cell_clips"] == [0.0] * 4
    few = sequences(37)
    rows = np.concatenate([few, 20 * few, -few, few])
    wrong = converted.errors({"x": rows})
    assert not wrong, "\n".join(wrong)
    for value in converted.runners["tflite"].run({"x": rows}).values():
        np.testing.assert_array_equal(value[: len(few)], value[-len(few) :])


def test_cell_is_not_clipped(tmp_path):
    import keras

    x = keras.Input((40, 1), name="x")
    layer = keras.layers.LSTM(2, return_sequences=True)
    model = keras.Model(x, layer(x), name="beyond")
    # Open input and forget gates add the candidate, 1, in every step.
    kernel, recurrent, bias = (np.zeros_like(w) for w in layer.get_weights())
    kernel[:, 4:6] = 100.0
    bias[:4] = 100.0
    layer.set_weights([kernel, recurrent, bias])
    converted = Converted(model, tmp_path, ("tflite",), lowering="fused")
    down = np.concatenate([np.ones((1, 25, 1)), -np.ones((1, 15, 1))], axis=1).astype(np.float32)
    (got,) = converted.runners["tflite"].run({"x": down}).values()
    # 25 steps up and 15 down end at 10; with the cell clipped at 10, they would end at -5.
    assert got[0, -1, 0] == pytest.approx(0.5 * np.tanh(10), abs=1e-6)


def test_model_without_a_fusible_layer_is_rejected(tmp_path):
    import keras

    x = keras.Input((3, FEATURES), name="x")
    model = keras.Model(x, keras.layers.GRU(2)(x), name="none")
    with pytest.raises(UnsupportedModelError, match="fused LSTM"):
        Converted(model, tmp_path, ("tflite",), lowering="fused")
