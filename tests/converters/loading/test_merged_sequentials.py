"""Programs for Keras 1 whose Sequentials start with a Merge, and are merged themselves.

The expected outputs are those of numpy, with the weights in the order of Keras 1: the layers of
each branch, then those behind the Merge, and a layer of several branches once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from test_programs_for_keras_1 import HEADER, load, random, write

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

GENERATOR = np.random.default_rng(7)
BRANCHES = """
    def branch(*layers):
        model = Sequential()
        for layer in layers:
            model.add(layer)
        return model
    x, y, z = (branch(Dense(4, input_dim=3)) for _ in range(3))
"""
Layers = Sequence[Sequence[Any]]


def build(lines: str, result: str = "model") -> str:
    return f"{HEADER}{BRANCHES}    {lines}\n    return {result}\n"


def dense(x: Any, layer: Sequence[Any]) -> Any:
    return x @ layer[0] + layer[1]


def check(lines: str, inputs: Sequence[Any], layers: Layers, expected: Any, path: Path) -> None:
    loaded = load(build(lines), write(path / "m.h5", layers, "1.2.2"))
    assert [tuple(tensor.shape[1:]) for tensor in loaded.model.inputs] == [
        value.shape[1:] for value in inputs
    ]
    result = loaded.model(list(inputs) if len(inputs) > 1 else inputs[0])
    np.testing.assert_allclose(result, expected, atol=1e-5)


def vectors(count: int) -> list[Any]:
    return [GENERATOR.normal(size=(5, 3)).astype("float32") for _ in range(count)]


def cosines(x: Any, y: Any) -> Any:
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return ((x * y).sum(1) / lengths)[:, None, None]


MODES: dict[str, tuple[int, Callable[[Any, Any], Any]]] = {
    "sum": (4, lambda x, y: x + y),
    "mul": (4, lambda x, y: x * y),
    "ave": (4, lambda x, y: (x + y) / 2),
    "max": (4, np.maximum),
    "concat": (8, lambda x, y: np.concatenate([x, y], 1)),
    "dot": (1, lambda x, y: (x * y).sum(1, keepdims=True)),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_model_of_a_merge_only_is_merged(mode: str, tmp_path: Path) -> None:
    width, merge = MODES[mode]
    lines = (
        f"m = branch(Merge([x, y], mode='{mode}'))\n"
        "    model = branch(Merge([m, z], mode='concat'), Dense(2))"
    )
    layers = [random((3, 4), (4,)) for _ in range(3)] + [random((width + 4, 2), (2,))]
    inputs = vectors(3)
    x, y, z = (dense(x, layer) for x, layer in zip(inputs, layers, strict=False))
    expected = dense(np.concatenate([merge(x, y), z], 1), layers[3])
    check(lines, inputs, layers, expected, tmp_path)


@pytest.mark.parametrize("mode", [*MODES, "cos"])
def test_a_model_of_a_merge_only(mode: str, tmp_path: Path) -> None:
    merge = {**{name: call for name, (_, call) in MODES.items()}, "cos": cosines}[mode]
    layers = [random((3, 4), (4,)) for _ in range(2)]
    inputs = vectors(2)
    expected = merge(*(dense(x, layer) for x, layer in zip(inputs, layers, strict=True)))
    check(f"model.add(Merge([x, y], mode='{mode}'))", inputs, layers, expected, tmp_path)


def test_cosines_behind_a_merge(tmp_path: Path) -> None:
    layers = [random((3, 4), (4,)) for _ in range(2)] + [random((1, 2), (2,))]
    inputs = vectors(2)
    cosine = cosines(*(dense(x, layer) for x, layer in zip(inputs, layers, strict=False)))
    lines = "model = branch(Merge([x, y], mode='cos'), Flatten(), Dense(2))"
    check(lines, inputs, layers, dense(cosine[:, 0], layers[2]), tmp_path)


def test_models_of_a_merge_only_inside_each_other(tmp_path: Path) -> None:
    lines = (
        "m = branch(Merge([x, y], mode='sum'))\n"
        "    n = branch(Merge([m, z], mode='mul'))\n"
        "    w = branch(Dense(4, input_dim=3), Activation('tanh'))\n"
        "    model = branch(Merge([w, n], mode='ave'))"
    )
    layers = [random((3, 4), (4,)) for _ in range(4)]
    inputs = vectors(4)
    w, x, y, z = (dense(x, layer) for x, layer in zip(inputs, layers, strict=True))
    check(lines, inputs, layers, (np.tanh(w) + (x + y) * z) / 2, tmp_path)


def test_a_branch_in_two_merges_has_one_input(tmp_path: Path) -> None:
    lines = (
        "m = branch(Merge([x, y], mode='sum'), Dense(4))\n"
        "    n = branch(Merge([y, x], mode='concat'))\n"
        "    model = branch(Merge([m, x, n, m], mode='concat'), Dense(2))"
    )
    layers = [random((3, 4), (4,)) for _ in range(2)] + [
        random((4, 4), (4,)),
        random((20, 2), (2,)),
    ]
    inputs = vectors(2)
    x, y = (dense(x, layer) for x, layer in zip(inputs, layers, strict=False))
    m = dense(x + y, layers[2])
    expected = dense(np.concatenate([m, x, y, x, m], 1), layers[3])
    check(lines, inputs, layers, expected, tmp_path)


def test_a_layer_of_two_branches_has_its_weights_once(tmp_path: Path) -> None:
    lines = (
        "shared = Dense(4)\n"
        "    x = branch(Activation('tanh', input_shape=(3,)), shared)\n"
        "    y = branch(Activation('relu', input_shape=(3,)), shared, Activation('tanh'))\n"
        "    model = branch(Merge([x, y], mode='sum'), Dense(2))"
    )
    layers = [random((3, 4), (4,)), random((4, 2), (2,))]
    inputs = vectors(2)
    x = dense(np.tanh(inputs[0]), layers[0])
    y = np.tanh(dense(np.maximum(inputs[1], 0), layers[0]))
    check(lines, inputs, layers, dense(x + y, layers[1]), tmp_path)


def test_branches_with_the_same_first_layer_have_one_input(tmp_path: Path) -> None:
    lines = (
        "shared = Dense(4, input_dim=3)\n"
        "    x, y = branch(shared, Activation('tanh')), branch(shared, Activation('relu'))\n"
        "    model = branch(Merge([x, y], mode='concat'), Dense(2))"
    )
    layers = [random((3, 4), (4,)), random((8, 2), (2,))]
    inputs = vectors(1)
    x = dense(inputs[0], layers[0])
    expected = dense(np.concatenate([np.tanh(x), np.maximum(x, 0)], 1), layers[1])
    check(lines, inputs, layers, expected, tmp_path)


def test_layers_are_branches(tmp_path: Path) -> None:
    lines = (
        "x = Dense(4, input_dim=3)\n"
        "    y = keras.layers.InputLayer(input_shape=(3,))\n"
        "    model = branch(Merge([x, y], mode='concat'), Dense(2))"
    )
    layers = [random((3, 4), (4,)), random((7, 2), (2,))]
    inputs = vectors(2)
    expected = dense(np.concatenate([dense(inputs[0], layers[0]), inputs[1]], 1), layers[1])
    check(lines, inputs, layers, expected, tmp_path)


def test_memory_network_of_keras_1(tmp_path: Path) -> None:
    """The program babi_memnn.py: a question of 5 words that is used twice, a story of 7 words."""
    lines = """
    input_encoder_m = Sequential()
    input_encoder_m.add(Embedding(input_dim=11, output_dim=3, input_length=7))
    input_encoder_m.add(Dropout(0.3))
    question_encoder = Sequential()
    question_encoder.add(Embedding(input_dim=11, output_dim=3, input_length=5))
    question_encoder.add(Dropout(0.3))
    match = Sequential()
    match.add(Merge([input_encoder_m, question_encoder], mode='dot', dot_axes=[2, 2]))
    input_encoder_c = Sequential()
    input_encoder_c.add(Embedding(input_dim=11, output_dim=5, input_length=7))
    input_encoder_c.add(Dropout(0.3))
    response = Sequential()
    response.add(Merge([match, input_encoder_c], mode='sum'))
    response.add(Permute((2, 1)))
    model.add(Merge([response, question_encoder], mode='concat', concat_axis=-1))
    model.add(SimpleRNN(4))
    model.add(Dropout(0.3))
    model.add(Dense(11))
    model.add(Activation('softmax'))""".replace("Permute", "keras.layers.Permute")
    m, q, c, rnn, last = layers = [
        random((11, 3)), random((11, 3)), random((11, 5)), random((10, 4), (4, 4), (4,)),
        random((4, 11), (11,)),
    ]  # fmt: skip
    story = GENERATOR.integers(0, 11, (6, 7)).astype("float32")
    question = GENERATOR.integers(0, 11, (6, 5)).astype("float32")
    words, asked = story.astype(int), question.astype(int)
    match = np.einsum("btf,bqf->btq", m[0][words], q[0][asked])
    x = np.concatenate([(match + c[0][words]).swapaxes(1, 2), q[0][asked]], 2)
    state = np.zeros((6, 4))
    for step in range(5):
        state = np.tanh(x[:, step] @ rnn[0] + state @ rnn[1] + rnn[2])
    scores = np.exp(dense(state, last))
    expected = scores / scores.sum(1, keepdims=True)
    check(lines, [story, question, story], layers, expected, tmp_path)


def test_masks_of_branches_end_at_the_merge(tmp_path: Path) -> None:
    """Sequential.add of Keras 1: "no model-level masking for now"."""
    lines = (
        "x = branch(keras.layers.Masking(input_shape=(5, 3)), "
        "SimpleRNN(4, return_sequences=True))\n"
        "    y = branch(keras.layers.Masking(input_shape=(5, 3)))\n"
        "    m = branch(Merge([x, y], mode='concat'))\n"
        "    model = branch(Merge([m, y], mode='concat'), SimpleRNN(2))"
    )
    layers = [random((3, 4), (4, 4), (4,)), random((10, 2), (2, 2), (2,))]
    x, y = (GENERATOR.normal(size=(4, 5, 3)).astype("float32") for _ in range(2))
    x[:, 3:] = y[:, 2:] = 0
    first = tf_keras.Sequential(
        [tf_keras.layers.Masking(), tf_keras.layers.SimpleRNN(4, return_sequences=True)]
    )
    second = tf_keras.Sequential([tf_keras.layers.SimpleRNN(2)])
    for model, value, arrays in ((first, x, layers[0]), (second, np.zeros((4, 5, 10)), layers[1])):
        model(value)
        model.set_weights(arrays)
    expected = second(np.concatenate([first(x), y, y], 2).astype("float32"))
    check(lines, [x, y], layers, expected, tmp_path)


@pytest.mark.parametrize(
    ("lines", "kind", "message"),
    [
        ("model = branch(branch(Merge([x, y])), Dense(2))", UsageError, "starts with Merge and is"),
        ("m = Merge([x, y]); x.add(Dense(4)); model.add(m)", UsageError, "after it was merged"),
        ("model.add(Merge([x, y])); x.add(Dense(4))", UsageError, "after it was merged"),
        (
            "model = branch(keras.layers.InputLayer((3,)), Merge([x, y]))",
            UsageError,
            "be the first",
        ),
        (
            "model.add(Merge([x, y], mode=lambda t: t[0], output_shape=(4,)))",
            UsageError,
            "function",
        ),
        (
            "x, y = (branch(Activation('tanh', input_shape=(4, 3))) for _ in 'ab')\n"
            "    model.add(Merge([x, y], mode='cos'))",
            UnsupportedModelError,
            "3 axes",
        ),
    ],
)
def test_programs_that_are_refused(
    lines: str, kind: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        load(build(lines), write(tmp_path / "m.h5", [random((3, 4), (4,))], "1.2.2"))


def stored_dense(name: str, units: int, inputs: int | None = None) -> dict[str, Any]:
    """A layer as Keras 1 stores it in an architecture."""
    config = {
        "name": name, "output_dim": units, "input_dim": inputs, "activation": "linear",
        "init": "glorot_uniform", "bias": True, "trainable": True, "W_regularizer": None,
    }  # fmt: skip
    if inputs is not None:
        config.update(batch_input_shape=[None, inputs], input_dtype="float32")
    return {"class_name": "Dense", "config": config}


def stored_merge(name: str, mode: str, *branches: list[Any]) -> dict[str, Any]:
    layers = [{"class_name": "Sequential", "config": branch} for branch in branches]
    config = {"name": name, "mode": mode, "mode_type": "raw", "concat_axis": -1, "dot_axes": -1}
    return {"class_name": "Merge", "config": {**config, "layers": layers}}


def test_architecture_of_keras_1_in_a_file_of_its_own(tmp_path: Path) -> None:
    x, y = ([stored_dense(f"dense_{number}", 4, 3)] for number in (1, 2))
    inner = [stored_merge("merge_1", "sum", x, y)]
    outer = [stored_merge("merge_2", "concat", inner, x), stored_dense("dense_3", 2)]
    stored = {"class_name": "Sequential", "config": outer, "keras_version": "1.2.2"}
    (tmp_path / "m.json").write_text(json.dumps(stored))
    layers = [random((3, 4), (4,)) for _ in range(2)] + [random((8, 2), (2,))]
    path = write(tmp_path / "m.h5", layers, "1.2.2")
    loaded = load_model(audit_file(path), architecture=str(tmp_path / "m.json"))
    inputs = vectors(2)
    first, second = (dense(value, layer) for value, layer in zip(inputs, layers, strict=False))
    expected = dense(np.concatenate([first + second, first], 1), layers[2])
    np.testing.assert_allclose(loaded.model(inputs), expected, atol=1e-5)


OF_MODULE = """
import keras
from keras.layers import Dense, Input
IMPORT

