"""IMDB: is a review good or bad? Attention against no attention with as many parameters."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import keras

import training
from common import Run, data_option, example, save_picture, to_edge
from edgeattn.layers import Attention
from reviews import numbered, pad, reviews, tokens

WORDS, STEPS = 5000, 500
# For a picture: no review of the data set may be passed on.
REVIEW = (
    "I had been looking forward to this film for months, and what a waste of time it was. The "
    "story is dull, the acting is awful and the ending makes no sense at all. The music is "
    "wonderful, and the first ten minutes are quite funny, but nothing could save the rest."
)
KINDS = ("attention", "plain")
# The read-me of the package attention, over ten runs of ten epochs.
PUBLISHED = {
    "attention": {"runs": 10, "epochs": 10, "max": 0.8876, "mean": 0.8762, "sd": 0.0014},
    "plain": {"runs": 10, "epochs": 10, "max": 0.8822, "mean": 0.8702, "sd": 0.0018},
}


def build(kind: str, steps: int = STEPS) -> keras.Model:
    """Embedding 32, LSTM 100, then attention with 128 units (Luong) or a dense layer of 350.

    248,929 parameters with attention, 248,901 without.
    """
    layers = keras.layers
    attention = [layers.LSTM(100, return_sequences=True), Attention(128, name="attention")]
    plain = [layers.LSTM(100), layers.Dense(350, activation="relu")]
    model = keras.Sequential(
        [
            keras.Input((steps,), dtype="int32", name="words"),
            layers.Embedding(WORDS, 32),
            layers.Dropout(0.5),
            *(attention if kind == "attention" else plain),
            layers.Dropout(0.5),
            layers.Dense(1, activation="sigmoid", name="good"),
        ]
    )
    # TensorFlow as measured: without XLA. JAX has no other way.
    jit = False if keras.backend.backend() == "tensorflow" else "auto"
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"], jit_compile=jit)
    return model


@example
@data_option
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Of both models, each with its own seed. Finished ones in the folder count.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True)
def main(run: Run, data: Path | None, runs: int, epochs: int) -> int:
    """Film reviews, with attention and without, as in the read-me of the package `attention`.

    5,000 words, 500 steps, batches of 64. Of each run the best test accuracy of its epochs counts,
    as there: it is chosen on the test set, and so a little too good. The model of the first run
    with attention goes to the edge formats.

    --data takes a folder with train.jsonl.gz and test.jsonl.gz, Keras' imdb.npz, the authors'
    aclImdb_v1.tar.gz, or a folder with one of them.
    """
    steps = 40 if run.quick else STEPS
    found, ranks = reviews(data, WORDS, steps)
    if run.quick:
        found, runs, epochs = found.some(128, run.seed), 1, 1
    rows, test = (found.x, found.y), (found.x_test, found.y_test)
    histories: dict[str, list[list[dict[str, float]]]] = {kind: [] for kind in KINDS}
    for number in range(runs):
        for kind in KINDS:
            click.echo(f"run {number + 1} of {runs}, {kind}", err=True)
            histories[kind].append(
                training.train(
                    functools.partial(build, kind, steps), run_folder(run, kind, number),
                    rows, test, epochs=epochs, batch_size=64,
                    seed=run.seed + number, metric="accuracy",
                )
            )  # fmt: skip
    first = histories["attention"][0]
    best = training.best_epoch(first, "accuracy")
    model = keras.saving.load_model(run_folder(run, "attention", 0) / "best.keras")
    told = training.about(
        first, best, data=found.source, rows=len(found.x), chosen="the best test accuracy"
    )
    if ranks:
        draw(run, model, ranks, steps)
    figures = {kind: spread(histories[kind]) for kind in KINDS} | {"published": PUBLISHED}
    return to_edge(run, model, rows=rows, test=test, about=told, figures=figures)


def draw(run: Run, model: keras.Model, ranks: Mapping[str, int], steps: int) -> None:
    """Where the model looks in a review that nobody wrote."""
    from edgeattn import plots
    from edgeattn.layers import attention_maps

    known = [word for word in tokens(REVIEW) if word in ranks][-steps:]
    if not known:
        return
    x = pad([numbered(known, ranks)], WORDS, steps)
    map_ = attention_maps(model, x)[0]  # (steps,)
    weights = map_[-len(known) :]
    good = float(model.predict(x, verbose=0)[0, 0])
    share = 100 * float(weights.sum())
    title = f"Good: {100 * good:.0f}%; {share:.0f}% of the attention is on words, not on padding"
    save_picture(run, plots.words(known, weights, title=title))


def run_folder(run: Run, kind: str, number: int) -> Path:
    """Where a run is kept, by its seed."""
    return run.folder / f"{kind}-{run.seed + number}"


def spread(histories: list[list[dict[str, float]]]) -> dict[str, Any]:
    """The read-me's figures of the best test accuracies; a standard deviation needs two runs."""
    best = [max(entry["test_accuracy"] for entry in history) for history in histories]
    return {
        "runs": len(best),
        "epochs": min(map(len, histories)),
        "max": max(best),
        "mean": statistics.mean(best),
        "sd": statistics.stdev(best) if len(best) > 1 else None,
        "best_of_each": best,
        "seconds": round(sum(entry["seconds"] for h in histories for entry in h), 1),
    }


if __name__ == "__main__":
    main()
