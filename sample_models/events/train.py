"""Train a model that detects a movement in recordings of different length.

Generated recordings of a three-axis accelerometer: 20 to 60 steps of noise with one of five
movements, eight steps long, at a random position. Recordings are padded with zeros to 60 steps,
which the model masks.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from edgeattn.layers import Attention

sys.path.append(str(Path(__file__).parents[1]))
from sample_training import Schedule, accuracy, finish, parse_options, train

TIME, SHORTEST = 60, 20
SEED = 0
# The metrics of the README.
measure = accuracy
NOISE = 0.2
EVENTS = ("tap", "double tap", "shake", "tilt", "swing")

STEP = np.arange(8)
ZERO = np.zeros(8)
SWING = np.sin(np.pi * STEP / 7)
# (event, step, axis), from -1 to 1.
SHAPES = np.stack(
    [
        np.stack([ZERO, ZERO, np.isin(STEP, [0, 1])], axis=1),
        np.stack([ZERO, ZERO, np.isin(STEP, [0, 1, 5, 6])], axis=1),
        np.stack([(-1.0) ** STEP, ZERO, ZERO], axis=1),
        np.stack([STEP / 7, -STEP / 7, ZERO], axis=1),
        np.stack([SWING, SWING, -SWING], axis=1),
    ]
)


def recordings(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recordings, ``(count, TIME, 3)``, their events, and the first steps of the events."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(SHORTEST, TIME + 1, size=count)
    events = rng.integers(len(EVENTS), size=count)
    starts = rng.integers(lengths - len(STEP) + 1)
    strength = rng.uniform(0.6, 1.4, size=(count, 1, 1))
    x = rng.normal(0, NOISE, (count, TIME, 3))
    rows = np.arange(count)[:, None]
    x[rows, starts[:, None] + STEP] += strength * SHAPES[events]
    x[np.arange(TIME) >= lengths[:, None]] = 0
    return x.astype("float32"), events, starts


def sequences(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Recordings, ``(count, TIME, 3)``, and their events, ``(count,)``."""
    x, events, _ = recordings(count, seed)
    return x, events


def build() -> keras.Model:
    """Masking, GRU 48, attention with 32 units (Luong), softmax over the five events."""
    return keras.Sequential(
        [
            keras.Input((TIME, 3)),
            keras.layers.Masking(0.0),
            keras.layers.GRU(48, return_sequences=True),
            Attention(32, name="attention"),
            keras.layers.Dense(len(EVENTS), activation="softmax"),
        ]
    )


def main() -> None:
    options = parse_options(__doc__, Path(__file__).parent)
    count, epochs, batch = (500, 1, 100) if options.quick else (6_000, 16, 32)
    schedule = Schedule(epochs, batch, 3e-3)
    model = train(build, sequences(count, SEED), schedule, SEED)
    metrics = measure(model, *sequences(5000, SEED + 1))
    finish(options.output, model, sequences(200, SEED + 2), metrics)


if __name__ == "__main__":
    main()
