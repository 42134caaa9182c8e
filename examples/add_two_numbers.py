"""Adding two of twenty numbers: attention converges to the two that follow a delimiter."""

from __future__ import annotations

import click
import keras
import numpy as np

from common import Run, example, to_edge
from edgeattn.layers import AttentionOverEpochs
from training import about, train
from watched import BATCH, compiled, sample_model, watching

SHOWN = 12


@example
@click.option("--frames/--no-frames", default=True, help="A picture of the map for each epoch.")
def main(run: Run, frames: bool) -> int:
    """Adding two numbers: 20 steps, LSTM 100, Attention 128 (Bahdanau), dropout 0.2.

    Two numbers follow a delimiter, 0; the target is half their sum. Writes the attention map after
    each epoch, and an animation of it with the loss beside it: attention/attention.gif.
    """
    sample = sample_model("add_two_numbers")
    rows = sample.sequences(500 if run.quick else 20_000, 10 * run.seed)
    test = sample.sequences(200 if run.quick else 5_000, 10 * run.seed + 1)
    epochs = 2 if run.quick else 30
    shown = test[0][:SHOWN]
    watcher = AttentionOverEpochs(
        shown,
        run.folder / "attention",
        truth=truth(shown),
        monitor="test_loss",
        title="Adding two numbers",
        frames=frames,
    )
    folder = run.folder / "training"
    history = train(
        compiled(sample.build, epochs * -(-len(rows[0]) // BATCH)), folder, rows, test,
        epochs=epochs, batch_size=BATCH, seed=run.seed, metric="loss",
        on_epoch=watching(watcher, folder),
    )  # fmt: skip
    watcher.finish()
    model = keras.saving.load_model(folder / "last.keras")
    told = about(history, epochs - 1, rows=len(rows[0]), chosen="the last epoch", data="synthetic")
    return to_edge(run, model, rows=rows, test=test, about=told,
                   figures=sample.measure(model, *test))  # fmt: skip


def truth(x: np.ndarray) -> np.ndarray:
    """``(count, steps)``: half on each of the two numbers that follow a delimiter."""
    behind = np.roll(x[:, :, 0] == 0, 1, axis=1)
    return behind / 2


if __name__ == "__main__":
    main()
