"""Fourier transforms, complex numbers and spectrograms in both formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from edgeattn.metrics.pairwise import snr_db
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.lowering import fourier
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.rounding import rounded_weights
from edgeattn_converters.tracing.trace import interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
# Small, prime, a power of two, a product of small and of large factors, twice a prime.
LENGTHS = (1, 2, 7, 97, 128, 131, 200, 262, 400, 512, 1000, 2048)


def _parts(values: np.ndarray) -> tuple[Any, Any]:
    return tf.constant(values.real, tf.float32), tf.constant(values.imag, tf.float32)


def _assert_close(actual: tuple[Any, Any], expected: np.ndarray) -> None:
    values = np.asarray(actual[0], "float64") + 1j * np.asarray(actual[1], "float64")
    assert values.shape == expected.shape
    assert np.abs(values - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("length", LENGTHS)
def test_transforms_are_those_of_numpy(length: int) -> None:
    generator = np.random.default_rng(length)
    x = generator.normal(size=(2, 3, length)) + 1j * generator.normal(size=(2, 3, length))
    real = x.real.astype("float32")
    _assert_close(fourier.transform(_parts(x)), np.fft.fft(x))
    _assert_close(fourier.transform(_parts(x), inverse=True), np.fft.ifft(x))
    _assert_close(fourier.transform_of_real(tf.constant(real)), np.fft.rfft(real))
    half = x[..., : length // 2 + 1]
    values = np.asarray(fourier.inverse_to_real(_parts(half), length))
    np.testing.assert_allclose(values, np.fft.irfft(half, length), rtol=0, atol=2e-6)


class Function(layers.Layer):
    """Calls a function of TensorFlow."""

    def __init__(self, function: Callable[[Any, Any], Any], **options: Any) -> None:
        super().__init__(**options)
        self.function = function

    def call(self, x: Any, y: Any) -> Any:
        return self.function(x, y)


_MASK = np.array([1, 1j, 0, 0], "complex64")
_KERNEL = np.random.default_rng(2).normal(size=(6, 3)).astype("float32")
_RESPONSE = tf.signal.rfft(tf.constant(_KERNEL[:, 0]), [12])


def _both(x: Any) -> Any:
    return tf.concat([tf.math.real(x), tf.math.imag(x)], axis=-1)


# Of real tensors ``x`` and ``y`` and the complex ``c`` of both, (batch, 4, 6).
COMPLEX: dict[str, Callable[[Any, Any, Any], Any]] = {
    "filter": lambda x, y, c: tf.signal.irfft(tf.signal.rfft(x) * _MASK),
    "cut": lambda x, y, c: tf.signal.irfft(tf.signal.rfft(x, [4]), [8]),
    "length of data": lambda x, y, c: tf.signal.irfft(
        tf.signal.rfft(x, [2 * tf.shape(x)[-1]]) * _RESPONSE, [2 * tf.shape(x)[-1]]
    )[..., : tf.shape(x)[-1]],
    "lengths of axes": lambda x, y, c: tf.signal.irfft2d(
        tf.signal.rfft2d(x, tf.add(tf.shape(x)[1:], [0, 2])), tf.shape(y)[-2:]
    ),
    "power of two": lambda x, y, c: tf.abs(
        tf.signal.rfft(x, fft_length=tf.expand_dims(tf.shape(x)[1] * tf.shape(x)[1] // 2, 0))
    ),
    "two axes": lambda x, y, c: tf.signal.irfft2d(tf.signal.rfft2d(x) * 2.0),
    "three axes": lambda x, y, c: _both(
        tf.signal.ifft3d(tf.signal.fft3d(tf.reshape(c, (-1, 2, 2, 6))) * 2.0)
    ),
    "cast": lambda x, y, c: _both(tf.signal.fft(tf.cast(x, tf.complex64))),
    "cast to real": lambda x, y, c: tf.cast(c, tf.float32),
    "conjugate": lambda x, y, c: _both(tf.math.conj(c) * c),
    "quotient": lambda x, y, c: _both(c / (c + 3.0)),
    "quotient of real": lambda x, y, c: _both(c / tf.cast(x * x + 1.0, tf.complex64)),
    "reciprocal": lambda x, y, c: _both(tf.math.reciprocal(c + 3.0)),
    "matmul": lambda x, y, c: _both(tf.matmul(c, tf.complex(_KERNEL, -_KERNEL))),
    "adjoint": lambda x, y, c: _both(tf.matmul(c, c, adjoint_b=True)),
    "polar": lambda x, y, c: tf.abs(c) + tf.math.angle(c),
    "exp": lambda x, y, c: _both(tf.exp(c)),
    "square": lambda x, y, c: _both(tf.square(c) - c),
    "pad": lambda x, y, c: _both(tf.pad(c, [[0, 0], [1, 0], [0, 2]])),
    "slices": lambda x, y, c: _both(tf.stack([c[:, 1:, ::2], c[:, :-1, 1::2]], axis=1)),
    "split": lambda x, y, c: _both(tf.split(c, 2, axis=1)[1]),
    "transpose": lambda x, y, c: _both(tf.reshape(tf.transpose(c, [0, 2, 1]), (-1, 3, 8))),
    "where": lambda x, y, c: _both(tf.where(x > 0, c, -c)),
    "sums": lambda x, y, c: _both(tf.reduce_sum(c, 1) - tf.reduce_mean(c, 1)),
    "frames": lambda x, y, c: tf.abs(tf.signal.stft(x, 4, 2, 8, pad_end=True)),
    "back": lambda x, y, c: tf.signal.inverse_stft(tf.signal.stft(x, 4, 2), 4, 2),
}


def complex_model() -> Any:
    x, y = keras.Input((4, 6), name="x"), keras.Input((4, 6), name="y")
    outputs = [
        Function(lambda x, y, call=call: call(x, y, tf.complex(x, y)), name=name.replace(" ", "_"))(
            x, y
        )
        for name, call in COMPLEX.items()
    ]
    return keras.Model([x, y], outputs)


@pytest.mark.long
@pytest.mark.parametrize("format", CONVERTERS)
def test_complex_numbers(format: str, tmp_path: Path) -> None:
    model = complex_model()
    generator = np.random.default_rng(4)
    inputs = {name: generator.normal(size=(3, 4, 6)).astype("float32") for name in "xy"}
    expected = [np.asarray(value) for value in model(list(inputs.values()))]
    interface = interface_of(model)
    path = tmp_path / "model"
    file = CONVERTERS[format].convert(model, interface, recipe_for("float32"), path)
    runner = open_runner(path, format, file.inputs, file.outputs, as_deployed=True)
    results = runner.run(inputs)
    for spec, value in zip(interface.outputs, expected, strict=True):
        np.testing.assert_allclose(
            results[spec.name], value, rtol=1e-5, atol=2e-5, err_msg=spec.name
        )


SAMPLES = 640


def spectrogram_model() -> Any:
    """Spectrograms of Keras' layers and of operations, with a classifier."""
    sound = keras.Input((SAMPLES,), name="sound")
    mel = layers.MelSpectrogram(
        fft_length=256, sequence_stride=64, sampling_rate=1000, num_mel_bins=10, min_freq=20,
        max_freq=400, name="mel",
    )(sound)  # fmt: skip
    stft = layers.STFTSpectrogram("log", frame_length=64, frame_step=64)(
        layers.Reshape((SAMPLES, 1))(sound)
    )
    real, imaginary = ops.stft(sound, 150, 60, 150)
    written = ops.log(ops.square(real) + ops.square(imaginary) + 1e-6)
    features = [layers.Flatten()(value) for value in (mel, stft, written)]
    joined = layers.Concatenate(name="features")(features)
    hidden = layers.Dense(16, activation="relu", name="hidden")(joined * 0.1)
    return keras.Model(sound, layers.Dense(4, name="y")(hidden))


