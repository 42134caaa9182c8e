"""What the training scripts of the sample models share: options, training and the files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

# Samples and their targets.
Rows = tuple[np.ndarray, np.ndarray]


class Schedule(NamedTuple):
    """How a model is trained: with Adam, whose learning rate decays from ``rate`` to 0."""

    epochs: int
    batch: int
    rate: float


def parse_options(description: str, folder: Path) -> argparse.Namespace:
    """The options ``--output``, by default ``folder``, and ``--quick``."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--output",
        type=Path,
        default=folder,
        metavar="DIR",
        help="output folder (default: this folder)",
    )
    parser.add_argument("--quick", action="store_true", help="train a few steps to test the script")
    return parser.parse_args()


def train(
    build: Callable[[], keras.Model], rows: Rows, schedule: Schedule, seed: int, *,
    loss: str = "sparse_categorical_crossentropy",
) -> keras.Model:  # fmt: skip
    """The model of ``build``, trained on ``rows``."""
    keras.utils.set_random_seed(seed)
    x, y = rows
    epochs, batch, start = schedule
    model = build()
    rate = keras.optimizers.schedules.CosineDecay(start, epochs * len(x) // batch)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=2)
    return model


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Compute the metric of the README of a classifier."""
    return {"accuracy": float((model.predict(x, verbose=0).argmax(axis=1) == y).mean())}


def finish(folder: Path, model: keras.Model, samples: Rows, metrics: Mapping[str, float]) -> None:
    """Print the metrics, and write ``model.h5`` and ``samples.npz`` to ``folder``."""
    for name, value in metrics.items():
        print(f"{name}: {value:.4f}")
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.h5", include_optimizer=False)
    x, y = samples
    np.savez_compressed(folder / "samples.npz", x=x, y=y)
