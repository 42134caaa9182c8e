"""Recurrent layers of Keras 2 with initial states apply the mask of their sequence.

Keras 3 would drop it: the decoder of a sequence-to-sequence model would read its padding.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tf_keras
from long_parameters import only
from tf_keras import layers

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

WORDS, UNITS, ROWS = 9, 4, 4


def _inputs() -> tuple[Any, Any]:
    return tf_keras.Input((5,), name="source"), tf_keras.Input((6,), name="target")


def _embedded(words: Any, *, masked: bool = True) -> Any:
    return layers.Embedding(WORDS, 3, mask_zero=masked)(words)


def lstm() -> Any:
    source, target = _inputs()
    encoded, *states = layers.LSTM(UNITS, return_state=True, return_sequences=True)(
        _embedded(source)
    )
    decoded = layers.LSTM(UNITS, return_sequences=True)(_embedded(target), initial_state=states)
    return tf_keras.Model(
        [source, target], layers.AdditiveAttention()([decoded, encoded]) + decoded
    )


def shared_gru() -> Any:
    """One layer that is called twice, and an input that is a state."""
    source, target = _inputs()
    state = tf_keras.Input((UNITS,), name="state")
    gru = layers.GRU(UNITS)
    results = [gru(_embedded(words), initial_state=state) for words in (source, target)]
    return tf_keras.Model([source, target, state], results)


def both_directions() -> Any:
    source, target = _inputs()
    _, *states = layers.Bidirectional(layers.LSTM(UNITS, return_state=True))(_embedded(source))
    decoder = layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True))
    return tf_keras.Model([source, target], decoder(_embedded(target), initial_state=states))


def stacked_cells() -> Any:
    source, target = _inputs()

    def rnn(**options: Any) -> Any:
        cells = [layers.LSTMCell(UNITS), layers.GRUCell(3)]
        return layers.RNN(cells, return_sequences=True, **options)

    _, *states = rnn(return_state=True)(_embedded(source))
    return tf_keras.Model([source, target], rnn()(_embedded(target), initial_state=states))


def nested_decoder() -> Any:
    """The mask comes from outside of the nested model."""
    source, target = _inputs()
    sequence, state = tf_keras.Input((6, 3)), tf_keras.Input((UNITS,))
    decoded = layers.SimpleRNN(UNITS, return_sequences=True)(sequence, initial_state=state)
    decoder = tf_keras.Model([sequence, state], decoded)
    _, final = layers.GRU(UNITS, return_state=True)(_embedded(source))
    return tf_keras.Model([source, target], decoder([_embedded(target), final]))


def through_other_layers() -> Any:
    source, target = _inputs()
    _, state = layers.GRU(UNITS, return_state=True)(_embedded(source))
    x = layers.Masking()(layers.Reshape((6, 1))(target))
    x = layers.TimeDistributed(layers.Dense(3))(layers.Dropout(0.2)(x))
    return tf_keras.Model([source, target], layers.GRU(UNITS)(x, initial_state=state))


def unmasked_decoder() -> Any:
    source, target = _inputs()
    _, state = layers.GRU(UNITS, return_state=True)(_embedded(source))
    decoded = layers.GRU(UNITS)(_embedded(target, masked=False), initial_state=state)
    return tf_keras.Model([source, target], decoded)


def one_dimensional_images() -> Any:
    images = tf_keras.Input((3, 4, 2), name="images")
    _, *states = layers.ConvLSTM1D(3, 2, padding="same", return_state=True)(images)
    return tf_keras.Model(
        images, layers.ConvLSTM1D(3, 2, padding="same")(images, initial_state=states)
    )


BUILDERS: tuple[Callable[[], Any], ...] = (
    *(lstm, shared_gru, both_directions, stacked_cells, nested_decoder),
    *(through_other_layers, unmasked_decoder, one_dimensional_images),
)
MODELS = {build.__name__: build for build in BUILDERS}


def saved(name: str, path: Path) -> Any:
    tf_keras.utils.set_random_seed(3)
    model = MODELS[name]()
    model.save(path)
    return model


def data(model: Any) -> list[np.ndarray]:
    """Words that are padded at the end, and other values."""
    generator = np.random.default_rng(5)
    arrays = []
    for tensor in model.inputs:
        shape = (ROWS, *tensor.shape[1:])
        if tensor.name in ("source", "target"):
            array = generator.integers(1, WORDS, shape)
            for row in range(ROWS):
                array[row, 2 + row :] = 0
        else:
            array = generator.normal(size=shape)
        arrays.append(array.astype("float32"))
    return arrays


def outputs(model: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    result = model(arrays if len(arrays) > 1 else arrays[0])
    return [np.asarray(item) for item in (result if isinstance(result, list) else [result])]


@pytest.mark.long
@pytest.mark.parametrize("name", only(MODELS, "lstm", "shared_gru", "nested_decoder"))
def test_as_in_keras_2(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5")).model
    arrays = data(model)
    for actual, expected in zip(outputs(loaded, arrays), outputs(model, arrays), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    layers_of_all = loaded._flatten_layers(include_self=False, recursive=True)
    masks = [layer.name for layer in layers_of_all if type(layer).__name__ == "StepMask"]
    # Masks inside of one model need no layer.
    assert bool(masks) == (name == "nested_decoder")


@pytest.mark.long
def test_files_of_earlier_versions(tmp_path: Path) -> None:
    """No stock loader has their version, so that nothing else would detect the difference."""
    model = saved("lstm", tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        file.attrs["keras_version"] = "2.4.0"
    loaded = load_model(audit_file(tmp_path / "m.h5"))
    arrays = data(model)
    for actual, expected in zip(outputs(loaded.model, arrays), outputs(model, arrays), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert not any("different outputs" in note for note in loaded.notes)


@pytest.mark.long
@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_masked_decoders_convert(format: str, tmp_path: Path) -> None:
    model = saved("lstm", tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5")).model
    interface = interface_of(loaded)
    converter = {"tflite": tflite, "onnx": onnx}[format]
    file = converter.convert(loaded, interface, recipe_for("float32"), tmp_path / "m")
    runner = open_runner(tmp_path / "m", format, file.inputs, file.outputs, as_deployed=True)
    arrays = data(model)
    actual = runner.run(dict(zip(("source", "target"), arrays, strict=True)))
    [expected] = outputs(model, arrays)
    np.testing.assert_allclose(actual[interface.outputs[0].name], expected, atol=1e-5)