def build():
    x = Input((3,))
    a, b = Dense(2)(x), Dense(2)(x)
    parts = [merge.maximum([a, b]), merge.subtract([a, b]), merge.Dot(axes=1)([a, b])]
    return keras.Model(x, merge.concatenate([merge.Multiply()([a, b]), *parts]))
"""


@pytest.mark.parametrize(
    "text",
    [
        "from tensorflow.python.keras.layers import merge",
        "from keras.layers import merge",
        "from tensorflow.keras.layers import merge",
        "import keras.layers.merge as merge",
        "merge = keras.layers.merge",
    ],
)
def test_the_module_with_the_name_of_the_function(text: str, tmp_path: Path) -> None:
    x = tf_keras.Input((3,))
    a, b = tf_keras.layers.Dense(2)(x), tf_keras.layers.Dense(2)(x)
    layers, values = tf_keras.layers, np.random.default_rng(4).normal(size=(4, 3)).astype("float32")
    parts = [layers.maximum([a, b]), layers.subtract([a, b]), layers.Dot(axes=1)([a, b])]
    model = tf_keras.Model(x, layers.concatenate([layers.multiply([a, b]), *parts]))
    model.save_weights(tmp_path / "m.h5")
    (tmp_path / "program.py").write_text(OF_MODULE.replace("IMPORT", text))
    program = f"{tmp_path / 'program.py'}:build"
    loaded = load_model(audit_file(tmp_path / "m.h5"), architecture=program)
    np.testing.assert_allclose(loaded.model(values), model(values), rtol=1e-5, atol=1e-6)
