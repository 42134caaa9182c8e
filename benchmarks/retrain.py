"""Trains one sample model with a seed, for :mod:`benchmarks.sound_models`.

    python -m benchmarks.retrain MODEL SEED FOLDER [--data DIR] [--quick]

Writes ``model.h5``, ``samples.npz`` (labeled samples of the test set) and ``calibration.npz`` (rows
of the training set) to FOLDER. ``--data`` is the folder of the public data sets, one folder each.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import keras

ROOT = Path(__file__).parents[1]
CALIBRATION = 300
# Reviews have 500 steps: more of them would take hours in ten artifacts.
SAMPLES = 1000


class Training(NamedTuple):
    """The folder of a data set, and a shorter training than that of the example.

    The models need not be the best.

    Attributes:
        folder: subfolder of the public data.
        epochs: epochs of training.
        samples: samples of the training set and of the test set; all if None.
    """

    folder: str
    epochs: int
    samples: int | None = None


PUBLIC = {
    "activity": Training("uci_har", 6),
    "gestures": Training("hand_gesture", 15),
    "imdb": Training("imdb", 2, 8000),
    "vowels": Training("sktime_JapaneseVowels", 30),
}


def synthetic(model: str, seed: int, folder: Path, *, quick: bool) -> None:
    """Run the ``train.py`` of a sample model with another seed."""
    train: Any = importlib.import_module(f"sample_models.{model}.train")
    train.SEED = seed
    sys.argv = [model, "--output", str(folder), *(["--quick"] if quick else [])]
    train.main()
    if hasattr(train, "sequences"):
        x = train.sequences(CALIBRATION, seed + 99)[0]
    else:
        x = train.pictures()[0]
    np.savez(folder / "calibration.npz", x=x[:CALIBRATION])


def public(model: str, seed: int, folder: Path, data: Path, *, quick: bool) -> None:
    """Train the model of an example on its public data."""
    sys.path.insert(0, str(ROOT / "examples"))
    subfolder, epochs, samples = PUBLIC[model]
    example = importlib.import_module(model)
    training = importlib.import_module("training")
    rows = _rows(example, data / subfolder)
    if quick:
        samples, epochs = 128, 1
    if samples is not None:
        rows = rows.subset(samples, seed)
    build: Callable[[], keras.Model] = example.build
    if model == "imdb":
        build = functools.partial(example.build, "attention")
    training.train(
        build, folder / "training", (rows.x, rows.y), (rows.x_test, rows.y_test),
        training.Schedule(epochs, 64, seed), metric="accuracy",
    )  # fmt: skip
    keras = importlib.import_module("keras")
    trained = keras.saving.load_model(folder / "training" / "last.keras")
    trained.save(folder / "model.h5", include_optimizer=False)
    part = rows.subset(SAMPLES, seed)
    np.savez(folder / "samples.npz", x=part.x_test, y=part.y_test)
    np.savez(folder / "calibration.npz", x=part.x[:CALIBRATION])


def _rows(example: ModuleType, data: Path) -> Any:
    """The :class:`public_data.Data` of an example."""
    if hasattr(example, "load_reviews"):
        return example.load_reviews(data, example.WORDS, example.STEPS)[0]
    return getattr(importlib.import_module("public_data"), example.__name__)(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("seed", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.model in PUBLIC:
        public(*(options.model, options.seed, options.folder, options.data), quick=options.quick)
    else:
        synthetic(options.model, options.seed, options.folder, quick=options.quick)


if __name__ == "__main__":
    main()
