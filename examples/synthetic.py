"""What the synthetic experiments share: the learning rate, and the record of the attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

import training
from edgeattn.errors import UsageError
from edgeattn.layers import AttentionOverEpochs

BATCH_SIZE = 32


def with_cosine_decay(
    build: Callable[[], keras.Model], rows: int, epochs: int
) -> Callable[[], keras.Model]:
    """``build`` with Adam, a learning rate that decays from 0.002 to 0, and mean absolute error."""

    def build_compiled() -> keras.Model:
        model = build()
        steps = epochs * -(-rows // BATCH_SIZE)
        rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
        model.compile(optimizer=keras.optimizers.Adam(rate), loss="mae")
        return model

    return build_compiled


def recording(callback: AttentionOverEpochs, folder: Path) -> Callable[[keras.Model, int], None]:
    """The ``on_epoch`` argument of :func:`training.train` that records with ``callback``.

    If training in ``folder`` was interrupted, ``callback`` is resumed first.
    """
    history = training.read_history(folder)
    if history:
        try:
            callback.resume(len(history))
        except UsageError:  # interrupted between the end of an epoch and its record
            callback.resume(len(history) - 1)
            last = keras.saving.load_model(folder / "last.keras")
            callback.record(last, history[-1]["test_loss"])

    def on_epoch(model: keras.Model, number: int) -> None:
        losses = [entry["test_loss"] for entry in training.read_history(folder)]
        callback.record(model, losses[number - 1] if number else np.nan)

    return on_epoch
