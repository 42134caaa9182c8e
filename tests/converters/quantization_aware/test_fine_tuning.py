"""Fine-tuning in int8 arithmetic: what it returns, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from edgeattn.errors import ConversionError, SampleError, UnsupportedModelError, UsageError
from edgeattn.layers import Attention
from edgeattn_converters.quantization_aware import FineTuned, FineTuningOptions, fine_tune

GENERATOR = np.random.default_rng(5)
QUICK = FineTuningOptions(epochs=1, batch_size=16)


def _filled(model: Any) -> Any:
    generator = np.random.default_rng(11)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(0, 0.4, variable.shape).astype("float32"))
    return model


def two_inputs() -> Any:
    """Two inputs of different dtypes, masks, shared layers and three outputs."""
    signal = keras.Input((7, 3), name="signal")
    tokens = keras.Input((5,), name="tokens", dtype="int32")
    states = layers.LSTM(8, return_sequences=True)(signal)
    words = layers.Embedding(70, 8, mask_zero=True)(tokens)
    words = layers.GRU(8, return_sequences=True)(words)
    look = Attention(8, return_attention_weights=True, name="look")
    vector, weights = look(states)
    other, _ = look(words)
    mixed = layers.Add()([layers.Dropout(0.5)(vector), other])
    mixed = layers.BatchNormalization()(mixed)
    outputs = [layers.Dense(2, name="zeta")(mixed), weights, layers.Dense(1, name="alpha")(mixed)]
    return keras.Model([signal, tokens], outputs)


def attentive() -> Any:
    """Keras' attention layers, and a softmax outside of a layer."""
    inputs = keras.Input((6, 32), name="sequence")
    x = layers.MultiHeadAttention(2, 16, name="heads")(inputs, inputs)
    x = layers.Attention(name="dots")([x, inputs])
    weights = layers.Softmax(axis=1, name="weights")(layers.Dense(1)(x))
    x = layers.Flatten()(layers.Dot((1, 1))([x, weights]))
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="answer")(x))


def _samples(count: int = 48) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(7)
    tokens = generator.integers(1, 70, (count, 5))
    tokens[::3, 3:] = 0
    return {
        "signal": generator.normal(size=(count, 7, 3)),
        "tokens": tokens,
    }


@pytest.fixture(scope="module")
def tuned() -> tuple[Any, list[np.ndarray], FineTuned]:
    """A model, its weights before, and the result for it."""
    model = _filled(two_inputs())
    before = [value.copy() for value in model.get_weights()]
    return model, before, fine_tune(model, _samples(), options=QUICK)


@pytest.mark.long
def test_the_given_model_stays_as_it_is(tuned: tuple[Any, list[np.ndarray], FineTuned]) -> None:
    model, before, result = tuned
    for value, original in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, original)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    assert result.model is not model
    changed = [
        not np.array_equal(new, old)
        for new, old in zip(result.model.get_weights(), before, strict=True)
    ]
    assert sum(changed) > len(changed) / 2


@pytest.mark.long
def test_the_model_is_an_ordinary_one(
    tuned: tuple[Any, list[np.ndarray], FineTuned], tmp_path: Path
) -> None:
    model, _, result = tuned
    kinds = [type(layer) for layer in model._flatten_layers()]
    assert [type(layer) for layer in result.model._flatten_layers()] == kinds
    result.model.save(tmp_path / "tuned.keras")
    loaded = keras.saving.load_model(tmp_path / "tuned.keras")
    samples = list(_samples(4).values())
    for one, other in zip(loaded(samples), result.model(samples), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.long
def test_rounding_leaves_the_weights_unchanged(
    tuned: tuple[Any, list[np.ndarray], FineTuned],
) -> None:
    _, _, result = tuned
    rounded = 0
    for variable in result.model.weights:
        value = variable.numpy().astype(np.float64)
        if value.ndim < 2 or "bias" in variable.path or "seed" in variable.path:
            continue
        axis = None if "embeddings" in variable.path else 0
        scale = np.abs(value).max(axis=axis, keepdims=True) / 127
        assert np.abs(value / scale - np.rint(value / scale)).max() < 1e-3, variable.path
        rounded += 1
    assert rounded == 9


@pytest.mark.long
def test_errors_are_those_of_outputs_and_maps(
    tuned: tuple[Any, list[np.ndarray], FineTuned],
) -> None:
    _, _, result = tuned
    assert list(result.before) == list(result.after)
    assert {"zeta", "alpha", "look", "attention/look", "attention/look_1"} == set(result.before)
    assert set(result.after["zeta"]) == {"max_abs_error", "snr_db"}
    assert set(result.after["attention/look_1"]) == {"max_abs_error", "jensen_shannon"}
    assert len(result.losses) == 2
    assert result.losses[result.best_epoch] == min(result.losses)
    assert result.float_layers == ()


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["int8", "dynamic_int8"])
def test_keras_attention_and_labels(scheme: str) -> None:
    model = _filled(attentive())
    x = GENERATOR.normal(size=(32, 6, 32)).astype("float32")
    y = GENERATOR.integers(0, 3, 32)
    options = FineTuningOptions(
        scheme=scheme,
        attention_precision="int8",
        epochs=2,
        loss="sparse_categorical_crossentropy",
        distillation=0.0,
        learning_rate=1e-2,
    )
    result = fine_tune(model, x, y, options)
    maps = {name for name in result.before if name.startswith("attention/")}
    assert maps == {"attention/heads", "attention/dots", "attention/weights"}
    probabilities = [item.predict(x, verbose=0)[np.arange(32), y] for item in (model, result.model)]
    assert np.log(probabilities[1]).mean() > np.log(probabilities[0]).mean()


