"""Finding the maximum of ten numbers: attention learns its position from its value alone."""

from __future__ import annotations

import keras
import numpy as np

import edge_formats
from edgeattn import plots
from edgeattn.layers import attention_maps
from experiment import Experiment, experiment
from sample_scripts import sample_script
from synthetic import BATCH_SIZE, with_cosine_decay
from training import Schedule, summary, train

DRAWN_SEQUENCES = 40


@experiment
def main(options: Experiment) -> int:
    """Finding the maximum: 10 numbers from Beta(1/10, 1), LSTM 128, Attention 128 (Luong).

    Writes find_max.png with the attention of 40 sequences, its largest weight, and the maximum,
    and the share of test sequences for which the last two agree.
    """
    sample = sample_script("find_max")
    data = sample.sequences(500 if options.quick else 20_000, 10 * options.seed)
    test = sample.sequences(200 if options.quick else 5_000, 10 * options.seed + 1)
    epochs = 2 if options.quick else 40
    folder = options.folder / "training"
    history = train(
        with_cosine_decay(sample.build, len(data[0]), epochs), folder, data, test,
        Schedule(epochs, BATCH_SIZE, options.seed), metric="loss",
    )  # fmt: skip
    model = keras.saving.load_model(folder / "last.keras")
    draw(options, model, test[0][:DRAWN_SEQUENCES])
    return edge_formats.evaluate(
        options, model, train=data, test=test, figures=sample.measure(model, *test),
        summary=summary(
            history, epochs - 1, rows=len(data[0]), chosen="the last epoch", data="synthetic"
        ),
    )  # fmt: skip


def draw(options: Experiment, model: keras.Model, x: np.ndarray) -> None:
    """Draw the attention, its largest weight and the maximum of the sequences ``x``."""
    weights = attention_maps(model, x)  # (count, steps)
    one_hot = np.eye(x.shape[1])
    maps = {
        "attention": weights,
        "largest weight": one_hot[weights.argmax(axis=1)],
        "maximum": one_hot[x[:, :, 0].argmax(axis=1)],
    }
    figure = plots.panels(maps, title="Finding the maximum", shared_scale=True)
    plots.save(figure, options.folder / "find_max.png")


if __name__ == "__main__":
    main()
