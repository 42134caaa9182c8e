"""Finding the maximum of ten numbers: attention ends on it, though only its value is asked for."""

from __future__ import annotations

import keras
import numpy as np

from common import Run, example, to_edge
from edgeattn import plots
from edgeattn.layers import attention_maps
from training import about, train
from watched import BATCH, compiled, sample_model

SHOWN = 40


@example
def main(run: Run) -> int:
    """Finding the maximum: 10 numbers from Beta(1/10, 1), LSTM 128, Attention 128 (Luong).

    Writes find_max.png, with the attention of 40 sequences, where it is largest and where the
    maximum is, and says in how many of all test sequences the two agree.
    """
    sample = sample_model("find_max")
    rows = sample.sequences(500 if run.quick else 20_000, 10 * run.seed)
    test = sample.sequences(200 if run.quick else 5_000, 10 * run.seed + 1)
    epochs = 2 if run.quick else 40
    folder = run.folder / "training"
    history = train(
        compiled(sample.build, epochs * -(-len(rows[0]) // BATCH)), folder, rows, test,
        epochs=epochs, batch_size=BATCH, seed=run.seed, metric="loss",
    )  # fmt: skip
    model = keras.saving.load_model(folder / "last.keras")
    draw(run, model, test[0][:SHOWN])
    told = about(history, epochs - 1, rows=len(rows[0]), chosen="the last epoch", data="synthetic")
    return to_edge(run, model, rows=rows, test=test, about=told,
                   figures=sample.measure(model, *test))  # fmt: skip


def draw(run: Run, model: keras.Model, x: np.ndarray) -> None:
    """The three panels of the public experiment, for the sequences ``x``."""
    weights = attention_maps(model, x)  # (count, steps)
    places = np.eye(x.shape[1])
    maps = {
        "attention": weights,
        "largest weight": places[weights.argmax(axis=1)],
        "maximum": places[x[:, :, 0].argmax(axis=1)],
    }
    plots.save(plots.panels(maps, title="Finding the maximum"), run.folder / "find_max.png")


if __name__ == "__main__":
    main()
