"""Train a model that classifies handwritten digits, read row by row.

scikit-learn has 1,797 images of 8 by 8 pixels. An image is a sequence of eight rows;
360 images, balanced over the ten digits, are held out and written to ``samples.npz``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from edgeattn.layers import Attention

SEED = 0


def pictures() -> list[np.ndarray]:
    """Training and test images, ``(count, 8, 8)`` from 0 to 1, then their labels, ``(count,)``."""
    data = load_digits()
    x = (data.images / 16).astype("float32")
    return train_test_split(x, data.target, test_size=360, random_state=SEED, stratify=data.target)


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
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(x) // 32)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=2)
    for name, value in measure(model, x_test, y_test).items():
        print(f"{name}: {value:.4f}")

    options.output.mkdir(parents=True, exist_ok=True)
    model.save(options.output / "model.h5", include_optimizer=False)
    np.savez_compressed(options.output / "samples.npz", x=x_test, y=y_test)


if __name__ == "__main__":
    main()
