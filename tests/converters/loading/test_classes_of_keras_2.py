"""Classes of programs for Keras 2: shapes, masks, lists of weights and helpers that they use.

The results are those of tf_keras with the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

from edgeattn.errors import UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

OLD = tf_keras.layers
X = np.random.default_rng(5).normal(size=(4, 6, 3)).astype("float32")
X[1, 4:] = 0.0

IMPORTS = "import keras\nimport numpy as np\nfrom keras import backend as K"
CLASSES = """
class Head(keras.layers.Layer):
    # What it says is true with a mean at the end only.
    def call(self, x):
        return K.tanh(x)

    def compute_output_shape(self, shape):
        return (None, 1, shape[-1])

class Mean(keras.layers.Layer):
    def build(self, shape):
        self.steps = int(shape[1])

    def call(self, x):
        return K.sum(x, axis=1) / self.steps

class Positions(keras.layers.Layer):
    def call(self, x):
        return K.cast(K.argmax(x, axis=-1), "int32")

    def compute_output_shape(self, shape):
        return (shape[0], 7)

class Pooling(keras.layers.Layer):
    def __init__(self, **kwargs):
        self.supports_masking = True
        super().__init__(**kwargs)

    def call(self, x, mask=None):
        first, second = mask
        weights = K.cast(first, "float32") * K.cast(second, "float32")
        return K.sum(x[0] * x[1] * weights[..., None], axis=1)

    def compute_output_shape(self, shapes):
        return (shapes[0][0], shapes[0][-1])

    def compute_mask(self, x, mask=None):
        return None

class Weighted(keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 2), name="w")
        self.dense = keras.layers.Dense(2)
        self.dense.build((None, shape[-1]))
        self.trainable_weights = [self.w, *self.dense.trainable_weights]
        self._trainable_weights.extend(self.dense.trainable_weights)
        self.built = True

    def call(self, x):
        return K.dot(x, self.w) * self.dense(x)

class Heads(keras.layers.Wrapper):
    def __init__(self, layers, **kwargs):
        super().__init__(layers[0], **kwargs)
        self.layers = layers

    def get_config(self):
        items = [{"class_name": type(x).__name__, "config": x.get_config()} for x in self.layers]
        return {"name": self.name, "layers": items}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        items = config.pop("layers")
        return cls([keras.layers.deserialize(x, custom_objects) for x in items], **config)

    def call(self, x):
        return K.concatenate([layer(x) for layer in self.layers], axis=-1)

    def compute_output_shape(self, shape):
        return (shape[0], shape[1], 4)
"""
# Their calls have other shapes than those of the layers of Keras.
INHERITED = """
class Causal(keras.layers.Conv1D):
    def call(self, x):
        steps = self.dilation_rate[0] * (self.kernel_size[0] - 1)
        x = K.temporal_padding(x, (steps, 0))
        return K.conv1d(x, self.kernel, dilation_rate=self.dilation_rate[0])

class Centered(keras.layers.GlobalAveragePooling1D):
    def call(self, x):
        return x - K.mean(x, axis=1, keepdims=True) / 2

class Context(keras.layers.Attention):
    def call(self, inputs):
        return K.sum(super().call(inputs), axis=1)

class Scaled(keras.layers.Layer):
    def build(self, shape):
        self.sizes = int(np.prod(shape[1:]))

    def call(self, x):
        return x / self.sizes

def inherited(x):
    x = Scaled()(Centered()(Causal(4, 3, dilation_rate=2)(x)))
    return Scaled()(Context()([x, x]))
