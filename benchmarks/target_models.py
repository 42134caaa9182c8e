"""The models of :mod:`benchmarks.by_target`, with data to calibrate with and to score on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import page

if TYPE_CHECKING:
    from examples import public_data

CALIBRATION, SEED = 300, 7
REVIEWS = 1000
# So many answers decide whether the score drops by the limit of two points.
GENERATED = 500
# So many answers decide whether the share of equal classes is below its limit.
DRAWN = 1000
SAMPLE_MODELS = page.ROOT / "sample_models"
# Models of other authors, from a folder of their own, by file name without suffix.
OTHERS: dict[str, tuple[str, str | tuple[int, int]]] = {
    "R03": ("R03_cmapss_lstm_bin.h5", "cmapss_bin.npz"),
    "R05": ("R05_pems_gru.h5", "pems_gru.npz"),
    "A13": ("A13_vsl_lstm_mha.h5", (30, 126)),
    "A21": ("A21_authai_mha.keras", (50, 6)),
}


@dataclass(frozen=True)
class TargetCase:
    """A model file, inputs for calibration, and inputs and labels for scoring.

    Without ``y``, answers are compared with those of Keras. ``source`` says where the data is from.
    """

    model: Path
    calibration: np.ndarray
    x: np.ndarray
    y: np.ndarray | None
    source: str


def digits(data: Path) -> TargetCase:
    from benchmarks.quantization import digits as case

    rows = case()
    return TargetCase(_sample("digits"), rows.calibration, rows.x, rows.y, "test pictures")


def digits_transformer(data: Path) -> TargetCase:
    from benchmarks.quantization import digits as case

    rows = case()
    model = _sample("digits_transformer")
    return TargetCase(model, rows.calibration, rows.x, rows.y, "test pictures")


def find_max(data: Path) -> TargetCase:
    """Calibrated on new sequences of the distribution that the samples are from."""
    x, y = _samples("find_max")
    drawn = np.random.default_rng(SEED).beta(0.1, 1, (CALIBRATION, *x.shape[1:]))
    return TargetCase(_sample("find_max"), drawn.astype("float32"), x, y, "sequences")


def commands(data: Path) -> TargetCase:
    return _generated("commands", "sentences")


def events(data: Path) -> TargetCase:
    return _generated("events", "recordings")


def gestures(data: Path) -> TargetCase:
    from examples import public_data

    return _public("gestures", public_data.gestures(data / "hand_gesture"))


def activity(data: Path) -> TargetCase:
    from examples import public_data

    return _public("activity", public_data.activity(data / "uci_har"))


def vowels(data: Path) -> TargetCase:
    from examples import public_data

    return _public("vowels", public_data.vowels(data / "sktime_JapaneseVowels"))


def imdb(data: Path) -> TargetCase:
    """Scored on some of the 25,000 test reviews, because each has 500 steps."""
    sys.path.insert(0, str(page.ROOT / "examples"))
    import imdb as example
    import reviews

    rows = reviews.load_reviews(data / "imdb", example.WORDS, example.STEPS)[0]
    return _public("imdb", rows.subset(REVIEWS, SEED))


SAMPLES: dict[str, Callable[[Path], TargetCase]] = {
    item.__name__: item
    for item in (
        *(digits, find_max, gestures, activity, commands, events, vowels, imdb),
        digits_transformer,
    )
}


def other(name: str, folder: Path) -> TargetCase:
    """A model of ``folder``: half of its inputs are for calibration, drawn ones if it has none."""
    model, data = OTHERS[name]
    if isinstance(data, str):
        with np.load(folder / data) as file:
            x = file["x"].astype("float32")
        return TargetCase(folder / model, x[::2], x[1::2], None, "inputs of its authors")
    x = np.random.default_rng(SEED).normal(0, 1, (CALIBRATION + DRAWN, *data)).astype("float32")
    return TargetCase(folder / model, x[:CALIBRATION], x[CALIBRATION:], None, "drawn inputs")


def _sample(name: str) -> Path:
    return SAMPLE_MODELS / name / "model.h5"


def _samples(name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(SAMPLE_MODELS / name / "samples.npz") as file:
        return file["x"], file["y"]


def _generated(name: str, source: str) -> TargetCase:
    """New samples of the program that trained the model: its own 200 are too few for a verdict."""
    from examples.sample_scripts import sample_script

    script = sample_script(name)
    x, y = script.sequences(GENERATED, SEED)
    return TargetCase(_sample(name), script.sequences(CALIBRATION, SEED + 1)[0], x, y, source)


def _public(name: str, rows: public_data.Data) -> TargetCase:
    chosen = np.random.default_rng(SEED).permutation(len(rows.x))[:CALIBRATION]
    return TargetCase(_sample(name), rows.x[chosen], rows.x_test, rows.y_test, rows.source)
