"""Training that can be interrupted and goes on as if it had not been.

A run has a folder: ``last.keras`` (the model and its optimizer), ``best.keras`` (the epoch with the
best score) and ``history.json`` (what was measured after each epoch). What is random in an epoch
depends on the run's seed and the epoch's number alone, so a run that was cut off and resumed
ends with the figures of one that was not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]


def train(
    build: Callable[[], keras.Model],
    folder: Path,
    data: Arrays,
    test: Arrays,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    metric: str,
    on_epoch: Callable[[keras.Model, int], None] | None = None,
) -> list[dict[str, float]]:
    """Train ``build()`` to ``epochs`` epochs in ``folder``, from where the last call left it.

    ``metric`` is measured on ``test`` after each epoch and decides which epoch is kept as the best:
    the highest ``accuracy``, the lowest of anything else. ``on_epoch(model, number)`` is called
    with the untrained model (0) and after each epoch. Returns the history, a dictionary an epoch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    history = read_history(folder)
    if history:
        model = keras.saving.load_model(folder / "last.keras")
    else:
        keras.utils.set_random_seed(seed)
        model = build()
        if on_epoch is not None:
            on_epoch(model, 0)
    x, y = data
    for epoch in range(len(history), epochs):
        started = time.monotonic()
        _reseed(model, seed, epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(x))
        fitted = model.fit(
            x[order], y[order], batch_size=batch_size, shuffle=False, verbose=progress()
        )
        measured = model.evaluate(*test, batch_size=256, verbose=0, return_dict=True)
        entry = {name: values[-1] for name, values in fitted.history.items()}
        entry |= {f"test_{name}": float(value) for name, value in measured.items()}
        entry["seconds"] = round(time.monotonic() - started, 1)
        history.append(entry)
        if best_epoch(history, metric) == epoch:
            _save(model, folder / "best.keras")
        _save(model, folder / "last.keras")
        _write(folder / "history.json", history)
        click.echo(
            f"epoch {epoch + 1}/{epochs}: " + ", ".join(f"{k} {v:.4g}" for k, v in entry.items()),
            err=True,
        )
        if on_epoch is not None:
            on_epoch(model, epoch + 1)
    return history


def best_epoch(history: list[dict[str, float]], metric: str) -> int:
    """The index of the first epoch with the best ``metric`` on the test set."""
    values = [entry[f"test_{metric}"] for entry in history]
    return int(np.argmax(values) if metric == "accuracy" else np.argmin(values))


def read_history(folder: Path) -> list[dict[str, float]]:
    """What was measured after each finished epoch; empty for a folder without a run."""
    path = folder / "history.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def about(history: list[dict[str, float]], epoch: int, **more: Any) -> dict[str, Any]:
    """How a model was trained, for the result's document; ``epoch`` is the kept one's index."""
    return {
        "epochs": len(history),
        "kept_epoch": epoch + 1,
        "seconds": round(sum(entry["seconds"] for entry in history), 1),
        **more,
    }


def progress() -> int:
    """Keras' ``verbose``: a bar on a terminal, nothing in a log."""
    return int(sys.stdout.isatty())


def _reseed(model: keras.Model, seed: int, epoch: int) -> None:
    """What a file does not keep: the state of the generators of dropout."""
    for number, layer in enumerate(model._flatten_layers()):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            generator.state.assign([1000 * seed + number, 1000 * epoch])


def _save(model: keras.Model, path: Path) -> None:
    beside = path.with_name(f"new-{path.name}")
    model.save(beside)
    beside.replace(path)


def _write(path: Path, value: Any) -> None:
    beside = path.with_name(f"new-{path.name}")
    beside.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)