@pytest.mark.long
def test_loss_of_a_compiled_model_and_free_time_axis() -> None:
    model = _filled(
        keras.Sequential([keras.Input((None, 4)), layers.GRU(16), layers.Dense(2, name="answer")])
    )
    model.compile(loss="mse", metrics=["mae"])
    x = GENERATOR.normal(size=(20, 6, 4)).astype("float32")
    y = GENERATOR.normal(size=(20, 2)).astype("float32")
    result = fine_tune(model, x, y, QUICK)
    assert result.model.input_shape == (None, None, 4)
    assert set(result.model.evaluate(x, y, verbose=0, return_dict=True)) == {"loss", "mae"}


def test_free_axes_of_several_inputs_of_different_sizes() -> None:
    text, image = keras.Input((None, 4), name="text"), keras.Input((None, None, 3), name="image")
    hidden = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3, padding="same")(image))
    joined = layers.Concatenate()([layers.GlobalMaxPooling1D()(layers.Dense(4)(text)), hidden])
    model = _filled(keras.Model([text, image], layers.Dense(2, name="answer")(joined)))
    x = {
        "text": GENERATOR.normal(size=(20, 6, 4)).astype("float32"),
        "image": GENERATOR.normal(size=(20, 8, 5, 3)).astype("float32"),
    }
    result = fine_tune(model, x, None, QUICK)
    assert result.model(list(x.values())).shape == (20, 2)


def _dense() -> Any:
    return _filled(keras.Sequential([keras.Input((6,), name="x"), layers.Dense(2, name="answer")]))


class Own(layers.Layer):  # type: ignore[misc]
    def build(self, shape: Any) -> None:
        self.matrix = self.add_weight(shape=(shape[-1], 100), name="matrix")

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x, self.matrix)


def _own() -> Any:
    return keras.Sequential([keras.Input((6,)), Own(name="own")])


def _frozen() -> Any:
    model = _dense()
    model.trainable = False
    return model


VALUES = GENERATOR.normal(size=(12, 6)).astype("float32")
ONE_NAN = np.where(np.arange(72).reshape(12, 6) == 33, np.nan, VALUES)


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (np.zeros((0, 6)), None, {}, SampleError, "x has no samples"),
        (np.full((12, 6), 0.5), None, {}, SampleError, "Input x: every value is 0.5"),
        (ONE_NAN, None, {}, SampleError, "Input x: sample 5 contains NaN"),
        (VALUES[:, :5], None, {}, SampleError, "expected (samples, 6) and float32"),
        ({"z": VALUES}, None, {}, UsageError, "x has the names z"),
        ([VALUES, VALUES], None, {}, UsageError, "x has 2 arrays instead of 1"),
        (VALUES, VALUES[:, :2], {}, UsageError, "no loss"),
        (VALUES, VALUES[:7, :2], {"loss": "mse"}, SampleError, "7 labels for 12 samples"),
        (VALUES, VALUES[:, :2] * np.inf, {"loss": "mse"}, SampleError, "y contains NaN"),
        (VALUES, VALUES[:, :2], {"loss": "nonsense"}, UsageError, "no loss 'nonsense'"),
        (VALUES, VALUES[:, :2], {"loss": {"q": "mse"}}, UsageError, "no output 'q'"),
        (VALUES, None, {"loss": "mse"}, UsageError, "no labels"),
        (VALUES, VALUES[:, :2], {"loss": lambda y, p: p * np.nan}, ConversionError, "is nan"),
        (VALUES, None, {"learning_rate": 1e38}, ConversionError, "in epoch 1"),
    ],
)
def test_invalid_data(x: Any, y: Any, options: Any, error: Any, message: str) -> None:
    model = _dense()
    with pytest.raises(error) as caught:
        fine_tune(model, x, y, FineTuningOptions(**{"epochs": 2, **options}))
    assert message in caught.value.message
    assert caught.value.hint
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "float16"},
        {"attention_precision": "int16"},
        {"recurrence_precision": "int16"},
        {"epochs": 0},
        {"learning_rate": -1.0},
        {"distillation": -1.0},
    ],
)
def test_invalid_options(options: Any) -> None:
    with pytest.raises(UsageError):
        FineTuningOptions(**options)


@pytest.mark.parametrize(
    ("build", "message"),
    [(_own, "own (Own)"), (_frozen, "no weights that can be fine-tuned")],
)
def test_models_without_weights_to_tune(build: Any, message: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        fine_tune(build(), VALUES, options=QUICK)
    assert message in caught.value.message


def test_layers_that_stay_float_are_named() -> None:
    inputs = keras.Input((6,))
    model = _filled(keras.Model(inputs, layers.Dense(2)(Own(name="own")(inputs))))
    assert fine_tune(model, VALUES, options=QUICK).float_layers == ("own (Own)",)


def test_other_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UsageError, match="needs TensorFlow"):
        fine_tune(_dense(), VALUES)
