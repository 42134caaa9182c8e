"""SPLIT operators in int8 files, which TensorFlow's quantizer leaves float32 at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from quantized_models import filled, integer_file, tflite_of

from edgeattn.metrics.pairwise import snr_db
from edgeattn.runners import open_runner
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.split_slices import join_slices, slice_splits
from edgeattn_converters.quantization.tflite_quantizer import TFLiteQuantizer

RUNS = 8  # a SPLIT is left float32 in 5 to 30% of them


def kinds(file: TFLiteFile) -> Counter[str]:
    return Counter(map(file.kind, file.main.operators))


def without_names(file: TFLiteFile) -> bytes:
    """The file as it is written: its names, which the quantizer numbers, are removed."""
    copy = TFLiteFile(file.pack())
    copy.strip()
    return copy.pack()


def steps() -> tuple[keras.Model, np.ndarray]:
    """Gates are parts of a SPLIT."""
    inputs = keras.Input((4, 3), name="x")
    model = keras.Model(inputs, layers.Dense(2, name="y")(layers.LSTM(4)(inputs)))
    return model, np.random.default_rng(0).normal(size=(64, 4, 3)).astype("float32")


def words() -> tuple[keras.Model, np.ndarray]:
    """Steps are outputs of an UNPACK."""
    inputs = keras.Input((8,), name="x")
    embedded = layers.Embedding(11, 5, mask_zero=True)(inputs)
    states = layers.LSTM(5, return_sequences=True)(embedded)
    pooled = layers.GlobalAveragePooling1D()(states)
    joined = layers.Concatenate(name="y")([layers.LSTM(3)(states), pooled])
    samples = np.random.default_rng(0).integers(0, 11, (64, 8)).astype("float32")
    return keras.Model(inputs, joined), samples


@pytest.mark.parametrize("build", [steps, pytest.param(words, marks=pytest.mark.long)])
def test_a_file_is_quantized_alike_every_time(
    build: Callable[[], tuple[keras.Model, np.ndarray]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, samples = build()
    filled(model)
    contents = []
    once = TFLiteQuantizer._use_int8

    def repeated(self, file, ranges, float_names):
        content = file.pack()
        results = [once(self, TFLiteFile(content), ranges, float_names) for _ in range(RUNS)]
        contents.append({without_names(result) for result in results})
        return results[0]

    monkeypatch.setattr(TFLiteQuantizer, "_use_int8", repeated)
    integer_file(model, {"x": samples}, tmp_path / "m")
    assert [len(results) for results in contents] == [1] * len(contents)
    assert contents


@pytest.mark.parametrize(("parts", "axis"), [(4, -1), (2, 1), (3, 2)])
def test_integer_parts_are_those_of_keras(parts: int, axis: int, tmp_path: Path) -> None:
    inputs = keras.Input((4, 12), name="x")
    hidden = layers.Dense(12)(inputs)
    pieces = ops.split(hidden, parts, axis=axis)
    mixed = [ops.sigmoid(pieces[0]), *(piece * ops.tanh(piece) for piece in pieces[1:])]
    joined = layers.Concatenate(axis=axis)(mixed)
    model = filled(keras.Model(inputs, layers.Dense(2, name="y")(layers.Flatten()(joined))))
    samples = np.random.default_rng(1).normal(size=(64, 4, 12)).astype("float32")
    path = tmp_path / "m.tflite"
    file = integer_file(model, {"x": samples}, path)
    written = TFLiteFile(path.read_bytes())
    (split,) = [op for op in written.main.operators if written.kind(op) == "SPLIT"]
    assert written.dtype(written.main.tensors[int(split.outputs[0])]) == "INT8"
    actual = open_runner(path, "tflite", file.inputs, file.outputs).run({"x": samples})["y"]
    assert snr_db(np.asarray(model(samples)), actual) > 22


def four_parts(x):
    import tensorflow as tf

    first, second, third, fourth = tf.split(x, 4, axis=1)
    return tf.tanh(first) + second * third - fourth


def three_of_four_parts(x):
    import tensorflow as tf

    first, _, third, fourth = tf.split(x, 4, axis=1)
    return tf.tanh(first) * third - fourth


def test_slices_of_parts_become_one_split_again() -> None:
    """Also if one part is never read."""
    for function in (four_parts, three_of_four_parts):
        file = TFLiteFile(tflite_of(function, (2, 8)))
        before = kinds(file)
        slice_splits(file, set())
        assert (kinds(file)["SPLIT"], kinds(file)["SLICE"]) == (0, 4)
        if function is three_of_four_parts:
            read = {int(i) for op in file.main.operators for i in op.inputs}
            file.main.operators = [
                op
                for op in file.main.operators
                if file.kind(op) != "SLICE" or int(op.outputs[0]) in read
            ]
            assert kinds(file)["SLICE"] == 3
        join_slices(file)
        assert kinds(file) == before
        (split,) = [op for op in file.main.operators if file.kind(op) == "SPLIT"]
        assert len(split.outputs) == 4


def test_parts_of_a_split_are_float32_together() -> None:
    content = tflite_of(four_parts, (2, 8))
    (split,) = [op for op in TFLiteFile(content).main.operators if len(op.outputs) == 4]
    names = {str(TFLiteFile(content).main.tensors[int(i)].name, "utf-8") for i in split.outputs}
    for floats, expected in ((names, names), ({min(names), "other"}, {"other"})):
        assert slice_splits(TFLiteFile(content), floats) == expected


def windows(x):
    import tensorflow as tf

    return tf.tanh(x[:, 0:4]) * x[:, 2:6] + x[:, 4:8]


def two_of_four(x):
    import tensorflow as tf

    return tf.slice(x, [0, 0], [2, 2]) * tf.slice(x, [0, 6], [2, 2])


@pytest.mark.parametrize("function", [windows, two_of_four])
def test_other_slices_stay(function) -> None:
    file = TFLiteFile(tflite_of(function, (2, 8)))
    before = kinds(file)
    join_slices(file)
    assert kinds(file) == before
