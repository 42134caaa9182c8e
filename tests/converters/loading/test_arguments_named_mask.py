"""Inputs that a class of the user calls ``mask``, such as the segmentation map of GauGAN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

PROGRAM = """
from tensorflow import keras
from tensorflow.keras import layers

class Block(layers.Layer):
    def build(self, input_shape):
        self.conv_1 = layers.Conv1D(6, 3, padding="same")
        self.conv_2 = layers.Conv1D(6, 3, padding="same")

    def call(self, input_tensor, mask):
        return self.conv_1(input_tensor) + self.conv_2(mask)

class Attend(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 3)
        self.dense = layers.Dense(4)

    def call(self, query, value, mask=None):
        mask = None if mask is None else mask[..., 0][:, None, :] > 0
        return self.attention(query, value, attention_mask=mask) + self.dense(query)

class Twice(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(5)

    def call(self, x, training=None):
        return self.dense(x) * (2.0 if training else 1.0)

def inputs():
    return keras.Input((5, 4), name="x"), keras.Input((5, 4), name="mask")

def in_place():
    x, mask = inputs()
    return keras.Model([x, mask], layers.Dense(3)(Block()(x, mask)))

def by_name():
    x, mask = inputs()
    return keras.Model([x, mask], layers.Dense(3)(Block()(x, mask=mask)))

def third():
    x, mask = inputs()
    return keras.Model([x, mask], layers.Dense(3)(Attend()(x, x, mask)))

def without():
    x, mask = inputs()
    return keras.Model([x, mask], layers.Dense(3)(Attend()(x, mask)))

def training():
    x, mask = inputs()
    return keras.Model([x, mask], Twice()(x, False) + Twice()(mask, None))

def nested():
    (x, mask), (y, other) = inputs(), inputs()
    inner = keras.Model([y, other], Block()(y, other), name="inner")
    return keras.Model([x, mask], layers.Dense(3)(inner([x, mask])))

def over_time():
    (x, mask), y = inputs(), keras.Input((4, 1))
    inner = keras.Model(y, layers.GlobalAveragePooling1D()(Block()(y, y)), name="inner")
    steps = layers.TimeDistributed(inner)(layers.Reshape((5, 4, 1))(x))
    return keras.Model([x, mask], layers.Concatenate()([steps, mask]))
"""
OF_KERAS_3 = PROGRAM.replace("from tensorflow import keras", "import keras").replace(
    "tensorflow.keras", "keras"
)
SUFFIXES = (".keras", ".h5", ".weights.h5")
MODELS = ["in_place", "by_name", "third", "without", "nested", "over_time"]
GENERATOR = np.random.default_rng(0)
X, MASK = (GENERATOR.normal(size=(8, 5, 4)).astype("float32") for _ in range(2))
MASK[..., 0, 0] = 1.0


def _with_values(model: Any) -> Any:
    generator = np.random.default_rng(2)
    model.set_weights([generator.normal(0, 0.7, size=array.shape) for array in model.get_weights()])
    return model


def _require_outputs(loaded: Any, expected: Any) -> None:
    np.testing.assert_allclose(loaded([X, MASK]), expected, rtol=1e-4, atol=1e-5)


def _require_same_outputs(model: Any, path: Path, text: str, name: str) -> None:
    """Save a model of the function ``name`` of a program, and load it with the program."""
    program = path.parent / "own.py"
    program.write_text(text)
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
        loaded = load_model(audit_file(path), architecture=f"{program}:{name}")
    else:
        model.save(path)
        loaded = load_model(audit_file(path), custom_objects=program)
    _require_outputs(loaded.model, model.predict([X, MASK], verbose=0))


@pytest.mark.parametrize(
    "case",
    only(
        [(name, suffix) for name in MODELS for suffix in SUFFIXES],
        *[("third", ".keras"), ("in_place", ".h5"), ("in_place", ".weights.h5")],
    ),
    ids="-".join,
)
def test_files_of_keras_3(case: tuple[str, str], tmp_path: Path) -> None:
    name, suffix = case
    names: dict[str, Any] = {"__name__": "of_keras_3"}
    exec(OF_KERAS_3, names)
    _require_same_outputs(_with_values(names[name]()), tmp_path / f"m{suffix}", OF_KERAS_3, name)


@pytest.mark.parametrize(
    "case",
    only(
        [(name, suffix) for name in [*MODELS, "training"] for suffix in SUFFIXES],
        *[("in_place", ".keras"), ("third", ".weights.h5"), ("training", ".h5")],
    ),
    ids="-".join,
)
def test_files_of_keras_2(case: tuple[str, str], tmp_path: Path) -> None:
    name, suffix = case
    model = _with_values(run_in_tf_keras(PROGRAM)[name]())
    _require_same_outputs(model, tmp_path / f"m{suffix}", PROGRAM, name)


MASKED = """
from keras import layers, ops

class Context(layers.Layer):
    def build(self, input_shape):
        self.dense = layers.Dense(4)

    def call(self, x, context, mask=None):
        if mask is not None:
            context = ops.where(mask[..., None], context, 0.0)
        return x + ops.mean(self.dense(context), axis=1, keepdims=True)

class OfQuery(layers.Layer):
    def build(self, input_shape):
        self.dense = layers.Dense(4)
        self.masked = layers.Dense(4)

    def call(self, query, value, query_mask=None):
        if query_mask is not None:
            query = ops.where(query_mask[..., None], self.masked(query), 0.0)
        return query + ops.mean(self.dense(value), axis=1, keepdims=True)
"""


@pytest.mark.parametrize("class_name", ["Context", "OfQuery"])
def test_masks_that_keras_3_passes_beside_several_tensors(class_name: str, tmp_path: Path) -> None:
    """None as ``mask``: that of ``x`` does not fit ``context``, which has 7 steps."""
    names: dict[str, Any] = {"__name__": "of_keras_3"}
    exec(MASKED, names)
    x, context = keras.Input((5,), dtype="int32"), keras.Input((7, 4))
    embedded = keras.layers.Embedding(9, 4, mask_zero=True)(x)
    model = keras.Model([x, context], names[class_name]()(embedded, context))
    _with_values(model).save(tmp_path / "m.keras")
    (tmp_path / "own.py").write_text(MASKED)
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=tmp_path / "own.py")
    values = [
        np.array([[3, 1, 4, 0, 0]], "int32"),
        GENERATOR.normal(size=(1, 7, 4)).astype("float32"),
    ]
    np.testing.assert_allclose(loaded.model(values), model(values), rtol=1e-4, atol=1e-5)


SUBCLASS = """
import keras
from keras import layers

class Own(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)
        self.of_mask = layers.Dense(3)

    def build(self, *_, **__):
        self.dense.build((None, 5, 4))
        self.of_mask.build((None, 5, 4))
        self.built = True

    def call(self, {arguments}):
        return {result}

def own():
    return Own()
"""
SEPARATE = "self.dense(x) + self.of_mask(mask)"
SUBCLASSES = {
    "required": ("x, mask", SEPARATE),
    "with a default": ("x, mask=None", SEPARATE),
    "by name only": ("x, *, mask, training=False", SEPARATE),
    "dictionary": (
        "inputs, mask=None",
        "self.dense(inputs['inputs']) + self.of_mask(inputs['mask'])",
    ),
}


@pytest.mark.parametrize("suffix", only([".keras", ".weights.h5"], ".weights.h5"))
@pytest.mark.parametrize("name", SUBCLASSES)
def test_subclassed_models(name: str, suffix: str, tmp_path: Path) -> None:
    arguments, result = SUBCLASSES[name]
    text = SUBCLASS.format(arguments=arguments, result=result)
    names: dict[str, Any] = {"__name__": "of_keras_3"}
    exec(text, names)
    model = names["own"]()
    first = arguments.split(",")[0]
    values = {first: X, "mask": MASK}

    def call(model: Any) -> Any:
        return model(values) if name == "dictionary" else model(X, mask=MASK)

    call(model)
    expected = call(_with_values(model))
    path, program, samples = tmp_path / f"m{suffix}", tmp_path / "own.py", tmp_path / "s.npz"
    program.write_text(text)
    np.savez(samples, **values)
    if suffix == ".keras":
        model.save(path)
        loaded = load_model(audit_file(path), custom_objects=program, samples=samples)
    else:
        model.save_weights(path)
        loaded = load_model(audit_file(path), architecture=f"{program}:own", samples=samples)
    np.testing.assert_allclose(loaded.model(values), expected, rtol=1e-4, atol=1e-5)


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    """The advice was to name the arrays as the keys of a dictionary."""
    text = SUBCLASS.format(arguments="x, mask", result=SEPARATE)
    names: dict[str, Any] = {"__name__": "of_keras_3"}
    exec(text, names)
    model = names["own"]()
    model(X, MASK)
    model.save(tmp_path / "m.keras")
    (tmp_path / "own.py").write_text(text)
    np.savez(tmp_path / "s.npz", x=X)
    with pytest.raises(UnsupportedModelError) as error:
        load_model(
            audit_file(tmp_path / "m.keras"),
            custom_objects=tmp_path / "own.py",
            samples=tmp_path / "s.npz",
        )
    assert "(x, mask)" in str(error.value.hint)