"""
LISTS = """
class Mixed(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scales, self.layers, self.last = [], {}, None

    def build(self, shape):
        self.last = keras.layers.Dense(3)
        self.queries, self.keys = [], []
        self.last = keras.layers.Dense(3)
        for head in range(2):
            self.keys.append(keras.layers.Dense(3))
            self.queries.append(keras.layers.Dense(3))
            self.scales.append(keras.layers.LayerNormalization())
            self.layers[str(head)] = keras.layers.BatchNormalization()
        self.own = self.add_weight(name="own", shape=(3, 3), initializer="ones")
        super().build(shape)

    def call(self, x):
        for head in range(2):
            scores = K.softmax(self.queries[head](x) * self.keys[head](x))
            x = self.layers[str(head)](self.scales[head](scores)) - x
        return self.last(K.dot(x, self.own))
"""
HELPERS = """
from keras.utils import conv_utils, generic_utils

class Patch(keras.layers.Layer):
    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = conv_utils.normalize_tuple(size, 1, "size")
        self.masks = K.ContextValueCache(lambda: 1.0)

    def call(self, x):
        assert generic_utils.has_arg(self.call, "x")
        steps = conv_utils.conv_output_length(6, self.size[0], "valid", 1)
        return x[:, :steps] * self.masks.setdefault(kwargs={})

    def get_config(self):
        return {**super().get_config(), "size": self.size[0]}
"""

# In Keras 3, the first argument of add_weight is the shape, and only three may be in place.
PLACES = """
class Placed(keras.layers.Layer):
    def build(self, shape):
        self.fixed = self.add_weight("fixed", (2,), "float32", "zeros", None, False, None)
        self.w = self.add_weight("w", (shape[-1], 2), "float32", "glorot_uniform")
        self.v = self.add_weight("v", (shape[-1], 2), trainable=True)
        self.b = self.add_weight(None, (2,), None, keras.initializers.Ones(), None, None)
        super().build(shape)

    def call(self, x):
        return K.dot(x, self.w) * K.dot(x, self.v) + self.b - 2 * self.fixed
"""


def outputs(
    text: str, call: Callable[[Any, Any], Any], folder: Path, program: str = ""
) -> tuple[Any, Any]:
    """Outputs of tf_keras with the classes of the text, and of the loaded file.

    With the text of a function ``build``, the file contains weights only.
    """
    names: dict[str, Any] = {
        "__name__": "own", "keras": tf_keras, "K": tf_keras.backend, "np": np,
    }  # fmt: skip
    # tf_keras rejects the lists of weights that Keras 2.2 accepted.
    lines = (line for line in text.splitlines() if "trainable_weights" not in line)
    exec("\n".join(lines).replace("from keras", "from tf_keras.src"), names)
    names["K"] = tf_keras.src.backend
    x = tf_keras.Input((6, 3))
    model = tf_keras.Model(x, call(names, x))
    generator = np.random.default_rng(17)
    # Positive, as variances are.
    model.set_weights([generator.uniform(0.2, 1, w.shape) for w in model.get_weights()])
    path, own = folder / "m.h5", folder / "own.py"
    (model.save_weights if program else model.save)(path)
    own.write_text(f"{IMPORTS}\n{text}\n{program}")
    options = {"architecture": f"{own}:build"} if program else {"custom_objects": own}
    loaded = load_model(audit_file(path), **options)
    return np.asarray(model(X)), np.asarray(loaded.model(X))


def masked(own: Any, x: Any) -> Any:
    x = OLD.Masking()(x)
    return own["Pooling"]()([x, x])


@pytest.mark.parametrize(
    ("text", "call"),
    [
        # Of 1 step instead of 6, the mean was six times too large.
        (CLASSES, lambda own, x: own["Mean"]()(own["Head"]()(x))),
        # Its axis of 7 and its float32 do not exist.
        (CLASSES, lambda own, x: OLD.Dense(2)(OLD.Embedding(3, 2)(own["Positions"]()(x)))),
        (CLASSES, masked),
        (CLASSES, lambda own, x: own["Weighted"]()(x)),
        (
            CLASSES,
            lambda own, x: own["Heads"]([OLD.Dense(2), OLD.LSTM(2, return_sequences=True)])(x),
        ),
        # Keras 3 has the order keys, queries, keys, queries.
        (LISTS, lambda own, x: own["Mixed"]()(x)),
        (INHERITED, lambda own, x: own["inherited"](x)),
        (HELPERS, lambda own, x: own["Patch"](2)(x)),
        (PLACES, lambda own, x: own["Placed"]()(x)),
    ],
    ids=[
        "shape",
        "dtype",
        "masks",
        "trainable_weights",
        "layers",
        "order",
        "inherited",
        "helpers",
        "places",
    ],
)
def test_classes_compute_what_keras_2_computed(
    text: str, call: Callable[[Any, Any], Any], tmp_path: Path
) -> None:
    expected, actual = outputs(text, call, tmp_path)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


# The class of richliao/textClassifier, in a model that TimeDistributed calls.
ASSIGNED = """
class Attending(keras.layers.Layer):
    def build(self, shape):
        self.W = K.variable(np.full((shape[-1], 2), 0.5), name="W")
        self.u = K.variable(np.full((2, 1), 0.5), name="u")
        self.trainable_weights = [self.W, self.u]
        super().build(shape)

    def call(self, x):
        weights = K.softmax(K.squeeze(K.dot(K.tanh(K.dot(x, self.W)), self.u), -1))
        return K.sum(x * K.expand_dims(weights), axis=1)

def inner():
    x = keras.Input((2, 3))
    return keras.Model(x, Attending()(x))
"""


@pytest.mark.parametrize(
    ("text", "layers", "call"),
    [
        (
            ASSIGNED,
            "keras.layers.TimeDistributed(inner())(keras.layers.Reshape((3, 2, 3))(x))",
            lambda own, x: OLD.TimeDistributed(own["inner"]())(OLD.Reshape((3, 2, 3))(x)),
        ),
        (CLASSES, "Mean()(Head()(x))", lambda own, x: own["Mean"]()(own["Head"]()(x))),
        (LISTS, "Mixed()(x)", lambda own, x: own["Mixed"]()(x)),
        pytest.param(
            *(INHERITED, "inherited(x)", lambda own, x: own["inherited"](x)),
            marks=pytest.mark.long,
        ),
        (PLACES, "Placed()(x)", lambda own, x: own["Placed"]()(x)),
    ],
    ids=["weights", "shape", "order", "inherited", "places"],
)
def test_programs_for_weights_of_keras_2(
    text: str, layers: str, call: Callable[[Any, Any], Any], tmp_path: Path
) -> None:
    program = f"""
def build():
    x = keras.Input((6, 3))
    return keras.Model(x, keras.layers.Dense(2, name="last")({layers}))
"""

    def with_last(own: Any, x: Any) -> Any:
        return OLD.Dense(2, name="last")(call(own, x))

    expected, actual = outputs(text, with_last, tmp_path, program)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("at_import", [True, False])
def test_errors_of_programs_are_one_line(at_import: bool, tmp_path: Path) -> None:
    """Keras explains some of its errors in ten lines."""
    path, own = tmp_path / "m.weights.h5", tmp_path / "own.py"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    call = "build()\n" if at_import else ""
    own.write_text(f"def build():\n    raise ValueError('Two\\n\\n  lines.')\n{call}")
    with pytest.raises(UsageError, match=r"failed with ValueError: Two lines\. \(own") as error:
        load_model(audit_file(path), architecture=f"{own}:build")
    assert error.value.message.endswith(" (own.py, line 2)")
