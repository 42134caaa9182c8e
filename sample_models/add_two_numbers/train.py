"""Train a model that adds two of twenty numbers.

Each of the two follows a delimiter, 0; the target is half their sum.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from edgeattn.layers import Attention

sys.path.append(str(Path(__file__).parents[1]))
from sample_training import Schedule, finish, parse_options, train

TIME = 20
SEED = 0
# Held-back sequences: enough to show that R2 drops by less than 0.02.
SAMPLES = 6000
# All pairs of positions for which no delimiter overwrites a number.
PAIRS = np.array([(a, b) for a in range(1, TIME) for b in range(a + 2, TIME)])


def sequences(count: int, seed: int, precision: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Numbers from (0, 1] with two zeros, ``(count, TIME, 1)``, and targets, ``(count, 1)``.

    Numbers are rounded to ``precision``: those of float16 make a smaller file.
    """
    rng = np.random.default_rng(seed)
    x = 1 - rng.random((count, TIME), dtype="float32")
    x = x.astype(precision).astype("float32")
    positions = PAIRS[rng.integers(len(PAIRS), size=count)]  # (count, 2)
    rows = np.arange(count)[:, None]
    x[rows, positions - 1] = 0
    return x[:, :, None], x[rows, positions].mean(axis=1, keepdims=True)


def build() -> keras.Model:
    """LSTM 100, attention with 128 units (Bahdanau), dropout 0.2, one linear output."""
    return keras.Sequential(
        [
            keras.Input((TIME, 1)),
            keras.layers.LSTM(100, return_sequences=True),
            Attention(128, "bahdanau", name="attention"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1),
        ]
    )


def measure(model: keras.Model, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Compute the metrics of the README."""
    attention = model.get_layer("attention")
    states = keras.Model(model.inputs, attention.input).predict(x, batch_size=1000, verbose=0)
    weights = keras.ops.convert_to_numpy(attention.attention_weights(states))  # (count, TIME)
    numbers = np.nonzero(x[:, :, 0] == 0)[1].reshape(-1, 2) + 1  # (count, 2), in order
    largest = np.sort(np.argsort(weights, axis=1)[:, -2:], axis=1)  # (count, 2), in order
    late = np.minimum(numbers + 1, TIME - 1)
    error = np.abs(model.predict(x, batch_size=1000, verbose=0) - y)
    return {
        "mean absolute error": float(error.mean()),
        "two largest weights are on the two numbers": float((largest == numbers).all(1).mean()),
        "two largest weights are one step late": float((largest == late).all(1).mean()),
        "mean weight on the two numbers": float(
            np.take_along_axis(weights, numbers, axis=1).sum(axis=1).mean()
        ),
    }


def main() -> None:
    options = parse_options(__doc__, Path(__file__).parent)
    count, epochs, batch = (500, 1, 100) if options.quick else (20_000, 30, 32)
    schedule = Schedule(epochs, batch, 2e-3)
    model = train(build, sequences(count, SEED), schedule, SEED, loss="mae")
    metrics = measure(model, *sequences(5000, SEED + 1))
    finish(options.output, model, sequences(SAMPLES, SEED + 2, "float16"), metrics)


if __name__ == "__main__":
    main()
