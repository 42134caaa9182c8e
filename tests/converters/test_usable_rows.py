"""Rows of the reference are not dropped because a token or padding changed in its last digit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from edgeattn.errors import EdgeattnError, UnsupportedModelError
from edgeattn.tensors import Tensors
from edgeattn_converters.reference.arithmetic import rounded_function
from edgeattn_converters.reference.edge_cases import InputProperties
from edgeattn_converters.reference.keras_outputs import (
    KerasOutputs,
    by_row_on_failure,
    check_unchanged,
    keras_function,
)
from edgeattn_converters.reference.rounded_weights import rounded_weights
from edgeattn_converters.reference.saturated_comparisons import changed_ends, compares_bounded
from edgeattn_converters.reference.saturation import computes_hues, orders_bounded, shifted_function
from edgeattn_converters.reference.shifted_means import shifted_means
from edgeattn_converters.reference.unmoved_rows import Changes
from edgeattn_converters.reference.usable_rows import usable_rows
from edgeattn_converters.tracing.tokens import TokenLimits
from edgeattn_converters.tracing.trace import interface_of

TABLE = np.random.default_rng(0).normal(size=(29, 5))


def embed(inputs: Tensors) -> KerasOutputs:
    """The mean of rows of a table; like Keras, it casts tokens to integers."""
    return KerasOutputs({"y": TABLE[inputs["tokens"].astype(int)].mean(1)}, {}, {})


def average(inputs: Tensors) -> KerasOutputs:
    """The mean of the steps that are not -1."""
    values = inputs["signal"]
    kept = values != -1
    return KerasOutputs({"y": (values * kept).sum(1) / np.maximum(kept.sum(1), 1)}, {}, {})


def token_limits(count: int) -> TokenLimits:
    return TokenLimits(np.array([0]), np.array([count]))


def test_tokens_as_floats_stay_tokens() -> None:
    tokens = np.random.default_rng(1).integers(1, 29, (20, 11)).astype("float32")
    inputs = {"tokens": tokens}
    properties = InputProperties({"tokens": token_limits(29)}, {"tokens": 0.0})
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


def rows_besides_moved(run: Any, inputs: Any, values: Any, shifted: Any) -> Any:
    """The usable rows of two samples and their extremes, without those that ``shifted`` moves."""
    return usable_rows(
        run,
        inputs,
        values,
        (2, 2),
        InputProperties({}, {}),
        real=False,
        changes=Changes(activations=shifted if isinstance(shifted, list) else [shifted]),
    )


def test_extremes_that_divide_by_a_saturated_activation_are_left_out() -> None:
    """1 / sigmoid(x) is 1 + exp(-x): far from zero it depends on the last digit of 1."""
    signal = keras.Input((1,), name="signal")
    gate = keras.layers.Activation("sigmoid")(signal)
    model = keras.Model(signal, keras.layers.Identity(name="y")(1.0 / gate))
    interface = interface_of(model)
    run = keras_function(model, interface, attention=False)
    shifted = shifted_function(model, interface)
    assert shifted is not None
    inputs = {"signal": np.array([[0.5], [1.0], [2.0], [-3.0], [-40.0]], np.float32)}
    sigmoid = 1 / (1 + np.exp(-inputs["signal"].astype(float)))
    np.testing.assert_allclose(shifted(inputs).outputs["y"], 1 / (sigmoid + 2.0**-23), rtol=1e-4)
    rows = rows_besides_moved(run, inputs, run(inputs), shifted)
    np.testing.assert_array_equal(np.sort(rows.all), [0, 1, 2, 3])


@pytest.mark.parametrize("kind", ["Attention", "AdditiveAttention"])
def test_extremes_whose_keys_are_all_masked_are_left_out_if_rounding_decides(kind: str) -> None:
    """Scores from 33 on differ from equal ones after Keras has subtracted 1e9 from all of them."""
    states = keras.Input((3, 2), name="states")
    mask = keras.Input((3,), dtype="bool", name="mask")
    layer = getattr(keras.layers, kind)(name="y")
    model = keras.Model([states, mask], layer([states, states], mask=[None, mask]))
    if kind == "AdditiveAttention":
        layer.scale.assign([40.0, 0.0])
    interface = interface_of(model)
    run = keras_function(model, interface, attention=False)
    shifted = shifted_function(model, interface)
    assert shifted is not None
    x = np.array([[0.1, 0.2], [0.05, 0.1], [-0.02, 0.03]], "float32")
    large = np.float32([[9, 0], [-9, 0], [0, 0]])
    inputs = {
        "states": np.stack([x, x, large, large, x]),
        "mask": np.array([[1, 1, 1], [1, 0, 1], [1, 0, 1], [0, 0, 0], [0, 0, 0]], bool),
    }
    values = run(inputs)
    # One key has all the weight, although every key is masked.
    assert np.abs(values.outputs["y"][3] - large.mean(axis=0)).max() > 1
    rows = rows_besides_moved(run, inputs, values, shifted)
    np.testing.assert_array_equal(np.sort(rows.all), [0, 1, 2, 4])


@pytest.mark.parametrize("kind", ["argmax", "argmin", "argsort", "top_k"])
def test_extremes_with_positions_among_saturated_values_are_left_out(kind: str) -> None:
    """Of sigmoids below 1e-8, onnxruntime makes several zeros, and the first is the largest."""
    signal = keras.Input((3,), name="signal")
    gate = keras.layers.Activation("sigmoid")(signal)
    position = (
        keras.ops.top_k(gate, 1)[1] if kind == "top_k" else getattr(keras.ops, kind)(gate, -1)
    )
    model = keras.Model(signal, keras.layers.Identity(name="y")(position))
    interface = interface_of(model)
    run = keras_function(model, interface, attention=False)
    shifted = shifted_function(model, interface)
    assert shifted is not None
    rows = [[0.5, 1, -2], [1, 2, 3], [-30, 4, 2], [-29, -28, -30], [-31, -18, -40]]
    inputs = {"signal": np.array(rows, np.float32)}
    values = run(inputs)
    usable = rows_besides_moved(run, inputs, values, shifted)
    np.testing.assert_array_equal(np.sort(usable.all), [0, 1, 2])


ops = keras.ops
COMPARISONS: dict[str, tuple[Callable[[Any], Any], list[float], list[float]]] = {
    # Behind each function of the input, values of it that are left out, and others.
    "above zero": (
        lambda x: ops.where(ops.sigmoid(x) > 0, 1.0, 2.0),
        [-16, -17.5, -50, -86],
        [-200, -120, -104, -90, -3, 0, 9, 15, 30],
    ),
    "below one": (
        lambda x: ops.where(ops.sigmoid(x) < 1, 1.0, 2.0),
        [16, 17, 19],
        [20, 90, 14, 0, -90],
    ),
    "at a threshold": (lambda x: ops.where(ops.sigmoid(x) >= 0.5, 1.0, 2.0), [], [0, 1, -1, 30]),
    "of a product": (
        lambda x: ops.where(ops.sigmoid(x) * ops.tanh(x - 1) < 0, 1.0, 2.0),
        [-18.5, -50],
        [-200, -90, -3, 0.5, 2, 9, 30],
    ),
    "of a tanh": (lambda x: ops.where(ops.tanh(x) < 1, 1.0, 2.0), [8.2, 9.5], [-9, 0, 7, 12, 90]),
    "of a share": (
        lambda x: ops.where(ops.softmax(x * np.float32([1, 0]))[..., 1:] > 0, 1.0, 2.0),
        [90, 100],
        [0, 50, 80, 110, 200, -9, -200],
    ),
    "of the larger share": (
        lambda x: ops.where(ops.softmax(x * np.float32([1, 0]))[..., :1] < 1, 1.0, 2.0),
        [16, 17.5],
        [0, 9, 13, -90],
    ),
    "ceil": (lambda x: ops.ceil(ops.sigmoid(x)), [-50, -18], [-200, -3, 0, 9, 30]),
    "integer": (lambda x: ops.cast(ops.sigmoid(x), "int32"), [17, 16.5], [20, 90, 9, 0, -90]),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_extremes_in_which_a_comparison_decides_on_rounding_are_left_out(name: str) -> None:
    """The sigmoid of -50 is above zero in Keras and TFLite, and zero in onnxruntime."""
    function, left_out, others = COMPARISONS[name]
    signal = keras.Input((1,), name="signal")
    model = keras.Model(signal, keras.layers.Identity(name="y")(function(signal)))
    interface = interface_of(model)
    run = keras_function(model, interface, attention=False)
    assert compares_bounded(run.traced.function)
    changes = [changed_ends(model, interface, outwards=outwards) for outwards in (True, False)]
    rows = [0.3, 0.4, *others, *left_out]
    inputs = {"signal": np.array(rows, np.float32)[:, None]}
    values = run(inputs)
    usable = rows_besides_moved(run, inputs, values, changes)
    np.testing.assert_array_equal(np.sort(usable.all), np.arange(2 + len(others)))


def test_which_models_compare_saturated_activations() -> None:
    x = keras.Input((5, 3), name="x")
    states = keras.layers.LSTM(4)(x)
    gate = keras.layers.Dense(4, activation="sigmoid")(x)
    outputs: dict[str, tuple[Any, bool]] = {
        "states": (ops.where(states > 0, states, 0.0), True),
        "gate": (ops.where(gate * 2.0 > 0.1, gate, 0.0), True),
        "inputs": (ops.where(x > 0, gate[..., :3], 0.0), False),
        "no comparison": (gate * 2.0, False),
        "behind weights": (ops.relu(keras.layers.Dense(2)(gate)), False),
    }
    for name, (y, expected) in outputs.items():
        model = keras.Model(x, y)
        run = keras_function(model, interface_of(model), attention=False)
        assert compares_bounded(run.traced.function) == expected, name


class Experts(keras.layers.Layer):  # type: ignore[misc]
    """The two largest weights, as in a mixture of experts, within a layer."""

    def call(self, x: Any) -> Any:
        return keras.ops.top_k(keras.ops.softmax(x), 2)[1]


class OtherPositions(keras.layers.Layer):  # type: ignore[misc]
    """A position among inputs, and activations of which no position is taken."""

    def call(self, x: Any) -> Any:
        position = keras.ops.cast(keras.ops.argmax(x, axis=-1), "float32")
        return position[:, None] + keras.ops.tanh(x)


def test_extremes_with_positions_within_a_layer_are_left_out() -> None:
    """The second of 1, 0, 0, 0 is the first zero in Keras: exp(-94) is flushed to zero."""
    signal = keras.Input((4,), name="signal")
    model = keras.Model(signal, Experts(name="y")(signal))
    interface = interface_of(model)
    run = keras_function(model, interface, attention=False)
    assert orders_bounded(run.traced.function)
    shifted = [
        shifted_function(model, interface, ordered=True, last=last) for last in (False, True)
    ]
    rows = [[0.5, 1, -2, 0], [1, 2, 3, 0], [4, 1, 2, 3], [50, -103, -44, -161], [0, 60, 9, 12]]
    inputs = {"signal": np.array(rows, np.float32)}
    values = run(inputs)
    np.testing.assert_array_equal(values.outputs["y"][3], [0, 1])
    usable = rows_besides_moved(run, inputs, values, shifted)
    np.testing.assert_array_equal(np.sort(usable.all), [0, 1, 2])


def test_positions_of_other_values_are_not_traced_again() -> None:
    signal = keras.Input((4,), name="signal")
    model = keras.Model(signal, OtherPositions(name="y")(signal))
    run = keras_function(model, interface_of(model), attention=False)
    assert not orders_bounded(run.traced.function)


class Hues(keras.layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return keras.ops.image.rgb_to_hsv(x)


@pytest.mark.parametrize("hues", [keras.ops.image.rgb_to_hsv, Hues()])
def test_extremes_with_the_hue_of_saturated_colors_are_left_out(hues: Any) -> None:
    """Of three sigmoids near 1 that differ by 3e-6, a rounding of 6e-8 moves the hue by 0.003."""
    signal = keras.Input((1, 1, 3), name="signal")
    colors = keras.layers.Activation("sigmoid")(signal)
    model = keras.Model(signal, keras.layers.Identity(name="y")(hues(colors)))
    interface = interface_of(model)
    run = keras_function(model, interface, attention=False)
    assert computes_hues(run.traced.function)
    shifted = shifted_function(model, interface, hues=True)
    assert shifted is not None
    rows = [[0.5, 1, -2], [1, 2, 3], [14, -5, 13], [13.8, 31.9, 12.7], [-3, 0, 9], [0, 0, 0]]
    inputs = {"signal": np.array(rows, np.float32)[:, None, None]}
    usable = rows_besides_moved(run, inputs, run(inputs), shifted)
    np.testing.assert_array_equal(np.sort(usable.all), [0, 1, 2, 4, 5])


def test_attention_without_masks_is_not_traced_again() -> None:
    states = keras.Input((3, 2), name="states")
    model = keras.Model(states, keras.layers.Attention()([states, states]))
    assert shifted_function(model, interface_of(model)) is None


def test_models_without_a_division_are_not_traced_again() -> None:
    signal = keras.Input((3, 2), name="signal")
    model = keras.Model(signal, keras.layers.LSTM(2)(signal))
    assert shifted_function(model, interface_of(model)) is None
    traced = keras_function(model, interface_of(model), attention=False).traced
    assert not computes_hues(traced.function)


def with_maps(signal: np.ndarray, error: float) -> KerasOutputs:
    """Outputs that returning maps changes by ``error`` in the last of the rows."""
    changed = signal.copy()
    changed[-1] += error
    return KerasOutputs({"y": signal}, {}, {"y": changed})


@pytest.mark.parametrize("real", [True, False])
def test_made_up_rows_that_maps_change_by_rounding_are_left_out(real: bool) -> None:
    """Keras computes weights that it returns in another order of operations."""
    signal = np.full((6, 1), 0.5, np.float32)

    def run(inputs: Tensors) -> KerasOutputs:
        return KerasOutputs({"y": inputs["signal"]}, {}, {})

    properties, values = InputProperties({}, {}), with_maps(signal, 1e-4)
    rows = usable_rows(run, {"signal": signal}, values, (2, 4), properties, real=real)
    np.testing.assert_array_equal(np.sort(rows.all), np.arange(5))
    # Real samples stay: files are compared with Keras' outputs without maps.
    rows = usable_rows(run, {"signal": signal}, values, (6, 6), properties, real=real)
    np.testing.assert_array_equal(np.sort(rows.all), np.arange(6 if real else 5))
    check_unchanged(values, np.arange(6))


def test_maps_that_change_outputs_are_an_error() -> None:
    values = with_maps(np.full((6, 1), 0.5, np.float32), 0.01)
    check_unchanged(values, np.arange(5))
    with pytest.raises(EdgeattnError, match="maps changes output 'y' in Keras"):
        check_unchanged(values, np.arange(6))


@pytest.mark.parametrize("random", [False, True])
def test_outputs_that_differ_each_time_are_random(random: bool) -> None:
    values = with_maps(np.full((6, 1), 0.5, np.float32), 0.01)
    again = KerasOutputs({"y": values.outputs["y"] + random}, {}, {})
    message = "draws random numbers at inference" if random else "maps changes output 'y'"
    with pytest.raises(EdgeattnError, match=message):
        check_unchanged(values, np.arange(6), lambda: again)


def test_tokens_are_left_out_if_the_last_digit_of_a_weight_decides() -> None:
    """sin(1e4 * 0.5 * (1 + 2**-23)) differs by up to 6e-4, but the others by at most 2.4e-6."""
    tokens = keras.Input((1,), dtype="int32", name="tokens")
    embedding = keras.layers.Embedding(4, 1, name="embedding")
    value = keras.layers.Flatten()(embedding(tokens))
    model = keras.Model(tokens, keras.layers.Identity(name="y")(keras.ops.sin(1e4 * value)))
    table = np.float32([[0.0], [1e-3], [0.5], [2e-3]])
    embedding.embeddings.assign(table)
    interface = interface_of(model)
    run = keras_function(model, interface, attention=False)
    inputs = {"tokens": np.array([[0], [1], [1], [2], [3], [2]], np.int32)}
    properties = InputProperties({"tokens": token_limits(4)}, {})
    rows = usable_rows(
        run,
        inputs,
        run(inputs),
        (2, 5),
        properties,
        real=True,
        changes=Changes(weights=lambda precisions, seed: rounded_weights(model, precisions, seed)),
    )
    np.testing.assert_array_equal(np.sort(rows.all), [0, 1, 2, 4])
    assert (rows.unstable, rows.unstable_ordinary, rows.stable) == (2, 1, True)
    np.testing.assert_array_equal(embedding.embeddings.numpy(), table)


def decibels(x: Any) -> Any:
    """log(1e-7) = -16.1 for zeros, which hardly depends on rounding but much on the input."""
    return keras.ops.log(keras.ops.abs(x) + 1e-7)


def normalized(x: Any) -> Any:
    """The last digit of -16.1, 1.9e-6, is divided by sqrt(1e-7) if the numbers are equal."""
    x = decibels(x)
    centered = x - keras.ops.mean(x, axis=-1, keepdims=True)
    variance = keras.ops.mean(keras.ops.square(centered), axis=-1, keepdims=True)
    return centered / keras.ops.sqrt(variance + 1e-7)


@pytest.mark.parametrize(
    ("function", "kept", "zeros"),
    [(keras.ops.relu, 4, 0), (decibels, 4, 0), (normalized, 2, 2)],
)
def test_zeros_are_left_out_if_rounding_decides_what_keras_computes(
    function: Callable[[Any], Any], kept: int, zeros: int
) -> None:
    x = np.random.default_rng(5).uniform(0.5, 1, (4, 3, 7)).astype("float32")
    x[2], x[3, 1] = 0, 0
    inputs = keras.Input((3, 7), name="x")
    model = keras.Model(inputs, keras.layers.Identity(name="y")(function(inputs)))
    interface = interface_of(model)
    run = keras_function(model, interface, attention=False)
    rows = usable_rows(
        run,
        {"x": x},
        run({"x": x}),
        (2, 2),
        InputProperties({}, {}),
        real=True,
        changes=Changes(averages=shifted_means(model, interface, attention=False)),
    )
    assert (len(rows.all), rows.unstable, rows.unstable_averages) == (kept, zeros, zeros)
    assert set(rows.all) == set(range(kept))


def slots(scores: Any) -> Any:
    """The weights of slot attention: a softmax over the slots, divided by the sum over inputs."""
    weights = keras.ops.softmax(scores, axis=-1) + 1e-8
    return weights / keras.ops.sum(weights, axis=1, keepdims=True)


def written_out(scores: Any) -> Any:
    """A softmax over the inputs, without the operation of that name."""
    weights = keras.ops.exp(scores)
    return weights / keras.ops.sum(weights, axis=1, keepdims=True)


@pytest.mark.parametrize("function", [slots, written_out])
def test_changed_operations_have_the_same_maps(function: Callable[[Any], Any]) -> None:
    """Changed sums hid normalizations: axes were swapped in one map, and the other was missing."""
    x = np.random.default_rng(6).normal(size=(2, 10, 3)).astype("float32")
    inputs = keras.Input((10, 3), name="x")
    weights = function(inputs)
    result = keras.ops.einsum("bns,bnd->bsd", weights, inputs)
    model = keras.Model(inputs, keras.layers.Identity(name="y")(result))
    interface = interface_of(model)
    (name,) = (spec.name for spec in interface.attention)
    powers = np.exp(x.astype(np.float64))
    if function is slots:
        powers /= powers.sum(axis=2, keepdims=True)
    expected = (powers / powers.sum(axis=1, keepdims=True)).transpose(0, 2, 1)
    values = keras_function(model, interface, attention=True)({"x": x})
    np.testing.assert_allclose(values.maps[name], expected, atol=1e-6)
    larger = shifted_means(model, interface, attention=True)({"x": x}, 0.5)
    np.testing.assert_allclose(larger[name], expected / 1.5, atol=1e-6)
    np.testing.assert_allclose(larger["y"], values.outputs["y"] / 1.5, atol=1e-5)
    rounded = rounded_function(model, interface, attention=True)({"x": x}, 1)
    moved = np.abs(rounded[name] - values.maps[name]).max()
    assert 1e-9 < moved < 1e-5


def test_rows_whose_integers_cannot_be_computed_are_left_out() -> None:
    """Also those that fail after a slight change only, such as an index at the end of a table."""
    below = np.nextafter(np.float32(1), np.float32(0))
    inputs = {"x": np.array([[0.5], [below], [1.5], [0.25]], "float32")}

    def compute(rows: Tensors) -> KerasOutputs:
        outside = rows["x"][:, 0] >= 1
        if outside.any():
            raise UnsupportedModelError("index 1 is not in [0, 1)")
        return KerasOutputs({"y": (rows["x"][:, 0] > 0.4).astype("int32")}, {}, {})

    run = by_row_on_failure(compute)
    values = run(inputs)
    assert values.failed == (2,)
    rows = usable_rows(run, inputs, values, (4, 4), InputProperties({}, {}), real=False)
    np.testing.assert_array_equal(rows.samples, [0, 3])
    assert (rows.not_finite, rows.unstable) == (1, 1)
