"""Steps of front ends with inputs, and what Keras and TensorFlow compute for them.

The values are stored in ``keras_values.json``, so that comparing with them needs no TensorFlow.
This script writes the file: ``python tests/frontend/keras_cases.py``.
"""

import json
from pathlib import Path

import numpy as np

VALUES = Path(__file__).parent / "keras_values.json"
WORDS = ["the", "cat", "sat", "mat", "on"]
TEXTS = [
    "The cat, sat on\tthe MAT!",
    "  Ünder the  Ärm_chair; don't  ",
    "",
    "one",
    "naïve café \u00a0 cat\u2003sat",
]
READINGS = [[0.0, 7.0, -4.0], [2.5, 9.0, 6.0], [1e4, 1e-4, 3.0], [-2.0, 0.25, 1.0]]
INTEGERS = [[12, 36, 7, -5], [42, 0, 1138, 10**12]]
MODES = ("int", "one_hot", "multi_hot", "count")


def signal(length, channels=None):
    """A deterministic sound with several frequencies and a little noise."""
    time = np.arange(length)
    sound = np.sin(time * 0.11) + 0.5 * np.sin(time * 0.61 + 1) + 0.01 * np.cos(time**2)
    if channels:
        return np.stack([np.roll(sound, 7 * c) * (c + 1) for c in range(channels)], 1)
    return sound


def _cases():
    """Name, table of the step, and samples without a batch axis."""
    normalization = {"mean": [1.0, 8.0, 0.5], "variance": [1.5, 4.0, 0.0]}
    yield "normalization", {"step": "normalization", **normalization}, READINGS
    yield "inverted", {"step": "normalization", **normalization, "invert": True}, READINGS
    two_axes = {"mean": list(range(6)), "variance": [0.5 + i for i in range(6)], "axis": [1, 2]}
    yield "two axes", {"step": "normalization", **two_axes}, [[[1, 2, 3], [4, 5, 6.5]]]
    scalar = {"mean": [3.0], "variance": [2.0], "axis": []}
    yield "scalar", {"step": "normalization", **scalar}, [READINGS]
    yield "rescaling", {"step": "rescaling", "scale": [1 / 127.5], "offset": [-1.0]}, READINGS
    rescaling = {"step": "rescaling", "scale": [2.0, 0.1, -3.0], "offset": [1.0, 0.0, 0.5]}
    yield "rescaling columns", rescaling, READINGS
    for mode in MODES:
        bins = {"step": "discretization", "bin_boundaries": [-2.0, 0.1, 7.0], "output_mode": mode}
        yield f"bins {mode}", bins, READINGS
    for mode in MODES[1:]:
        encoding = {"step": "category_encoding", "num_tokens": 5, "output_mode": mode}
        yield f"categories {mode}", encoding, [[0, 1, 1, 4], [2, 2, 2, 2]]
        yield f"one category {mode}", encoding, [[3], [0]]
    yield from _lookups()
    yield from _hashes()
    yield from _texts()
    yield from _padding()
    yield from _sounds()


def _lookups():
    strings = [["a", "c", "z", "", "zz"], ["d", "b", "Äé", "[UNK]", "a"]]
    for mode in MODES:
        for mask in (None, ""):
            lookup = {"step": "string_lookup", "vocabulary": ["a", "b", "c", "d"]}
            lookup |= {"output_mode": mode, "mask_token": mask, "num_oov_indices": 3}
            yield f"strings {mode} mask {mask!r}", lookup, strings
    salted = {"step": "string_lookup", "vocabulary": ["a"], "num_oov_indices": 4, "salt": [3, 9]}
    yield "strings salt", salted, strings
    special = {"step": "string_lookup", "vocabulary": ["", "[UNK]", "c", "a"], "mask_token": ""}
    yield "strings special tokens", special, strings
    weights = {"output_mode": "tf_idf", "idf_weights": [0.25, 0.75, 0.6]}
    idf = {"step": "string_lookup", "vocabulary": ["a", "b", "c"], **weights}
    yield "strings tf_idf", idf, strings
    padded = idf | {"max_tokens": 7, "pad_to_max_tokens": True}
    yield "strings tf_idf padded", padded, strings
    for mode in MODES:
        integers = {"step": "integer_lookup", "vocabulary": [12, 36, 1138, 42]}
        integers |= {"output_mode": mode, "num_oov_indices": 3, "mask_token": 0}
        yield f"integers {mode}", integers, INTEGERS
    farmhash = {"step": "integer_lookup", "vocabulary": [12], "num_oov_indices": 5}
    yield "integers farmhash", farmhash | {"oov_method": "farmhash"}, INTEGERS
    yield "integers salt", farmhash | {"oov_method": "farmhash", "salt": [7]}, INTEGERS


