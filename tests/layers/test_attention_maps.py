"""Attention maps equal the weights that the layers return; the callback records them."""

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
    samples = np.random.default_rng(1).standard_normal((COUNT, TIME, WIDTH)).astype("float32")
    samples[0, 4:] = 0
    return samples


def masked_model():
    keras.utils.set_random_seed(2)
    inputs = keras.Input((TIME, WIDTH))
    states = keras.layers.GRU(4, return_sequences=True, name="gru")(keras.layers.Masking()(inputs))
    return keras.Model(inputs, keras.layers.Dense(1)(Attention(2, name="look")(states)))


def test_maps_of_our_layer_with_a_mask_equal_numpy(x):
    model = masked_model()
    states = keras.Model(model.inputs, model.get_layer("gru").output).predict(x, verbose=0)
    expected = attention.attention_weights(
        states,
        mask=(x != 0).any(-1),
        luong_w=keras.ops.convert_to_numpy(model.get_layer("look").luong_w.kernel),
    )
    before = model.predict(x, verbose=0)
    np.testing.assert_allclose(attention_maps(model, x, batch_size=2), expected, atol=1e-6)
    assert expected[0, 4:].max() == 0
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)  # the model is unchanged
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
def test_maps_of_keras_layers(layer, shape, x):
    multi_head = isinstance(layer, keras.layers.MultiHeadAttention)
    inputs = keras.Input((TIME, WIDTH))
    called = layer(inputs, inputs) if multi_head else layer([inputs, inputs])
    inner = keras.Model(inputs, called)
    model = keras.Sequential([keras.Input((TIME, WIDTH)), inner, keras.layers.Flatten()])
    maps = attention_maps(model, x)
    assert maps.shape == shape
    arguments = (x, x) if multi_head else ([x, x],)
    _, expected = layer(*arguments, return_attention_scores=True)
    np.testing.assert_allclose(maps, keras.ops.convert_to_numpy(expected), atol=1e-6)


def test_a_missing_or_ambiguous_layer_is_an_error(x):
    model = masked_model()
    with pytest.raises(
        UsageError, match=r"one attention layer 'other'. Its attention layers: look"
    ):
        attention_maps(model, x, "other")
    with pytest.raises(SampleError, match="should hold samples"):
        attention_maps(model, x[:0])
    inputs = keras.Input((TIME, WIDTH))
    none = keras.Model(inputs, keras.layers.Flatten()(inputs))
    with pytest.raises(UsageError, match="layers: none"):
        attention_maps(none, x)
    two = keras.Model(inputs, [Attention(2, name="a")(inputs), Attention(2, name="b")(inputs)])
    with pytest.raises(UsageError, match="layers: a, b"):
        attention_maps(two, x)
    assert attention_maps(two, x, "b").shape == (COUNT, TIME)
    shared = Attention(2)
    twice = keras.Model(inputs, keras.layers.Add()([shared(inputs), shared(inputs)]))
    with pytest.raises(UsageError, match="called 2 times"):
        attention_maps(twice, x)


def train_and_record(model, x, folder, epochs, start=0, **options):
    callback = AttentionOverEpochs(x, folder, **options)
    history = model.fit(
        x, x[:, 0, :1], epochs=epochs, initial_epoch=start, verbose=0, callbacks=[callback]
    )
    return callback, history.history["loss"]


def test_the_callback_writes_figures_and_resumes(x, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    model = masked_model()
    model.compile("sgd", "mse")
    untrained = attention_maps(model, x)
    callback, losses = train_and_record(
        model, x, tmp_path / "record", 1, title="Record", truth=untrained
    )
    np.testing.assert_array_equal(callback.weights[0], untrained)
    np.testing.assert_array_equal(callback.weights[1], attention_maps(model, x))
    np.testing.assert_array_equal(callback.losses, [np.nan, *losses])

    resumed, more = train_and_record(model, x, tmp_path / "record", 2, start=1, frames=False)
    np.testing.assert_array_equal(resumed.weights[:2], callback.weights)
    np.testing.assert_array_equal(resumed.losses, [np.nan, *losses, *more])
    assert sorted(file.name for file in (tmp_path / "record").iterdir()) == [
        *("attention.gif", "attention.npz", "epoch-0000.png", "epoch-0001.png"),
        "over-epochs.png",
    ]
    with image.open(tmp_path / "record" / "attention.gif") as gif:
        assert gif.n_frames == 3


@pytest.mark.long
def test_a_missing_loss_or_record_is_an_error(x, tmp_path):
    pytest.importorskip("matplotlib")
    model = masked_model()
    model.compile("sgd", "mse")
    with pytest.raises(UsageError, match=r"no value 'val_loss'.*\n.*: loss"):
        train_and_record(model, x, tmp_path, 1, monitor="val_loss", frames=False)
    with pytest.raises(UsageError, match="ends at epoch 0"):
        train_and_record(model, x, tmp_path, 2, start=1)
    with pytest.raises(UsageError, match="cannot be read"):
        train_and_record(model, x, tmp_path / "none", 2, start=1)
