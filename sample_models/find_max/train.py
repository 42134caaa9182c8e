"""Train a model that finds the maximum of ten numbers.

The numbers are drawn from Beta(1/T, 1), for which the maximum of T draws is uniform on [0, 1].
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from edgeattn.layers import Attention

sys.path.append(str(Path(__file__).parents[1]))
from sample_training import Schedule, finish, parse_options, train

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
    options = parse_options(__doc__, Path(__file__).parent)
    count, epochs, batch = (500, 1, 100) if options.quick else (20_000, 40, 32)
    schedule = Schedule(epochs, batch, 2e-3)
    model = train(build, sequences(count, SEED), schedule, SEED, loss="mae")
    metrics = measure(model, *sequences(5000, SEED + 1))
    finish(options.output, model, sequences(SAMPLES, SEED + 2, "float16"), metrics)


if __name__ == "__main__":
    main()