@pytest.fixture(scope="module")
def spectrograms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, np.ndarray, np.ndarray]:
    """The loaded model, sounds of very different volume, and what Keras computes for each alone."""
    keras.utils.set_random_seed(3)
    model = spectrogram_model()
    path = tmp_path_factory.mktemp("spectra") / "model.keras"
    model.save(path)
    generator = np.random.default_rng(6)
    volumes = np.geomspace(1e-3, 1, 48)[:, None]
    tones = np.sin(np.arange(SAMPLES) * generator.uniform(0.2, 2, (48, 1)))
    sounds = volumes * (tones + 0.1 * generator.normal(size=(48, SAMPLES)))
    sounds = generator.permutation(sounds).astype("float32")
    expected = np.concatenate([model(sounds[k : k + 1]) for k in range(len(sounds))])
    return load_model(audit_file(path)), sounds, expected


@pytest.mark.parametrize("format", CONVERTERS)
def test_magnitudes_and_quotients_of_every_size(format: str, tmp_path: Path) -> None:
    """Squares of these numbers are outside the range of float32. The values are worked out by
    hand: ``|3 + 4i| = 5``, ``1 / (3 + 4i) = 0.12 - 0.16i``."""
    sizes = np.array([[1e30, 1.0, 1e-30, 6e37, 0]], "float32")
    inputs = [keras.Input((5,), name=name) for name in ("x", "y")]

    def call(x: Any, y: Any) -> Any:
        return {
            "size": tf.abs(tf.complex(x, y)),
            "real": tf.math.real(tf.math.reciprocal(tf.complex(x, y))),
            "imaginary": tf.math.imag(tf.math.reciprocal(tf.complex(x, y))),
            "unit": tf.math.real(tf.complex(x, y) / tf.complex(y, x)),
            "of_nan": tf.abs(tf.complex(x * np.nan, y)),
        }

    model, path = keras.Model(inputs, Function(call)(*inputs)), tmp_path / "model"
    file = CONVERTERS[format].convert(model, interface_of(model), recipe_for("float32"), path)
    runner = open_runner(path, format, file.inputs, file.outputs)
    actual = runner.run({"x": 3 * sizes, "y": 4 * sizes})
    np.testing.assert_allclose(actual["size"], 5 * sizes, rtol=1e-6)
    for name, factor in {"real": 0.12, "imaginary": -0.16}.items():
        np.testing.assert_allclose(actual[name][:, :3], factor / sizes[:, :3], rtol=1e-6)
    np.testing.assert_allclose(actual["unit"][:, :4], 0.96, rtol=1e-6)
    assert np.isnan(actual["unit"][:, 4]).all()
    assert np.isnan(actual["of_nan"]).all()


