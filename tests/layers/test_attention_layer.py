"""The Keras layer against numpy. For other backends: ``KERAS_BACKEND=jax pytest tests/layers``."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from long_parameters import only

from edgeattn.layers import Attention
from edgeattn.numpy_attention import attention_output, attention_weights

# Raised in Keras 3.15 on JAX, whose variables implement the ``__array__`` of numpy 1.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept:DeprecationWarning"
)

# A different prime for every axis, so that exchanged axes are noticed.
BATCH, TIME, FEATURES, UNITS = 5, 7, 3, 11
SCORES = ["luong", "bahdanau"]
INNER = {
    "luong": ["luong_w", "w_c"],
    "bahdanau": ["bahdanau_v", "bahdanau_w1", "bahdanau_w2", "w_c"],
}
MASKS = {
    "unmasked": np.ones((BATCH, TIME), bool),
    "right": np.arange(TIME) < np.array([[7], [5], [3], [2], [1]]),
    "left": np.arange(TIME) >= np.array([[0], [2], [4], [5], [6]]),
    "ragged": np.random.default_rng(2).random((BATCH, TIME)) < 0.5,
    "one row masked": np.arange(TIME) < np.array([[7], [0], [3], [0], [1]]),
    "fully masked": np.zeros((BATCH, TIME), bool),
}
# Rounding of the compute dtype, over scores of about 1: a few units in the last place.
TOLERANCE = {"float32": 2e-6, "mixed_float16": 4e-3, "mixed_bfloat16": 4e-2}


@pytest.fixture
def hidden():
    return np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype("float32")


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(3)


def layer(score="luong", **options):
    return Attention(UNITS, score, **options)


def numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def expected_outputs(attention, hidden, mask=None):
    """Vector and weights computed by numpy in float64, with the kernels of a built layer."""
    kernels = {name: numpy(getattr(attention, name).kernel) for name in INNER[attention.score]}
    vector_kernel = kernels.pop("w_c")
    states = np.asarray(hidden, np.float64)
    weights = attention_weights(states, score=attention.score, mask=mask, **kernels)
    return attention_output(states, weights, vector_kernel, mask), weights


def assert_agrees(outputs, expected, tolerance=TOLERANCE["float32"]):
    for output, reference in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(numpy(output), reference, atol=tolerance, rtol=0)


@pytest.mark.parametrize("score", SCORES)
def test_equals_numpy(score, hidden):
    attention = layer(score, return_attention_weights=True)
    vector, weights = attention(hidden)
    assert tuple(vector.shape) == (BATCH, UNITS)
    assert tuple(weights.shape) == (BATCH, TIME)
    assert_agrees((vector, weights), expected_outputs(attention, hidden))


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("score", SCORES)
def test_equals_numpy_with_a_mask(score, kind, hidden):
    mask = MASKS[kind]
    attention = layer(score, return_attention_weights=True)
    vector, weights = attention(hidden, mask=mask)
    assert_agrees((vector, weights), expected_outputs(attention, hidden, mask))
    assert not numpy(weights)[~mask].any()
    np.testing.assert_allclose(numpy(weights).sum(axis=1), mask.any(axis=1), atol=1e-6)


@pytest.mark.parametrize("score", SCORES)
def test_padding_is_never_read(score, hidden):
    mask = MASKS["one row masked"]
    attention = layer(score, return_attention_weights=True)
    expected = attention(hidden, mask=mask)
    poisoned = np.where(mask[..., None], hidden, np.nan).astype("float32")
    assert_agrees(attention(poisoned, mask=mask), map(numpy, expected), 0)


@pytest.mark.parametrize("sign", [-1, 1])
def test_scores_far_from_the_fill(sign, hidden):
    # Scores in the thousands, of either sign: the score of masked steps must follow them.
    mask = MASKS["right"]
    attention = layer(return_attention_weights=True)
    attention.build(hidden.shape)
    attention.luong_w.kernel.assign(sign * 1000 * np.eye(FEATURES, dtype="float32"))
    vector, weights = attention(hidden, mask=mask)
    assert_agrees((vector, weights), expected_outputs(attention, hidden, mask), 1e-4)
    np.testing.assert_allclose(numpy(weights).sum(axis=1), 1, atol=1e-6)


def test_scores_have_the_names_of_the_package_attention():
    assert layer(Attention.SCORE_LUONG).score == "luong"
    assert layer(Attention.SCORE_BAHDANAU).score == "bahdanau"


@pytest.mark.parametrize("score", SCORES)
def test_use_mask_false_ignores_masks(score, hidden):
    mask = MASKS["right"]
    attention = layer(score, return_attention_weights=True, use_mask=False)
    assert_agrees(attention(hidden, mask=mask), expected_outputs(attention, hidden))


@pytest.mark.parametrize("score", SCORES)
def test_attention_weights_are_those_of_the_call(score, hidden):
    attention = layer(score)
    vector = attention(hidden, mask=MASKS["left"])
    assert tuple(vector.shape) == (BATCH, UNITS)
    weights = attention.attention_weights(hidden, mask=MASKS["left"])
    assert_agrees((vector, weights), expected_outputs(attention, hidden, MASKS["left"]))


@pytest.mark.parametrize("score", SCORES)
def test_order_and_shape_of_the_weights(score, hidden):
    attention = layer(score)
    attention.build(hidden.shape)
    assert attention.built
    assert all(getattr(attention, name).built for name in INNER[score])
    assert [tuple(weight.shape) for weight in attention.weights] == [
        {"bahdanau_v": (FEATURES, 1), "w_c": (2 * FEATURES, UNITS)}.get(name, (FEATURES, FEATURES))
        for name in INNER[score]
    ]
    assert [weight.path.split("/")[-2] for weight in attention.weights] == INNER[score]


@pytest.mark.parametrize("kind", only(["unmasked", "ragged", "fully masked"], "ragged"))
@pytest.mark.parametrize("score", SCORES)
def test_trains(score, kind, hidden):
    model = keras.Sequential([Attention(UNITS, score), keras.layers.Dense(1)])
    mask = MASKS[kind]

    class Masked(keras.Model):
        """A subclassed model that passes the mask explicitly."""

        def __init__(self):
            super().__init__()
            self.attention, self.head = model.layers

        def call(self, inputs):
            return self.head(self.attention(inputs, mask=ops.convert_to_tensor(mask)))

    masked = Masked()
    masked(hidden)
    before = [np.array(weight) for weight in masked.get_weights()]
    masked.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    history = masked.fit(
        hidden, np.ones((BATCH, 1)), batch_size=BATCH, epochs=2, shuffle=False, verbose=0
    )
    after = masked.get_weights()
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(weight).all() for weight in after)
    if mask.any():
        changed = [not np.array_equal(old, new) for old, new in zip(before, after, strict=True)]
        assert all(changed), dict(zip([w.path for w in masked.weights], changed, strict=True))


@pytest.mark.parametrize("score", SCORES)
def test_gradient_flows_through_the_mask(score, hidden):
    """A central difference along one direction, compared with one step of SGD."""
    mask = MASKS["ragged"]
    attention = layer(score, return_attention_weights=True)
    attention.build(hidden.shape)

    class Frozen(keras.Model):
        """The states are the only trained variable, so that the step is their gradient."""

        def __init__(self):
            super().__init__()
            self.attention = attention
            attention.trainable = False
            self.states = self.add_weight(shape=hidden.shape, initializer="zeros")

        def call(self, inputs):
            vector = self.attention(self.states + inputs, mask=ops.convert_to_tensor(mask))[0]
            return ops.sum(vector, axis=-1)

    model = Frozen()
    model(hidden)
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=lambda _, output: output)
    model.fit(hidden, np.zeros(BATCH), batch_size=BATCH, shuffle=False, verbose=0)
    gradient = -numpy(model.states) * BATCH  # the loss is a mean over the batch
    assert np.isfinite(gradient).all()
    assert not gradient[~mask].any()

    direction = np.random.default_rng(5).normal(size=hidden.shape)
    upper, lower = (
        expected_outputs(attention, hidden + step * direction, mask)[0].sum()
        for step in (1e-6, -1e-6)
    )
    np.testing.assert_allclose((gradient * direction).sum(), (upper - lower) / 2e-6, rtol=1e-3)


def test_symbolic_shapes_of_unknown_batch_and_length():
    states = keras.Input((None, FEATURES))
    vector, weights = layer(return_attention_weights=True)(states)
    assert vector.shape == (None, UNITS)
    assert weights.shape == (None, None)
    assert layer()(states).shape == (None, UNITS)
    attention = layer()
    assert attention.compute_output_shape((None, TIME, FEATURES)) == (None, UNITS)
    both = attention.compute_output_shape((BATCH, None, FEATURES), return_attention_weights=True)
    assert both == ((BATCH, UNITS), (BATCH, None))


@pytest.mark.filterwarnings("ignore:.*You are using a softmax over axis -1:UserWarning")
@pytest.mark.parametrize("score", SCORES)
def test_one_model_for_every_length(score, hidden):
    states = keras.Input((None, FEATURES))
    attention = layer(score, return_attention_weights=True)
    model = keras.Model(states, attention(states))
    for length in (TIME, 2, 1):
        assert_agrees(
            model.predict(hidden[:, :length], verbose=0),
            expected_outputs(attention, hidden[:, :length]),
        )


TOKENS = np.array(
    [[1, 2, 3, 4, 0, 0, 0], [0, 0, 0, 4, 3, 2, 1], [5, 0, 6, 0, 7, 0, 0], [0] * 7, [7] * 7]
)


def test_the_mask_of_an_embedding_arrives_through_an_lstm():
    tokens = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(13, 2, mask_zero=True)(tokens)
    states = keras.layers.LSTM(FEATURES, return_sequences=True)(embedded)
    attention = layer("bahdanau", return_attention_weights=True)
    outputs = attention(states)
    vector, weights = keras.Model(tokens, outputs).predict(TOKENS, verbose=0)
    values = keras.Model(tokens, states).predict(TOKENS, verbose=0)
    assert_agrees((vector, weights), expected_outputs(attention, values, TOKENS != 0))
    assert not weights[TOKENS == 0].any()
    assert all(getattr(output, "_keras_mask", None) is None for output in outputs)


def test_the_mask_of_a_masking_layer_arrives_through_an_lstm_in_sequential(hidden):
    mask = MASKS["right"]
    padded = np.where(mask[..., None], hidden, 0).astype("float32")
    attention = layer(return_attention_weights=True)
    recurrent = keras.layers.LSTM(FEATURES, return_sequences=True)
    model = keras.Sequential([keras.layers.Masking(), recurrent, attention])
    outputs = model.predict(padded, verbose=0)
    states = numpy(recurrent(padded, mask=ops.convert_to_tensor(mask)))
    assert_agrees(outputs, expected_outputs(attention, states, mask))


def test_attention_weights_use_the_mask_of_the_inputs():
    embedding = keras.layers.Embedding(13, FEATURES, mask_zero=True)
    weights = numpy(layer().attention_weights(embedding(TOKENS)))
    assert not weights[TOKENS == 0].any()
    np.testing.assert_allclose(weights.sum(axis=1), [1, 1, 1, 0, 1], atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("score", SCORES)
def test_mixed_precision(score, kind, policy, hidden):
    mask = MASKS[kind]
    attention = layer(score, return_attention_weights=True, dtype=policy)
    outputs = attention(hidden, mask=mask)
    compute = policy.removeprefix("mixed_")
    assert [keras.backend.standardize_dtype(output.dtype) for output in outputs] == [compute] * 2
    assert {keras.backend.standardize_dtype(w.dtype) for w in attention.weights} == {"float32"}
    assert_agrees(outputs, expected_outputs(attention, hidden, mask), TOLERANCE[policy])
    assert not numpy(outputs[1])[~mask].any()


@pytest.mark.long
def test_mixed_precision_as_the_global_policy(hidden):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential(
            [
                keras.layers.LSTM(FEATURES, return_sequences=True),
                Attention(UNITS),
                keras.layers.Dense(1, dtype="float32"),
            ]
        )
        model.compile("adam", "mse")
        history = model.fit(hidden, np.ones((BATCH, 1)), epochs=1, verbose=0)
    finally:
        keras.config.set_dtype_policy(policy)
    assert np.isfinite(history.history["loss"]).all()
    assert model.layers[1].compute_dtype == "float16"


def sequential(score):
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(13, 2, mask_zero=True),
            keras.layers.LSTM(FEATURES, return_sequences=True),
            Attention(UNITS, score),
            keras.layers.Dense(2),
        ]
    )


def functional(score):
    tokens = keras.Input((TIME,), dtype="int32")
    states = keras.layers.Embedding(13, FEATURES)(tokens)
    vector, weights = Attention(UNITS, score, return_attention_weights=True)(states)
    return keras.Model(tokens, [keras.layers.Dense(2)(vector), weights])


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """A model with a custom ``call``, which only the ``.keras`` format supports."""

    def __init__(self, score, **kwargs):
        super().__init__(**kwargs)
        self.score = score
        self.embedding = keras.layers.Embedding(13, FEATURES, mask_zero=True)
        self.attention = Attention(UNITS, score)

    def call(self, inputs):
        return self.attention(self.embedding(inputs))

    def get_config(self):
        return {**super().get_config(), "score": self.score}


@pytest.mark.parametrize("score", only(SCORES, "bahdanau"))
@pytest.mark.parametrize(
    ("build", "suffix"),
    [
        (sequential, ".keras"),
        pytest.param(sequential, ".h5", marks=pytest.mark.long),
        (functional, ".keras"),
        (functional, ".h5"),
        (Subclassed, ".keras"),
    ],
)
def test_saved_and_loaded(build, suffix, score, tmp_path):
    model = build(score)
    expected = model.predict(TOKENS, verbose=0)
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.saving.load_model(tmp_path / f"model{suffix}", compile=False)
    actual = loaded.predict(TOKENS, verbose=0)
    for output, reference in zip(
        keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True
    ):
        np.testing.assert_allclose(output, reference, atol=1e-6)


LOAD = """
import json, sys
import keras
import edgeattn.layers
tokens = keras.ops.convert_to_tensor(json.loads(sys.argv[1]))
for path in sys.argv[2:]:
    model = keras.saving.load_model(path, compile=False)
    print(json.dumps(keras.ops.convert_to_numpy(model(tokens)).tolist()))
