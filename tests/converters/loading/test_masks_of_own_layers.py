"""Masks inside layers of the user, in files of tf_keras: layers that share an input, and sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only
from twin_programs import run_in_tf_keras

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

CLASSES = """
import tensorflow as tf
from tensorflow.keras import layers

class Residual(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 3)
        self.add = layers.Add()
        self.norm = layers.LayerNormalization()

    def call(self, x):
        return self.norm(self.add([x, self.attention(query=x, value=x, key=x)]))

class Twice(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 3)
        self.last = layers.GRU(4)

    def call(self, x):
        return self.attention(x, x)[:, 0] + self.last(x)

class Sum(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add = layers.Add()
        self.pool = layers.GlobalAveragePooling1D()

    def call(self, x):
        return self.pool(self.add([x, tf.abs(x)]))

class Product(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.multiply = layers.Multiply()
        self.mask = layers.Masking(0.5)
        self.pool = layers.GlobalAveragePooling1D()

    def call(self, x):
        return self.pool(self.multiply([x, self.mask(tf.where(x > 0.0, x, 0.5))]))

class Causal(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 3)
        self.first = Restricted(2, 3)
        self.last = Renamed(2, 3)

    def call(self, x):
        mask = tf.cast(tf.linalg.band_part(tf.ones((1, 5, 5)), -1, 0), "bool")
        x, scores = self.attention(x, x, None, mask, True)
        x = self.first(x, x, None, mask) + tf.reduce_sum(scores, axis=(1, 3))[..., None]
        return self.last(x, x, None, mask)

class InPlace(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.Attention()
        self.softmax = layers.Softmax()
        self.last = layers.GRU(4)

    def call(self, x):
        mask = x[..., 0] > 0.0
        weights = self.softmax(x[..., 1], mask)
        return self.last(self.attention([x, x], [mask, mask]), x[:, 0]) + weights[:, :4]

class Masked(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 3)

    def call(self, x):
        mask = tf.cast(tf.linalg.band_part(tf.ones((1, 5, 5)), -1, 0), "bool")
        return self.attention(x, x, x, mask)

class Restricted(layers.MultiHeadAttention):
    pass

class Renamed(layers.MultiHeadAttention):
    def call(self, query, value, key=None, allowed=None):
        return super().call(query, value, key, allowed)

class Pool(layers.Layer):
    def call(self, x, mask=None):
        weights = tf.ones_like(x[..., :1]) if mask is None else tf.cast(mask, x.dtype)[..., None]
        return tf.reduce_sum(x * weights, axis=1)

class Models(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        x, y = layers.Input((5, 4)), layers.Input((5, 4))
        self.last = tf.keras.Model(x, layers.GRU(4)(x))
        self.pool = tf.keras.Model(y, Pool()(y))

    def call(self, x):
        return self.last(x) + self.pool(x)
"""
TOKENS = np.array([[3, 1, 4, 0, 0], [1, 5, 2, 6, 5], [7, 0, 0, 0, 0]], "int32")
OUTPUTS = {
    "attention beside a sum": ("Residual", "Residual"),
    "attention before a GRU": ("Twice",),
    "sum with a tensor without a mask": ("Sum",),
    "product of two masks": ("Product",),
    "models inside a class": ("Models",),
    "masks in place": ("Causal",),
    "masks in place that results have": ("InPlace",),
}


def classes_of_tf_keras() -> dict[str, Any]:
    program: dict[str, Any] = {}
    source = CLASSES.replace("from tensorflow.keras import", "from tf_keras import")
    source = f"import tf_keras\n{source.replace('tf.keras.', 'tf_keras.')}"
    exec(source, program)
    return program


def set_random(model: Any) -> None:
    generator = np.random.default_rng(2)
    model.set_weights([generator.normal(0, 0.7, size=array.shape) for array in model.get_weights()])


@pytest.mark.parametrize(
    "name",
    only(OUTPUTS, "sum with a tensor without a mask", "masks in place"),
)
def test_classes_in_a_file_of_tf_keras(name: str, tmp_path: Path) -> None:
    import tf_keras

    classes = classes_of_tf_keras()
    tokens = tf_keras.Input((5,), dtype="int32")
    x = tf_keras.layers.Embedding(9, 4, mask_zero=True)(tokens)
    for layer in OUTPUTS[name]:
        x = classes[layer]()(x)
    model = tf_keras.Model(tokens, x)
    set_random(model)
    model.save(tmp_path / "m.h5")
    (tmp_path / "classes.py").write_text(CLASSES)
    loaded = load_model(audit_file(tmp_path / "m.h5"), custom_objects=tmp_path / "classes.py")
    np.testing.assert_allclose(loaded.model(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)


def test_a_class_in_a_model_that_was_built_without_masks(tmp_path: Path) -> None:
    """The nested model is called with masks that its own Input does not have."""
    import tf_keras

    pool = classes_of_tf_keras()["Pool"]
    tokens, x = tf_keras.Input((5,), dtype="int32"), tf_keras.Input((5, 4))
    nested = tf_keras.Model(x, tf_keras.layers.Dense(2)(pool()(x)))
    words = tf_keras.layers.Embedding(9, 4, mask_zero=True)(tokens)
    model = tf_keras.Model(tokens, nested(words))
    set_random(model)
    model.save(tmp_path / "m.h5")
    (tmp_path / "classes.py").write_text(CLASSES)
    loaded = load_model(audit_file(tmp_path / "m.h5"), custom_objects=tmp_path / "classes.py")
    np.testing.assert_allclose(loaded.model(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", only(["Causal", "Masked"], "Causal"))
def test_weights_without_a_version_of_a_mask_in_place(kind: str, tmp_path: Path) -> None:
    """The fourth argument of Keras 3 is ``query_mask``, and Keras 3 writes the same files.

    With numbers in place, as in Causal, a program is not one for Keras 3.
    """
    import tf_keras

    x = tf_keras.Input((5, 4))
    model = tf_keras.Model(x, classes_of_tf_keras()[kind]()(x))
    set_random(model)
    build = f"""
def build():
    x = tf.keras.Input((5, 4))
    return tf.keras.Model(x, {kind}()(x))
"""
    (tmp_path / "own.py").write_text(CLASSES + build)
    samples = np.random.default_rng(4).normal(size=(3, 5, 4)).astype("float32")
    for name in ("m.h5", "m.weights.h5"):
        model.save_weights(tmp_path / name)
        loaded = load_model(audit_file(tmp_path / name), architecture=f"{tmp_path}/own.py:build")
        if (kind, name) == ("Masked", "m.weights.h5"):
            assert any("attention_mask in Keras 2" in note for note in loaded.notes)
        else:
            np.testing.assert_allclose(loaded.model(samples), model(samples), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", only(("Attention", "AdditiveAttention", "GRU"), "Attention"))
def test_inputs_of_an_attention_keep_their_masks(name: str, tmp_path: Path) -> None:
    """MultiHeadAttention of Keras 3 deletes them."""
    import tf_keras

    layers = tf_keras.layers
    tokens = tf_keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(tokens)
    others = layers.MultiHeadAttention(2, 3)(x, layers.Dense(4)(x))
    y = layers.GRU(4)(x, others[:, 0]) if name == "GRU" else getattr(layers, name)()([x, others])
    model = tf_keras.Model(tokens, y)
    set_random(model)
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"))
    np.testing.assert_allclose(loaded.model(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        loaded.model.predict(TOKENS, verbose=0), model(TOKENS), rtol=1e-4, atol=1e-5
    )


def test_weights_without_a_version_of_an_attention_with_dropout(tmp_path: Path) -> None:
    """A padded query attends to all keys in Keras 2, and to none in Keras 3 with dropout."""
    program = """
from tensorflow import keras
from tensorflow.keras import layers

def build():
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(tokens)
    return keras.Model(tokens, layers.MultiHeadAttention(2, 3, dropout=0.5, name="attention")(x, x))
"""
    names = run_in_tf_keras(program)
    model = names["build"]()
    set_random(model)
    model.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "own.py").write_text(program)
    file = audit_file(tmp_path / "m.weights.h5")
    notes = load_model(file, architecture=f"{tmp_path}/own.py:build").notes
    assert any("attention: the masks are others in Keras 2" in note for note in notes)


def test_rows_that_are_masked_throughout(tmp_path: Path) -> None:
    """Their weights are equal in Keras 2, and zero in Keras 3."""
    program = """
from tensorflow import keras
from tensorflow.keras import layers

class Weights(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.score, self.softmax = layers.Dense(1), layers.Softmax()
        self.attention = layers.MultiHeadAttention(2, 3, dropout=0.5)

    def call(self, x):
        valid = x[..., 0] > 0.0
        attended = self.attention(x, x, attention_mask=valid[:, None])
        return attended + self.softmax(self.score(x)[..., 0], mask=valid)[..., None]

def build():
    x = keras.Input((5, 4))
    return keras.Model(x, Weights()(x))
"""
    names = run_in_tf_keras(program)
    model = names["build"]()
    set_random(model)
    model.save_weights(tmp_path / "w.h5")
    model.save(tmp_path / "m.h5")
    (tmp_path / "own.py").write_text(program)
    x = np.random.default_rng(4).normal(size=(3, 5, 4)).astype("float32")
    x[1, :, 0] = -1.0
    of_program = load_model(
        audit_file(tmp_path / "w.h5"), architecture=f"{tmp_path / 'own.py'}:build"
    )
    of_file = load_model(audit_file(tmp_path / "m.h5"), custom_objects=tmp_path / "own.py")
    for loaded in (of_program, of_file):
        np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-4, atol=1e-5)
