"""Functions of --architecture that call TensorFlow with Keras tensors, as programs for Keras 2.

Every program runs in tf_keras, too, which puts layers around the calls.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UsageError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

X = np.random.default_rng(5).normal(size=(3, 64, 2)).astype("float32")
HEAD = """
import numpy as np
import tensorflow as tf
from tensorflow.keras import backend as K
from tensorflow.keras.layers import LSTM, Dense, Dropout, Input, Lambda
from tensorflow.keras.models import Model

def build():
    x = Input(({steps}, 2), name="x")
    h = LSTM(4, return_sequences=True, recurrent_activation="hard_sigmoid")(x)
"""
PROGRAMS = {
    "spectrum": """
    frames = tf.signal.frame(tf.transpose(h, [0, 2, 1]), 16, 8, name="frames")
    loud = tf.math.log(tf.square(tf.abs(tf.signal.rfft(frames))) + 1e-3)
    return Model(x, Dense(2)(tf.reduce_mean(loud, axis=[1, 2])))
""",
    "attention": """
    query, key = tf.split(h, 2, axis=-1)
    weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) / tf.sqrt(2.0))
    both = tf.concat([tf.matmul(weights, query), tf.cast(query > 0, tf.float32)], axis=-1)
    top, _ = tf.math.top_k(tf.stack([both, tf.zeros_like(both)], axis=1), 2)
    return Model(x, Dense(2)(top))
""",
    "sizes": """
    count = tf.shape(h)[0]
    heads = tf.reshape(h, (count, -1, 2, 2))
    pairs = tf.reshape(h, tf.concat([tf.shape(h)[:-1], [2, 2]], axis=0))
    steps = tf.cast(tf.tile(tf.range(tf.shape(h)[1])[None, :, None], [count, 1, 3]), tf.float32)
    return Model(x, [Dense(2)(heads), Dense(3)(pairs), steps])
""",
    "ranks": """
    last = tf.rank(h) - 1
    same = tf.concat(h, last)
    parts = tf.concat([same, tf.gather(h, [1, 0], axis=last)], tf.rank(same) - 1)
    total = tf.reduce_sum(tf.expand_dims(parts, tf.rank(h)), axis=tf.rank(h))
    return Model(x, Dense(2)(tf.reshape(total, tf.shape(total)) / tf.cast(last, tf.float32)))
""",
    "backend": """
    scores = K.sum(K.square(h), axis=-1, keepdims=True)
    weights = K.softmax(scores, axis=1)
    return Model(x, Dense(2)(K.mean(K.batch_dot(h, weights, axes=1), axis=-1, keepdims=True)))
""",
    "arrays": """
    mixed = tf.tensordot(h, np.arange(12, dtype="float32").reshape(4, 3) / 9, 1)
    return Model(x, Dense(2)(Dropout(0.5)(mixed)))
""",
    "dtypes": """
    value = tf.convert_to_tensor(h, dtype=tf.float32)
    pair = tf.convert_to_tensor([value, tf.cast(x=h > 0, dtype="float32")])
    count = tf.cast(tf.size(input=h[0], out_type=tf.int32), dtype=tf.float32)
    sizes = tf.cast(tf.convert_to_tensor(tf.shape(h))[1], tf.float32)
    return Model(x, Dense(2)(tf.convert_to_tensor(value=pair[0] + pair[1]) * sizes / count))
""",
    # Keras 3 takes the product of a tensor and a number for sparse.
    "numbers": """
    weights = tf.nn.softmax(h * 2.0, axis=1)
    hidden = tf.where(h > 0, h, tf.ones_like(h) * -3.0)
    return Model(x, Dense(2)(tf.concat([weights, hidden, Lambda(tf.nn.softmax)(0.5 * h)], -1)))
""",
}


def written(kind: str, folder: Path, steps: int | None) -> tuple[Path, Any]:
    """The file of a program in ``folder``, and the model that it builds in tf_keras."""
    text = HEAD.format(steps=steps) + PROGRAMS[kind]
    path = folder / "program.py"
    path.write_text(text)
    # It has no dispatch for this function, which every Keras until TensorFlow 2.3 accepted.
    text = text.replace("tf.signal.rfft(frames)", "Lambda(tf.signal.rfft)(frames)")
    names = run_in_tf_keras(text)
    model = names["build"]()
    model.save_weights(folder / "m.h5")
    return path, model


@pytest.mark.parametrize("kind", only(list(PROGRAMS), "dtypes"))
@pytest.mark.parametrize("steps", only([64, None], 64))
def test_calls_become_layers(kind: str, steps: int | None, tmp_path: Path) -> None:
    """Models that a file could contain are rebuilt, as with layers of Keras only."""
    path, model = written(kind, tmp_path, steps)
    loaded = load_model(
        audit_file(tmp_path / "m.h5"), architecture=f"{path}:build", time_steps=steps or 64
    )
    # The positions are an array, too, if their number is known.
    has_arrays = kind == "arrays" or (kind == "sizes" and steps is not None)
    assert any("calls of TensorFlow with arrays" in note for note in loaded.notes) is has_arrays
    specs = interface_of(loaded.model, time_steps=steps or 64).outputs
    assert all(None not in spec.shape[1:] for spec in specs)
    actual, expected = (m.predict(X, verbose=0) for m in (loaded.model, model))
    for one, other in zip(_list(actual), _list(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["spectrum", "attention", "sizes", "dtypes", "numbers"])
def test_calls_convert(kind: str, tmp_path: Path) -> None:
    path, model = written(kind, tmp_path, 64)
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=f"{path}:build").model
    interface = interface_of(loaded)
    result = tflite.convert(loaded, interface, recipe_for("float32"), tmp_path / "m.tflite")
    runner = open_runner(tmp_path / "m.tflite", "tflite", result.inputs, result.outputs)
    outputs = runner.run({"x": X[:1]})
    for spec, expected in zip(interface.outputs, _list(model.predict(X[:1])), strict=True):
        np.testing.assert_allclose(outputs[spec.name], expected, rtol=1e-4, atol=1e-5)


def _list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def test_a_shape_is_no_list_of_numbers(tmp_path: Path) -> None:
    """TensorFlow adds shapes element by element; a list would get longer."""
    path, _ = written("arrays", tmp_path, 64)
    path.write_text(re.sub(r"    mixed = .*", "    mixed = h + tf.shape(h) * 2", path.read_text()))
    with pytest.raises(UsageError, match=r"Compute with the sizes of a shape, tf.shape\(x\)\[0\]"):
        load_model(audit_file(tmp_path / "m.h5"), architecture=f"{path}:build")


@pytest.mark.long
def test_functions_are_those_of_tensorflow_afterwards(tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    path, _ = written("spectrum", tmp_path, 64)
    load_model(audit_file(tmp_path / "m.h5"), architecture=f"{path}:build")
    x = keras.Input((64,))
    for function in (tf.abs, tf.signal.rfft):
        with pytest.raises(ValueError, match="A KerasTensor cannot be used"):
            function(x)