def _hashes():
    texts = ["".join(chr(33 + (7 * i + n) % 90) for i in range(n)) for n in range(200)]
    texts += ["ä" * n for n in range(1, 70, 7)]
    for salt in ([], [5], [133, -137]):
        yield (
            f"hash of text, salt {salt}",
            {"step": "hashing", "num_bins": 9973, "salt": salt},
            [texts],
        )
    yield "hash of integers", {"step": "hashing", "num_bins": 50}, INTEGERS
    masked = {"step": "hashing", "num_bins": 5, "mask_value": 0}
    yield "hash masked", masked, INTEGERS
    masked = {"step": "hashing", "num_bins": 5, "mask_value": "a", "salt": [2]}
    yield "hash masked text", masked, [["a", "b", "", "cat"]]
    for mode in MODES[1:]:
        yield f"hash {mode}", {"step": "hashing", "num_bins": 6, "output_mode": mode}, INTEGERS


def _texts():
    text = {"step": "text_vectorization", "vocabulary": WORDS, "output_sequence_length": 9}
    for standardize in ("lower_and_strip_punctuation", "lower", "strip_punctuation", "none"):
        yield f"text {standardize}", text | {"standardize": standardize}, TEXTS
    letters = text | {"vocabulary": list("catsï ü"), "split": "character"}
    yield "text characters", letters, TEXTS
    yield "text cut", text | {"output_sequence_length": 2}, TEXTS
    vocabulary = ["the", "cat", "the cat", "sat on", "cat sat on", "on the"]
    for widths in ([1, 2], [3, 2]):
        yield f"text ngrams {widths}", text | {"vocabulary": vocabulary, "ngrams": widths}, TEXTS
    for mode in ("multi_hot", "count", "tf_idf"):
        encoded = {"step": "text_vectorization", "vocabulary": WORDS, "output_mode": mode}
        weights = {"idf_weights": [0.5, 1.0, 1.5, 2.0, 0.1]} if mode == "tf_idf" else {}
        yield f"text {mode}", encoded | weights, TEXTS
    padded = {"step": "text_vectorization", "vocabulary": WORDS, "output_mode": "count"}
    yield "text padded", padded | {"max_tokens": 9, "pad_to_max_tokens": True}, TEXTS
    words = {"step": "text_vectorization", "vocabulary": WORDS, "split": "none"}
    yield "words", words | {"output_sequence_length": 4}, [["The", "cat!", "dog"]]
    yield "word ngrams", words | {"vocabulary": ["the cat"], "ngrams": [2]}, [["The", "cat!", "on"]]


def _padding():
    for padding in ("pre", "post"):
        for truncating in ("pre", "post"):
            pad = {"step": "pad_sequences", "maxlen": 3, "padding": padding, "value": 9.0}
            samples = [[1, 2], [1, 2, 3], [1, 2, 3, 4], []]
            yield f"pad {padding} {truncating}", pad | {"truncating": truncating}, samples
    yield "pad rows", {"step": "pad_sequences", "maxlen": 3}, [[[1, 2], [3, 4]]]


def _sounds():
    sound = [signal(100).tolist()]
    stft = {"step": "stft", "sequence_length": 16, "sequence_stride": 7, "fft_length": 32}
    yield "stft", stft, sound
    yield "stft odd", stft | {"sequence_length": 15, "window": "hamming"}, sound
    complex_stft = stft | {"center": False, "window": "none", "output": "real_imag"}
    yield "stft not centered", complex_stft, sound
    frames = {"step": "signal_stft", "frame_length": 25, "frame_step": 10}
    yield "signal", frames | {"output": "power"}, sound
    yield "signal complex", frames | {"fft_length": 40, "output": "real_imag"}, sound
    yield "signal padded", frames | {"pad_end": True, "window": "hamming"}, sound
    mel = {"step": "mel", "num_mel_bins": 6, "sampling_rate": 8000.0}
    spectrum = np.abs(np.fft.rfft(signal(64).reshape(2, 32))).tolist()
    yield "mel", mel, [spectrum]
    yield "mel of all", mel | {"lower_edge_hertz": 0.0, "upper_edge_hertz": 4000.0}, [spectrum]
    yield "mfcc", {"step": "mfcc", "num_coefficients": 4}, [np.log(spectrum).tolist()]
    spectrogram = {"step": "mel_spectrogram", "fft_length": 64, "sequence_stride": 30}
    spectrogram |= {"num_mel_bins": 8, "sampling_rate": 8000}
    yield "mel spectrogram", spectrogram, [signal(200).tolist()]
    no_db = {"power_to_db": False, "mag_exp": 1.5, "window": "hamming", "sequence_length": 40}
    yield "mel without dB", spectrogram | no_db, [signal(200).tolist()]
    cut = {"top_db": 10.0, "ref_power": 2.0, "min_freq": 300.0, "max_freq": 3000.0}
    yield "mel cut", spectrogram | cut, [signal(200).tolist()]
    layer = {"step": "stft_spectrogram", "frame_length": 16}
    stereo = [signal(50, 2).tolist()]
    for mode in ("log", "magnitude", "psd", "real", "imag", "stft"):
        yield f"spectrogram {mode}", layer | {"mode": mode}, stereo
    yield "spectrogram angle", layer | {"mode": "angle", "window": "none"}, stereo
    same = {"mode": "magnitude", "padding": "same", "frame_step": 5, "fft_length": 20}
    yield "spectrogram same", layer | same | {"scaling": "spectrum", "periodic": True}, stereo
    images = {"mode": "magnitude", "expand_dims": True, "window": "blackman", "frame_length": 15}
    yield "spectrogram images", layer | images | {"scaling": "none"}, stereo


