"""IMDB reviews: good or bad, with attention and without, with the same number of parameters."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import keras

import edge_formats
import training
from edgeattn.layers import Attention
from experiment import Experiment, data_option, experiment, save_picture
from reviews import load_reviews, pad, tokenize, word_ranks

WORDS, STEPS = 5000, 500
# For a picture; the license does not allow the distribution of reviews of the data set.
REVIEW = (
    "I had been looking forward to this film for months, and what a waste of time it was. The "
    "story is dull, the acting is awful and the ending makes no sense at all. The music is "
    "wonderful, and the first ten minutes are quite funny, but nothing could save the rest."
)
KINDS = ("attention", "plain")
# README of the package attention: ten runs of ten epochs.
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
    # Without XLA on TensorFlow, as in the recorded results. JAX always compiles.
    jit = False if keras.backend.backend() == "tensorflow" else "auto"
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"], jit_compile=jit)
    return model


@experiment
@data_option
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Runs of both models, each with its own seed; completed runs are reused.",
)
@click.option(
    "--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="Epochs per run."
)
def main(options: Experiment, data: Path | None, runs: int, epochs: int) -> int:
    """Film reviews, with attention and without, as in the README of the package `attention`.

    5,000 words, 500 steps, batches of 64. The score of a run is the best test accuracy of its
    epochs, as in that README; it is slightly too high, because the test set selects the epoch. The
    model of the first run with attention is converted.

    --data: a folder with train.jsonl.gz and test.jsonl.gz, imdb.npz of Keras,
    aclImdb_v1.tar.gz of the authors, or a folder with one of them.
    """
    steps = 40 if options.quick else STEPS
    reviews, ranks = load_reviews(data, WORDS, steps)
    if options.quick:
        reviews, runs, epochs = reviews.subset(128, options.seed), 1, 1
    train, test = (reviews.x, reviews.y), (reviews.x_test, reviews.y_test)
    histories: dict[str, list[list[dict[str, float]]]] = {kind: [] for kind in KINDS}
    for number in range(runs):
        for kind in KINDS:
            click.echo(f"run {number + 1} of {runs}, {kind}", err=True)
            history = training.train(
                functools.partial(build, kind, steps),
                run_folder(options, kind, number),
                train,
                test,
                training.Schedule(epochs, 64, options.seed + number),
                metric="accuracy",
            )
            histories[kind].append(history)
    first = histories["attention"][0]
    best = training.best_epoch(first, "accuracy")
    model = keras.saving.load_model(run_folder(options, "attention", 0) / "best.keras")
    if ranks:
        draw(options, model, ranks, steps)
    return edge_formats.evaluate(
        options,
        model,
        train=train,
        test=test,
        summary=training.summary(
            first, best, data=reviews.source, rows=len(reviews.x), chosen="the best test accuracy"
        ),
        figures={kind: statistics_of(histories[kind]) for kind in KINDS} | {"published": PUBLISHED},
    )


def draw(options: Experiment, model: keras.Model, ranks: Mapping[str, int], steps: int) -> None:
    """Draw the attention to the words of an invented review."""
    from edgeattn import plots
    from edgeattn.layers import attention_maps

    words = [word for word in tokenize(REVIEW) if word in ranks][-steps:]
    if not words:
        return
    x = pad([word_ranks(words, ranks)], WORDS, steps)
    weights = attention_maps(model, x)[0, -len(words) :]
    good = float(model.predict(x, verbose=0)[0, 0])
    share = 100 * float(weights.sum())
    title = f"Good: {100 * good:.0f}%; {share:.0f}% of the attention is on words, not on padding"
    save_picture(options, plots.words(words, weights, title=title))


def run_folder(options: Experiment, kind: str, number: int) -> Path:
    """The folder of a run, named by its seed."""
    return options.folder / f"{kind}-{options.seed + number}"


def statistics_of(histories: list[list[dict[str, float]]]) -> dict[str, Any]:
    """Statistics of the best test accuracies; the standard deviation needs two runs."""
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
