"""The map of any attention layer, held to what the layer itself tells, and watched in training."""

import keras
import numpy as np
import pytest

from edgeattn import numpy_attention as attention
from edgeattn.errors import SampleError, UsageError
from edgeattn.layers import Attention, AttentionOverEpochs, attention_maps

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept:DeprecationWarning"
)
TIME, WIDTH, COUNT = 7, 3, 5


@pytest.fixture
def x():
    made = np.random.default_rng(1).standard_normal((COUNT, TIME, WIDTH)).astype("float32")
    made[0, 4:] = 0
    return made


def masked():
    keras.utils.set_random_seed(2)
    inputs = keras.Input((TIME, WIDTH))
    states = keras.layers.GRU(4, return_sequences=True, name="gru")(keras.layers.Masking()(inputs))
    return keras.Model(inputs, keras.layers.Dense(1)(Attention(2, name="look")(states)))


def test_our_layer_with_a_mask_is_the_oracle(x):
    model = masked()
    states = keras.Model(model.inputs, model.get_layer("gru").output).predict(x, verbose=0)
    expected = attention.attention_weights(
        states,
        mask=(x != 0).any(-1),
        luong_w=keras.ops.convert_to_numpy(model.get_layer("look").luong_w.kernel),
    )
    before = model.predict(x, verbose=0)
    np.testing.assert_allclose(attention_maps(model, x, batch_size=2), expected, atol=1e-6)
    assert expected[0, 4:].max() == 0
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)  # nothing was left behind
    assert "call" not in vars(model.get_layer("look"))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (keras.layers.Attention(), (COUNT, TIME, TIME)),
        (keras.layers.AdditiveAttention(), (COUNT, TIME, TIME)),
        (keras.layers.MultiHeadAttention(2, 4), (COUNT, 2, TIME, TIME)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_layers_of_keras(layer, shape, x):
    several = isinstance(layer, keras.layers.MultiHeadAttention)
    inputs = keras.Input((TIME, WIDTH))
    called = layer(inputs, inputs) if several else layer([inputs, inputs])
    inner = keras.Model(inputs, called)
    model = keras.Sequential([keras.Input((TIME, WIDTH)), inner, keras.layers.Flatten()])
    told = attention_maps(model, x)
    assert told.shape == shape
    given = (x, x) if several else ([x, x],)
    _, expected = layer(*given, return_attention_scores=True)
    np.testing.assert_allclose(told, keras.ops.convert_to_numpy(expected), atol=1e-6)


def test_what_cannot_be_asked_is_said(x):
    model = masked()
    with pytest.raises(UsageError, match=r"no attention|There are: look"):
        attention_maps(model, x, "other")
    with pytest.raises(SampleError, match="should hold samples"):
        attention_maps(model, x[:0])
    inputs = keras.Input((TIME, WIDTH))
    none = keras.Model(inputs, keras.layers.Flatten()(inputs))
    with pytest.raises(UsageError, match="It has: none"):
        attention_maps(none, x)
    two = keras.Model(inputs, [Attention(2, name="a")(inputs), Attention(2, name="b")(inputs)])
    with pytest.raises(UsageError, match="It has: a, b"):
        attention_maps(two, x)
    assert attention_maps(two, x, "b").shape == (COUNT, TIME)
    shared = Attention(2)
    twice = keras.Model(inputs, keras.layers.Add()([shared(inputs), shared(inputs)]))
    with pytest.raises(UsageError, match="called 2 times"):
        attention_maps(twice, x)


def watched(model, x, folder, epochs, start=0, **options):
    watcher = AttentionOverEpochs(x, folder, **options)
    history = model.fit(
        x, x[:, 0, :1], epochs=epochs, initial_epoch=start, verbose=0, callbacks=[watcher]
    )
    return watcher, history.history["loss"]


def test_the_callback_writes_frames_and_the_animation_and_goes_on(x, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    model = masked()
    model.compile("sgd", "mse")
    untrained = attention_maps(model, x)
    watcher, losses = watched(model, x, tmp_path / "seen", 1, title="Seen", truth=untrained)
    np.testing.assert_array_equal(watcher.weights[0], untrained)
    np.testing.assert_array_equal(watcher.weights[1], attention_maps(model, x))
    np.testing.assert_array_equal(watcher.losses, [np.nan, *losses])

    again, more = watched(model, x, tmp_path / "seen", 2, start=1, frames=False)
    np.testing.assert_array_equal(again.weights[:2], watcher.weights)
    np.testing.assert_array_equal(again.losses, [np.nan, *losses, *more])
    assert sorted(file.name for file in (tmp_path / "seen").iterdir()) == [
        *("attention.gif", "attention.npz", "epoch-0000.png", "epoch-0001.png"),
        "over-epochs.png",
    ]
    with image.open(tmp_path / "seen" / "attention.gif") as made:
        assert made.n_frames == 3


def test_the_callback_says_what_is_missing(x, tmp_path):
    pytest.importorskip("matplotlib")
    model = masked()
    model.compile("sgd", "mse")
    with pytest.raises(UsageError, match=r"no 'val_loss'.*\n.*: loss"):
        watched(model, x, tmp_path, 1, monitor="val_loss", frames=False)
    with pytest.raises(UsageError, match="ends at 0"):
        watched(model, x, tmp_path, 2, start=1)
    with pytest.raises(UsageError, match="cannot be read"):
        watched(model, x, tmp_path / "none", 2, start=1)
