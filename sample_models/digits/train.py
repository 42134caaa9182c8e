"""Train a model that classifies handwritten digits, read row by row.

scikit-learn has 1,797 images of 8 by 8 pixels. An image is a sequence of eight rows;
360 images, balanced over the ten digits, are held out and written to ``samples.npz``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from edgeattn.layers import Attention

sys.path.append(str(Path(__file__).parents[1]))
from handwritten_digits import handwritten_digits
from sample_training import Schedule, accuracy, finish, parse_options, train

SEED = 0
# The metrics of the README.
measure = accuracy


def pictures() -> list[np.ndarray]:
    """Training and test images, ``(count, 8, 8)`` from 0 to 1, then their labels, ``(count,)``."""
    return handwritten_digits(SEED)


def build() -> keras.Model:
    """LSTM 64, attention with 32 units (Luong), softmax over the ten digits."""
    return keras.Sequential(
        [
            keras.Input((8, 8)),
            keras.layers.LSTM(64, return_sequences=True),
            Attention(32, name="attention"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def main() -> None:
    options = parse_options(__doc__, Path(__file__).parent)
    x, x_test, y, y_test = pictures()
    schedule = Schedule(1 if options.quick else 40, 32, 3e-3)
    model = train(build, (x, y), schedule, SEED)
    finish(options.output, model, (x_test, y_test), measure(model, x_test, y_test))


if __name__ == "__main__":
    main()
