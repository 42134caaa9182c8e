"""Every step computes what the Keras layer or function of its name computes."""

import json

import keras_cases
import numpy as np
import pytest
from keras_cases import CASES, VALUES

from edgeattn.frontend.description import parse_step

EXPECTED = json.loads(VALUES.read_text("utf-8"))
# Steps that round: relative to the largest value. Transforms have float32 kernels in Keras.
TOLERANCE = {"normalization": 1e-6, "rescaling": 1e-6, "string_lookup": 1e-6, "mel": 1e-4,
             "text_vectorization": 1e-6, "mfcc": 1e-5, "stft": 1e-5, "signal_stft": 1e-5,
             "mel_spectrogram": 1e-4, "stft_spectrogram": 1e-4}  # fmt: skip


@pytest.mark.parametrize(("name", "table", "samples"), CASES, ids=[case[0] for case in CASES])
def test_a_step_computes_what_keras_computes(name, table, samples):
    step = parse_step(table, "step")
    for sample, expected in zip(samples, EXPECTED[name], strict=True):
        actual = step.apply(sample)
        assert actual.shape == np.shape(expected)
        differences = np.abs(actual - np.asarray(expected))
        if table.get("mode") == "angle":  # -pi and pi are the same angle
            differences = np.minimum(differences, 2 * np.pi - differences)
        largest = np.abs(expected).max(initial=0) if np.size(expected) else 0
        limit = TOLERANCE.get(table["step"], 0) * largest
        assert differences.max(initial=0) <= limit


# Keras warns of other lengths than powers of two; one of them is a case, because they are allowed.
@pytest.mark.filterwarnings("ignore:`fft_length` is recommended to be a power of two")
@pytest.mark.long
def test_the_stored_values_are_those_of_the_installed_keras():
    for name, table, samples in CASES:
        for value, stored in zip(
            keras_cases.keras_values(table, samples), EXPECTED[name], strict=True
        ):
            np.testing.assert_allclose(value, stored, rtol=1e-5, atol=1e-5, err_msg=name)
