"""Training that can be interrupted and resumed with the same result.

The folder of a training has ``last.keras`` (the model with its optimizer), ``best.keras`` (the
epoch with the best score) and ``history.json`` (the metrics of every epoch). Randomness depends
only on the seed and the number of the epoch, so a resumed training ends with the same metrics as an
uninterrupted one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Schedule:
    epochs: int
    batch_size: int
    seed: int


def train(
    build: Callable[[], keras.Model],
    folder: Path,
    data: Arrays,
    test: Arrays,
    schedule: Schedule,
    *,
    metric: str,
    on_epoch: Callable[[keras.Model, int], None] | None = None,
) -> list[dict[str, float]]:
    """Train ``build()`` until the epochs of ``schedule`` are complete in ``folder``.

    ``metric`` on ``test`` defines the best epoch: the highest ``accuracy``, or the lowest value of
    any other metric. ``on_epoch(model, number)`` is called with the untrained model (0) and after
    every epoch. Returns the metrics of every epoch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    history = read_history(folder)
    if history:
        model = keras.saving.load_model(folder / "last.keras")
    else:
        keras.utils.set_random_seed(schedule.seed)
        model = build()
        if on_epoch is not None:
            on_epoch(model, 0)
    x, y = data
    for epoch in range(len(history), schedule.epochs):
        started = time.monotonic()
        _seed_dropout(model, schedule.seed, epoch)
        order = np.random.default_rng([schedule.seed, epoch]).permutation(len(x))
        # A progress bar on a terminal only.
        fitted = model.fit(
            x[order], y[order], batch_size=schedule.batch_size, shuffle=False,
            verbose=int(sys.stdout.isatty()),
        )  # fmt: skip
        measured = model.evaluate(*test, batch_size=256, verbose=0, return_dict=True)
        entry = {name: values[-1] for name, values in fitted.history.items()}
        entry |= {f"test_{name}": float(value) for name, value in measured.items()}
        entry["seconds"] = round(time.monotonic() - started, 1)
        history.append(entry)
        if best_epoch(history, metric) == epoch:
            _replace(folder / "best.keras", model.save)
        _replace(folder / "last.keras", model.save)
        text = json.dumps(history, indent=1) + "\n"
        _replace(folder / "history.json", lambda path, text=text: path.write_text(text))
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in entry.items())
        click.echo(f"epoch {epoch + 1}/{schedule.epochs}: {metrics}", err=True)
        if on_epoch is not None:
            on_epoch(model, epoch + 1)
    return history


def best_epoch(history: list[dict[str, float]], metric: str) -> int:
    """The index of the first epoch with the best ``metric`` on the test set."""
    values = [entry[f"test_{metric}"] for entry in history]
    return int(np.argmax(values) if metric == "accuracy" else np.argmin(values))


def read_history(folder: Path) -> list[dict[str, float]]:
    """The metrics of every completed epoch; empty for a new folder."""
    path = folder / "history.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def summary(history: list[dict[str, float]], epoch: int, **details: Any) -> dict[str, Any]:
    """A summary of the training for the result; ``epoch`` is the index of the chosen one."""
    return {
        "epochs": len(history),
        "kept_epoch": epoch + 1,
        "seconds": round(sum(entry["seconds"] for entry in history), 1),
        **details,
    }


def _seed_dropout(model: keras.Model, seed: int, epoch: int) -> None:
    """Set the generators of dropout, whose states are not saved in a file."""
    for number, layer in enumerate(model._flatten_layers()):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            generator.state.assign([1000 * seed + number, 1000 * epoch])


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside ``path`` and rename it."""
    temporary = path.with_name(f"new-{path.name}")
    write(temporary)
    temporary.replace(path)