CASES = list(_cases())


def keras_values(table, samples):
    """The outputs of Keras or TensorFlow for each sample, in a batch of one."""
    settings = {key: value for key, value in table.items() if key != "step"}
    return [_keras_value(table["step"], dict(settings), sample) for sample in samples]


def _keras_value(step, settings, sample):
    import keras
    import tensorflow as tf

    if step == "pad_sequences":
        return keras.utils.pad_sequences([sample], **settings)[0].tolist()
    if step == "mfcc":
        coefficients = tf.signal.mfccs_from_log_mel_spectrograms(tf.constant(sample, tf.float32))
        return coefficients[..., : settings["num_coefficients"]].numpy().tolist()
    if step == "mel":
        x = tf.constant(sample, tf.float32)
        settings["num_spectrogram_bins"] = x.shape[-1]
        settings["sample_rate"] = settings.pop("sampling_rate")
        return (x @ tf.signal.linear_to_mel_weight_matrix(**settings)).numpy().tolist()
    if step in ("stft", "signal_stft"):
        return _transform(step, settings, sample)
    layer = _layer(keras.layers, step, settings)
    strings = any(isinstance(item, str) for item in np.ravel(np.asarray(sample, object)))
    batch = tf.constant([sample] if strings or step in ("integer_lookup", "hashing") else
                        np.asarray([sample], "float32"))  # fmt: skip
    if step == "category_encoding":
        batch = tf.cast(batch, tf.int64)
    return np.asarray(layer(batch))[0].tolist()


def _layer(layers, step, settings):
    names = {
        "mel_spectrogram": "MelSpectrogram",
        "stft_spectrogram": "STFTSpectrogram",
        "text_vectorization": "TextVectorization",
    }
    name = names.get(step) or "".join(part.title() for part in step.split("_"))
    for key in ("standardize", "split", "window", "scaling"):
        if settings.get(key) == "none":
            settings[key] = None
    if "ngrams" in settings:
        settings["ngrams"] = tuple(settings["ngrams"])
    salt = settings.pop("salt", None)
    if salt:
        settings["salt"] = salt if len(salt) == 2 else salt[0]
    if step == "normalization":
        settings["axis"] = settings.get("axis", -1) or None
        two_axes = settings["axis"] == [1, 2]
        shape = [2, 3] if two_axes else [-1] if settings["axis"] else []
        settings["mean"] = np.reshape(settings["mean"], shape)
        settings["variance"] = np.reshape(settings["variance"], shape)
    if step == "rescaling":
        settings = {key: np.asarray(value) for key, value in settings.items()}
    return getattr(layers, name)(**settings)


def _transform(step, settings, sample):
    import keras
    import tensorflow as tf

    output, x = settings.pop("output", "magnitude"), tf.constant([sample], tf.float32)
    window = settings.pop("window", "hann")
    if step == "stft":
        window = None if window == "none" else window
        real, imaginary = keras.ops.stft(x, window=window, **settings)
        spectrum = tf.complex(real, imaginary)[0]
    else:
        function = {"hann": tf.signal.hann_window, "hamming": tf.signal.hamming_window}[window]
        spectrum = tf.signal.stft(x, window_fn=function, **settings)[0]
    if output == "real_imag":
        return np.stack([spectrum.numpy().real, spectrum.numpy().imag], -1).tolist()
    magnitude = np.abs(spectrum.numpy())
    return (magnitude**2 if output == "power" else magnitude).tolist()


def main():
    values = {}
    for name, table, samples in CASES:
        try:
            values[name] = keras_values(table, samples)
        except Exception as error:
            print(name, type(error).__name__, str(error)[:300])
    VALUES.write_text(json.dumps(values, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
