"""UCI HAR: recognize six activities in 2.56 seconds of a phone's motion sensors."""

from __future__ import annotations

from pathlib import Path

import keras

from edgeattn.layers import Attention
from experiment import Experiment, data_option, experiment, train_classifier
from public_data import activity

CLASSES = ("walking", "upstairs", "downstairs", "sitting", "standing", "lying")


def build() -> keras.Model:
    """Bidirectional LSTM 2 x 64, attention with 64 units (Luong), softmax over six activities."""
    model = keras.Sequential(
        [
            keras.Input((128, 9), name="signals"),
            keras.layers.Bidirectional(keras.layers.LSTM(64, return_sequences=True)),
            Attention(64, name="attention"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(6, activation="softmax", name="activity"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@experiment
@data_option
def main(options: Experiment, data: Path | None) -> int:
    """Human activity from phone sensors: six classes, bidirectional LSTM, attention (Luong).

    --data: uci_har_subset.npz, the zip file of the UCI repository, or a folder with one of them.
    """
    return train_classifier(
        options,
        build,
        activity(data),
        classes=CLASSES,
        epochs=30,
        batch_size=64,
        quick_rows=64,
    )


if __name__ == "__main__":
    main()
