"""Train a transformer block that classifies handwritten digits.

The block (Vaswani et al. 2017, arXiv 1706.03762) attends over the eight rows of an image from the
digits of scikit-learn. The held-out images are those of the folder ``digits``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers

sys.path.append(str(Path(__file__).parents[1]))
from handwritten_digits import handwritten_digits
from sample_training import Schedule, accuracy, finish, parse_options, train

SEED = 0
# The metrics of the README.
measure = accuracy
ROWS, PIXELS, WIDTH, HEADS = 8, 8, 32, 4


def pictures() -> list[np.ndarray]:
    """Training and test images, ``(count, 8, 8)`` from 0 to 1, then their labels, ``(count,)``."""
    return handwritten_digits(SEED)


def build() -> keras.Model:
    """Row and position embedding, a transformer block with four heads, mean, softmax."""
    rows = keras.Input((ROWS, PIXELS))
    # A bias for every row and feature is a learned position embedding.
    states = layers.EinsumDense(
        "btp,pw->btw", output_shape=(ROWS, WIDTH), bias_axes="tw", name="embedding"
    )(rows)  # (batch, row, width)
    attended = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name="attention")(states, states)
    states = layers.LayerNormalization(name="norm_1")(layers.Add(name="add_1")([states, attended]))
    wide = layers.Dense(2 * WIDTH, activation="gelu", name="wide")(states)
    states = layers.Add(name="add_2")([states, layers.Dense(WIDTH, name="narrow")(wide)])
    states = layers.LayerNormalization(name="norm_2")(states)
    vector = layers.GlobalAveragePooling1D(name="mean")(states)
    vector = layers.Dropout(0.1, name="dropout")(vector)
    return keras.Model(rows, layers.Dense(10, activation="softmax", name="digit")(vector))


def main() -> None:
    options = parse_options(__doc__, Path(__file__).parent)
    x, x_test, y, y_test = pictures()
    schedule = Schedule(1 if options.quick else 40, 32, 2e-3)
    model = train(build, (x, y), schedule, SEED)
    finish(options.output, model, (x_test, y_test), measure(model, x_test, y_test))


if __name__ == "__main__":
    main()
