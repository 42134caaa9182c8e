"""``convert --states``: a sequence processed in parts, compared with stateful Keras layers."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from long_parameters import only

import edgeattn
from edgeattn.errors import UnsupportedModelError
from edgeattn.runners.stateful import StatefulRunner
from edgeattn_converters import convert
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.options import ConversionOptions, QuantizationOptions
from edgeattn_converters.tracing.states import mark_states, with_running_states, with_states
from edgeattn_converters.tracing.trace import interface_of

sys.path.append(str(Path(__file__).parents[1] / "lowering"))
from recurrent_models import Converted, randomise

layers = keras.layers
PARTS, TIME, FEATURES = 5, 7, 3
BOTH = ("tflite", "onnx")


def _parts(seed: int = 3) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((PARTS, TIME, FEATURES))
    return values.astype(np.float32)


def _every_kind(x, stateful):
    """Outputs of all kinds of recurrent layers, some nested and one called twice."""
    steps = layers.LSTM(5, return_sequences=True, stateful=stateful, name="lstm")(x)
    back = layers.GRU(5, go_backwards=True, return_state=True, stateful=stateful)(steps)
    inner = layers.GRU(2, return_sequences=True, stateful=stateful)
    both = layers.Bidirectional(inner, merge_mode="sum", name="both")(steps)
    cells = [layers.LSTMCell(4), layers.SimpleRNNCell(3)]
    stack = layers.RNN(cells, stateful=stateful, name="stack")(both)
    inside = keras.Input(batch_shape=x.shape)
    nested = keras.Model(inside, layers.SimpleRNN(3, stateful=stateful, name="within")(inside))
    twice = layers.SimpleRNN(FEATURES, return_sequences=True, stateful=stateful, name="twice")
    image = layers.Reshape((TIME, FEATURES, 1))(x)
    convolved = layers.ConvLSTM1D(2, 2, stateful=stateful, name="convolved")(image)
    return [*back, stack, nested(x), twice(twice(x)), convolved]


def _model(*, masked: bool = False, stateful: bool = True):
    x = keras.Input(batch_shape=(1 if stateful else None, TIME, FEATURES), name="x")
    if masked:
        steps = layers.Masking(0.0)(x)
        steps = layers.LSTM(5, return_sequences=True, stateful=True, name="lstm")(steps)
        both = layers.Bidirectional(layers.LSTM(3, stateful=True), name="both")(steps)
        return randomise(keras.Model(x, [steps, both], name="masked"))
    return randomise(keras.Model(x, _every_kind(x, stateful), name="kinds"))


def _run_stateful_keras(model, parts):
    """Keras' outputs for consecutive parts of a sequence."""
    for layer in model._flatten_layers(include_self=False, recursive=True):
        # Not reset_state(), which does not support stacked cells.
        for state in keras.tree.flatten(getattr(layer, "states", None) or []):
            state.assign(keras.ops.zeros_like(state))
    outputs = [keras.tree.flatten(model.predict(part[None], verbose=0)) for part in parts]
    return [np.concatenate(values) for values in zip(*outputs, strict=True)]


@pytest.mark.parametrize(
    ("masked", "lowering"),
    [
        pytest.param(False, "auto", marks=pytest.mark.long),
        pytest.param(True, "unrolled", marks=pytest.mark.long),
        (True, "chunked"),
    ],
    ids=["kinds", "masked-unrolled", "masked-chunked"],
)
def test_parts_match_stateful_keras(masked, lowering, tmp_path):
    parts = _parts()
    if masked:
        parts[1, 4:] = parts[2, :3] = parts[3, 2:5] = 0
    model = _model(masked=masked)
    path = tmp_path / "stateful.keras"
    model.save(path)
    expected = _run_stateful_keras(model, parts)
    loaded = load_model(audit_file(path))
    assert len(loaded.stateful) >= 2
    explicit, pairs = with_states(loaded.model, loaded.stateful)
    own = len(interface_of(loaded.model).outputs)
    converted = Converted(explicit, tmp_path, BOTH, lowering=lowering)
    for format, runner in converted.runners.items():
        specs = mark_states(converted.interface, pairs).inputs
        runner.inputs = tuple(
            type(spec)(spec.name, fixed.shape, spec.dtype, state=spec.state)
            for spec, fixed in zip(specs, runner.inputs, strict=True)
        )
        outputs = StatefulRunner(runner).run({"x": parts})
        names = [spec.name for spec in converted.interface.outputs][:own]
        for name, value in zip(names, expected, strict=True):
            np.testing.assert_allclose(
                outputs[name],
                value,
                atol=1e-5,
                rtol=1e-4,
                err_msg=f"{format} {lowering} {name}",
            )


@pytest.mark.long
def test_names_of_states():
    explicit, pairs = with_states(_model(stateful=False))
    assert pairs["lstm_initial_h"] == "lstm_final_h"
    assert pairs["both_initial_backward_h"] == "both_final_backward_h"
    assert {"stack_initial_2", "within_initial_h", "convolved_initial_c"} <= pairs.keys()
    assert [tensor.name for tensor in explicit.inputs] == ["x", *pairs]
    outputs = [spec.name for spec in interface_of(explicit).outputs]
    assert outputs[-len(pairs) :] == [*pairs.values()]


