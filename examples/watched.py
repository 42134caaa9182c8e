"""What the synthetic examples share: the network of a sample model, trained while it is watched."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import keras
import numpy as np

import training
from edgeattn.errors import UsageError
from edgeattn.layers import AttentionOverEpochs

SAMPLES = Path(__file__).parent.parent / "sample_models"
BATCH = 32


def sample_model(name: str) -> ModuleType:
    """``sample_models/NAME/train.py``: its sequences, its network and what is measured of it."""
    spec = importlib.util.spec_from_file_location(f"{name}_sample", SAMPLES / name / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(build: Callable[[], keras.Model], steps: int) -> Callable[[], keras.Model]:
    """``build`` with Adam, whose rate falls from 0.002 to 0 along a cosine, and absolute errors."""

    def made() -> keras.Model:
        model = build()
        rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
        model.compile(optimizer=keras.optimizers.Adam(rate), loss="mae")
        return model

    return made


def watching(watcher: AttentionOverEpochs, folder: Path) -> Callable[[keras.Model, int], None]:
    """An ``on_epoch`` for :func:`training.train` in ``folder``; brings ``watcher`` up to date."""
    history = training.read_history(folder)
    if history:
        try:
            watcher.resume(len(history))
        except UsageError:  # cut off between an epoch's end and its picture
            watcher.resume(len(history) - 1)
            last = keras.saving.load_model(folder / "last.keras")
            watcher.record(last, history[-1]["test_loss"])

    def on_epoch(model: keras.Model, number: int) -> None:
        losses = [entry["test_loss"] for entry in training.read_history(folder)]
        watcher.record(model, losses[number - 1] if number else np.nan)

    return on_epoch
