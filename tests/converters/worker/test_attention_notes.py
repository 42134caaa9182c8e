"""Notes on layers that may be attention and whose maps are not exported."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

from edgeattn_converters.tracing.trace import interface_of
from edgeattn_converters.worker import description


def decoder(steps: int) -> Any:
    """Attention of the program of a course: its softmax is over an axis of one value."""
    inputs = [layers.Input((8, 5)), layers.Input((6,)), layers.Input((6,))]
    encoded, start, cell = inputs
    lstm, dense, state, outputs = layers.LSTM(6, return_state=True), layers.Dense(3), start, []
    for step in range(steps):
        x = layers.Concatenate()([encoded, layers.RepeatVector(8)(state)])
        scores = layers.Dense(1)(layers.Dense(4, activation="tanh")(x))
        weights = layers.Activation("softmax", name=f"weights_{step}")(scores)
        context = layers.Dot(axes=1)([weights, encoded])
        state, _, cell = lstm(context, initial_state=[state, cell])
        outputs.append(dense(state))
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_layers_with_the_same_reason_have_one_note(steps: int) -> None:
    notes = description._attention_notes(interface_of(decoder(steps)))
    assert len(notes) == 1
    assert notes[0].startswith("weights_0 may be attention, but its map is not exported: ")
    assert ("The same holds for" in notes[0]) == (steps > 1)
    assert all(f"weights_{step}" in notes[0] for step in range(steps))


class TwoSoftmaxes(layers.Layer):
    """Attention over the steps, twice."""

    def call(self, x: Any) -> Any:
        for _ in range(2):
            x = keras.ops.matmul(keras.ops.softmax(keras.ops.matmul(x, x)), x)
        return x


@pytest.mark.parametrize("count", [1, 2])
def test_numbers_of_maps_are_told_from_those_of_layers(count: int) -> None:
    """With one layer of a class, the number can only be that of a map."""
    x = y = keras.Input((4, 4))
    for number in range(count):
        y = TwoSoftmaxes(name="att" if number == 0 else f"att_{number}")(y)
    model = keras.Model(x, y)
    maps = [spec.name.removeprefix("attention/") for spec in interface_of(model).attention]
    notes = description._numbered_maps(maps, [layer.name for layer in model.layers])
    if count == 1:
        assert maps == ["att", "att_1"]
        assert not notes
    else:
        assert set(maps) == {"att", "att_1", "att_2", "att_1_1"}
        assert notes == [
            "Further maps of a layer have a number: att_2 of the layer att; att_1_1 of the layer "
            "att_1."
        ]
