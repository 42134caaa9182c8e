"""Japanese vowels: identify one of nine speakers from utterances of 7 to 29 steps."""

from __future__ import annotations

from pathlib import Path

import keras

from edgeattn.layers import Attention
from experiment import Experiment, data_option, experiment, train_classifier
from public_data import VOWEL_STEPS, vowels

CLASSES = tuple(f"speaker {number}" for number in range(1, 10))


def build() -> keras.Model:
    """Masking, GRU 64, attention with 64 units (Luong), softmax over nine speakers."""
    model = keras.Sequential(
        [
            keras.Input((VOWEL_STEPS, 12), name="coefficients"),
            keras.layers.Masking(0.0),
            keras.layers.GRU(64, return_sequences=True),
            Attention(64, name="attention"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(9, activation="softmax", name="speaker"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@experiment
@data_option
def main(options: Experiment, data: Path | None) -> int:
    """Speaker identification: nine classes, masked padding, GRU, attention (Luong).

    --data: a folder with JapaneseVowels_TRAIN.ts and JapaneseVowels_TEST.ts.
    """
    return train_classifier(
        options,
        build,
        vowels(data),
        classes=CLASSES,
        epochs=100,
        batch_size=16,
        quick_rows=128,
        calibration=200,
    )


if __name__ == "__main__":
    main()