def _siamese(kind):
    """A layer that encodes two sequences, in a model of its own if it is nested."""
    a, b = (keras.Input((None, FEATURES), name=name) for name in "ab")
    layer = layers.LSTM(3, return_sequences=True, name="shared")
    if kind == "both directions":
        layer = layers.Bidirectional(layers.GRU(2, return_sequences=True), name="shared")
    encode = layer
    if kind == "nested":
        inside = keras.Input((None, FEATURES))
        encode = keras.Model(inside, layer(inside))
    # The name of the second call is that of another layer.
    other = layers.GRU(2, return_sequences=True, name="shared_call_2")(a)
    return randomise(keras.Model([a, b], [encode(a), encode(b), other]))


@pytest.mark.parametrize("kind", only(["layer", "nested", "both directions"], "layer"))
def test_each_call_of_a_shared_layer_has_a_state(kind):
    model = _siamese(kind)
    explicit, pairs = with_states(model)
    a, b = _parts(1)[:2], _parts(2)[:2]
    states = [np.zeros((2, *tensor.shape[1:]), "float32") for tensor in explicit.inputs[2:]]
    assert len(states) == len(pairs)
    first = explicit.predict([a, b, *states], verbose=0)
    expected = model.predict([a, b], verbose=0)
    for value, whole in zip(list(first.values())[:3], expected, strict=True):
        np.testing.assert_allclose(value, whole, atol=1e-6)
    if kind == "both directions":
        return
    states = [first[name] for name in pairs.values()]
    second = explicit.predict([b, a, *states], verbose=0)
    expected = model.predict([np.concatenate(x, 1) for x in ((a, b), (b, a))], verbose=0)
    for value, whole in zip(list(second.values())[:3], expected, strict=True):
        np.testing.assert_allclose(value, whole[:, TIME:], atol=1e-6)


@pytest.mark.long
def test_layers_with_states():
    x = keras.Input((TIME, FEATURES))
    encoded, *state = layers.LSTM(4, return_state=True, return_sequences=True, name="encoder")(x)
    # The decoder receives its initial state within the model.
    decoded = layers.LSTM(4, name="decoder")(encoded, initial_state=state)
    windows = layers.TimeDistributed(layers.LSTM(2))(layers.Reshape((TIME, FEATURES, 1))(x))
    model = keras.Model(x, [layers.GRU(2, name="other")(encoded), decoded, windows])
    assert [*with_states(model)[1]] == [
        *("encoder_initial_h", "encoder_initial_c", "other_initial_h"),
    ]
    assert [*with_states(model, ["other"])[1]] == ["other_initial_h"]


def test_models_without_states():
    x = keras.Input((TIME, FEATURES))
    with pytest.raises(UnsupportedModelError, match="No recurrent layer of this model has a state"):
        with_states(keras.Model(x, layers.Dense(2)(x)))
    windows = layers.Reshape((TIME, FEATURES, 1))(x)
    model = keras.Model(x, layers.TimeDistributed(layers.LSTM(2))(windows))
    with pytest.raises(UnsupportedModelError, match="No recurrent layer of this model has a state"):
        with_states(model)


def test_running_states():
    """The state of a row is what the three rows before it leave."""
    model = keras.Sequential([keras.Input((TIME, FEATURES)), layers.GRU(4)])
    explicit, pairs = with_states(model)
    interface = mark_states(interface_of(explicit), pairs)

    def predict(tensors):
        values = [tensors[spec.name] for spec in interface.inputs]
        return explicit.predict(values, verbose=0)

    (name,) = pairs
    states = with_running_states(predict, interface, {interface.inputs[0].name: _parts()})[name]
    state = np.zeros((1, 4), np.float32)
    for part in _parts()[1:4]:
        state = np.asarray(model.layers[-1](part[None], initial_state=state))
    np.testing.assert_allclose(states[4], state[0], atol=1e-6)


@pytest.mark.long
def test_a_bundle_with_states(tmp_path):
    """A model with a stateful layer is converted, calibrated, validated and run in parts."""
    x = keras.Input(batch_shape=(1, TIME, FEATURES), name="x")
    # The forget gate is large enough for the cell to exceed its range within one sequence.
    layer = layers.LSTM(6, stateful=True, bias_initializer="ones", name="lstm")
    model = randomise(keras.Model(x, layers.Dense(2, name="score")(layer(x)), name="stream"))
    model.save(tmp_path / "stream.keras")
    np.savez(tmp_path / "calibration.npz", x=np.concatenate([_parts(seed) for seed in range(24)]))
    conversion = convert(
        tmp_path / "stream.keras",
        tmp_path / "stream.edge",
        options=ConversionOptions(schemes=("float32", "int8"), states=True),
        quantization=QuantizationOptions(calibration=tmp_path / "calibration.npz"),
    )
    assert conversion.exit_code == 0
    assert any("lstm_final_c" in note for note in conversion.bundle.manifest.model["notes"])
    reference = conversion.bundle.reference()
    count = conversion.bundle.manifest.reference["samples"]
    assert not reference["input/lstm_initial_c"][:count].any()
    assert reference["input/lstm_initial_c"][count : count + 4].any(axis=1).all()
    (expected,) = _run_stateful_keras(model, _parts(99))
    for format in BOTH:
        for scheme, atol in (("float32", 1e-5), ("int8", 0.15)):
            model_with_states = edgeattn.load(
                conversion.bundle.path, format=format, scheme=scheme, carry_states=True
            )
            outputs = [model_with_states(part)["score"].copy() for part in _parts(99)]
            np.testing.assert_allclose(np.concatenate(outputs), expected, atol=atol)
