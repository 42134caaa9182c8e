"""Train a model that finds the maximum of ten numbers.

The numbers are drawn from Beta(1/T, 1), for which the maximum of T draws is uniform on [0, 1].
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

from edgeattn.layers import Attention

TIME = 10
SEED = 2
# Held-back sequences: enough to show that R2 drops by less than 0.02.
SAMPLES = 3000


def sequences(count: int, seed: int, precision: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Numbers, ``(count, TIME, 1)``, and the maximum of each sequence, ``(count, 1)``.

    Numbers are rounded to ``precision``: those of float16 make a smaller file.
    """
    x = np.random.default_rng(seed).beta(1 / TIME, 1, (count, TIME, 1)).astype("float32")
    x = x.astype(precision).astype("float32")
    return x, x.max(axis=1)


def build() -> keras.Model:
    """LSTM 128, attention with the defaults of the layer (Luong, 128 units), one linear output."""
    return keras.Sequential(
        [
            keras.Input((TIME, 1)),
            keras.layers.LSTM(128, return_sequences=True),
            Attention(name="attention"),
            keras.layers.Dense(1),
        ]
    )


def measure(model: keras.Model, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Compute the metrics of the README."""
    attention = model.get_layer("attention")
    states = keras.Model(model.inputs, attention.input).predict(x, batch_size=1000, verbose=0)
    weights = keras.ops.convert_to_numpy(attention.attention_weights(states))  # (count, TIME)
    maximum = x[:, :, 0].argmax(axis=1)  # (count,)
    error = np.abs(model.predict(x, batch_size=1000, verbose=0) - y)
    return {
        "mean absolute error": float(error.mean()),
        "largest weight is on the maximum": float((weights.argmax(axis=1) == maximum).mean()),
        "mean weight on the maximum": float(weights[np.arange(len(x)), maximum].mean()),
    }


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
    count, epochs, batch = (500, 1, 100) if options.quick else (20_000, 40, 32)

    keras.utils.set_random_seed(SEED)
    x, y = sequences(count, SEED)
    model = build()
    rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * count // batch)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss="mae")
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=2)
    for name, value in measure(model, *sequences(5000, SEED + 1)).items():
        print(f"{name}: {value:.4f}")

    options.output.mkdir(parents=True, exist_ok=True)
    model.save(options.output / "model.h5", include_optimizer=False)
    x, y = sequences(SAMPLES, SEED + 2, "float16")
    np.savez_compressed(options.output / "samples.npz", x=x, y=y)


if __name__ == "__main__":
    main()
