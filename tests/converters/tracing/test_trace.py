"""The interface of a model, and its reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters.reference import reference_file
from edgeattn_converters.reference.keras_outputs import keras_function, predict
from edgeattn_converters.tracing import trace as tracing
from edgeattn_converters.tracing.trace import interface_of

layers = keras.layers


def names(specs: Any) -> list[str]:
    return [spec.name for spec in specs]


def test_names_and_shapes() -> None:
    interface = interface_of(models.two_inputs())
    assert [str(spec) for spec in interface.inputs] == [
        "signal (?, 7, 3) float32",
        "token (?, 5) int32",
    ]
    # An output that is an input gets a name of its own.
    assert names(interface.outputs) == ["zeta", "look", "alpha", "signal_1"]
    assert interface.outputs[1].shape == (None, 12)
    assert names(interface.attention) == ["attention/look"]


def test_outputs_in_a_dictionary_keep_their_keys() -> None:
    inputs = keras.Input((5, 3), name="x")
    flat = layers.Flatten()(inputs)
    by_key = {"zulu": layers.Dense(2)(flat), "alpha": layers.Dense(7)(flat)}
    model = models.filled(keras.Model(inputs, by_key))
    interface = interface_of(model)
    shapes = {spec.name: spec.shape for spec in interface.outputs}
    assert shapes == {"zulu": (None, 2), "alpha": (None, 7)}
    x = np.ones((3, 5, 3), "float32")
    outputs = keras_function(model, interface, attention=True)({"x": x}).outputs
    for name, values in model.predict(x, verbose=0).items():
        np.testing.assert_array_equal(outputs[name], values)


def test_a_layer_called_twice_has_two_maps() -> None:
    interface = interface_of(models.nested())
    assert names(interface.attention) == ["attention/look", "attention/look_1"]


def test_maps_inside_loops_are_not_exported() -> None:
    inputs = keras.Input((3, 5, 2), name="x")
    inner_inputs = keras.Input((5, 2))
    inner = keras.Model(inner_inputs, models.Attention(4)(inner_inputs))
    model = models.filled(keras.Model(inputs, layers.TimeDistributed(inner)(inputs)))
    interface = interface_of(model)
    assert interface.outputs[0].shape == (None, 3, 4)
    # Whether TimeDistributed loops depends on Keras; every exported map must exist in the trace.
    traced = tracing.trace(model, interface, batch=1, attention=True)
    assert set(traced.attention) == set(names(interface.attention))


@keras.saving.register_keras_serializable("tracing")
class Memory(keras.layers.Layer):
    """A cell that attends to its earlier states."""

    state_size, output_size = (4, 12), 4

    def build(self, shape: Any) -> None:
        self.dense = layers.Dense(4)
        self.dense.build((None, shape[-1] + 4))

    def call(self, x: Any, states: Any) -> Any:
        state, memory = states[0], keras.ops.reshape(states[1], (-1, 3, 4))
        weights = keras.ops.softmax(keras.ops.einsum("bc,bsc->bs", state, memory))
        read = keras.ops.einsum("bs,bsc->bc", weights, memory)
        state = keras.ops.tanh(self.dense(keras.ops.concatenate([x, read], axis=-1)))
        memory = keras.ops.concatenate([memory[:, 1:], state[:, None]], axis=1)
        return state, [state, keras.ops.reshape(memory, (-1, 12))]


@pytest.mark.parametrize(
    "kind",
    ["RNN", "Bidirectional", pytest.param("cells", marks=pytest.mark.long), "unrolled"],
)
def test_maps_of_cells_in_loops_are_not_exported(kind: str) -> None:
    """Keras calls a cell once outside its loop; no artifact has that map."""
    inputs = keras.Input((5, 4), name="x")
    cell = Memory(name="memory")
    cells = [layers.GRUCell(4), cell] if kind == "cells" else cell
    recurrent: Any = layers.RNN(cells, unroll=kind == "unrolled")
    if kind == "Bidirectional":
        recurrent = layers.Bidirectional(recurrent)
    interface = interface_of(keras.Model(inputs, recurrent(inputs)))
    assert bool(interface.attention) == (kind == "unrolled")


def test_free_axes() -> None:
    inputs = keras.Input((None, 3), name="x")
    model = keras.Model(inputs, layers.LSTM(2)(inputs))
    assert interface_of(model, time_steps=5).inputs[0].shape == (None, 5, 3)
    with pytest.raises(UsageError, match="fixed number of time steps"):
        interface_of(model)


def test_a_model_without_inputs_is_rejected() -> None:
    class Bare(keras.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(UnsupportedModelError, match="does not define its inputs"):
        interface_of(Bare())


def test_vocabulary() -> None:
    interface = interface_of(models.two_inputs())
    assert {name: limits.counts.tolist() for name, limits in interface.vocabulary.items()} == {
        "token": [13] * 5
    }
    chain = keras.Sequential([keras.Input((5,)), layers.Embedding(11, 2), layers.Flatten()])
    interface = interface_of(chain)
    assert list(interface.vocabulary) == [interface.inputs[0].name]


def write_reference(
    model: Any, folder: Path, samples: Path | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    path = folder / "reference.npz"
    entry = reference_file.write(model, interface_of(model), path, samples=samples, attention=True)
    with np.load(path) as file:
        return entry, {name: file[name] for name in file.files}


@pytest.mark.long
def test_reference_of_a_masked_model(tmp_path: Path) -> None:
    model = models.filled(models.gru_bahdanau_masked())
    entry, arrays = write_reference(model, tmp_path)
    tokens = arrays["input/tokens"]
    assert tokens.shape[0] == entry["samples"] + entry["edge_cases"]
    assert tokens.min() >= 0
    assert tokens.max() <= 16
    lengths = {int((row != 0).sum()) for row in tokens[: entry["samples"]]}
    assert {1, 11} <= lengths  # from one step to all
    np.testing.assert_allclose(arrays["output/answer"], model.predict(tokens, verbose=0), atol=1e-6)
    weights = arrays["attention/look"]
    assert (weights[tokens == 0] == 0).all()
    real = (tokens != 0).any(axis=1)
    np.testing.assert_allclose(weights[real].sum(-1), 1, atol=1e-6)


@pytest.mark.long
def test_reference_of_a_model_with_dropout(tmp_path: Path) -> None:
    """Keras stores the state of its random numbers in a variable, which cannot be frozen."""
    inputs = keras.Input((7, 3), name="x")
    states = layers.LSTM(5, dropout=0.2, recurrent_dropout=0.3, return_sequences=True)(inputs)
    model = models.filled(keras.Model(inputs, models.Attention(2, name="look")(states)))
    _, arrays = write_reference(model, tmp_path)
    (output,) = (value for name, value in arrays.items() if name.startswith("output/"))
    np.testing.assert_allclose(output, model.predict(arrays["input/x"], verbose=0), atol=1e-6)


def test_tokens_outside_the_vocabulary_are_rejected(tmp_path: Path) -> None:
    from edgeattn.errors import SampleError

    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.full((2, 11), 17, "float32"))
    with pytest.raises(SampleError, match="from 0 to 16"):
        write_reference(models.filled(models.gru_bahdanau_masked()), tmp_path, samples=samples)


def test_a_model_that_outputs_nan_is_rejected(tmp_path: Path) -> None:
    model = models.filled(models.sequential())
    model.layers[-1].kernel.assign(np.full((2, 1), np.nan))
    with pytest.raises(UnsupportedModelError, match="NaN"):
        write_reference(model, tmp_path)


def test_edge_cases_with_unstable_outputs_are_excluded(tmp_path: Path) -> None:
    """A recurrence with relu grows exponentially, so rounding determines extreme rows."""
    inputs = keras.Input((40, 1), name="x")
    states = layers.SimpleRNN(7, activation="relu")(inputs)
    unstable = models.filled(keras.Model(inputs, layers.Dense(1, name="y")(states)), scale=1.0)
    entry, arrays = write_reference(unstable, tmp_path)
    stable, _ = write_reference(models.filled(models.sequential()), tmp_path)
    assert stable["left_out"] == 0
    assert entry["left_out"] > 0
    total = stable["samples"] + stable["edge_cases"]
    assert entry["samples"] + entry["edge_cases"] + entry["left_out"] == total
    assert arrays["input/x"].shape[0] == entry["samples"] + entry["edge_cases"]


def test_edge_cases_with_unstable_maps_are_excluded(tmp_path: Path) -> None:
    """A softmax of scores in the hundreds of thousands changes with the last digit of its input."""
    inputs = keras.Input((9, 1), name="x")
    attended = layers.Attention(name="look")([300.0 * inputs, 300.0 * inputs])
    pooled = layers.GlobalAveragePooling1D()(attended)
    model = keras.Model(inputs, layers.Dense(1, kernel_initializer="zeros", name="y")(pooled))
    entry, arrays = write_reference(model, tmp_path)
    assert any(name.startswith("attention/") for name in arrays)
    assert entry["left_out"] > 0
    without = reference_file.write(
        model, interface_of(model), tmp_path / "without.npz", samples=None, attention=False
    )
    assert without["left_out"] == 0


@pytest.mark.parametrize("kind", [AttributeError, AssertionError, KeyError, IndexError])
def test_layers_that_fail_are_not_errors_of_the_tool(kind: type[Exception]) -> None:
    class Fails(keras.layers.Layer):
        broken = False

        def call(self, x: Any) -> Any:
            if self.broken:
                raise kind("missing")
            return x

    x = keras.Input((3,), name="x")
    layer = Fails(name="fails")
    model = keras.Model(x, layer(x))
    layer.broken = True
    with pytest.raises(UnsupportedModelError, match=f"cannot compute the model: {kind.__name__}"):
        interface_of(model)


@pytest.mark.parametrize("axis", [1, -1])
def test_averages_with_weights_have_a_known_shape(axis: int) -> None:
    """TensorFlow does not know the rank of Keras' own average if the batch axis is free."""
    x = keras.Input((5, 3), name="x")
    weights = np.arange(1, 6 if axis == 1 else 4).astype("float32")
    average = keras.ops.average(x, axis=axis, weights=weights)
    model = keras.Model(x, keras.layers.Dense(2, use_bias=False, name="y")(average))
    interface = interface_of(model)
    assert interface.outputs[0].shape == (None, 2)
    # Two batches of Keras' predict, for the second of which it traces the model with a free batch.
    rows = np.random.default_rng(0).normal(size=(33, 5, 3)).astype("float32")
    actual = predict(model, interface, {"x": rows})["y"]
    expected = np.average(rows, axis=axis, weights=weights) @ model.layers[-1].kernel.numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)


class Partition(keras.layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return keras.ops.argpartition(x, 1)


def test_argpartition_in_a_layer_is_refused() -> None:
    """Keras adds up the rows of a batch; in functional models it is refused when loaded."""
    x = keras.Input((4,), name="x")
    inner = keras.Model(x, Partition()(x))
    for model in (keras.Model(x, Partition()(x)), keras.Model(x, inner(x))):
        with pytest.raises(UnsupportedModelError, match=r"calls keras\.ops\.argpartition") as error:
            interface_of(model)
        assert "argsort" in str(error.value.hint)


def test_complex_outputs_are_refused() -> None:
    """TensorFlow's converters named an operator of theirs."""
    x = keras.Input((16,), name="x")
    spectrum = keras.layers.Lambda(lambda v: tf.signal.rfft(v), name="spectrum")(x)
    with pytest.raises(UnsupportedModelError, match="Output 'spectrum' has complex numbers"):
        interface_of(keras.Model(x, spectrum))
