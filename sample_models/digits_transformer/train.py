"""Train a transformer block that classifies handwritten digits.

The block (Vaswani et al. 2017, arXiv 1706.03762) attends over the eight rows of an image from the
digits of scikit-learn. The held-out images are those of the folder ``digits``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 0
ROWS, PIXELS, WIDTH, HEADS = 8, 8, 32, 4


def pictures() -> list[np.ndarray]:
    """Training and test images, ``(count, 8, 8)`` from 0 to 1, then their labels, ``(count,)``."""
    data = load_digits()
    x = (data.images / 16).astype("float32")
    return train_test_split(x, data.target, test_size=360, random_state=SEED, stratify=data.target)


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


def measure(model: keras.Model, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Compute the metrics of the README."""
    return {"accuracy": float((model.predict(x, verbose=0).argmax(axis=1) == y).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent,
        metavar="DIR",
        help="output folder (default: this folder)",
    )
    parser.add_argument("--quick", action="store_true", help="train a few steps to test the script")
    options = parser.parse_args()
    epochs = 1 if options.quick else 40

    keras.utils.set_random_seed(SEED)
    x, x_test, y, y_test = pictures()
    model = build()
    rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * len(x) // 32)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=2)
    for name, value in measure(model, x_test, y_test).items():
        print(f"{name}: {value:.4f}")

    options.output.mkdir(parents=True, exist_ok=True)
    model.save(options.output / "model.h5", include_optimizer=False)
    np.savez_compressed(options.output / "samples.npz", x=x_test, y=y_test)


if __name__ == "__main__":
    main()
