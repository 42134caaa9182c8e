"""Rows of the reference are not dropped because a token or padding changed in its last digit."""

from __future__ import annotations

import numpy as np

from edgeattn.tensors import Tensors
from edgeattn_converters.edge_cases import InputProperties
from edgeattn_converters.keras_outputs import KerasOutputs
from edgeattn_converters.usable_rows import usable_rows

TABLE = np.random.default_rng(0).normal(size=(29, 5))


def embed(inputs: Tensors) -> KerasOutputs:
    """The mean of rows of a table; like Keras, it casts tokens to integers."""
    return KerasOutputs({"y": TABLE[inputs["tokens"].astype(int)].mean(1)}, {}, {})


def average(inputs: Tensors) -> KerasOutputs:
    """The mean of the steps that are not -1."""
    values = inputs["signal"]
    kept = values != -1
    return KerasOutputs({"y": (values * kept).sum(1) / np.maximum(kept.sum(1), 1)}, {}, {})


def test_tokens_as_floats_stay_tokens() -> None:
    tokens = np.random.default_rng(1).integers(1, 29, (20, 11)).astype("float32")
    inputs = {"tokens": tokens}
    properties = InputProperties({"tokens": 29}, {"tokens": 0.0})
    rows = usable_rows(embed, inputs, embed(inputs), (16, 18), properties, real=False)
    assert (rows.stable, rows.unstable) == (True, 0)
    np.testing.assert_array_equal(np.sort(rows.all), np.arange(20))


def test_padding_stays_padding() -> None:
    signal = np.random.default_rng(1).normal(size=(20, 11)).astype("float32")
    signal[:10, 5:] = -1
    inputs = {"signal": signal}
    properties = InputProperties({}, {"signal": -1.0})
    rows = usable_rows(average, inputs, average(inputs), (16, 18), properties, real=False)
    assert (rows.stable, rows.unstable) == (True, 0)


def test_unstable_rows_are_still_left_out() -> None:
    def steep(inputs: Tensors) -> KerasOutputs:
        return KerasOutputs({"y": np.exp(60 * inputs["signal"].astype(np.float64))}, {}, {})

    inputs = {"signal": np.array([[0.1], [0.1], [9.0], [9.0]], np.float32)}
    rows = usable_rows(steep, inputs, steep(inputs), (2, 2), InputProperties({}, {}), real=False)
    assert (len(rows.samples), rows.unstable) == (2, 2)