def test_spectrograms_load_and_stay(spectrograms: tuple[Any, np.ndarray, np.ndarray]) -> None:
    loaded, sounds, expected = spectrograms
    np.testing.assert_allclose(loaded.model.predict(sounds, verbose=0), expected, atol=1e-5)
    assert any("top_db is relative to the maximum of each sample" in n for n in loaded.notes)


@pytest.mark.long
@pytest.mark.parametrize("format", CONVERTERS)
def test_spectra_are_float32_in_every_scheme(
    format: str, spectrograms: tuple[Any, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    loaded, sounds, expected = spectrograms
    interface = interface_of(loaded.model)
    weights = {"float32": 0.0, "float16": 60.0, "dynamic_int8": 25.0, "int8": 10.0, "int16x8": 20.0}
    for scheme, decibels in weights.items():
        path = tmp_path / scheme
        file = CONVERTERS[format].convert(
            loaded.model, interface, recipe_for(scheme), path, samples={"sound": sounds}
        )
        runner = open_runner(path, format, file.inputs, file.outputs, as_deployed=True)
        actual = runner.run({"sound": sounds})["y"]
        if scheme == "float32":
            np.testing.assert_allclose(actual, expected, atol=2e-4)
            continue
        assert snr_db(expected, actual) > decibels, scheme
        achieved = file.achieved
        in_float = {kind.upper() for kind in achieved["computes_in"]["float32"]}
        assert {"LOG", "SQRT"} <= in_float, scheme
        kinds = ("int8", "int16", "int8 weights")
        rounded = [achieved["computes_in"].get(how, {}) for how in kinds]
        assert not any("log" in kind.lower() for counts in rounded for kind in counts)
        # The mel matrix and the kernels of STFTSpectrogram; the transforms' matrices are smaller.
        assert achieved["exact_weights"] >= 129 * 10 + 2 * 64 * 33
        assert "weights of spectra stay float32" in achieved["summary"]


def test_decibels_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    """Keras' MelSpectrogram limits them below the maximum of all samples of a call."""
    sound = keras.Input((256,), name="sound")
    mel = layers.MelSpectrogram(fft_length=64, sampling_rate=1000, max_freq=400, top_db=10.0)
    model = keras.Model(sound, mel(sound))
    sounds = np.random.default_rng(1).normal(size=(3, 256)).astype("float32")
    sounds *= np.array([[1.0], [0.01], [0.1]], "float32")
    alone = np.concatenate([model(sounds[k : k + 1]) for k in range(3)])
    assert np.abs(np.asarray(model(sounds)) - alone).max() > 1
    for suffix in (".keras", ".h5"):
        path = tmp_path / f"model{suffix}"
        model.save(path)
        loaded = load_model(audit_file(path)).model
        np.testing.assert_allclose(loaded(sounds), alone, rtol=1e-5, atol=1e-4)


def test_no_scheme_rounds_the_kernels_of_a_spectrogram() -> None:
    sound = keras.Input((256, 1))
    spectrum = layers.STFTSpectrogram("log", frame_length=64, name="stft")(sound)
    model = keras.Model(sound, layers.Dense(32, name="dense")(spectrum))
    weights = {weight.path: weight.numpy() for weight in model.weights}
    with rounded_weights(model, "int8", 0, np.random.default_rng(0)):
        changed = {w.path for w in model.weights if (w.numpy() != weights[w.path]).any()}
    assert changed == {"dense/kernel"}
