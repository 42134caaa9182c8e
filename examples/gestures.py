"""Finger gestures: standing, circling either way or moving, from 16 positions of a finger tip."""

from __future__ import annotations

from pathlib import Path

import keras

from common import Run, data_option, example, learn
from edgeattn.layers import Attention
from public_data import gestures

CLASSES = ("still", "clockwise", "counterclockwise", "moving")


def build() -> keras.Model:
    """LSTM 32, attention with 32 units (Bahdanau), softmax over four gestures."""
    model = keras.Sequential(
        [
            keras.Input((16, 2), name="positions"),
            keras.layers.LSTM(32, return_sequences=True),
            Attention(32, "bahdanau", name="attention"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(4, activation="softmax", name="gesture"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@example
@data_option
def main(run: Run, data: Path | None) -> int:
    """Gestures of a finger: four of them, 16 positions, LSTM and attention after Bahdanau.

    --data takes point_history.csv or a folder with it.
    """
    return learn(
        run,
        build,
        gestures(data),
        classes=CLASSES,
        epochs=40,
        batch_size=64,
        quick_rows=128,
    )


if __name__ == "__main__":
    main()