"""


@pytest.mark.long
def test_loads_in_a_new_process_without_custom_objects(tmp_path):
    model = sequential("bahdanau")
    expected = model.predict(TOKENS, verbose=0)
    paths = [tmp_path / "model.keras", tmp_path / "model.h5"]
    for path in paths:
        model.save(path)
    ended = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(TOKENS.tolist()), *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
    assert ended.returncode == 0, ended.stderr
    outputs = [json.loads(line) for line in ended.stdout.splitlines()[-2:]]
    assert len(outputs) == 2
    for output in outputs:
        np.testing.assert_allclose(output, expected, atol=1e-6)


def test_files_name_the_module_of_the_layer():
    """Keras imports it if the layer is not registered, so it must not move."""
    assert Attention.__module__ == "edgeattn.layers.attention"


def test_config_round_trip():
    attention = Attention(
        UNITS, "bahdanau", return_attention_weights=True, use_mask=False, name="map"
    )
    restored = Attention.from_config(json.loads(json.dumps(attention.get_config())))
    assert restored.get_config() == attention.get_config()
    assert keras.saving.get_registered_name(Attention) == "edgeattn>Attention"


def test_defaults():
    config = Attention().get_config()
    expected = {
        "units": 128,
        "score": "luong",
        "return_attention_weights": False,
        "use_mask": True,
    }
    assert {key: config[key] for key in expected} == expected


@pytest.mark.parametrize("units", [0, -1, 2.0, "128", None, True])
def test_wrong_units_are_an_error(units):
    with pytest.raises(ValueError, match=r"positive integer. Received: units="):
        Attention(units)


@pytest.mark.parametrize("score", ["dot", "Luong", None])
def test_an_unknown_score_is_an_error(score):
    with pytest.raises(ValueError, match=r"'luong' or 'bahdanau'. Received: score="):
        Attention(score=score)


@pytest.mark.parametrize("shape", [(TIME,), (TIME, FEATURES, 2)])
def test_a_wrong_rank_is_an_error(shape):
    with pytest.raises(ValueError, match=r"\(batch, time, features\).*Received: input_shape="):
        layer()(keras.Input(shape))


def test_undefined_features_are_an_error():
    with pytest.raises(ValueError, match=r"last dimension .* defined. Received: input_shape="):
        layer()(keras.Input((TIME, None)))


def test_changed_features_are_an_error(hidden):
    attention = layer()
    attention(hidden)
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 3"):
        attention(hidden[..., :2])


def test_a_mask_of_the_wrong_shape_is_an_error(hidden):
    with pytest.raises(ValueError, match=r"\(batch, time\). Received: mask.shape="):
        layer()(hidden, mask=np.ones((BATCH, TIME, 1), bool))


def test_attention_weights_of_symbolic_inputs_are_an_error():
    with pytest.raises(ValueError, match=r"needs values.*return_attention_weights=True. Received"):
        layer().attention_weights(keras.Input((TIME, FEATURES)))
