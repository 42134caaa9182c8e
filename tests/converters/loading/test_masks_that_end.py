"""Where masks of Keras 2 end: at ``mask=None``, and at functions that return another tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

# Of the words ``q`` and ``v``, which have masks, as a program for Keras 2 computes outputs.
PROGRAM = """
import tensorflow as tf
from tensorflow.keras import backend as K
from tensorflow.keras.layers import *
from tensorflow.keras.models import Model

def nested(function, *sizes):
    inputs = [Input((size, 4)) for size in sizes]
    return Model(inputs if len(inputs) > 1 else inputs[0], function(*inputs))

def without_masks(q, v):
    pool = GlobalAveragePooling1D()
    both = nested(lambda x, y: Attention()([x, y]), 5, 7)
    return {
        "None for each input": Attention()([q, v], mask=[None, None]),
        "None": AdditiveAttention()([q, v], mask=None),
        "mask of the result": Attention()([LSTM(4, return_sequences=True)(q, mask=None), v]),
        "both directions": Bidirectional(GRU(4))(q, mask=None),
        "one call of two": Concatenate()([pool(q, mask=None), pool(q)]),
        "masks of a model": both([q, v]),
        "inside a model": nested(lambda x: GlobalAveragePooling1D()(x, mask=None), 5)(q),
    }

def of_a_model(q, v):
    return {"result": nested(lambda x, y: Attention()([x, y]), 5, 7)([q, v], mask=[None, None])}

def used_by_others(q, v):
    return {**of_a_model(q, v), "other": GlobalAveragePooling1D()(q)}

def functions(q, v):
    calls = {
        "tf.identity": tf.identity,
        "tf.cast": lambda x: tf.cast(x, "float32"),
        "tf.concat of one": lambda x: tf.concat([x], -1),
        "K.concatenate of one": lambda x: K.concatenate([x], -1),
        "tf.squeeze of no axis": lambda x: tf.squeeze(x, []),
        "tf.nn.relu": tf.nn.relu,
        "tf.reshape": lambda x: tf.reshape(x, (-1, 5, 4)),
        "operator": lambda x: x * 2.0,
        "two operands": lambda x: x + x,
        "Identity": Identity(),
    }
    results = {name: Attention()([call(q), v]) for name, call in calls.items()}
    results["layer behind"] = Attention()([Dense(4, use_bias=False)(tf.identity(q)), v])
    results["value"] = Attention()([q, tf.identity(v)])
    return results

def build(results):
    a, b = Input((5,), name="a"), Input((7,), name="b")
    q, v = [Embedding(15, 4, mask_zero=True, name=f"of_{x.name}")(x) for x in (a, b)]
    return Model([a, b], list(results(q, v).values()))

def model_without_masks():
    return build(without_masks)

def model_of_functions():
    return build(functions)

def outer_model():
    return build(of_a_model)

def outer_model_with_others():
    return build(used_by_others)
"""
KINDS = ("model_without_masks", "model_of_functions", "outer_model")


def tokens() -> dict[str, Any]:
    """Padded words; in some rows of one input only."""
    generator = np.random.default_rng(3)
    a, b = (generator.integers(1, 15, (5, size)).astype("float32") for size in (5, 7))
    for row, length in enumerate((1, 3, 5, 2, 4)):
        a[row, length:] = 0
    for row, length in enumerate((2, 7, 3, 7, 6)):
        b[row, length:] = 0
    return {"a": a, "b": b}


def built(kind: str) -> tuple[Any, list[Any]]:
    """The model of tf_keras, and what it computes."""
    names = run_in_tf_keras(PROGRAM)
    model = names[kind]()
    generator = np.random.default_rng(6)
    model.set_weights([generator.normal(0, 1.5, x.shape) for x in model.get_weights()])
    results = model.predict(tokens(), verbose=0)
    return model, results if isinstance(results, list) else [results]


def assert_same(kind: str, loaded: Any, expected: list[Any]) -> None:
    actual = loaded.model.predict(tokens(), verbose=0)
    actual = actual if isinstance(actual, list) else [actual]
    for index, (value, result) in enumerate(zip(expected, actual, strict=True)):
        np.testing.assert_allclose(result, value, rtol=1e-4, atol=1e-5, err_msg=f"{kind} {index}")


@pytest.mark.parametrize("suffix", only((".h5", ".keras"), ".h5"))
@pytest.mark.parametrize("kind", only(KINDS, "model_of_functions", "outer_model"))
def test_files(kind: str, suffix: str, tmp_path: Path) -> None:
    model, expected = built(kind)
    path = tmp_path / f"m{suffix}"
    model.save(path)
    assert_same(kind, load_model(audit_file(path)), expected)


@pytest.mark.parametrize("kind", only(KINDS, "outer_model"))
def test_programs(kind: str, tmp_path: Path) -> None:
    model, expected = built(kind)
    model.save_weights(tmp_path / "m.h5")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=f"{program}:{kind}")
    assert_same(kind, loaded, expected)


def test_masks_that_keras_2_deletes_for_other_layers(tmp_path: Path) -> None:
    """Depending on the order of its calls, which is not that of the program."""
    model, _ = built("outer_model_with_others")
    model.save(tmp_path / "m.h5")
    with pytest.raises(UnsupportedModelError, match="other layers have the same inputs"):
        load_model(audit_file(tmp_path / "m.h5"))
