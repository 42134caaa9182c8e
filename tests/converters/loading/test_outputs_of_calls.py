"""Classes of Keras 3 whose compute_output_shape fails or is wrong: predict does not run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

IDS = np.random.default_rng(0).integers(1, 9, (4, 6)).astype("int32")
X = np.random.default_rng(5).normal(size=(4, 6, 3)).astype("float32")
MODEL = """
import keras

@keras.saving.register_keras_serializable()
class Tagger(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = keras.layers.Embedding(9, 4)
        self.rnn = keras.layers.GRU(5, return_sequences=True)
        self.head = keras.layers.Dense(7)

    def call(self, inputs, training=None):
        ids = UNPACKED
        x = self.rnn(self.embedding(ids))
        return {"logits": self.head(x), "state": x}

    def STATED

def build():
    model = Tagger()
    model(INPUTS)
    return model
"""
# What unpacks the inputs, and inputs of one sample.
DICT = ('inputs["ids"] if isinstance(inputs, dict) else inputs', {"ids": IDS})
PAIR = ("inputs[0] + inputs[1]", [IDS // 2, IDS - IDS // 2])
ONE = ("inputs", IDS)
STATED: dict[str, tuple[tuple[str, Any], str]] = {
    "shape for a tensor": (
        DICT,
        'compute_output_shape(self, shape):\n'
        '        return {"logits": (*shape, 7), "state": (*shape, 5)}',
    ),
    "other key of the inputs": (
        DICT,
        'compute_output_shape(self, shape):\n'
        '        return {"logits": (*shape["tokens"], 7), "state": (*shape["tokens"], 5)}',
    ),
    "attribute of a shape": (
        ONE,
        'compute_output_shape(self, shape):\n        return tuple(shape.as_list()) + (7,)',
    ),
    "shape for a tensor, and a list": (
        PAIR,
        'compute_output_shape(self, shape):\n'
        '        return {"logits": (*shape, 7), "state": (*shape, 5)}',
    ),
    "shape for a tensor, and a tuple": (
        (PAIR[0], tuple(PAIR[1])),
        'compute_output_shape(self, shape):\n'
        '        return {"logits": shape + (7,), "state": shape + (5,)}',
    ),
    "rank": (
        ONE,
        'compute_output_shape(self, shape):\n'
        '        return {"logits": (shape[0], 7), "state": (shape[0], 5)}',
    ),
    "size": (
        ONE,
        'compute_output_shape(self, shape):\n'
        '        return {"logits": (*shape, 9), "state": (*shape, 9)}',
    ),
    "one output": (ONE, 'compute_output_shape(self, shape):\n        return (*shape, 7)'),
    "list": (
        ONE,
        'compute_output_shape(self, shape):\n        return [(*shape, 5), (*shape, 7)]',
    ),
    "missing key": (
        ONE,
        'compute_output_shape(self, shape):\n        return {"logits": (*shape, 7)}',
    ),
    "other keys": (
        ONE,
        'compute_output_shape(self, shape):\n'
        '        return {"a": (*shape, 5), "b": (*shape, 7)}',
    ),
    "None": (ONE, 'compute_output_shape(self, shape):\n        return None'),
    "not written": (
        ONE, 'compute_output_shape(self, shape):\n        raise NotImplementedError("later")'
    ),
    "other arguments": (ONE, 'compute_output_shape(self):\n        return (None, 7)'),
    "specs that fail": (
        DICT,
        'compute_output_spec(self, inputs, training=None):\n'
        '        return keras.KerasTensor((*inputs.shape, 7))',
    ),
    "specs of another rank and type": (
        ONE,
        'compute_output_spec(self, inputs, training=None):\n'
        '        return {"logits": keras.KerasTensor((None, 7), "int32"),\n'
        '                "state": keras.KerasTensor((None, 5), "int32")}',
    ),
}  # fmt: skip
QUICK = ("shape for a tensor, and a list", "other keys", "rank")


def defined(kind: str, folder: Path) -> tuple[dict[str, Any], Any]:
    """Write the file with a class, and return its names and the inputs."""
    (unpacked, inputs), stated = STATED[kind]
    text = MODEL.replace("UNPACKED", unpacked).replace("STATED", stated)
    zeros = keras.tree.map_structure(
        lambda array: f"keras.ops.zeros({array.shape}, 'int32')", inputs
    )
    text = text.replace("INPUTS", str(zeros).replace('"', ""))
    text = text.replace("{'ids': ", '{"ids": ')
    (folder / "own.py").write_text(text)
    names: dict[str, Any] = {"__name__": "own"}
    exec(text, names)
    return names, inputs


def predicted(model: Any, inputs: Any) -> Any:
    return keras.tree.map_structure(np.asarray, model.predict(inputs, verbose=0))


def seeded(model: Any) -> Any:
    generator = np.random.default_rng(17)
    for variable in model.weights:
        variable.assign(generator.normal(0, 0.5, variable.shape))
    return model


def check(loaded: Any, inputs: Any, expected: Any) -> None:
    flat = keras.tree.flatten(inputs)
    actual = loaded.model(flat if len(flat) > 1 else inputs)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, atol=1e-6)
    shapes = {name: tensor.shape[1:] for name, tensor in loaded.model.output.items()}
    assert shapes == {name: value.shape[1:] for name, value in expected.items()}
    assert {tensor.dtype for tensor in loaded.model.output.values()} == {"float32"}


@pytest.mark.long
@pytest.mark.parametrize("kind", only(STATED, *QUICK))
def test_whole_models(kind: str, tmp_path: Path) -> None:
    names, inputs = defined(kind, tmp_path)
    model = names["Tagger"]()
    model(inputs)
    seeded(model).save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras", custom_objects=names)
    expected = predicted(again, inputs)
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")
    check(loaded, inputs, expected)


@pytest.mark.parametrize("kind", only(STATED, QUICK[0]))
def test_models_of_programs(kind: str, tmp_path: Path) -> None:
    names, inputs = defined(kind, tmp_path)
    model = seeded(names["build"]())
    model.save_weights(tmp_path / "m.weights.h5")
    loaded = load_model(
        audit_file(tmp_path / "m.weights.h5"), architecture=f"{tmp_path / 'own.py'}:build"
    )
    check(loaded, inputs, predicted(model, inputs))


LAYER = """
import keras

@keras.saving.register_keras_serializable()
class Own(keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(3, 4), name="w")

    def call(self, x):
        return RESULT

    def STATED
"""
# The result of a layer for (batch, 6, 3), its compute_output_shape and what follows it.
LAYERS: dict[str, tuple[str, str, Any]] = {
    "rank": (
        "keras.ops.sum(x @ self.w, axis=1)",
        "compute_output_shape(self, shape):\n        return shape[0], 1, 4",
        lambda y: layers.Dense(2)(y),
    ),
    "size": (
        "(x @ self.w)[:, ::2]",
        "compute_output_shape(self, shape):\n        return (*shape[:-1], 4)",
        lambda y: layers.LSTM(2, return_sequences=True)(y),
    ),
    "type": (
        "keras.ops.argmax(x @ self.w, axis=-1)",
        "compute_output_shape(self, shape):\n        return shape[:-1]",
        lambda y: layers.Embedding(4, 3)(y),
    ),
    "specs": (
        "(x @ self.w)[:, ::2]",
        "compute_output_spec(self, x):\n        return keras.KerasTensor((*x.shape[:-1], 4))",
        lambda y: layers.LSTM(2)(y),
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind: str, tmp_path: Path) -> None:
    """The model was saved with these shapes, which predict does not use."""
    result, stated, following = LAYERS[kind]
    text = LAYER.replace("RESULT", result).replace("STATED", stated)
    (tmp_path / "own.py").write_text(text)
    names: dict[str, Any] = {"__name__": "own"}
    exec(text, names)
    x = keras.Input((6, 3))
    own = names["Own"]()(x)
    model = seeded(keras.Model(x, {"own": own, "last": following(own)}))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras", custom_objects=names)
    expected = predicted(again, X)
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")
    actual = loaded.model(X)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, atol=1e-6)
        tensor = loaded.model.output[name]
        assert tensor.shape[1:] == value.shape[1:]
        assert (tensor.dtype == "float32") == (value.dtype == "float32")


def test_sizes_that_only_the_class_states(tmp_path: Path) -> None:
    """Those that TensorFlow does not know while it traces the call."""
    text = LAYER.replace(
        "RESULT", "keras.ops.reshape(x, (-1, keras.ops.shape(x)[0] * 0 + 6, 3)) @ self.w"
    ).replace("STATED", "compute_output_shape(self, shape):\n        return (*shape[:-1], 4)")
    (tmp_path / "own.py").write_text(text)
    names: dict[str, Any] = {"__name__": "own"}
    exec(text, names)
    x = keras.Input((6, 3))
    model = seeded(keras.Model(x, layers.Flatten()(names["Own"]()(x))))
    model.save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")
    np.testing.assert_allclose(loaded.model(X), predicted(model, X), rtol=1e-5, atol=1e-6)
    assert loaded.model.output.shape == (None, 24)


FAILURES = {
    "call": (
        "x = self.rnn(self.embedding(ids))",
        "x = self.rnn(self.embedding(ids).gone)",
        ("Tagger.call: ", "gone"),
    ),
    "layer": (
        "x = self.rnn(self.embedding(ids))",
        "x = self.rnn(ids)",
        ("ndim",),
    ),
}


@pytest.mark.parametrize("stated", ["shape for a tensor", "specs that fail"])
@pytest.mark.parametrize("kind", FAILURES)
def test_a_call_that_fails_is_named(kind: str, stated: str, tmp_path: Path) -> None:
    """Whatever compute_output_shape does, which is not what has to be changed."""
    names, inputs = defined(stated, tmp_path)
    model = names["Tagger"]()
    model(inputs)
    model.save(tmp_path / "m.keras")
    before, after, texts = FAILURES[kind]
    path = tmp_path / "own.py"
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(UnsupportedModelError) as error:
        load_model(audit_file(tmp_path / "m.keras"), custom_objects=path)
    assert all(text in error.value.message for text in texts)
    assert "compute_output_s" not in error.value.message
    assert "change Tagger.call (own.py" in str(error.value.hint)


@pytest.mark.parametrize("method", ["compute_output_shape", "compute_output_spec"])
def test_a_shape_that_fails_is_named(method: str) -> None:
    """Keras names the call of the layer, during which it runs the method."""
    from edgeattn_converters.loading import error_text

    text = (
        "import keras\nclass Gate(keras.layers.Layer):\n    def call(self, x):\n        return x\n"
        f"    def {method}(self, x):\n        return x['missing']\n"
    )
    names: dict[str, Any] = {"__name__": "gates"}
    exec(compile(text, "/home/someone/gates.py", "exec"), names)
    with pytest.raises((KeyError, TypeError, ValueError)) as error:
        names["Gate"]()(keras.Input((3,)))
    assert error_text.reason(error.value).startswith(f"Gate.{method}: ")
