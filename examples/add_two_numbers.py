"""Adding two of twenty numbers: attention learns to find the two numbers after a delimiter."""

from __future__ import annotations

import click
import keras
import numpy as np

import edge_formats
from edgeattn.layers import AttentionOverEpochs
from experiment import Experiment, experiment
from sample_scripts import sample_script
from synthetic import BATCH_SIZE, recording, with_cosine_decay
from training import Schedule, summary, train

DRAWN_SEQUENCES = 12


@experiment
@click.option("--frames/--no-frames", default=True, help="Write a picture for every epoch.")
def main(options: Experiment, frames: bool) -> int:
    """Adding two numbers: 20 steps, LSTM 100, Attention 128 (Bahdanau), dropout 0.2.

    Two of the numbers follow a delimiter, 0; the target is half their sum. Writes the attention
    after every epoch, and attention/attention.gif, an animation with the loss.
    """
    sample = sample_script("add_two_numbers")
    data = sample.sequences(500 if options.quick else 20_000, 10 * options.seed)
    test = sample.sequences(200 if options.quick else 5_000, 10 * options.seed + 1)
    epochs = 2 if options.quick else 30
    drawn = test[0][:DRAWN_SEQUENCES]
    callback = AttentionOverEpochs(
        drawn,
        options.folder / "attention",
        truth=truth(drawn),
        monitor="test_loss",
        title="Adding two numbers",
        frames=frames,
    )
    folder = options.folder / "training"
    history = train(
        with_cosine_decay(sample.build, len(data[0]), epochs), folder, data, test,
        Schedule(epochs, BATCH_SIZE, options.seed), metric="loss",
        on_epoch=recording(callback, folder),
    )  # fmt: skip
    callback.finish()
    model = keras.saving.load_model(folder / "last.keras")
    return edge_formats.evaluate(
        options, model, train=data, test=test, figures=sample.measure(model, *test),
        summary=summary(
            history, epochs - 1, rows=len(data[0]), chosen="the last epoch", data="synthetic"
        ),
    )  # fmt: skip


def truth(x: np.ndarray) -> np.ndarray:
    """The expected attention, ``(count, steps)``: one half on each number after a delimiter."""
    after_delimiter = np.roll(x[:, :, 0] == 0, 1, axis=1)
    return after_delimiter / 2


if __name__ == "__main__":
    main()
