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
