"""Finger gestures: classify 16 positions of a fingertip as still, circling or moving."""

from __future__ import annotations

from pathlib import Path

import keras

from edgeattn.layers import Attention
from experiment import Experiment, data_option, experiment, train_classifier
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


@experiment
@data_option
def main(options: Experiment, data: Path | None) -> int:
    """Finger gestures: 16 positions, four classes, LSTM, attention (Bahdanau).

    --data: point_history.csv, or a folder with it.
    """
    return train_classifier(
        options,
        build,
        gestures(data),
        classes=CLASSES,
        epochs=40,
        batch_size=64,
        quick_rows=128,
    )


if __name__ == "__main__":
    main()
