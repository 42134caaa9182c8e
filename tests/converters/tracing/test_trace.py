"""What goes in and comes out of a model, and what Keras is asked for the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import models
from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters import reference
from edgeattn_converters.tracing import trace as tracing
from edgeattn_converters.tracing.trace import interface_of

layers = keras.layers


def names(specs: Any) -> list[str]:
    return [spec.name for spec in specs]


def test_names_and_shapes() -> None:
    interface = interface_of(models.two_ends())
    assert [str(spec) for spec in interface.inputs] == [
        "signal (?, 7, 3) float32",
        "token (?, 5) int32",
    ]
    # An output that is an input cannot have its name: a file needs two.
    assert names(interface.outputs) == ["zeta", "look", "alpha", "signal_1"]
    assert interface.outputs[1].shape == (None, 12)
    assert names(interface.attention) == ["attention/look"]


def test_outputs_in_a_dictionary_keep_their_keys() -> None:
    inputs = keras.Input((5, 3), name="x")
    flat = layers.Flatten()(inputs)
    outputs = {"zulu": layers.Dense(2)(flat), "alpha": layers.Dense(7)(flat)}
    model = models.filled(keras.Model(inputs, outputs))
    interface = interface_of(model)
    shapes = {spec.name: spec.shape for spec in interface.outputs}
    assert shapes == {"zulu": (None, 2), "alpha": (None, 7)}
    x = np.ones((3, 5, 3), "float32")
    found, _ = reference._keras_runner(model, interface, attention=True)({"x": x}, True)
    for name, values in model.predict(x, verbose=0).items():
        np.testing.assert_array_equal(found[name], values)


def test_a_layer_called_twice_has_two_maps() -> None:
    interface = interface_of(models.nested())
    assert names(interface.attention) == ["attention/look", "attention/look_1"]


def test_a_map_inside_a_loop_stays_inside() -> None:
    inputs = keras.Input((3, 5, 2), name="x")
    inner_inputs = keras.Input((5, 2))
    inner = keras.Model(inner_inputs, models.Attention(4)(inner_inputs))
    model = models.filled(keras.Model(inputs, layers.TimeDistributed(inner)(inputs)))
    interface = interface_of(model)
    assert interface.outputs[0].shape == (None, 3, 4)
    # Whether TimeDistributed loops or folds the axis is Keras' business: a map that is told must
    # be one that can be.
    traced = tracing.trace(model, interface, batch=1, attention=True)
    assert set(traced.attention) == set(names(interface.attention))


def test_free_axes() -> None:
    inputs = keras.Input((None, 3), name="x")
    model = keras.Model(inputs, layers.LSTM(2)(inputs))
    assert interface_of(model, time_steps=5).inputs[0].shape == (None, 5, 3)
    with pytest.raises(UsageError, match="free axis"):
        interface_of(model)


def test_a_model_without_inputs_is_refused() -> None:
    class Bare(keras.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(UnsupportedModelError, match="does not define its inputs"):
        interface_of(Bare())


def test_vocabulary() -> None:
    model = models.two_ends()
    assert tracing.vocabulary_of(model, interface_of(model)) == {"token": 13}
    chain = keras.Sequential([keras.Input((5,)), layers.Embedding(11, 2), layers.Flatten()])
    interface = interface_of(chain)
    assert tracing.vocabulary_of(chain, interface) == {interface.inputs[0].name: 11}


def written(model: Any, folder: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    path = folder / "reference.npz"
    made = reference.write(
        model, interface_of(model), path, samples=options.get("samples"), attention=True
    )
    with np.load(path) as file:
        return made, {name: file[name] for name in file.files}


def test_reference_of_a_masked_model(tmp_path: Path) -> None:
    model = models.filled(models.gru_bahdanau_masked())
    made, arrays = written(model, tmp_path)
    tokens = arrays["input/tokens"]
    assert tokens.shape[0] == made["samples"] + made["edge_cases"]
    assert tokens.min() >= 0
    assert tokens.max() <= 16
    lengths = {int((row != 0).sum()) for row in tokens[: made["samples"]]}
    assert {1, 11} <= lengths  # from one step to all of them
    np.testing.assert_allclose(arrays["output/answer"], model.predict(tokens, verbose=0), atol=1e-6)
    weights = arrays["attention/look"]
    assert (weights[tokens == 0] == 0).all()
    real = (tokens != 0).any(axis=1)
    np.testing.assert_allclose(weights[real].sum(-1), 1, atol=1e-6)


def test_reference_of_a_model_with_dropout(tmp_path: Path) -> None:
    """Keras keeps the state of its random numbers in a variable, which cannot be frozen."""
    inputs = keras.Input((7, 3), name="x")
    states = layers.LSTM(5, dropout=0.2, recurrent_dropout=0.3, return_sequences=True)(inputs)
    model = models.filled(keras.Model(inputs, models.Attention(2, name="look")(states)))
    _, arrays = written(model, tmp_path)
    (output,) = (value for name, value in arrays.items() if name.startswith("output/"))
    np.testing.assert_allclose(output, model.predict(arrays["input/x"], verbose=0), atol=1e-6)


def test_tokens_outside_the_vocabulary_are_refused(tmp_path: Path) -> None:
    from edgeattn.errors import SampleError

    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.full((2, 11), 17, "float32"))
    with pytest.raises(SampleError, match="from 0 to 16"):
        written(models.filled(models.gru_bahdanau_masked()), tmp_path, samples=samples)


def test_a_model_that_gives_nan_is_refused(tmp_path: Path) -> None:
    model = models.filled(models.sequential())
    model.layers[-1].kernel.assign(np.full((2, 1), np.nan))
    with pytest.raises(UnsupportedModelError, match="NaN"):
        written(model, tmp_path)


def test_edge_cases_that_keras_is_not_sure_of_are_left_out_and_counted(tmp_path: Path) -> None:
    """A recurrence with relu grows by powers: in the far rows Keras' own rounding decides."""
    inputs = keras.Input((40, 1), name="x")
    states = layers.SimpleRNN(7, activation="relu")(inputs)
    unsure = models.filled(keras.Model(inputs, layers.Dense(1, name="y")(states)), scale=1.0)
    made, arrays = written(unsure, tmp_path)
    sure, _ = written(models.filled(models.sequential()), tmp_path)
    assert sure["left_out"] == 0
    assert made["left_out"] > 0
    assert made["edge_cases"] + made["left_out"] == sure["edge_cases"]
    assert arrays["input/x"].shape[0] == made["samples"] + made["edge_cases"]


def test_edge_cases_of_whose_map_keras_is_not_sure_are_left_out_too(tmp_path: Path) -> None:
    """Scores in the hundreds of thousands tip over with the last digit; the output is the same."""
    inputs = keras.Input((9, 1), name="x")
    told = layers.Attention(name="look")([300.0 * inputs, 300.0 * inputs])
    pooled = layers.GlobalAveragePooling1D()(told)
    model = keras.Model(inputs, layers.Dense(1, kernel_initializer="zeros", name="y")(pooled))
    made, arrays = written(model, tmp_path)
    assert any(name.startswith("attention/") for name in arrays)
    assert made["left_out"] > 0
    without = reference.write(
        model, interface_of(model), tmp_path / "without.npz", samples=None, attention=False
    )
    assert without["left_out"] == 0
